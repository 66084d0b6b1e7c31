"""Scoring against a plain loop: the net's own scores, argmax, and pixels counted one by one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fullconv
from fullconv.data import open_dataset
from fullconv.data.sample import IMAGE, SEMANTIC, Sample
from fullconv.errors import DataError, ModelFileError, OptionError
from fullconv.inference.evaluate import evaluate, evaluate_net, require_fit
from fullconv.inference.model import Model
from fullconv.labels import VOID, LabelSet
from fullconv.nets import FCN, build
from inmemory import LABELS, InMemory, one
from makers import make_folder

SIZES = [(12, 16), (12, 16), (1, 37), (30, 9), (12, 16), (40, 50)]


@pytest.fixture(scope="module")
def net() -> FCN:
    torch.manual_seed(3)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    return net.eval()


def count(net: FCN, data: InMemory, task: str = SEMANTIC) -> np.ndarray:
    """The confusion matrix, by the textbook."""
    classes = len(data.labels[task])
    matrix = np.zeros((classes, classes), np.int64)
    for sample in data.samples:
        images = {name: torch.from_numpy(image).permute(2, 0, 1)[None] for name, image in sample.inputs.items()}
        with torch.no_grad():
            scores = net(images)
        best = (scores if isinstance(scores, torch.Tensor) else scores[task])[0].argmax(0)
        height, width = sample.size
        for y in range(height):
            for x in range(width):
                truth = int(sample.masks[task][y, x])
                if truth != VOID:
                    matrix[truth, int(best[y, x])] += 1
    return matrix


def test_equals_a_plain_loop_at_native_resolution(net: FCN) -> None:
    data = InMemory([one(seed, size) for seed, size in enumerate(SIZES)], "val")
    seen: list[tuple[int, int]] = []
    evaluation = evaluate_net(net, data, progress=lambda *args: seen.append(args))
    expected = count(net, data)
    assert np.array_equal(evaluation.matrix.counts, expected)
    assert seen == [(index, len(SIZES)) for index in range(1, len(SIZES) + 1)]
    # The four numbers of reference 6, from the matrix by hand.
    true, right = expected.sum(axis=1), np.diagonal(expected)
    union = true + expected.sum(axis=0) - right
    scores = evaluation.scores
    assert scores.pixel_accuracy == pytest.approx(right.sum() / expected.sum())
    assert scores.mean_accuracy == pytest.approx((right / true).mean())
    assert scores.mean_iu == pytest.approx((right / union).mean())
    assert scores.fw_iu == pytest.approx((true * right / union).sum() / expected.sum())


def test_several_inputs_and_tasks() -> None:
    torch.manual_seed(0)
    net = build(
        "fcn8s-slim", {"kind": 3, "side": 2}, channels={"colour": 3, "depth": 1}, width=0.1, fusion="late"
    ).eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            str(index),
            {name: rng.integers(0, 256, (*size, c), dtype=np.uint8) for name, c in (("colour", 3), ("depth", 1))},
            {"kind": rng.integers(0, 3, size, dtype=np.uint8), "side": rng.integers(0, 2, size, dtype=np.uint8)},
        )
        for index, size in enumerate(SIZES[:4])
    ]
    data = InMemory(samples, "val", {"kind": LABELS, "side": LabelSet.numbered(2)}, {"colour": 3, "depth": 1})
    evaluation = evaluate_net(net, data)
    for task in ("kind", "side"):
        assert np.array_equal(evaluation.matrices[task].counts, count(net, data, task))
    assert evaluation.scores == evaluation.matrices["kind"].scores()


def test_a_model_file_and_a_folder(net: FCN, tmp_path: Path) -> None:
    data = make_folder(tmp_path / "d")
    Model(net, LABELS).save(tmp_path / "m.safetensors")
    for split in ("val", "train"):
        samples = open_dataset(data, split)
        expected = count(net, InMemory([samples[i] for i in range(len(samples))], split))
        assert np.array_equal(fullconv.evaluate(tmp_path / "m.safetensors", data, split).matrix.counts, expected)
    with pytest.raises(DataError, match="has no split 'tset'; its splits: train, val, test"):
        evaluate(Model(net, LABELS), str(data), "tset")
    with pytest.raises(ModelFileError, match="does not exist"):
        evaluate(tmp_path / "none.safetensors", data)


def test_bfloat16_is_close(net: FCN) -> None:
    data = InMemory([one(seed, size) for seed, size in enumerate(SIZES)], "val")
    exact, near = evaluate_net(net, data).matrix.counts, evaluate_net(net, data, "bfloat16").matrix.counts
    assert np.array_equal(exact.sum(axis=1), near.sum(axis=1))
    assert 0 < np.abs(exact - near).sum() < 0.1 * exact.sum()


def test_the_nets_mode_stays(net: FCN) -> None:
    net.train()
    evaluate_net(net, InMemory([one(0)], "val"))
    assert net.training
    net.eval()


def test_void_alone_gives_no_numbers(net: FCN) -> None:
    sample = one(0)
    void = Sample("v", sample.inputs, {SEMANTIC: np.full_like(sample.masks[SEMANTIC], VOID)})
    assert math.isnan(evaluate_net(net, InMemory([void], "val")).scores.mean_iu)


def test_other_names_are_refused_though_their_number_fits(net: FCN) -> None:
    model = Model(net, LabelSet(("ground", "car", "road")))
    data = InMemory([one(0)], "val", {SEMANTIC: LabelSet(("ground", "road", "car"))})
    message = "the model's classes are ground, car, road; the data's are ground, road, car: score it on data with"
    with pytest.raises(OptionError, match=message):
        evaluate(model, data)


def test_other_numbers_of_classes_and_inputs_are_refused(net: FCN) -> None:
    four = InMemory([one(0)], "val", {SEMANTIC: LabelSet.numbered(4)})
    with pytest.raises(OptionError, match=r"the net has \{'semantic': 3\} .*the data \{'semantic': 4\}; use data with"):
        evaluate_net(net, four)
    other = InMemory([one(0)], "val", {"kind": LABELS})
    with pytest.raises(OptionError, match=r"the data \{'kind': 3\}"):
        evaluate(Model(net, LABELS), other)
    radar = InMemory([one(0)], "val", channels={"radar": 2})
    with pytest.raises(OptionError, match=r"the net takes \{'image': 3\} .*the data has \{'radar': 2\}"):
        evaluate_net(net, radar)
    require_fit(net.options, InMemory([one(0)], "val"))
    assert net.options.inputs.keys() == {IMAGE}


def test_a_file_that_turned_bad_is_named(net: FCN, tmp_path: Path) -> None:
    data = make_folder(tmp_path)
    opened = open_dataset(data, "val")
    (data / "val" / "images" / f"{opened.names[1]}.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"{opened.names[1]}.png: is empty"):
        evaluate_net(net, opened)
