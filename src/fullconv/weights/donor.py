"""Donor: the weights of a file, of whatever kind, by the names that they have in our nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fullconv.errors import ModelFileError, OptionError, printable
from fullconv.labels import VOID, LabelSet
from fullconv.nets import FCN, InputOptions
from fullconv.nets.trunks import Trunk
from fullconv.nets.upsample import Upsampling, dense_bilinear
from fullconv.weights.caffe import Blob, CaffeLayer, CaffeModel, read_caffemodel
from fullconv.weights.caffe_names import CaffeNames, caffe_names
from fullconv.weights.modelfile import read_model
from fullconv.weights.torchvision import read_torchvision

BILINEAR_TOLERANCE = 1e-6
"""Largest difference of a stored deconvolution to the bilinear one that still counts as rounding."""

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Given:
    """One weight of a donor.

    Attributes:
        tensor: in the shape that our nets hold it in.
        name: in the file.
        shape: in the file.
    """

    tensor: Tensor
    name: str
    shape: Shape


@dataclass(frozen=True)
class Checked:
    """A layer of a file that says what we compute: found to say the same, and not taken over.

    Attributes:
        name, shape: in the file.
        module: of the net.
        how: what it was found to be.
    """

    name: str
    shape: Shape
    module: str
    how: str


@dataclass(frozen=True, eq=False)
class Donor:
    """What a file gives.

    Attributes:
        path: of the file.
        kind: "fullconv model", "Caffe model" or "torchvision classifier".
        trunk: a name of `TRUNKS`.
        weights: by state key of an `FCN`, "trunks.image.conv1_1.weight"; class counts may differ from the target's.
        inputs: normalisations that the weights expect, by input name; empty where the file does not say.
        labels: class names by task, where the file says.
        scales: factors on the skips, by stride (see `NetOptions.scales`).
        checked: upsampling that is bilinear, and factors on skips.
        unused: what else the file holds, a line each.
    """

    path: Path
    kind: str
    trunk: str
    weights: Mapping[str, Given]
    inputs: Mapping[str, InputOptions] = field(default_factory=dict)
    labels: Mapping[str, LabelSet] = field(default_factory=dict)
    scales: Mapping[int, float] = field(default_factory=dict)
    checked: tuple[Checked, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def trunks(self) -> list[str]:
        """Names of its trunks."""
        return list(dict.fromkeys(key.split(".")[1] for key in self.weights if key.startswith("trunks.")))


def read_donor(path: str | Path, target: FCN) -> Donor:
    """The weights of a model file, .caffemodel or torchvision file that `target` can take; target may be on "meta".

    Raises:
        ModelFileError: the file is damaged, or its weights do not have the shapes of the target's trunk.
        OptionError: a file of another kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise OptionError(
            f"{printable(path)}: weights are read from {', '.join(READERS)} files; rename it to what it is"
        )
    return READERS[suffix](path, target)


def _model(path: Path, _: FCN) -> Donor:
    file = read_model(path)
    options = file.net.options
    weights = {key: Given(value, key, tuple(value.shape)) for key, value in file.net.state_dict().items()}
    inputs = dict(options.inputs)
    return Donor(path, "fullconv model", options.trunk, weights, inputs, file.labels, options.scales)


def _torchvision(path: Path, target: FCN) -> Donor:
    file = read_torchvision(path, target.options.trunk, target.options.width)
    weights = {
        f"trunks.image.{key}": Given(tensor, file.sources[key], file.shapes[key])
        for key, tensor in file.weights.items()
    }
    unused = tuple(map(printable, file.dropped))
    return Donor(path, "torchvision classifier", target.options.trunk, weights, {"image": file.inputs}, unused=unused)


def _caffe(path: Path, target: FCN) -> Donor:
    model = read_caffemodel(path)
    _check_order(model, target.options.trunk)
    stored = {layer.name: layer for layer in model.layers if layer.blobs}
    names = caffe_names(target)
    if len(target.options.inputs) > 1:  # the file may be a net of one input, such as a classifier
        image = next((i for i in target.options.inputs.values() if i.channels == 3), InputOptions((0,) * 3, (1,) * 3))
        with torch.device("meta"):
            single = FCN(replace(target.options, inputs={"image": image}, fusion="early"))
        if _covered(caffe_names(single), stored) > _covered(names, stored):
            target, names = single, caffe_names(single)
    if not _covered(names, stored):
        known = printable(", ".join(name[:40] for name in list(stored)[:5]))
        raise ModelFileError(
            f"{printable(path)}: none of its layers is one of {target.options.trunk} (it has {known}, ...); "
            "choose the net that it was made for"
        )
    reader = _CaffeReader(path, target, stored)
    reader.scales_of(names)
    for layer, module in names.layers.items():
        reader.convolution(layer, module)
    for layer, module in names.upsampling.items():
        reader.deconvolution(layer, module)
    left = [layer for name, layer in stored.items() if name not in reader.used]
    unused = tuple(printable(f"{layer.name} ({layer.type})") for layer in left)
    return Donor(
        path,
        "Caffe model",
        target.options.trunk,
        reader.weights,
        scales=reader.scales,
        checked=tuple(reader.checked),
        unused=unused,
    )


READERS: dict[str, Callable[[Path, FCN], Donor]] = {
    ".safetensors": _model,
    ".caffemodel": _caffe,
    ".pth": _torchvision,
    ".pt": _torchvision,
}


def _covered(names: CaffeNames, stored: Mapping[str, CaffeLayer]) -> int:
    return sum(layer in stored for layer, module in names.layers.items() if module.startswith("trunks."))


def _check_order(model: CaffeModel, trunk: str) -> None:
    """CaffeNet and BVLC AlexNet have the same names and shapes; the order of their layers tells them apart."""
    order = [layer.name for layer in model.layers if layer.name in ("pool1", "norm1")]
    if trunk not in ("alexnet", "alexnet-bvlc") or set(order) != {"pool1", "norm1"}:
        return
    found = "alexnet" if order[0] == "pool1" else "alexnet-bvlc"
    if found != trunk:
        raise ModelFileError(
            f"{printable(model.path)} has {order[0]} before {order[1]}, which is the trunk {found!r}, not {trunk!r}; "
            f"choose a net such as fcn32s-{found}"
        )


class _CaffeReader:
    """Takes layers of a Caffe model, one after the other; each blob is read into its own memory once."""

    def __init__(self, path: Path, target: FCN, stored: Mapping[str, CaffeLayer]) -> None:
        self.path, self.target, self.stored = path, target, stored
        self.wanted = {key: tuple(value.shape) for key, value in target.state_dict().items()}
        self.weights: dict[str, Given] = {}
        self.scales: dict[int, float] = {}
        self.vectors: dict[int, Tensor] = {}
        self.used: set[str] = set()
        self.checked: list[Checked] = []

    def scales_of(self, names: CaffeNames) -> None:
        """Fixed factors of an at-once net; where a channel has its own, they are multiplied into the score weights."""
        for layer, stride in names.scales.items():
            if layer in self.stored:
                (blob,) = self._blobs(layer, 1)
                self._check(blob, (cast(Trunk, next(iter(self.target.trunks.values()))).channels(stride),), layer)
                vector = self._read(blob, layer).flatten()
                if torch.all(vector == vector[0]):
                    # The number that was meant: 0.01, not the float32 next to it.
                    self.scales[stride] = float(np.format_float_scientific(np.float32(vector[0])))
                    how = f"factor {self.scales[stride]:g} on every channel"
                else:
                    self.vectors[stride] = vector
                    how = "a factor a channel, multiplied into the score weights"
                self.checked.append(Checked(layer, blob.shape, f"scale {stride}s", how))

    def convolution(self, layer: str, module: str) -> None:
        """Weight and bias of a convolution, or of a fully connected layer as one (reference 2.3)."""
        if layer not in self.stored:
            return
        blobs = self._blobs(layer, 2)
        classes = _classes(blobs[0], self.wanted[f"{module}.weight"])
        for blob, kind in zip(blobs, ("weight", "bias"), strict=True):
            key = f"{module}.{kind}"
            shape = self.wanted[key]
            if module.startswith("heads."):  # other class counts are the transplant's business
                shape = (classes, *shape[1:])
            self._check(blob, shape, f"{layer} {kind}")
            tensor = self._read(blob, layer).reshape(shape)
            stride = module.rpartition(".")[2]
            if kind == "weight" and stride.isdecimal() and int(stride) in self.vectors:
                tensor *= self.vectors[int(stride)][:, None, None]
            self.weights[key] = Given(tensor, layer, blob.shape)

    def deconvolution(self, layer: str, module: str) -> None:
        """Bilinear weights are computed, not kept; others are kept where the net can hold them."""
        if layer not in self.stored:
            return
        (blob,) = self._blobs(layer, 1)
        kernel = cast(Upsampling, self.target.get_submodule(module)).window.kernel
        classes = blob.shape[0] if blob.shape else 0
        dense = (classes, classes, kernel, kernel)
        if not 1 <= classes <= VOID or blob.shape not in (dense, (classes, 1, kernel, kernel)):
            raise ModelFileError(
                f"{printable(self.path)}: {layer} is {_times(blob.shape)}; the net's is KxKx{kernel}x{kernel} with up "
                f"to {VOID} classes K: choose the net that the file was made for"
            )
        weight = self._read(blob, layer)
        bilinear = dense_bilinear(classes if blob.shape == dense else 1, kernel)
        difference = float((weight - bilinear).abs().max())
        if difference <= BILINEAR_TOLERANCE:
            self.checked.append(Checked(layer, blob.shape, module, "bilinear, as computed"))
            return
        key = f"{module}.weight"
        if key not in self.wanted:
            raise ModelFileError(
                f"{printable(self.path)}: {layer} differs from bilinear upsampling by {difference:.3g}, and this net's "
                "is fixed; add --upsampling learned-all"
            )
        if blob.shape != dense:  # one filter a channel
            weight = torch.diag_embed(weight[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
        self.weights[key] = Given(weight.contiguous(), layer, blob.shape)

    def _blobs(self, layer: str, count: int) -> tuple[Blob, ...]:
        blobs = self.stored[layer].blobs
        if len(blobs) != count:
            raise ModelFileError(
                f"{printable(self.path)}: {layer} has {len(blobs)} blobs; expected {count}: "
                "choose the net that the file was made for"
            )
        self.used.add(layer)
        return blobs

    def _check(self, blob: Blob, shape: Shape, what: str) -> None:
        if not _fits(blob.shape, shape):
            raise ModelFileError(
                f"{printable(self.path)}: {what} is {_times(blob.shape)}; the net has {_times(shape)}: "
                "choose the net that the file was made for"
            )

    def _read(self, blob: Blob, layer: str) -> Tensor:
        tensor = torch.from_numpy(blob.read())
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise ModelFileError(f"{printable(self.path)}: {layer} holds values that are not finite; copy it again")
        return tensor


def _classes(weight: Blob, shape: Shape) -> int:
    """K of a score layer's weight (K, C, 1, 1) as stored; the net's own where it reads another C."""
    count, rest = divmod(prod(weight.shape), prod(shape[1:]))
    return count if count and not rest else shape[0]


def _fits(stored: Shape, wanted: Shape) -> bool:
    """Equal but for leading ones; or a fully connected layer, (O, C h w) in that order, for a convolution."""
    flat = (wanted[0], prod(wanted[1:]))
    return _stripped(stored) in {_stripped(wanted), *({_stripped(flat)} if len(wanted) == 4 else ())}


def _stripped(shape: Shape) -> Shape:
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
