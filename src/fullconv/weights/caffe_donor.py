"""A Caffe model as a donor: its layers by our names, checked for computing what our nets compute (reference 9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from fullconv.errors import ModelFileError, printable, shape_text
from fullconv.labels import VOID
from fullconv.nets import FCN, InputOptions
from fullconv.nets.trunks import TRUNKS, Trunk
from fullconv.nets.upsample import BILINEAR_TOLERANCE, Upsampling, from_bilinear
from fullconv.weights.caffe import Blob, CaffeLayer, CaffeModel, read_caffemodel
from fullconv.weights.caffe_names import CaffeNames, caffe_names
from fullconv.weights.donor import Checked, Donor, Given, Shape


def read_caffe(path: Path, target: FCN) -> Donor:
    """The layers of a Caffe model that `target` has, or would have with one input.

    Raises:
        ModelFileError: damaged, of another net, or with layers that compute something else.
    """
    model = read_caffemodel(path)
    stored = {layer.name: layer for layer in model.layers if layer.blobs}
    names = caffe_names(target)
    inputs = dict(target.options.inputs)
    if len(inputs) > 1:  # the file may be a net of one input, such as a classifier
        kind = TRUNKS[target.options.trunk]
        image = InputOptions(kind.mean, kind.std, kind.order)
        with torch.device("meta"):
            single = FCN(replace(target.options, inputs={"image": image}, fusion="early"))
        if _covered(caffe_names(single), stored) > _covered(names, stored):
            target, names, inputs = single, caffe_names(single), {"image": image}
    if not _covered(names, stored):
        known = printable(", ".join(name[:40] for name in list(stored)[:5]))
        raise ModelFileError(
            f"{printable(path)}: none of its layers is one of {target.options.trunk} (it has {known}, ...); "
            "choose the net that it was made for"
        )
    reader = _CaffeReader(path, target, stored)
    reader.checked += _order(model, target.options.trunk)
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
        inputs,
        scales=reader.scales,
        checked=tuple(reader.checked),
        unused=unused,
    )


def _covered(names: CaffeNames, stored: Mapping[str, CaffeLayer]) -> int:
    return sum(layer in stored for layer, module in names.layers.items() if module.startswith("trunks."))


def _order(model: CaffeModel, trunk: str) -> list[Checked]:
    """CaffeNet and BVLC AlexNet have the same names and shapes; the order of their layers tells them apart."""
    if trunk not in ("alexnet", "alexnet-bvlc"):
        return []
    order = [layer.name for layer in model.layers if layer.name in ("pool1", "norm1")]
    if set(order) != {"pool1", "norm1"}:
        return [Checked("", (), "norm1", f"the file does not tell alexnet from alexnet-bvlc: {trunk} taken")]
    found = "alexnet" if order[0] == "pool1" else "alexnet-bvlc"
    if found != trunk:
        raise ModelFileError(
            f"{printable(model.path)} has {order[0]} before {order[1]}, which is the trunk {found!r}, not {trunk!r}; "
            f"choose a net such as fcn32s-{found}"
        )
    return [Checked(order[0], (), "norm1", f"{order[0]} comes before {order[1]}")]


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
                (blob,) = self._blobs(layer, 1, "Scale")
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
        blobs = self._blobs(layer, 2, "Convolution", "InnerProduct")
        if self.stored[layer].transpose:
            raise ModelFileError(
                f"{printable(self.path)}: {layer} holds its weight transposed; save it with transpose: false"
            )
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
        (blob,) = self._blobs(layer, 1, "Deconvolution")
        kernel = cast(Upsampling, self.target.get_submodule(module)).window.kernel
        classes = blob.shape[0] if blob.shape else 0
        dense = (classes, classes, kernel, kernel)
        if not 1 <= classes <= VOID or blob.shape not in (dense, (classes, 1, kernel, kernel)):
            raise ModelFileError(
                f"{printable(self.path)}: {layer} is {shape_text(blob.shape)}; the net's is KxKx{kernel}x{kernel} with "
                f"up to {VOID} classes K: choose the net that the file was made for"
            )
        weight = self._read(blob, layer)
        difference = from_bilinear(weight)
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

    def _blobs(self, layer: str, count: int, *types: str) -> tuple[Blob, ...]:
        blobs, found = self.stored[layer].blobs, self.stored[layer].type
        if found and found not in types and not found.startswith("V1:"):  # numbers of a fork's types are not known
            raise ModelFileError(
                f"{printable(self.path)}: {layer} is a layer of type {printable(found)[:40]}; expected "
                f"{' or '.join(types)}: choose the net that the file was made for"
            )
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
                f"{printable(self.path)}: {what} is {shape_text(blob.shape)}; the net has {shape_text(shape)}: "
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
