"""The demo: wafer maps generated, learned, scored on new ones, labelled, and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fullconv.data.sample import IMAGE
from fullconv.data.wafer import Wafer
from fullconv.files import atomic
from fullconv.inference.evaluate import evaluate
from fullconv.inference.model import Model
from fullconv.inference.predict import predict
from fullconv.labels import LabelSet
from fullconv.metrics import Scores
from fullconv.training.context import Trained
from fullconv.training.progress import Tick
from fullconv.training.run import RunFolder
from fullconv.training.train import train

NET = "fcn1s-slim"
"""Scratches are a die or two wide: scores at every die."""

TRAIN, VAL, TEST = 20_000, 300, 1000
"""Maps generated for each split; test maps are met by nobody before the end."""

SHOWN = 12


@dataclass(frozen=True)
class Demo:
    """What the demo came to.

    Attributes:
        trained: the run.
        scores: of its best model on `images` new maps.
        labels: the classes.
        predictions: folder of wafer maps, labels and overlays.
    """

    trained: Trained
    scores: Scores
    labels: LabelSet
    images: int
    predictions: Path


def run_demo(out: Path | None, minutes: float, listener: Callable[[Tick], None]) -> Demo:
    """Run it all; needs no file but those it writes.

    Args:
        out: the run folder; None: ``runs/demo``, numbered where there is one.
        minutes: for training.
        listener: told of the progress.
    """
    folder = out or RunFolder.free("runs", "demo")
    trained = train(
        (Wafer("train", TRAIN), Wafer("val", VAL)),
        NET,
        out=folder,
        minutes=minutes,
        listener=listener,
        command="fullconv demo",
        jitter=0.0,  # three grey levels mean three things
        class_weights="none",
        batch=12,
        lr=4e-3,
    )
    test = Wafer("test", TEST)
    scores = evaluate(
        Model.load(trained.model), test, progress=lambda done, total: listener(Tick("evaluate", done / total))
    ).scores
    wafers = folder / "wafers"
    for index in range(SHOWN):
        sample = test[index]
        with atomic(wafers / f"{sample.name}.png", durable=False) as path:
            Image.fromarray(sample.inputs[IMAGE]).save(path)
    predictions = folder / "predictions"
    predict(trained.model, wafers, predictions, overlay=True)
    return Demo(trained, scores, next(iter(test.labels.values())), len(test), predictions)
