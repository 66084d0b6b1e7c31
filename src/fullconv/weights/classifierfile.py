"""Classifier files: a convolutionalized classifier in the one safe file format of `fullconv.weights.modelfile`.

The header key ``fullconv`` is a JSON object: ``format``, ``kind`` ("classifier"), ``net`` (`fullconv.nets.wiring`),
``input_size``, ``channels``, ``names`` (of the classes), ``inputs`` (InputOptions or null), ``conformance`` and
``channels_last`` (the weights that are laid out so, on which the order of sums depends).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fullconv.errors import FullconvError, GeometryError, ModelFileError, OptionError
from fullconv.nets.dense_classifier import Conformance, DenseClassifier
from fullconv.nets.layer_table import Rule, shown, within
from fullconv.nets.modules import first_weight
from fullconv.nets.normalise import Normalise
from fullconv.nets.options import InputOptions
from fullconv.nets.wiring import from_json, to_json
from fullconv.weights.modelfile import FORMAT, brief, check_kind, read_header, read_tensors, write_file

KIND = "classifier"

HEADER = ("format", "kind", "net", "input_size", "channels", "names", "inputs", "conformance", "channels_last")

MAX_CLASSES = 1 << 16

MAX_NAME = 256
"""Characters of a class's name."""

MAX_NUMBERS = 1 << 28
"""Of one value inside a net, at its input size: 1 GiB in float32."""

MAX_PARTS = 1024
"""Into which one step may split a tensor."""

MAX_TENSORS = 100_000
"""Values inside a net; each costs a kilobyte to trace."""

MAX_RANK = 16
"""Dimensions of a value."""

SIDE, CHANNELS, DIFFERENCE = within(1, 1 << 16), within(1, 1 << 16), within(0, 1e300, whole=False)


def write_classifier(path: str | Path, dense: DenseClassifier) -> None:
    """Write a classifier file, atomically.

    Raises:
        OptionError: a layer, an argument or a class name that no file can hold, with what to do.
        GeometryError: a net that is resized too far.
    """
    inputs, conformance = dense.inputs, dense.conformance
    header = {
        "format": FORMAT,
        "kind": KIND,
        "net": to_json(dense.net),
        "input_size": list(dense.input_size),
        "channels": dense.channels,
        "names": list(dense.names),
        "inputs": None if inputs is None else {**inputs.to_json(), "mean": list(inputs.mean), "std": list(inputs.std)},
        "conformance": None if conformance is None else asdict(conformance),
        "channels_last": [name for name, weight in dense.state_dict().items() if _channels_last(weight)],
    }
    _assembled(header)  # what cannot be read again is not written
    write_file(path, json.dumps(header, allow_nan=False), dense)


def read_classifier(path: str | Path) -> DenseClassifier:
    """Read a classifier file; in evaluation mode, on the CPU, with weights of the width that they were stored in.

    Raises:
        ModelFileError: missing, damaged, no classifier, of a later format, or with weights that do not fit.
    """
    path = Path(path)
    header = read_header(path)
    check_kind(path, header, KIND)
    try:
        dense = _assembled(header)
        expected = {**dense.state_dict(), **_laid_out(dense, header["channels_last"])}
        dense.load_state_dict(read_tensors(path, expected, as_stored=True), assign=True)
    except ModelFileError:
        raise
    except Exception as error:  # a net of nonsense fails in as many ways as torch has functions
        text = str(error) if isinstance(error, FullconvError) else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{path}: not a usable fullconv classifier: {brief(text)}") from error
    if dense.inputs is not None:  # it was made on the meta device
        dense.normalise = Normalise(dense.inputs).to(first_weight(dense.net).dtype)
    return dense.eval()


def _assembled(header: Mapping[str, Any]) -> DenseClassifier:
    """The classifier on the meta device, without weights; the header may come from anyone."""
    if odd := sorted(set(header) ^ set(HEADER)):
        raise OptionError(f"the header has or lacks {shown(odd[0])}; expected {', '.join(HEADER)}")
    size, names = header["input_size"], header["names"]
    if not isinstance(size, list) or len(size) != 2:
        raise OptionError(f"input size {shown(size)}; expected [height, width]")
    for what, value, rule in (
        ("height", size[0], SIDE),
        ("width", size[1], SIDE),
        ("channels", header["channels"], CHANNELS),
    ):
        _check(what, value, rule)
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_CLASSES:
        found = len(names) if isinstance(names, list) else type(names).__name__
        raise OptionError(f"class names: {found}; expected a list of 1 to {MAX_CLASSES}")
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise OptionError(f"class name {shown(name)}; expected up to {MAX_NAME} printable characters: rename it")
    with torch.device("meta"):  # shapes alone: nothing is allocated before the file is found to fit
        net = from_json(header["net"]).eval()
    inputs = header["inputs"] if header["inputs"] is None else _inputs(header["inputs"])
    with _Frugal():
        dense = DenseClassifier(net, (size[0], size[1]), header["channels"], names, inputs)
    if header["conformance"] is not None:
        dense.conformance = _conformance(header["conformance"])
    return dense


def _inputs(value: Any) -> InputOptions:
    expected = {"mean", "std", "order", "log"}
    if not isinstance(value, dict) or not expected <= set(value) <= {f.name for f in fields(InputOptions)}:
        raise OptionError(f"inputs are {shown(value)}; expected null, or {', '.join(sorted(expected))}")
    return InputOptions(**value)


def _conformance(value: Any) -> Conformance:
    expected = {"logits", "cells", "windows"}
    if not isinstance(value, dict) or set(value) != expected or value["windows"] not in ("image", "map"):
        raise OptionError(f"the conformance is {shown(value)}; expected null, or logits, cells and windows")
    _check("conformance of logits", value["logits"], DIFFERENCE)
    if value["cells"] is not None:
        _check("conformance of cells", value["cells"], DIFFERENCE)
    return Conformance(**value)


def _channels_last(weight: Tensor) -> bool:
    """Whether a weight is, and knows it: of 1x1 kernels only the strides tell."""
    plain = torch.empty(weight.shape, device="meta").stride()
    return weight.ndim == 4 and weight.stride() != plain and weight.is_contiguous(memory_format=torch.channels_last)


def _laid_out(dense: DenseClassifier, names: Any) -> dict[str, Tensor]:
    weights = dense.state_dict()
    if not isinstance(names, list) or not set(names) <= {key for key, weight in weights.items() if weight.ndim == 4}:
        raise OptionError(f"channels_last is {shown(names)}; expected names of weights of four dimensions")
    return {name: weights[name].to(memory_format=torch.channels_last) for name in names}


def _check(what: str, value: Any, rule: Rule) -> None:
    if not rule.fits(value):
        raise OptionError(f"{what} {shown(value)}; expected {rule.text}")


class _Frugal(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Ends a run on shapes alone where it makes values out of all proportion.

    Raises:
        GeometryError: a value, or their number, beyond the bounds of this file.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func.overloadpacket in (torch.ops.aten.split, torch.ops.aten.unbind):  # bounded before they are made
            named = {**dict(zip((each.name for each in func._schema.arguments), args, strict=False)), **options}
            parts = named["self"].shape[named.get("dim", 0)] / max(1, named.get("split_size", 1))
            if parts > MAX_PARTS:
                raise GeometryError(f"a tensor is split into {parts:.0f}; expected up to {MAX_PARTS}")
        value = func(*args, **options)
        found = [each for each in tree_leaves(value) if isinstance(each, Tensor)]
        self.made += len(found)
        largest = max((tensor.numel() for tensor in found), default=0)
        rank = max((tensor.ndim for tensor in found), default=0)
        if largest > MAX_NUMBERS or rank > MAX_RANK or self.made > MAX_TENSORS:
            raise GeometryError(
                f"value {self.made} within the net has {largest} numbers in {rank} dimensions, at its input size; "
                f"expected up to {MAX_TENSORS} values of {MAX_NUMBERS} in {MAX_RANK}: choose a smaller input size"
            )
        return value
