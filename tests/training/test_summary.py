"""The end of a run: what is shown is what the best model says."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.inference.evaluate import evaluate_net
from fullconv.nets import FCN, build
from fullconv.report.charts import class_iu_png
from fullconv.report.pictures import panels
from fullconv.training.options import RunOptions
from fullconv.training.recipe import Recipe
from fullconv.training.run import RunFolder
from fullconv.training.splits import open_splits
from fullconv.training.summary import Summary, write_summary
from fullconv.weights.modelfile import ModelFile, write_model
from inmemory import LABELS, InMemory, one, some


def prepare(path: Path, val: InMemory, **recipe: Any) -> tuple[Summary, FCN]:
    """A run folder with a random model in it, and what is to be told of it."""
    channels = val.inputs[IMAGE].channels
    samples = [Sample("t", {IMAGE: np.zeros((8, 9, channels), np.uint8)}, {SEMANTIC: np.zeros((8, 9), np.uint8)})]
    splits = open_splits((InMemory(samples, inputs=val.inputs), val))
    torch.manual_seed(0)
    net = build("fcn1s-slim", 3, width=0.1, channels=channels)
    for parameter in net.heads.parameters():
        torch.nn.init.normal_(parameter)
    options = RunOptions("arrays", net.options, Recipe(**recipe), "scratch", 0, 5, None, "float32")
    folder = RunFolder(path)
    write_model(folder.best, ModelFile(net, {SEMANTIC: LABELS}))
    cpu = torch.device("cpu")
    return Summary(folder, splits, options, ["a note"], None, 30, 90.0, cpu, "fullconv train --data x"), net


def test_the_page_says_what_the_best_model_scored(tmp_path: Path) -> None:
    val = some("val", 3)
    summary, net = prepare(tmp_path, val)
    best = evaluate_net(net, val)
    shares: list[float] = []
    write_summary(replace(summary, best=best), shares.append)
    assert shares == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 1])
    text = summary.folder.report.read_text(encoding="utf-8")
    for expected in (
        "a note",
        "fullconv train --data x",
        "1.5 min",
        "arrays: 1 train, 3 val",
        "recipe.augmentation.flip",
        f"{100 * best.scores.mean_iu:.1f}<small>",
    ):
        assert expected in text, expected


def test_a_model_never_scored_has_no_scores_but_previews(tmp_path: Path) -> None:
    summary, _ = prepare(tmp_path, some("val", 2))
    write_summary(summary, lambda share: None)
    assert len(list(summary.folder.previews.iterdir())) == 2
    for name in ("curves.png", "confusion.png", "report.html"):
        assert (tmp_path / name).stat().st_size > 1000
    assert "n/a" in (tmp_path / "report.html").read_text(encoding="utf-8")


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


def facts_of(text: str) -> dict[str, str]:
    """The page's facts, label -> text."""
    return {key: html.unescape(value) for key, value in re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)}


def test_facts_by_hand(tmp_path: Path) -> None:
    summary, _ = prepare(tmp_path, some("val", 2), batch=4)
    # 10 steps of 4 images at 2/s are 20 s, 10 more at 1/s are 40 s: 60 of the 90 seconds.
    summary.folder.rows += [
        {"step": 10.0, "loss": 1.0, "lr": 0.1, "images_per_s": 2.0},
        {"step": 10.0, "val_mean_iu": 0.25},
        {"step": 20.0, "loss": 0.5, "lr": 0.1, "images_per_s": 1.0},
        {"step": 20.0, "val_mean_iu": float("nan")},
        {"step": 25.0, "val_mean_iu": 0.125},
    ]
    write_summary(replace(summary, facts={"processes": "3", "compile": "<28 s>"}), lambda share: None)
    facts = facts_of(summary.folder.report.read_text(encoding="utf-8"))
    assert facts["time"] == "1.5 min (67 % in steps)"
    assert facts["steps"] == "30 of 4 images"  # which may be more than the last line tells
    assert facts["epochs"] == "120.0"  # one training image
    assert facts["best model"] == "of step 10"
    assert facts["images/s"] == "1.5 (median)"
    assert facts["data"] == "arrays: 1 train, 2 val"
    assert (facts["processes"], facts["compile"]) == ("3", "<28 s>")
    assert facts["peak memory"].endswith(" GiB")
    assert "threads" in facts["machine"]
    assert "versions" not in facts


def test_the_data_is_described(tmp_path: Path) -> None:
    sizes = [(4, 9), (2, 2), (6, 6), (3, 3), (50, 1)]
    samples = []
    for number, (height, width) in enumerate(sizes):
        mask = np.full((height, width), 1, np.uint8)
        mask[0, 0] = 255
        samples.append(Sample(str(number), {IMAGE: np.zeros((height, width, 3), np.uint8)}, {SEMANTIC: mask}))
    summary, _ = prepare(tmp_path, InMemory(samples, "val"), class_weights=(0.25, 1.5, 2.0))
    write_summary(summary, lambda share: None)
    text = re.sub(r"<[^>]*>", " ", summary.folder.report.read_text(encoding="utf-8"))
    words = " ".join(html.unescape(text).split())
    pixels = sum(height * width for height, width in sizes)
    assert f"val 5 2 x 2 4 x 9 50 x 1 {100 * (pixels - 5) / pixels:.1f}" in words
    assert "train 1 8 x 9 8 x 9 8 x 9 100.0" in words
    assert summary.splits.fingerprint() in words
    # Class 0 is all of train and nothing of val, class 1 the other way round.
    assert "train % val % weight most often taken for" in words
    assert re.search(r" 100\.0 0\.0 0\.25 .* 0\.0 100\.0 1\.5 .* 0\.0 0\.0 2 ", words)


def test_classes_over_time_have_their_picture(tmp_path: Path) -> None:
    summary, _ = prepare(tmp_path, some("val", 2))
    write_summary(summary, lambda share: None)
    assert not (tmp_path / "class_iu.png").exists()
    summary.folder.rows.append({"step": 1.0, "loss": 1.0})
    summary.folder.class_rows.append({"step": 1.0, "0": 0.5, "1": None, "2": 0.25})
    write_summary(summary, lambda share: None)
    assert (tmp_path / "class_iu.png").read_bytes() == class_iu_png(summary.folder.class_rows)
    assert "IU of each class on val over the training steps" in summary.folder.report.read_text(encoding="utf-8")
