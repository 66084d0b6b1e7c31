"""Caffe's ``.caffemodel`` files: which layers they hold, and where the weights lie, found without reading them.

A file is one protobuf message ``NetParameter`` (reference 9.1) of up to half a gigabyte: layers in the order in which
they run, their blobs as repeated floats. Only its structure is walked; weights are skipped until `Blob.read`. Files
come from anywhere: each length is checked against the message around it, and all that could grow has a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fullconv.errors import ModelFileError, printable
from fullconv.weights.protobuf import (
    CHUNK,
    EIGHT_BYTES,
    FOUR_BYTES,
    LENGTH,
    VARINT,
    WIDTH,
    Field,
    Scan,
    damaged,
    signed,
    unreadable,
)

MAX_LAYERS: Final = 10_000

MAX_BLOBS: Final = 100
"""Of a layer; Caffe's own have at most a few."""

MAX_DIMENSIONS: Final = 32
"""Of a blob, as in Caffe (kMaxBlobAxes)."""

MAX_VALUES: Final = 2**31 - 1
"""Of a blob, as in Caffe."""

HDF5: Final = b"\x89HDF\r\n\x1a\n"

CONTROL: Final = bytes(sorted({*range(32), 127} - set(b"\t\n\f\r")))
"""Bytes that no text holds; every file with a layer has one, its tag's 0x12 or 0x06, near its start."""

V1_TYPES: Final = {
    0: "", 1: "Accuracy", 2: "BNLL", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 7: "EuclideanLoss",
    8: "Flatten", 9: "HDF5Data", 10: "HDF5Output", 11: "Im2col", 12: "ImageData", 13: "InfogainLoss",
    14: "InnerProduct", 15: "LRN", 16: "MultinomialLogisticLoss", 17: "Pooling", 18: "ReLU", 19: "Sigmoid",
    20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 23: "TanH", 24: "WindowData", 25: "Eltwise", 26: "Power",
    27: "SigmoidCrossEntropyLoss", 28: "HingeLoss", 29: "MemoryData", 30: "ArgMax", 31: "Threshold",
    32: "DummyData", 33: "Slice", 34: "MVN", 35: "AbsVal", 36: "Silence", 37: "ContrastiveLoss", 38: "Exp",
    39: "Deconvolution",
}  # fmt: skip
"""The types that V1 layers give as numbers, by the names that replaced them."""


class Piece(NamedTuple):
    """Some `size` values, one every `step` bytes: packed ones side by side, others with a tag between them."""

    start: int
    size: int
    step: int


@dataclass(frozen=True)
class Blob:
    """Where the values of one weight or bias lie.

    Attributes:
        path: of the file.
        shape: as stored; legacy shapes have four dimensions, such as (1, 1, 1, 64) for a bias.
        width: bytes of a value, little-endian: 4 for floats, 8 for doubles.
        pieces: their values, in this order, are the blob's, row-major.
    """

    path: Path
    shape: tuple[int, ...]
    width: int
    pieces: tuple[Piece, ...]

    def read(self) -> NDArray[np.float32]:
        """The values, fresh and writable, of `shape`; doubles beyond float32's range become infinite.

        Raises:
            ModelFileError: the file is gone, or was cut since it was scanned.
        """
        values = np.empty(math.prod(self.shape), "<f4")
        done = 0
        try:
            with self.path.open("rb") as file:
                for piece in self.pieces:
                    self._read_piece(file, piece, values[done : done + piece.size])
                    done += piece.size
        except OSError as error:
            raise unreadable(self.path, error) from error
        return values.astype(np.float32, copy=False).reshape(self.shape)

    def _read_piece(self, file: BufferedReader, piece: Piece, values: NDArray[np.float32]) -> None:
        if piece.step == values.itemsize:  # packed floats: they lie in the file as in memory
            self._fill(file, piece.start, values.view(np.uint8))
            return
        for first in range(0, piece.size, CHUNK):
            count = min(CHUNK, piece.size - first)
            rows = np.empty((count, piece.step), np.uint8)
            after_last = piece.step - self.width  # no tag follows the last value
            self._fill(file, piece.start + first * piece.step, rows.reshape(-1)[: rows.size - after_last])
            chunk = np.ascontiguousarray(rows[:, : self.width]).view(f"<f{self.width}")[:, 0]
            with np.errstate(over="ignore", invalid="ignore"):
                values[first : first + count] = chunk

    def _fill(self, file: BufferedReader, start: int, out: NDArray[np.uint8]) -> None:
        file.seek(start)
        got = file.readinto(out.data)
        if got < out.size:
            raise damaged(self.path, start + got, "the file ends", "the values found there before")


@dataclass(frozen=True)
class CaffeLayer:
    """One layer: its name, its type such as ``Convolution`` (``V1:77`` for an unknown number) and its weights.

    A fully connected layer with `transpose` holds its weight as (I, O).
    """

    name: str
    type: str
    blobs: tuple[Blob, ...]
    transpose: bool = False


@dataclass(frozen=True)
class CaffeModel:
    """What a file holds: all layers in file order, those without blobs too."""

    path: Path
    name: str
    layers: tuple[CaffeLayer, ...]


def read_caffemodel(path: str | Path) -> CaffeModel:
    """Scan a file's structure, in V1 or new format; its weights are read blob by blob, with `Blob.read`.

    Raises:
        ModelFileError: missing, damaged, of another or an older format, or without weights.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise ModelFileError(f"{printable(path)} {what}; expected a .caffemodel file, such as Caffe's snapshots")
        with path.open("rb") as file:
            _refuse_foreign(path, file.read(2048))
            return _model(Scan(path, file))
    except OSError as error:
        raise unreadable(path, error) from error


def _model(scan: Scan) -> CaffeModel:
    """NetParameter: name 1, V1 layers 2, layers 100."""
    name, layers = "", []
    weighted: set[str] = set()
    for field in scan.fields(0, scan.size):
        if field.number == 1:
            name = scan.text(field, "the net's name")
        elif field.number in {2, 100}:
            layer = _layer(scan, field)
            layers.append(layer)
            if len(layers) > MAX_LAYERS:
                raise scan.damaged(field.at, f"more than {MAX_LAYERS} layers", "a net of fewer")
            if layer.blobs and layer.name in weighted:
                shown = repr(layer.name[:80])
                raise scan.damaged(field.at, f"a second layer {shown} with weights", "names that differ")
            if layer.blobs:
                weighted.add(layer.name)
    if not weighted:
        raise ModelFileError(
            f"{printable(scan.path)} holds no weights (layers: {len(layers)}); "
            "expected a trained Caffe model: download it again or save it from Caffe"
        )
    return CaffeModel(scan.path, name, tuple(layers))


def _layer(scan: Scan, field: Field) -> CaffeLayer:
    """LayerParameter: name 1, type 2, blobs 7, inner product 117. V1: V0 layer 1, name 4, type 5, blobs 6, 17."""
    scan.expect(field, LENGTH, "a layer")
    v1 = field.number == 2
    name_number, type_number, blobs_number = (4, 5, 6) if v1 else (1, 2, 7)
    name = kind = ""
    transpose = False
    blobs: list[Blob] = []
    for inner in scan.fields(field.start, field.stop):
        if inner.number == name_number:
            name = scan.text(inner, "a layer's name")
        elif inner.number == type_number and v1:
            code = scan.int32(inner)
            kind = V1_TYPES.get(code, f"V1:{code}")
        elif inner.number == type_number:
            kind = scan.text(inner, "a layer's type")
        elif inner.number == blobs_number:
            blobs.append(_blob(scan, inner))
            if len(blobs) > MAX_BLOBS:
                raise scan.damaged(inner.at, f"more than {MAX_BLOBS} blobs in a layer", "a layer of fewer")
        elif inner.number == (17 if v1 else 117) and inner.wire == LENGTH:
            transpose = any(each.number == 6 and each.value for each in scan.fields(inner.start, inner.stop))
        elif inner.number == 1 and v1:
            raise ModelFileError(
                f"{printable(scan.path)} is of Caffe's oldest format (a V0 layer at byte {inner.at}); "
                "expected V1 or newer: convert it with Caffe's upgrade_net_proto_binary"
            )
    return CaffeLayer(name, kind, tuple(blobs), transpose)


def _blob(scan: Scan, field: Field) -> Blob:
    """BlobProto: legacy shape 1 to 4, data 5, shape 7, double_data 8; diff 6 and double_diff 9 are gradients."""
    scan.expect(field, LENGTH, "a blob")
    legacy: dict[int, int] = {}
    dims: list[int] = []
    floats: list[Piece] = []
    doubles: list[Piece] = []
    for inner in scan.fields(field.start, field.stop):
        if inner.number <= 4:
            legacy[inner.number] = scan.int32(inner)
        elif inner.number == 5:
            floats += _values(scan, inner, FOUR_BYTES)
        elif inner.number == 7:
            dims += _dims(scan, inner, MAX_DIMENSIONS - len(dims))
        elif inner.number == 8:
            doubles += _values(scan, inner, EIGHT_BYTES)
    # As in Caffe: a legacy shape hides the new one, and doubles hide floats.
    shape = tuple(legacy.get(number, 0) for number in (1, 2, 3, 4)) if legacy else tuple(dims)
    pieces, width = (doubles, 8) if doubles else (floats, 4)
    if min(shape, default=0) < 0 or math.prod(max(size, 1) for size in shape) > MAX_VALUES:
        raise scan.damaged(
            field.at, f"a blob of shape {str(list(shape))[:100]}", f"sizes from 0, with a product up to {MAX_VALUES}"
        )
    stored = sum(piece.size for piece in pieces)
    if stored != math.prod(shape):
        found = f"a blob of shape {str(list(shape))[:100]} with {stored} values"
        raise scan.damaged(field.at, found, f"{math.prod(shape)} values")
    return Blob(scan.path, shape, width, tuple(pieces))


def _values(scan: Scan, field: Field, wire: int) -> list[Piece]:
    """Where the values of a repeated float or double field lie; one field may come in many pieces."""
    width = WIDTH[wire]
    if field.wire == wire:
        return [Piece(field.start, field.size, 1 + width)]
    scan.expect(field, LENGTH, "values")
    count, rest = divmod(field.stop - field.start, width)
    if rest:
        raise scan.damaged(field.at, f"values of {field.stop - field.start} bytes", f"a multiple of {width}")
    return [Piece(field.start, count, width)] if count else []


def _dims(scan: Scan, field: Field, limit: int) -> list[int]:
    """BlobShape: dim 1, packed or one by one."""
    scan.expect(field, LENGTH, "a shape")
    dims: list[int] = []
    for inner in scan.fields(field.start, field.stop):
        if inner.number != 1:
            continue
        if inner.wire == VARINT:
            dims.append(signed(inner.value, 64))
        else:
            scan.expect(inner, LENGTH, "sizes")
            at = inner.start
            while at < inner.stop and len(dims) <= limit:
                value, at = scan.varint(at, inner.stop, 10)
                dims.append(signed(value, 64))
        if len(dims) > limit:
            raise scan.damaged(inner.at, f"more than {MAX_DIMENSIONS} dimensions", "a blob of fewer")
    return dims


def _refuse_foreign(path: Path, head: bytes) -> None:
    """Refuse what is known to be no protobuf by how it begins."""
    shown = printable(path)
    if not head:
        raise ModelFileError(f"{shown} is empty; expected a .caffemodel: copy or download it again")
    if head.startswith(HDF5):
        raise ModelFileError(
            f"{shown} is HDF5 (.caffemodel.h5); expected the binary .caffemodel: write one with snapshot_format "
            "BINARYPROTO or, in Python, caffe.Net(PROTOTXT, H5, caffe.TEST).save(CAFFEMODEL)"
        )
    if len(head.translate(None, CONTROL)) == len(head):
        begins = " ".join(head.decode("utf-8", "replace").split())[:40]
        raise ModelFileError(
            f"{shown} is text ({begins!r}); expected the binary .caffemodel with the weights: "
            "a prototxt holds only the net's layout, a web page or pointer means that a download failed"
        )
