"""Caffe models for tests, written by hand in protobuf's wire format and in the order in which Caffe writes its fields.

It knows nothing of the reader: numbers and tags are those of reference 9.1 and of caffe.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Layers = Sequence[tuple[str, str, Sequence[np.ndarray]]]
"""Of every layer: name, type such as ``Convolution`` (or ``V1:77``, in a V1 file) and float32 blobs."""

V1_NUMBERS = {
    "Concat": 3, "Convolution": 4, "Data": 5, "Dropout": 6, "Flatten": 8, "InnerProduct": 14, "LRN": 15, "Pooling": 17,
    "ReLU": 18, "Softmax": 20, "SoftmaxWithLoss": 21, "Split": 22, "Eltwise": 25, "Silence": 36, "Deconvolution": 39,
}  # fmt: skip

VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""

CHUNK = 1 << 20
"""Values written at a time."""


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers are of 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def number(field: int, value: int) -> bytes:
    return tag(field, VARINT) + varint(value)


def message(field: int, content: bytes) -> bytes:
    """A string or an embedded message."""
    return tag(field, LENGTH) + varint(len(content)) + content


@dataclass(frozen=True)
class Values:
    """A repeated float or double field, turned into bytes when it is written."""

    field: int
    array: np.ndarray
    packed: bool
    double: bool

    @property
    def width(self) -> int:
        return 8 if self.double else 4

    def __len__(self) -> int:
        """Bytes in the file."""
        if not self.array.size:
            return 0
        if not self.packed:
            return self.array.size * (1 + self.width)
        body = self.array.size * self.width
        return 1 + len(varint(body)) + body

    def chunks(self) -> Iterator[bytes]:
        flat = np.ascontiguousarray(self.array).reshape(-1)
        if self.packed and flat.size:
            yield tag(self.field, LENGTH) + varint(flat.size * self.width)
        for start in range(0, flat.size, CHUNK):
            values = flat[start : start + CHUNK].astype("<f8" if self.double else "<f4")
            if self.packed:
                yield values.tobytes()
            else:
                rows = np.empty((values.size, 1 + self.width), np.uint8)
                rows[:, 0] = tag(self.field, EIGHT_BYTES if self.double else FOUR_BYTES)[0]
                rows[:, 1:] = values.view(np.uint8).reshape(values.size, self.width)
                yield rows.tobytes()


Pieces = list[bytes | Values]


def _nested(field: int, pieces: Pieces) -> Pieces:
    return [tag(field, LENGTH) + varint(sum(map(len, pieces))), *pieces]


def _blob(array: np.ndarray, legacy: bool, packed: bool, double: bool, diffs: bool) -> Pieces:
    legacy_shape, shape = b"", b""
    if legacy:
        if array.ndim > 4:
            raise ValueError(f"{array.shape} has no legacy shape")
        dims = (1,) * (4 - array.ndim) + array.shape
        legacy_shape = b"".join(number(1 + axis, size) for axis, size in enumerate(dims))
    elif packed:
        shape = message(7, message(1, b"".join(map(varint, array.shape))) if array.ndim else b"")
    else:
        shape = message(7, b"".join(number(1, size) for size in array.shape))
    data = Values(8 if double else 5, array, packed, double)
    diff = [Values(9 if double else 6, array, packed, double)] if diffs else []
    return [legacy_shape, shape, data, *diff] if double else [legacy_shape, data, *diff, shape]


def _pieces(layers: Layers, name: str, v1: bool, *blob_form: bool) -> Iterator[Pieces]:
    """The file's fields, one at a time."""
    yield [message(1, name.encode())]
    for layer, kind, blobs in layers:
        pieces: Pieces
        if v1:
            code = int(kind.removeprefix("V1:")) if kind.startswith("V1:") else V1_NUMBERS[kind]
            pieces = [message(4, layer.encode()), number(5, code)]
        else:
            pieces = [message(1, layer.encode()), message(2, kind.encode())]
        for array in blobs:
            pieces += _nested(6 if v1 else 7, _blob(array, *blob_form))
        yield _nested(2 if v1 else 100, pieces)


def write_caffemodel(
    path: Path,
    layers: Layers,
    *,
    name: str = "net",
    v1: bool = False,
    legacy_shapes: bool = False,
    packed: bool = True,
    double: bool = False,
    diffs: bool = False,
) -> None:
    """Write a model, a megabyte of values at a time.

    Args:
        path: of the file, overwritten.
        layers: in file order.
        name: of the net.
        v1: V1LayerParameter with numbered types (field 2) instead of LayerParameter (field 100).
        legacy_shapes: num, channels, height and width, right-aligned, instead of a BlobShape.
        packed: one length for all values of a field; else one tag for each, in shapes too.
        double: values as double_data.
        diffs: the values once more, as the gradients of a snapshot.
    """
    with path.open("wb") as file:
        for pieces in _pieces(layers, name, v1, legacy_shapes, packed, double, diffs):
            for piece in pieces:
                file.writelines(piece.chunks() if isinstance(piece, Values) else [piece])


def encode(
    layers: Layers,
    *,
    name: str = "net",
    v1: bool = False,
    legacy_shapes: bool = False,
    packed: bool = True,
    double: bool = False,
    diffs: bool = False,
) -> bytes:
    """What `write_caffemodel` writes, for small models."""
    return b"".join(
        b"".join(piece.chunks()) if isinstance(piece, Values) else piece
        for pieces in _pieces(layers, name, v1, legacy_shapes, packed, double, diffs)
        for piece in pieces
    )
