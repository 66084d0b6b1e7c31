"""The published results on the paper's data sets, beside which `fullconv evaluate --paper` puts a run's.

Percent, as printed. Source: Long, Shelhamer and Darrell, CVPR 2015 and its journal version (Shelhamer et al. 2017), the
released models, and reproductions; reference 8.1 to 8.3 and 8.6. Rows whose source ends in "(unconfirmed)" could not be
compared with the printed table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fullconv.classes import NYUD, PASCAL_CONTEXT, SIFTFLOW, VOC
from fullconv.data.camvid import CAMVID_LABELS
from fullconv.errors import OptionError


@dataclass(frozen=True)
class Row:
    """One net or method.

    Attributes:
        split: on which it was scored, as the source names it.
        source: where the numbers are from.
        pixel, mean_accuracy, mean_iu, fw_iu: percent; None: not published.
        geometric: pixel accuracy of SIFT Flow's second task, percent.
        note: what else is published of it, such as its time for an image.
        iu: percent by class name.
    """

    net: str
    split: str
    source: str
    pixel: float | None = None
    mean_accuracy: float | None = None
    mean_iu: float | None = None
    fw_iu: float | None = None
    geometric: float | None = None
    note: str = ""
    iu: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is published of it."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "", {})}


@dataclass(frozen=True)
class Table:
    """A data set: its classes in the order of the scores, and the rows."""

    classes: tuple[str, ...]
    rows: tuple[Row, ...]


_CVPR1, _CVPR2, _CVPR4, _CVPR5 = (f"CVPR table {number}" for number in (1, 2, 4, 5))
_JOURNAL, _JOURNAL_UNCONFIRMED = "journal, released model", "journal (unconfirmed)"
_VAL11, _SEG11, _TEST11, _TEST12 = "VOC2011 val", "seg11valid", "VOC2011 test", "VOC2012 test"
_CHAINER, _PYTORCH, _ARXIV, _TIRAMISU = "Chainer port", "PyTorch port", "arXiv v2", "with FC-DenseNet"
_CONTEXT59, _CONTEXT33 = "val, 59 classes", "val, 33 classes"

TABLES = {
    "VOC": Table(
        VOC,
        (
            Row("FCN-AlexNet", _VAL11, _CVPR1, mean_iu=39.8, note="50 ms"),
            Row("FCN-VGG16", _VAL11, _CVPR1, mean_iu=56.0, note="210 ms"),
            Row("FCN-GoogLeNet", _VAL11, _CVPR1, mean_iu=42.5, note="59 ms"),
            Row("FCN-VGG16", _SEG11, "CVPR text", mean_iu=59.4, note="with SBD"),
            Row("FCN-AlexNet", _SEG11, "CVPR text", mean_iu=48.0, note="with SBD"),
            Row("FCN-32s-fixed", _SEG11, _CVPR2, 83.0, 59.7, 45.4, 72.0),
            Row("FCN-32s", _SEG11, _CVPR2, 89.1, 73.3, 59.4, 81.4),
            Row("FCN-16s", _SEG11, _CVPR2, 90.0, 75.7, 62.4, 83.0),
            Row("FCN-8s", _SEG11, _CVPR2, 90.3, 75.9, 62.7, 83.2),
            Row("FCN-32s", _SEG11, _JOURNAL, 90.5, 76.5, 63.6, 83.5),
            Row("FCN-16s", _SEG11, _JOURNAL, 91.0, 78.1, 65.0, 84.3),
            Row("FCN-8s at-once", _SEG11, _JOURNAL, 91.1, 78.5, 65.4, 84.4),
            Row("FCN-8s staged", _SEG11, _JOURNAL, 91.2, 77.6, 65.5, 84.5),
            Row("FCN-32s-fixed", _SEG11, _JOURNAL_UNCONFIRMED, 82.9, 64.6, 46.6, 72.3),
            Row("FCN-pool5", _SEG11, _JOURNAL_UNCONFIRMED, 87.4, 60.5, 50.0, 78.5),
            Row("FCN-pool4", _SEG11, _JOURNAL_UNCONFIRMED, 78.7, 31.7, 22.4, 67.0),
            Row("FCN-pool3", _SEG11, _JOURNAL_UNCONFIRMED, 70.9, 13.7, 9.2, 57.6),
            Row("FCN-32s original", _SEG11, _CHAINER, 90.4810, 76.4824, 63.6261, 83.4580),
            Row("FCN-32s retrained", _SEG11, _CHAINER, 90.5668, 76.8740, 63.8180, 83.5067),
            Row("FCN-16s original", _SEG11, _CHAINER, 90.9971, 78.0710, 65.0050, 84.2614),
            Row("FCN-16s retrained", _SEG11, _CHAINER, 90.9671, 78.0617, 65.0911, 84.2604, note="from original 32s"),
            Row("FCN-16s retrained", _SEG11, _CHAINER, 91.1009, 77.2522, 65.3628, 84.3675, note="from retrained 32s"),
            Row("FCN-8s original", _SEG11, _CHAINER, 91.2212, 77.6146, 65.5126, 84.5445),
            Row("FCN-8s retrained", _SEG11, _CHAINER, 91.2513, 77.1490, 65.4789, 84.5460, note="from original 16s"),
            Row("FCN-8s retrained", _SEG11, _CHAINER, 91.2608, 78.1484, 65.8444, 84.6447, note="from retrained 16s"),
            Row("FCN-8s at-once original", _SEG11, _CHAINER, 91.1288, 78.4979, 65.3998, 84.4326),
            Row("FCN-8s at-once retrained", _SEG11, _CHAINER, 91.0883, 77.3528, 65.3433, 84.4276),
            Row("FCN-32s", _SEG11, _PYTORCH, mean_iu=62.84, note="96k iterations; 23.5 Hz (Titan X), 18.4 any size"),
            Row("FCN-16s", _SEG11, _PYTORCH, mean_iu=64.91, note="96k iterations"),
            Row("FCN-8s", _SEG11, _PYTORCH, mean_iu=65.49, note="60k iterations"),
            Row("FCN-8s at-once", _SEG11, _PYTORCH, mean_iu=64.74, note="96k iterations"),
            Row("FCN-32s original", _SEG11, _PYTORCH, mean_iu=63.63),
            Row("FCN-16s original", _SEG11, _PYTORCH, mean_iu=65.01),
            Row("FCN-8s original", _SEG11, _PYTORCH, mean_iu=65.51),
            Row("FCN-8s at-once original", _SEG11, _PYTORCH, mean_iu=65.40),
            Row("fcn_resnet50", "COCO val, VOC labels", "torchvision", 91.4, mean_iu=60.5, note="another design"),
            Row("fcn_resnet101", "COCO val, VOC labels", "torchvision", 91.9, mean_iu=63.7, note="another design"),
            Row("R-CNN", _TEST11, "CVPR table 3", mean_iu=47.9),
            Row("SDS", _TEST11, "CVPR table 3", mean_iu=52.6, note="about 50 s"),
            Row("FCN-8s", _TEST11, "CVPR table 3", mean_iu=62.7, note="about 175 ms; 286x SDS, 114x convnet only"),
            Row("FCN-8s", _TEST11, _JOURNAL_UNCONFIRMED, mean_iu=67.5, note="about 100 ms"),
            Row("SDS", _TEST12, "CVPR table 3", mean_iu=51.6, note="about 50 s"),
            Row("FCN-8s", _TEST12, "CVPR table 3", mean_iu=62.2, note="about 175 ms; 20 % over SDS"),
            Row("FCN-8s", _TEST12, "journal", mean_iu=67.2, note="about 100 ms; 30 % over SDS"),
        ),
    ),
    "NYUDv2": Table(
        NYUD,
        (
            Row("Gupta et al.", "test", _CVPR4, 60.3, None, 28.6, 47.0),
            Row("FCN-32s RGB", "test", _CVPR4, 60.0, 42.2, 29.2, 43.9),
            Row("FCN-32s RGBD", "test", _CVPR4, 61.5, 42.4, 30.5, 45.5, note="early fusion"),
            Row("FCN-32s HHA", "test", _CVPR4, 57.1, 35.2, 24.2, 40.4),
            Row("FCN-32s RGB-HHA", "test", _CVPR4, 64.3, 44.9, 32.8, 48.0, note="late fusion"),
            Row("FCN-16s RGB-HHA", "test", _CVPR4, 65.4, 46.1, 34.0, 49.5, note="late fusion"),
            Row("FCN-32s RGB", "test", _JOURNAL_UNCONFIRMED, 61.8, 44.7, 31.6, 46.0),
            Row("FCN-32s RGB-D", "test", _JOURNAL_UNCONFIRMED, 62.1, 44.8, 31.7, 46.3),
            Row("FCN-32s HHA", "test", _JOURNAL_UNCONFIRMED, 58.3, 35.7, 25.2, 41.7),
            Row("FCN-32s RGB-HHA", "test", _JOURNAL_UNCONFIRMED, 65.3, 44.0, 33.3, 48.6),
        ),
    ),
    "SIFT Flow": Table(
        SIFTFLOW,
        (
            Row("Liu et al.", "test", _CVPR5, 76.7),
            Row("Tighe et al.", "test", _CVPR5, geometric=90.8),
            Row("Tighe et al., SVM", "test", _CVPR5, 75.6, 41.1),
            Row("Tighe et al., SVM+MRF", "test", _CVPR5, 78.6, 39.2),
            Row("Farabet et al., natural", "test", _CVPR5, 78.5, 29.6),
            Row("Farabet et al., balanced", "test", _CVPR5, 72.3, 50.8),
            Row("Pinheiro et al.", "test", _CVPR5, 77.7, 29.8),
            Row("FCN-16s", "test", _CVPR5, 85.2, 51.7, 39.5, 76.1, 94.3),
            Row("FCN-8s", "test", _JOURNAL_UNCONFIRMED, 85.9, 53.9, 41.2, 77.2, 94.6),
        ),
    ),
    "Pascal-Context": Table(
        PASCAL_CONTEXT,
        (
            Row("O2P", _CONTEXT59, _ARXIV, mean_iu=18.1),
            Row("CFM", _CONTEXT59, _ARXIV, mean_iu=31.5),
            Row("FCN-32s", _CONTEXT59, _ARXIV, 63.8, 42.7, 31.8, 48.3),
            Row("FCN-16s", _CONTEXT59, _ARXIV, 65.7, 46.2, 34.8, 50.7),
            Row("FCN-8s", _CONTEXT59, _ARXIV, 65.9, 46.5, 35.1, 51.0),
            Row("FCN-8s", _CONTEXT59, "later author version", mean_iu=37.8, note="20 % over CFM"),
            Row("FCN-32s", _CONTEXT59, _JOURNAL_UNCONFIRMED, 65.5, 49.1, 36.7, 50.9),
            Row("FCN-16s", _CONTEXT59, _JOURNAL_UNCONFIRMED, 66.9, 51.3, 38.4, 52.3),
            Row("FCN-8s", _CONTEXT59, _JOURNAL_UNCONFIRMED, 67.5, 52.3, 39.1, 53.0),
            Row("O2P", _CONTEXT33, _ARXIV, mean_iu=29.2),
            Row("CFM", _CONTEXT33, _ARXIV, mean_iu=46.1),
            Row("FCN-32s", _CONTEXT33, _ARXIV, 69.8, 65.1, 50.4, 54.9),
            Row("FCN-16s", _CONTEXT33, _ARXIV, 71.8, 68.0, 53.4, 57.5),
            Row("FCN-8s", _CONTEXT33, _ARXIV, 71.8, 67.6, 53.5, 57.7),
        ),
    ),
    "CamVid": Table(
        CAMVID_LABELS.names,
        (
            Row(
                "FCN-8",
                "test",
                _TIRAMISU,
                88.0,
                mean_iu=57.0,
                note="135M parameters",
                iu={
                    "building": 77.8, "tree": 71.0, "sky": 88.7, "car": 76.1, "sign symbol": 32.7, "road": 91.2,
                    "pedestrian": 41.7, "fence": 24.4, "pole": 19.9, "pavement": 72.7, "bicyclist": 31.0,
                },
            ),
            Row("SegNet", "test", _TIRAMISU, 62.5, mean_iu=46.4, note="29.5M parameters"),
            Row("FC-DenseNet56", "test", _TIRAMISU, 88.9, mean_iu=58.9),
            Row("FC-DenseNet67", "test", _TIRAMISU, 90.8, mean_iu=65.8),
            Row("FC-DenseNet103", "test", _TIRAMISU, 91.5, mean_iu=66.9),
        ),
    ),
}  # fmt: skip
"""By data set. The reference does not say on which of CamVid's splits its table is; FC-DenseNet's own says test."""


def published(classes: Sequence[str]) -> str:
    """The name in `TABLES` of the data set that has these classes, in this order.

    Raises:
        OptionError: none has.

    >>> published(VOC)
    'VOC'
    """
    for name, table in TABLES.items():
        if tuple(classes) == table.classes:
            return name
    shown = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
    raise OptionError(
        f"no published results for these {len(classes)} classes ({shown}); there are some for {', '.join(TABLES)}, "
        "whose classes must have the data set's own names and order"
    )
