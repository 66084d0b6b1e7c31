"""torchvision's classifier files (``.pth``): their weights by the names of our trunks.

A file is a pickled state dict. It comes from anywhere, so only torch's weights-only reader touches it, which builds
tensors and plain containers and calls nothing else; what it gives is believed only after names, types and shapes were
found to be those of the trunk. Names and shapes: reference 2.6.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from fullconv.errors import ModelFileError, one_line, printable, unknown_name
from fullconv.nets import InputOptions
from fullconv.nets.classifier import Classifier
from fullconv.nets.normalise import Normalise
from fullconv.nets.trunks import TRUNKS, Trunk
from fullconv.weights.torchvision_names import CAFFE_SCALED, TORCHVISION

MAX_CLASSES: Final = 1 << 16
"""Of a file's last layer; ImageNet's largest set has some 22,000."""

FLOATS: Final = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types that weights may be stored in; they become float32."""

COUNTER: Final = ".num_batches_tracked"
"""Ends the names of batch norm's counters, which files from before 2018 lack and nothing here needs."""

ZIP: Final = b"PK\x03\x04"

OTHER_FILES: Final = {
    ".caffemodel": "a Caffe model; read it as one, into a trunk of Caffe's such as --net fcn32s-vgg16",
    ".safetensors": "a safetensors file; fullconv's own models need no conversion",
}


@dataclass(frozen=True)
class TorchvisionFile:
    """What a file holds, float32. Tensors may map the file: copy them before it is changed or removed.

    Attributes:
        weights: by the trunk's own state keys and in its shapes: fully connected layers are convolutions.
        sources: the trunk's key -> the file's, for all of `weights`.
        shapes: the trunk's key -> shape in the file, for all of `weights`.
        score: the classifier's last layer as a 1x1 convolution, ``weight`` (K, C, 1, 1) and ``bias`` (K,); empty
            where the file has none.
        inputs: the normalisation that the file's net expects.
        dropped: the file's keys that the trunk does not take: the last layer and auxiliary heads.
        missing: the trunk's keys that the file does not give: counters of batch norm, which `weights` then holds as
            zero, and fc6 and fc7 of VGG-16's features-only file, which are NaN there and not in `weights`.
    """

    weights: dict[str, Tensor]
    sources: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    score: dict[str, Tensor]
    inputs: InputOptions
    dropped: list[str]
    missing: list[str]

    def classifier(self, trunk: str, width: float = 1.0) -> Classifier:
        """The net that the file was trained as, holding the file's own tensors, in evaluation mode."""
        with torch.device("meta"):
            net = Classifier(trunk, self.score["bias"].numel(), self.inputs, width)
        state = {f"trunk.{key}": value for key, value in self.weights.items()}
        net.load_state_dict(state | {f"score.{key}": value for key, value in self.score.items()}, assign=True)
        net.normalise = Normalise(self.inputs)
        return net.eval()


def read_torchvision(path: str | Path, trunk: str, width: float = 1.0) -> TorchvisionFile:
    """Read a file for a trunk.

    Takes a state dict, alone or under the key ``state_dict`` or ``model``, with or without ``module.`` before all
    names, in torch's zip format (which is mapped, not read) or its older one.

    Args:
        path: of the file.
        trunk: a key of `TORCHVISION`.
        width: factor on the trunk's channels; the published files have 1.

    Raises:
        OptionError: an unknown trunk.
        ModelFileError: missing, damaged, not a state dict, of another net, or with weights that cannot be used.
    """
    if trunk not in TRUNKS:
        raise unknown_name("trunk", trunk, TORCHVISION)
    path = Path(path)
    state = _load(path)
    _check_names(path, trunk, state)
    names, net = TORCHVISION[trunk], _trunk(trunk, width)
    weights, missing = {}, []
    expected = net.state_dict()
    sources = {key: names.source(key) for key in expected}
    shapes = {key: _stored_shape(source, expected[key]) for key, source in sources.items()}
    for key, source in sources.items():
        if source in state:
            types = FLOATS if expected[key].is_floating_point() else (expected[key].dtype,)
            tensor = _tensor(path, source, state[source], shapes[key], types, expected[key].dtype)
            weights[key] = tensor.view(expected[key].shape)
        else:  # the names were checked: a counter
            weights[key] = torch.zeros_like(expected[key], device="cpu")
            missing.append(key)
    score, inputs = _score(path, names.last, state, net.channels(32)), names.inputs
    if trunk == "vgg16" and _only_features(weights, score):
        missing = [key for key in weights if key.startswith("fc")]
        for key in missing:
            del weights[key], sources[key], shapes[key]
        score, inputs = {}, CAFFE_SCALED
    for key, tensor in weights.items():
        _check_finite(path, sources[key], tensor)
    for key, tensor in score.items():
        _check_finite(path, f"{names.last}.{key}", tensor)
    dropped = [key for key in state if names.unwanted(key)]
    return TorchvisionFile(weights, sources, shapes, score, inputs, dropped, missing)


def _load(path: Path) -> dict[str, object]:
    """The file's state dict, its values not looked at."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{printable(path)} {what}; expected a .pth file of torchvision's")
    if path.suffix.lower() in OTHER_FILES:
        raise ModelFileError(f"{printable(path)} is {OTHER_FILES[path.suffix.lower()]}; expected torchvision's .pth")
    try:
        with path.open("rb") as file:
            mapped = file.read(len(ZIP)) == ZIP
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how a file was pickled: it is read or refused
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        # torch's own message recommends to unpickle without safeguards; what it met first says what is wrong.
        cause = error.__context__ or error
        raise ModelFileError(
            f"{printable(path)} cannot be read as a .pth of weights ({one_line(cause)}); copy or download it again, or "
            "write one with torch.save(model.state_dict(), PATH)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(isinstance(key, str) for key in state):
        raise ModelFileError(
            f"{printable(path)} holds no state dict; write one with torch.save(model.state_dict(), PATH)"
        )
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _check_names(path: Path, trunk: str, state: Mapping[str, object]) -> None:
    """Refuse a file whose names are not those of the trunk's classifier; says whose they are, if known."""
    if trunk in TORCHVISION and _differing(trunk, state) is None:
        return
    held = next((name for name in TORCHVISION if _differing(name, state) is None), None)
    if held:
        raise ModelFileError(
            f"{printable(path)} holds the weights of {held}; expected those of {trunk}: use --net fcn32s-{held}"
        )
    if trunk not in TORCHVISION:
        known = ", ".join(TORCHVISION)
        raise ModelFileError(f"{printable(path)}: no file of torchvision's fits {trunk}; choose a net of {known}")
    raise ModelFileError(
        f"{printable(path)} {_differing(trunk, state)}; expected the weights of torchvision's {trunk} and no others: "
        "use the net that the file is of"
    )


def _differing(trunk: str, state: Mapping[str, object]) -> str | None:
    """How a file's names differ from those of a trunk's classifier; the last layer, all of it, may be absent."""
    names = TORCHVISION[trunk]
    needed = [names.source(key) for key in _trunk(trunk).state_dict()]
    last = [f"{names.last}.weight", f"{names.last}.bias"]
    if not state.keys().isdisjoint(last):
        needed += last
    lacking = [key for key in needed if key not in state and not key.endswith(COUNTER)]
    if lacking:
        return f"lacks the weight {lacking[0]!r}"
    extra = [key for key in state.keys() - set(needed) if not key.startswith(names.auxiliary)]
    return f"has the extra weight '{printable(min(extra))[:80]}'" if extra else None


def _trunk(trunk: str, width: float = 1.0) -> Trunk:
    """The trunk of RGB images without memory for its weights: its names and shapes."""
    kind = TRUNKS[trunk]
    with torch.device("meta"):
        return kind.build(3, kind.padding, kind.dropout, width)


def _stored_shape(source: str, expected: Tensor) -> tuple[int, ...]:
    """The shape in the file: fully connected layers are (O, C * H * W), flattened as convolutions are (2.3)."""
    return tuple((expected.flatten(1) if source.startswith("classifier.") and expected.dim() > 1 else expected).shape)


def _score(path: Path, last: str, state: Mapping[str, object], channels: int) -> dict[str, Tensor]:
    if f"{last}.weight" not in state:
        return {}
    bias = state[f"{last}.bias"]
    classes = bias.shape[0] if isinstance(bias, Tensor) and not bias.is_nested and bias.dim() == 1 else 0
    if not 1 <= classes <= MAX_CLASSES:
        raise ModelFileError(
            f"{printable(path)}: weight {last}.bias is {_kind(bias)}; expected [K] for 1 to {MAX_CLASSES} classes"
        )
    shapes = {"bias": (classes,), "weight": (classes, channels)}
    bias, weight = (
        _tensor(path, f"{last}.{name}", state[f"{last}.{name}"], shape, FLOATS, torch.float32)
        for name, shape in shapes.items()
    )
    return {"weight": weight[:, :, None, None], "bias": bias}


def _tensor(
    path: Path, source: str, found: object, shape: tuple[int, ...], types: tuple[torch.dtype, ...], dtype: torch.dtype
) -> Tensor:
    """A tensor of the file, after it was found to be an ordinary one of the shape and one of the types expected.

    Nothing may be computed before: a few bytes of file can hold a tensor of any shape.
    """
    ordinary = (
        isinstance(found, Tensor)
        and not found.is_nested
        and found.layout == torch.strided
        and found.device.type == "cpu"
    )
    if not isinstance(found, Tensor) or not ordinary or tuple(found.shape) != shape or found.dtype not in types:
        *others, last = map(_type, types)
        wanted = f"{', '.join(others)} or {last}" if others else last
        raise ModelFileError(
            f"{printable(path)}: weight {source} is {_kind(found)}; expected {list(shape)} of {wanted}: "
            "use the net that the file is of"
        )
    return found.detach().to(dtype)


def _kind(found: object) -> str:
    """What a value of the file is, for a message."""
    if not isinstance(found, Tensor):
        return f"no tensor ({type(found).__name__})"
    if found.is_nested:
        return "a nested tensor"
    shape = str(list(found.shape))[:100]
    if found.device.type != "cpu":
        return f"{shape} without values"
    layout = "" if found.layout == torch.strided else f", {str(found.layout).removeprefix('torch.')}"
    return f"{shape} of {_type(found.dtype)}{layout}"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _only_features(weights: Mapping[str, Tensor], score: Mapping[str, Tensor]) -> bool:
    """Whether VGG's fully connected layers are NaN throughout."""
    connected = [tensor for key, tensor in weights.items() if key.startswith("fc")] + list(score.values())
    return all(bool(tensor.isnan().all()) for tensor in connected)


def _check_finite(path: Path, source: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not all(bound.isfinite() for bound in tensor.aminmax()):
        raise ModelFileError(
            f"{printable(path)}: weight {source} holds NaN or infinity as float32; expected finite numbers: copy or "
            "download the file again"
        )
