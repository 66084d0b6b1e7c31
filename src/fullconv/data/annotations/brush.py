"""Label Studio's brush: run lengths of an RGBA picture, packed bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullconv.data.annotations.regions import Covered, crop
from fullconv.errors import DataError


@dataclass(frozen=True)
class Brush:
    """A stream of bits, the highest of each byte first: the count of values (32 bits), their width less one (5 bits),
    four widths of run lengths less one (4 bits each); then runs: a bit that says whether one value is repeated, which
    of the widths (2 bits), the length less one, and the value or values. The values are those of RGBA pixels along
    the rows; where alpha is not 0, the brush has been.

    Source: the package rle-pack of thi.ng/umbrella, which Label Studio uses.

    Attributes:
        data: the stream.
        size: (H, W) of the picture.
    """

    data: bytes
    size: tuple[int, int]

    def cover(self, size: tuple[int, int]) -> tuple[int, int, Covered]:
        if self.size != size:
            raise DataError(
                f"its brush is for {self.size[0]} x {self.size[1]} (H x W), the image is {size[0]} x {size[1]}"
            )
        values = _unpack(self.data, 4 * size[0] * size[1])
        return crop(values.reshape(*size, 4)[:, :, 3] > 0)


def _unpack(data: bytes, count: int) -> NDArray[np.uint8]:
    """The `count` values of 8 bits that a stream must hold."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    position = 0

    def number(width: int) -> int:
        nonlocal position
        position += width
        if position > len(bits):
            raise DataError("its brush is cut short")
        return int("".join(map(str, bits[position - width : position].tolist())), 2)

    found, word = number(32), number(5) + 1
    if found != count or word != 8:
        raise DataError(f"its brush holds {found} values of {word} bits; {count} of 8 bits fill its picture")
    widths = [number(4) + 1 for _ in range(4)]
    values = np.empty(count, np.uint8)
    done = 0
    while done < count:
        repeated = number(1)
        length = number(widths[number(2)]) + 1
        if done + length > count:
            raise DataError("its brush runs beyond its picture")
        if repeated:
            values[done : done + length] = number(8)
        else:
            own = bits[position : position + 8 * length]
            if len(own) < 8 * length:
                raise DataError("its brush is cut short")
            values[done : done + length] = np.packbits(own)
            position += 8 * length
        done += length
    return values
