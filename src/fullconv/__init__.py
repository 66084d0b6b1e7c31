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
    from fullconv.inference.heatmap import DenseModel as DenseModel
    from fullconv.inference.model import Model as Model
    from fullconv.inference.model import Prediction as Prediction
    from fullconv.inference.model import load as load
    from fullconv.inference.predict import predict as predict
    from fullconv.labels import LabelSet as LabelSet
    from fullconv.nets import build as build
    from fullconv.nets.dense import rarefy as rarefy
    from fullconv.nets.dense import shift_and_stitch as shift_and_stitch
    from fullconv.nets.dense_classifier import convolutionalize as convolutionalize
    from fullconv.nets.fcn import FCN as FCN
    from fullconv.nets.options import InputOptions as InputOptions
    from fullconv.receptive import receptive_field as receptive_field
    from fullconv.training.train import train as train

__version__ = "0.1.0"

_PUBLIC = {
    "build": "fullconv.nets",
    "convolutionalize": "fullconv.nets.dense_classifier",
    "DenseModel": "fullconv.inference.heatmap",
    "evaluate": "fullconv.inference.evaluate",
    "FCN": "fullconv.nets.fcn",
    "FullconvError": "fullconv.errors",
    "InputOptions": "fullconv.nets.options",
    "LabelSet": "fullconv.labels",
    "load": "fullconv.inference.model",
    "Model": "fullconv.inference.model",
    "predict": "fullconv.inference.predict",
    "Prediction": "fullconv.inference.model",
    "rarefy": "fullconv.nets.dense",
    "receptive_field": "fullconv.receptive",
    "shift_and_stitch": "fullconv.nets.dense",
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
