"""NetOptions: everything that, with the weights, makes a net; written into every model file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from torch import nn

from fullconv.errors import OptionError, unknown_name
from fullconv.labels import VOID
from fullconv.nets.head import KINDS

PADDINGS = ("same", "paper")
UPSAMPLINGS = tuple(KINDS)
FUSIONS = ("early", "late")
ORDERS = ("rgb", "bgr")

OWN = "own"
"""The trunk's name where its steps are given."""

RESERVED = {"fused", *dir(nn.ModuleDict())}
"""No names of inputs or tasks: modules are held by them, beside the container's own attributes."""


@dataclass(frozen=True)
class InputOptions:
    """One input of a net.

    Attributes:
        mean, std: one number a channel, in the order of the input (RGB), for values of 0..255.
        order: in which the trunk reads three colour channels, "rgb" or "bgr".
        log: the natural logarithm is taken first, of values of at least 1 (depth in mm; mean and std are of it).
        bands: the numbers of the channels in image files, counted from 1; empty: pictures, read as RGB or grey.
        preview: those of `bands` that pictures of the input show as red, green and blue, or as grey.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str = "rgb"
    log: bool = False
    bands: tuple[int, ...] = ()
    preview: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.mean) <= 1024 or len(self.mean) != len(self.std):
            raise OptionError(
                f"{len(self.mean)} means and {len(self.std)} deviations; expected one of each a channel, 1 to 1024"
            )
        if not all(_is_number(v, -1e6, 1e6) for v in self.mean) or not all(_is_number(v, 1e-6, 1e6) for v in self.std):
            raise OptionError("an input's means must be numbers up to 1e6 and its deviations numbers of 1e-6 to 1e6")
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        if self.order not in ORDERS:
            raise unknown_name("channel order", self.order, ORDERS)
        if not isinstance(self.log, bool):
            raise OptionError(f"an input's log is {self.log!r}; expected true or false")
        for name in ("bands", "preview"):
            numbers = tuple(getattr(self, name))
            if not all(type(band) is int and 1 <= band <= 65535 for band in numbers):
                raise OptionError(f"an input's {name} are {numbers}; expected numbers from 1 on")
            object.__setattr__(self, name, numbers)
        if self.bands and len(self.bands) != len(self.mean):
            raise OptionError(f"an input has {len(self.bands)} bands and {len(self.mean)} means; expected as many")
        if not set(self.preview) <= set(self.bands) or len(self.preview) not in (0, 1, 3):
            raise OptionError(f"an input's preview is {self.preview}; expected one or three of its bands")
        if self.order == "bgr" and len(self.mean) != 3:
            raise OptionError(f"order 'bgr' needs 3 channels, not {len(self.mean)}; use 'rgb'")

    @property
    def channels(self) -> int:
        """C of the input."""
        return len(self.mean)

    def to_json(self) -> dict[str, Any]:
        """A JSON object of its fields; bands and preview only where there are any."""
        value = asdict(self)
        return {key: value[key] for key in value if value[key] or key not in ("bands", "preview")}


@dataclass(frozen=True)
class NetOptions:
    """A net, without its weights.

    Attributes:
        trunk: a name of `TRUNKS`.
        stride: of the coarse scores: 32, 16, 8, 4, 2 or 1; all coarser taps of the trunk are fused into them.
        classes: task -> K.
        inputs: input name -> its channels and normalisation.
        fusion: of several inputs: "early" (channels concatenated into one trunk) or "late" (a trunk each, scores
            averaged).
        padding: "same", or "paper" (100 pixels at the first convolution, none at fc6, with crops).
        upsampling: of the scores, in steps; each is aligned by the layers' geometry.
            "bilinear": all fixed, as in the released nets; scores fade to zero beyond the map.
            "interpolation": the same, but border cells are repeated outwards instead.
            "learned": all but the last are learned transposed convolutions that start as bilinear (the CVPR text,
            section 4.2).
            "learned-all": the last too.
            "stacked": each is a stack of learned ones by 2 with a PReLU between two of them (section 3.3).
            "unpooling": the strides of the trunk's own max poolings are undone with the poolings' indices, between
            learned convolutions; other strides as in "learned-all". The coarse scores are then at the finest stride
            that poolings reach: 1 on VGG-16.
        dropout: rate of the element-wise dropout of the trunk, 0..1.
        width: factor on the trunk's channels, up to 4.
        scales: stride -> factor on the features that are scored at it; 1 where none is given. They balance the skips
            of nets trained all at once (Shelhamer et al. 2016, section 4.3).
        wiring: of a trunk of one's own (`trunk` is then "own"), as `WiredTrunk.to_json` gives it; else empty.
    """

    trunk: str
    stride: int
    classes: Mapping[str, int]
    inputs: Mapping[str, InputOptions]
    fusion: str = "early"
    padding: str = "same"
    upsampling: str = "bilinear"
    dropout: float = 0.5
    width: float = 1.0
    scales: Mapping[int, float] = field(default_factory=dict)
    wiring: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, name, choices in (
            ("padding", self.padding, PADDINGS),
            ("upsampling", self.upsampling, UPSAMPLINGS),
            ("fusion", self.fusion, FUSIONS),
        ):
            if name not in choices:
                raise unknown_name(kind, name, choices)
        for kind, names in (("task", self.classes), ("input", self.inputs)):
            if not 1 <= len(names) <= 16:
                raise OptionError(f"{len(names)} {kind}s; expected 1 to 16")
            for name in names:
                if not isinstance(name, str) or not name.isidentifier() or name in RESERVED:
                    raise OptionError(f"{kind} name {name!r} is reserved or no plain word; choose one such as 'depth'")
        for task, count in self.classes.items():
            if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= VOID:
                raise OptionError(f"task {task!r} has {count!r} classes; expected 1 to {VOID}")
        if isinstance(self.stride, bool) or not isinstance(self.stride, int):
            raise OptionError(f"stride {self.stride!r}; expected a whole number such as 8")
        if not _is_number(self.dropout, 0, 1) or self.dropout == 1:
            raise OptionError(f"dropout {self.dropout!r}; expected a number 0 <= rate < 1")
        if not _is_number(self.width, 0, 4) or self.width == 0:
            raise OptionError(f"width {self.width!r}; expected a number above 0 and at most 4")
        _check_scales(self.scales)
        self._check_wiring()

    def _check_wiring(self) -> None:
        if not isinstance(self.wiring, Mapping) or (self.trunk == OWN) != bool(self.wiring):
            has = "has" if self.wiring else "lacks"
            raise OptionError(
                f"trunk {self.trunk!r} {has} wiring; expected it of a trunk of one's own, and of no other"
            )
        if self.wiring and (self.padding != "same" or self.width != 1 or len(self.inputs) > 1):
            raise OptionError("a trunk of one's own takes one input, at width 1 and with padding 'same'")

    @property
    def trunk_name(self) -> str:
        """The trunk's name; that of one's own holds a digest of its steps, for only equal ones share weights."""
        if self.trunk != OWN:
            return self.trunk
        return f"{OWN}-{hashlib.sha256(json.dumps(dict(self.wiring), sort_keys=True).encode()).hexdigest()[:8]}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` inverts."""
        value = asdict(self)
        value["inputs"] = {name: options.to_json() for name, options in self.inputs.items()}
        value["scales"] = {str(stride): scale for stride, scale in self.scales.items()}
        if not self.wiring:
            del value["wiring"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> NetOptions:
        """Inverse of `to_json`, for objects from untrusted files.

        Raises:
            OptionError: a key that is unknown or missing, or a value of a wrong type or out of range.
        """
        try:
            known = {f.name for f in fields(cls)}
            if extra := sorted(set(value) - known):
                raise unknown_name("net option", extra[0], known)
            inputs = {str(name): InputOptions(**spec) for name, spec in value["inputs"].items()}
            scales = {int(stride): scale for stride, scale in value.get("scales", {}).items()}
            return cls(**{**value, "classes": dict(value["classes"]), "inputs": inputs, "scales": scales})
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"the net's options are incomplete or of a wrong type ({error})") from error


def _check_scales(scales: Mapping[int, float]) -> None:
    for stride, scale in scales.items():
        if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= 1024:
            raise OptionError(f"a scale for stride {stride!r}; expected a stride of the net, such as 16")
        if not _is_number(scale, 1e-12, 1e12):
            raise OptionError(f"scale {scale!r} at stride {stride}; expected a number of 1e-12 to 1e12")


def _is_number(value: object, least: float, most: float) -> bool:
    """An int or float (no truth value, no NaN) in [least, most]."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
