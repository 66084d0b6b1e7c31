"""The end of a run: what is shown is what the best model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.inference.evaluate import evaluate_net
from fullconv.nets import FCN, build
from fullconv.report.pictures import panels
from fullconv.training.run import RunFolder
from fullconv.training.setup import choose_net, open_splits, resolve_options
from fullconv.training.summary import Summary, write_summary
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS, InMemory, one, some


def prepare(path: Path, val: InMemory, metrics: dict[str, object] | None = None) -> tuple[Summary, FCN]:
    """A run folder with a random model in it, and what is to be told of it."""
    channels = val.inputs[IMAGE].channels
    samples = [Sample("t", {IMAGE: np.zeros((8, 9, channels), np.uint8)}, {SEMANTIC: np.zeros((8, 9), np.uint8)})]
    splits = open_splits((InMemory(samples, inputs=val.inputs), val))
    options = resolve_options(
        "arrays", splits, choose_net("fcn1s-slim", splits.train.dataset, {"width": 0.1}), recipe="scratch", seed=0,
        minutes=None, epochs=None, steps=5, precision="float32", init=(), overrides={},
    )  # fmt: skip
    torch.manual_seed(0)
    net = build("fcn1s-slim", 3, width=0.1, channels=channels)
    for parameter in net.heads.parameters():
        torch.nn.init.normal_(parameter)
    folder = RunFolder(path)
    write_model(folder.best, ModelFile(net, {SEMANTIC: LABELS}, {}, metrics or {}))
    return Summary(folder, splits, options, ["a note"], None, 90.0, "fullconv train --data x"), net


def test_a_model_that_was_scored_before_is_scored_again(tmp_path: Path) -> None:
    val = some("val", 3)
    summary, net = prepare(tmp_path, val, {"val": {"mean_iu": 0.5}})
    shares: list[float] = []
    scores = write_summary(summary, shares.append)
    assert scores == evaluate_net(net, val).scores
    assert shares == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])
    text = summary.folder.report.read_text(encoding="utf-8")
    for expected in (
        "a note",
        "fullconv train --data x",
        "1.5 min",
        "arrays: 1 train, 3 val",
        "recipe.augmentation.flip",
    ):
        assert expected in text, expected


def test_a_model_never_scored_has_no_scores_but_previews(tmp_path: Path) -> None:
    summary, _ = prepare(tmp_path, some("val", 2))
    assert write_summary(summary, lambda share: None) is None
    assert len(list(summary.folder.previews.iterdir())) == 2
    for name in ("curves.png", "confusion.png", "report.html"):
        assert (tmp_path / name).stat().st_size > 1000
    assert "n/a" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_evaluation_at_hand_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    val = some("val", 2)
    summary, net = prepare(tmp_path, val)
    best = evaluate_net(net, val)
    monkeypatch.setattr("fullconv.training.summary.evaluate_net", None)
    told = Summary(summary.folder, summary.splits, summary.options, [], best, 1.0, "")
    assert write_summary(told, lambda share: None) == best.scores


def test_previews_are_spread_over_the_split_and_show_the_prediction(tmp_path: Path) -> None:
    samples = [Sample(f"seq{i // 10}/{i:02}", one(i).inputs, one(i).masks) for i in range(45)]
    summary, net = prepare(tmp_path, InMemory(samples, "val"))
    write_summary(summary, lambda share: None)
    names = sorted(str(path.relative_to(summary.folder.previews)) for path in summary.folder.previews.rglob("*.png"))
    assert len(names) == 12
    assert (names[0], names[-1]) == ("seq0/00.png", "seq4/44.png")
    with torch.no_grad():
        image = samples[44].inputs[IMAGE]
        scores = net.eval()(torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = panels(image, samples[44].masks[SEMANTIC], scores[0].argmax(0).numpy().astype(np.uint8), LABELS)
    with Image.open(summary.folder.previews / "seq4" / "44.png") as shown:
        assert np.array_equal(np.asarray(shown), expected)


@pytest.mark.parametrize("channels", [1, 5])
def test_images_that_are_not_colour_are_shown_as_grey(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 9, channels), dtype=np.uint8)
    val = InMemory(
        [Sample("a", {IMAGE: image}, {SEMANTIC: np.ones((8, 9), np.uint8)})], "val", inputs={IMAGE: InputKind(channels)}
    )
    summary, _ = prepare(tmp_path, val)
    write_summary(summary, lambda share: None)
    with Image.open(summary.folder.previews / "a.png") as shown:
        panel = np.asarray(shown)[:: 256 // 9, : 9 * (256 // 9) : 256 // 9]
    assert np.array_equal(panel, np.repeat(image[:, :, :1], 3, axis=2))
