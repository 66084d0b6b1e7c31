"""fullconv: fully convolutional networks for semantic segmentation.

import fullconv

model = fullconv.load("runs/roads/best.safetensors")
prediction = model.predict("street.jpg")
prediction.overlay()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fullconv.errors import FullconvError as FullconvError
    from fullconv.inference.evaluate import evaluate as evaluate
    from fullconv.inference.model import Model as Model
    from fullconv.inference.model import Prediction as Prediction
    from fullconv.inference.model import load as load
    from fullconv.inference.predict import predict as predict
    from fullconv.labels import LabelSet as LabelSet
    from fullconv.nets import build as build
    from fullconv.training.train import train as train

__version__ = "0.1.0"

_PUBLIC = {
    "FullconvError": "fullconv.errors",
    "LabelSet": "fullconv.labels",
    "Model": "fullconv.inference.model",
    "Prediction": "fullconv.inference.model",
    "build": "fullconv.nets",
    "evaluate": "fullconv.inference.evaluate",
    "load": "fullconv.inference.model",
    "predict": "fullconv.inference.predict",
    "train": "fullconv.training.train",
}
"""Public name -> its module, imported when the name is first used: torch takes a second."""

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604  (all strings)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fullconv' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PUBLIC[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
