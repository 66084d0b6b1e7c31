"""Model files: one safetensors file that holds a net's weights and, in its header, all that explains them.

The header key ``fullconv`` is a JSON object: ``format`` (version), ``net`` (NetOptions), ``labels`` (by task),
``training`` and ``metrics``. Nothing is pickled; nothing in a file is executed. Files of other kinds
(`fullconv.weights.classifierfile`) name theirs under ``kind``.
"""

from __future__ import annotations

import errno
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fullconv.errors import FullconvError, ModelFileError, OptionError, one_line
from fullconv.files import atomic
from fullconv.labels import LabelSet
from fullconv.nets import FCN, NetOptions

FORMAT = 1
"""Version of the header; files of a later one are refused."""

_RUST_ERROR = re.compile(r"([^: ][^:]*) \(os error (\d+)\)")

KEY = "fullconv"

TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Types that weights and counters may be stored in, by the names of the safetensors format."""

KINDS = {
    None: ("a model for segmentation", "fullconv predict"),
    "classifier": ("a classifier that was convolutionalized", "fullconv heatmap"),
}
"""Kinds of files: what they are, and the command that uses them."""

MODEL_SUFFIX = ".safetensors"

FOREIGN = (".caffemodel", ".pth", ".pt")
"""Suffixes of weights that `fullconv convert` makes a model of."""

MAX_HEADER = 100 << 20
"""Bytes; the bound of the safetensors format itself."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        net: with its weights, in evaluation mode.
        labels: by task.
        training: how it was trained (options, versions, data), free JSON.
        metrics: the scores it was measured with, free JSON.
    """

    net: FCN
    labels: Mapping[str, LabelSet]
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def write_model(path: str | Path, model: ModelFile) -> None:
    """Write a model file, atomically.

    Raises:
        OptionError: labels that do not fit the net's tasks and class counts; a record that JSON cannot hold.
    """
    check_labels(model.net.options, model.labels)
    header = {
        "format": FORMAT,
        "net": model.net.options.to_json(),
        "labels": {task: labels.to_json() for task, labels in model.labels.items()},
        "training": dict(model.training),
        "metrics": dict(model.metrics),
    }
    try:
        text = json.dumps(header, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(f"training and metrics must be plain JSON with finite numbers ({brief(error)})") from error
    write_file(path, text, model.net)


def write_file(path: str | Path, header: str, module: nn.Module) -> None:
    """Write a header and a module's weights, atomically; weights that share memory are written each for itself."""
    with atomic(path) as temporary:
        save_tensors(module.state_dict(), temporary, {KEY: header})


def save_tensors(named: Mapping[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; tensors that share memory are written each for itself.

    Args:
        metadata: one key, for safetensors writes several in any order: equal contents are equal files.

    Raises:
        OSError: the disk is full, or cannot be written; safetensors has an error of its own for it.
    """
    try:
        save_file(_separate(named), path, metadata)
    except SafetensorError as error:  # "Error while serializing: I/O error: No space left on device (os error 28)"
        found = _RUST_ERROR.search(str(error))
        number, reason = (int(found[2]), found[1]) if found else (errno.EIO, one_line(error))
        raise OSError(number, reason, str(path)) from error


def _separate(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU, contiguous, each in memory of its own."""
    tensors: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, each in named.items():
        tensor = each.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return tensors


def read_model(path: str | Path) -> ModelFile:
    """Read a model file.

    Raises:
        ModelFileError: missing, damaged, not a fullconv model, of a later format, or with weights that do not fit.
    """
    path = Path(path)
    header = read_header(path)
    check_kind(path, header, None)
    training, metrics = _object(path, header, "training"), _object(path, header, "metrics")
    options = _options(path, header)
    try:
        labels = {task: LabelSet.from_json(value) for task, value in _object(path, header, "labels").items()}
        check_labels(options, labels)
        with torch.device("meta"):  # shapes alone: nothing is allocated before the file is found to fit
            net = FCN(options)
        net.load_state_dict(read_tensors(path, net.state_dict()), assign=True)
        net.reset_normalisation()
    except ModelFileError:
        raise
    except (FullconvError, AttributeError, RecursionError, TypeError) as error:
        raise ModelFileError(f"{path}: not a usable fullconv model: {brief(error)}") from error
    net.eval()
    return ModelFile(net, labels, training, metrics)


def read_options(path: str | Path) -> NetOptions:
    """What the net of a model file is, without reading weights; raises as `read_model`."""
    path = Path(path)
    header = read_header(path)
    check_kind(path, header, None)
    return _options(path, header)


def read_header(path: str | Path) -> dict[str, Any]:
    """The header object alone, without reading weights; raises as `read_model`."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{path} {what}; expected a .safetensors model file such as runs/NAME/best.safetensors")
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, path.stat().st_size - 8):
                if path.suffix.lower() in FOREIGN:
                    raise ModelFileError(
                        f"{path} is no fullconv model; make one of it with: fullconv convert {path} --net NET -o MODEL"
                    )
                raise ModelFileError(f"{path} is no safetensors file, or cut short; copy or train the model again")
            entries = json.loads(file.read(length))
            ends = [each["data_offsets"][1] for name, each in entries.items() if name != "__metadata__"]
            if 8 + length + max(ends, default=0) > path.stat().st_size:
                raise ModelFileError(f"{path} is damaged (cut short); copy or train the model again")
            metadata = entries.get("__metadata__", {})
        header = json.loads(metadata[KEY])
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({brief(error)})") from error
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ModelFileError(
            f"{path} has no '{KEY}' header; expected a model written by fullconv, not bare weights"
        ) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{path}: the header is damaged ({brief(error)}); copy or train the model again"
        ) from error
    version = header.get("format") if isinstance(header, dict) else None
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ModelFileError(f"{path}: the header names no format version; copy or train the model again")
    if version > FORMAT:
        raise ModelFileError(
            f"{path} has format {version}; this fullconv reads up to {FORMAT}: pip install --upgrade fullconv"
        )
    return dict(header)


def check_kind(path: Path, header: Mapping[str, Any], kind: str | None) -> None:
    """A header must be of the kind that is wanted, a key of `KINDS`.

    Raises:
        ModelFileError: it is of another, with the command that uses it.
    """
    found = header.get("kind")
    if found == kind:
        return
    if found is not None and not (isinstance(found, str) and found in KINDS):
        raise ModelFileError(
            f"{path} is of the kind {brief(found)!r}, which this fullconv does not know: pip install --upgrade fullconv"
        )
    raise ModelFileError(f"{path} is {KINDS[found][0]}, not {KINDS[kind][0]}; it is for: {KINDS[found][1]}")


def check_labels(options: NetOptions, labels: Mapping[str, LabelSet]) -> None:
    """Labels must name every class of every task.

    Raises:
        OptionError: other tasks or other class counts.
    """
    counts = {task: len(value) for task, value in labels.items()}
    if counts != dict(options.classes):
        raise OptionError(f"labels for {counts}; the net has {dict(options.classes)} (task: classes)")


def read_tensors(path: Path, expected: Mapping[str, Tensor], as_stored: bool = False) -> dict[str, Tensor]:
    """All tensors, after their names, shapes and types were found to be those expected.

    Args:
        expected: by name, on any device.
        as_stored: floating point numbers keep the width that the file has; else they get that of `expected`.

    Raises:
        ModelFileError: other tensors than those, or a damaged file.
    """
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            if names != set(expected):
                odd = sorted(names ^ set(expected))[0]
                where = "lacks" if odd in expected else "has the extra"
                raise ModelFileError(
                    f"{path} {where} weight {odd[:80]!r}; the net of its header does not fit: train it again"
                )
            for name, tensor in expected.items():
                weight = file.get_slice(name)
                shape, dtype = list(weight.get_shape()), weight.get_dtype()
                if shape != list(tensor.shape):
                    raise ModelFileError(f"{path}: weight {name} is {shape}; its header's net has {list(tensor.shape)}")
                stored = TYPES.get(dtype)
                if stored != tensor.dtype and not (
                    stored is not None and stored.is_floating_point and tensor.is_floating_point()
                ):
                    raise ModelFileError(f"{path}: weight {name} is of type {dtype}; convert it to {tensor.dtype}")
            # Copies: what `get_tensor` gives maps the file, and would change or crash with it.
            loaded = {}
            for name, tensor in expected.items():
                weight = file.get_tensor(name)
                dtype = weight.dtype if as_stored else tensor.dtype
                # Not `empty_like`, which for a tensor without memory loads half of torch's compiler.
                room = torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype, device="cpu")
                loaded[name] = room.copy_(weight)
            return loaded
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is damaged ({brief(error)}); copy or train the model again") from error


def _options(path: Path, header: Mapping[str, Any]) -> NetOptions:
    try:
        return NetOptions.from_json(_object(path, header, "net"))
    except OptionError as error:
        raise ModelFileError(f"{path}: not a usable fullconv model: {brief(error)}") from error


def _object(path: Path, header: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = header.get(key, {})
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: the header's {key!r} is no JSON object; copy or train the model again")
    return value


def brief(error: object) -> str:
    """A message on one line, whatever the file put into it."""
    return " ".join(str(error).split())[:300]
