"""Training from other nets' weights: the paper's stages, classifier files, and score layers alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from caffe_nets import caffe_net
from caffe_writer import write_caffemodel
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.errors import OptionError
from fullconv.inference.model import Model
from fullconv.training.loop import Trained
from fullconv.training.train import train
from inmemory import InMemory

COLOURS = np.array([(230, 30, 30), (30, 230, 30), (30, 30, 230)], np.uint8)


def blocks(seed: int) -> Sample:
    """Blocks of 32 pixels, each class in its own colour."""
    mask = np.random.default_rng(seed).integers(0, 3, (3, 4), dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    return Sample(f"blocks{seed}", {IMAGE: COLOURS[mask]}, {SEMANTIC: mask})


DATA = (InMemory([blocks(s) for s in range(8)]), InMemory([blocks(s) for s in range(90, 92)], "val"))


def fit(out: Path, net: str, steps: int, **changes: object) -> tuple[Trained, list[float]]:
    """A run, and the losses of its rows."""
    losses: list[float] = []
    options = {"net_options": {"width": 1 / 8}, "batch": 4, "lr": 1e-4, "precision": "float32", **changes}
    done = train(
        DATA, net, out=out, steps=steps, **options,
        listener=lambda tick: losses.append(tick.loss) if tick.phase == "train" and tick.loss is not None else None,
    )  # type: ignore[arg-type]  # fmt: skip
    return done, losses


def test_stages_train_on(tmp_path: Path) -> None:
    """32s -> 16s -> 8s: each starts where the last one ended, and puts its zero skip to use."""
    model, last = None, math.log(3)
    for stride in (32, 16, 8):
        start = {} if model is None else {"init": model}
        done, losses = fit(tmp_path / f"{stride}", f"fcn{stride}s-vgg16", 40, **start)
        if model is None:
            assert losses[0] == pytest.approx(last, abs=1e-3)  # scores of zero
        else:
            assert losses[0] < last + 0.05, "not from the beginning"
        assert losses[-1] < losses[0] - 0.05
        model, last = done.model, losses[-1]
        net = Model.load(model).net
        assert net.options.stride == stride
        assert all(layer.weight.abs().max() > 1e-4 for layer in net.heads["semantic"].score["image"].values())
        options = yaml.safe_load((done.path / "run.yaml").read_text())
        assert (
            options["init"] == []
            if stride == 32
            else options["init"] == [str(tmp_path / f"{2 * stride}/best.safetensors")]
        )
    report = (tmp_path / "8" / "report.html").read_text("utf-8")
    assert "2 weights zero: heads.semantic.score.image.8.weight, heads.semantic.score.image.8.bias" in report


def test_a_caffe_classifier_is_a_start(tmp_path: Path) -> None:
    oracle = caffe_net("caffenet", (227, 227), width=1 / 8, seed=1)
    write_caffemodel(tmp_path / "caffenet.caffemodel", oracle.layers)
    done, _ = fit(
        tmp_path / "run",
        "fcn32s-alexnet",
        2,
        init=tmp_path / "caffenet.caffemodel",
        lr=1e-9,
        net_options={"width": 1 / 8},
    )
    conv1 = next(blobs[0] for name, _, blobs in oracle.layers if name == "conv1")
    got = Model.load(done.model).net.get_parameter("trunks.image.conv1.weight")
    torch.testing.assert_close(got, torch.from_numpy(conv1), rtol=0, atol=1e-6)


def test_a_fixed_net_needs_a_trunk(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match="a fixed net learns its score layers alone; give the trunk's weights with --init FILE"
    ):
        fit(tmp_path / "run", "fcn8s-slim", 2, fixed=True)


@pytest.mark.parametrize("net", ["fcn16s-vgg16", "fcn8s-slim"])
def test_only_the_score_layers_of_a_fixed_net_learn(net: str, tmp_path: Path) -> None:
    first, _ = fit(tmp_path / "first", net, 3)
    done, losses = fit(tmp_path / "fixed", net, 30, init=first.model, fixed=True)
    before, after = (Model.load(p).net.state_dict() for p in (first.model, done.path / "last.safetensors"))
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    assert changed == {key for key in after if ".score." in key}  # batch norm's statistics too stay as they were
    assert losses[-1] < losses[0]
