"""Regions against plain loops, run lengths against independent encoders."""

from __future__ import annotations

import base64
import io
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_api

from fullconv.data.annotations.brush import Brush
from fullconv.data.annotations.regions import (
    Bitmap,
    Covered,
    Ellipse,
    Polygon,
    Region,
    Runs,
    coco_lengths,
    rectangle,
)
from refusals import refusal

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def pasted(region: Region, size: tuple[int, int]) -> Covered:
    top, left, inside = region.cover(size)
    whole = np.zeros(size, np.bool_)
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    assert whole.sum() == inside.sum()
    return whole


def lengths(values: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Run lengths, the first outside."""
    found, inside = [0], False
    for value in values.tolist():
        if value != inside:
            found.append(0)
            inside = value
        found[-1] += 1
    return np.array(found)


def png(array: NDArray[np.uint8] | Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(stream, "PNG", **options)
    return stream.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


# Polygons and ellipses


def test_parts_are_joined_and_rings_of_a_part_are_holes() -> None:
    square, hole = np.array([[0, 0], [4, 0], [4, 4], [0, 4]]), np.array([[1, 1], [3, 1], [3, 3], [1, 3]])
    with_hole = np.ones((4, 4), bool)
    with_hole[1:3, 1:3] = False
    np.testing.assert_array_equal(pasted(Polygon(((square, hole),)), (4, 4)), with_hole)
    np.testing.assert_array_equal(pasted(Polygon(((square,), (hole,))), (4, 4)), np.ones((4, 4), bool))


def test_relative_points_are_image_widths_and_heights() -> None:
    ring = np.array([[0.5, 0.25], [1.0, 0.25], [1.0, 0.75], [0.5, 0.75]])
    found = pasted(Polygon(((ring,),), relative=True), (4, 6))
    np.testing.assert_array_equal(np.argwhere(found), [[1, 3], [1, 4], [1, 5], [2, 3], [2, 4], [2, 5]])


def test_a_region_beyond_the_image_is_cut_off() -> None:
    assert pasted(rectangle(-3, -3, 100, 5), (4, 4)).sum() == 8
    assert not pasted(rectangle(50, 50, 3, 3), (4, 4)).any()
    assert not pasted(Polygon(()), (4, 4)).any()
    assert pasted(Ellipse((2, 2), (1e9, 1e9)), (4, 4)).all()
    assert not pasted(Ellipse((-9, 2), (3, 3)), (4, 4)).any()
    assert not pasted(Ellipse((2, 2), (0, 3)), (4, 4)).any()
    assert not pasted(Ellipse((2, 2), (-1, -3)), (4, 4)).any()


@given(
    st.floats(-2, 12), st.floats(-2, 12), st.floats(0.1, 9), st.floats(0.1, 9), st.floats(-360, 360)
)  # fmt: skip
def test_ellipses_against_a_plain_loop(x: float, y: float, rx: float, ry: float, angle: float) -> None:
    found = pasted(Ellipse((x, y), (rx, ry), angle), (9, 11))
    turn = np.exp(-1j * np.pi * angle / 180)
    for row in range(9):
        for column in range(11):
            own = complex(column + 0.5 - x, row + 0.5 - y) * turn
            radius = (own.real / rx) ** 2 + (own.imag / ry) ** 2
            if abs(radius - 1) > 1e-9:
                assert found[row, column] == (radius < 1)


def test_rectangles_turn_clockwise() -> None:
    """A quarter turn, as the screen shows it: about the centre (3, 3), and about the upper left corner (4, 1)."""
    np.testing.assert_array_equal(np.argwhere(pasted(rectangle(1, 2, 4, 2, 90), (6, 6)))[[0, -1]], [[1, 2], [4, 3]])
    turned = pasted(rectangle(4, 1, 3, 2, 90, about_centre=False), (6, 6))
    np.testing.assert_array_equal(np.argwhere(turned)[[0, -1]], [[1, 2], [3, 3]])
    assert turned.sum() == 6
    leaning = pasted(rectangle(5, 0, 5, 1, 30), (10, 14))
    assert np.argwhere(leaning)[0, 1] < np.argwhere(leaning)[-1, 1]  # clockwise: the right end is lower


# Bitmaps


@given(MASKS, st.integers(-12, 12), st.integers(-12, 12))
def test_bitmaps_at_their_place(mask: NDArray[np.bool_], top: int, left: int) -> None:
    data = text(png(mask.astype(np.uint8) * 255))
    expected = np.zeros((40, 40), bool)
    expected[top + 15 : top + 15 + mask.shape[0], left + 15 : left + 15 + mask.shape[1]] = mask
    np.testing.assert_array_equal(pasted(Bitmap(data, top, left), (10, 10)), expected[15:25, 15:25])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_bitmaps_of_every_mode(mode: str) -> None:
    """Where there is alpha it is the mask, whatever the colours; in a palette it is the index."""
    mask = np.array([[0, 1, 0], [1, 1, 0]], bool)
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    if mode in ("LA", "RGBA"):
        picture = Image.new(mode, (3, 2), "white")
        picture.putalpha(grey)
    elif mode == "P":
        picture = Image.fromarray(mask.astype(np.uint8))
        picture.putpalette([9, 9, 9, 0, 0, 0])
    else:
        picture = grey.convert(mode)
    found = pasted(Bitmap(text(zlib.compress(png(picture))), 0, 0, compressed=True), (2, 3))
    np.testing.assert_array_equal(found, mask)


def test_bitmaps_that_do_not_fit() -> None:
    good = png(np.ones((2, 3), np.uint8))
    assert refusal(Bitmap("?", 0, 0).cover, (9, 9)).startswith("its bitmap is damaged (Error: ")
    assert refusal(Bitmap(text(good), 0, 0, compressed=True).cover, (9, 9)).startswith("its bitmap is damaged (error: ")
    assert refusal(Bitmap(text(b"GIF"), 0, 0).cover, (9, 9)).startswith("its bitmap cannot be decoded (SyntaxError: ")
    assert refusal(Bitmap(text(good[:45]), 0, 0).cover, (9, 9)).startswith("its bitmap cannot be decoded (")
    message = refusal(Bitmap(text(good), 0, 0).cover, (2, 2))
    assert message == "its bitmap is 2 x 3 (H x W), larger than the image, 2 x 2 (H x W)"
    message = refusal(Bitmap(text(good), 0, 0, size=(3, 2)).cover, (9, 9))
    assert message == "its bitmap is 2 x 3 (H x W), its points say 3 x 2 (H x W)"


def test_bitmaps_are_no_bombs() -> None:
    """A stream that grows a thousandfold is read no further than its picture can take."""
    bomb = text(zlib.compress(b"\0" * 2**26))
    tracemalloc.start()
    message = refusal(Bitmap(bomb, 0, 0, compressed=True).cover, (9, 9))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message.startswith("its bitmap cannot be decoded (")
    assert peak < 2**21
    wide = bytearray(png(np.zeros((1, 1), np.uint8)))
    wide[16:24] = b"\x7f\xff\xff\xff" * 2
    wide[29:33] = zlib.crc32(wide[12:29]).to_bytes(4)
    assert "larger than the image" in refusal(Bitmap(text(wide), 0, 0).cover, (9, 9))


# Run lengths


@given(MASKS)
def test_rows_of_runs(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(pasted(Runs(lengths(mask.ravel()), mask.shape), mask.shape), mask)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 70), st.integers(1, 70))))
def test_what_coco_encodes(mask: NDArray[np.bool_]) -> None:
    """Compressed by the COCO API itself."""
    encoded = coco_api.encode(np.asfortranarray(mask, np.uint8))
    found = coco_lengths(encoded["counts"].decode())
    np.testing.assert_array_equal(found, lengths(mask.ravel(order="F")))
    np.testing.assert_array_equal(pasted(Runs(found, mask.shape, order="F", whole=True), mask.shape), mask)


@given(st.lists(st.integers(1, 2**24), min_size=1, max_size=20))
def test_long_runs_of_coco(counts: list[int]) -> None:
    size = [1, sum(counts)]
    encoded = coco_api.frPyObjects({"size": size, "counts": counts}, *size)
    np.testing.assert_array_equal(coco_lengths(encoded["counts"].decode()), counts)


@pytest.mark.parametrize("counts", ["", "\x10", "ß", "P", "o" * 9 + "0"])
def test_counts_that_coco_never_writes(counts: str) -> None:
    assert refusal(coco_lengths, counts) == "its counts are no compressed run lengths of COCO"


def test_negative_counts_of_coco() -> None:
    assert refusal(coco_lengths, "O") == "its counts hold a negative run length"


def test_run_lengths_that_do_not_fit() -> None:
    runs = Runs(np.array([3, 3]), (2, 3), whole=True)
    assert refusal(runs.cover, (3, 2)) == "its run lengths are for 2 x 3 (H x W) pixels, the image is 3 x 2 (H x W)"
    assert "the image is 4 x 4 (H x W)" in refusal(runs.cover, (4, 4))
    part = Runs(np.array([2**40]), (2**20, 2**20))
    assert "are for 1048576 x 1048576 (H x W) pixels, the image is 9 x 9" in refusal(part.cover, (9, 9))
    for wrong in ([3, 2], [7], [2**62, 2**62, 2**62, 2**62, 6], []):
        message = refusal(Runs(np.array(wrong, np.int64), (2, 3)).cover, (9, 9))
        assert message == "its run lengths do not add up to 2 x 3 (H x W) pixels"


# Label Studio's brush


def packed(alpha: NDArray[np.uint8], rng: np.random.Generator, widths: tuple[int, ...] = (3, 4, 8, 16)) -> bytes:
    """rle-pack's stream, written bit by bit: runs of chance lengths, repeated where they can be."""
    values = np.repeat(alpha.ravel(), 4)
    values[rng.random(len(values)) < 0.2] = 7  # colours do not matter ...
    values[3::4] = alpha.ravel()  # ... alpha does
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in widths)
    place = 0
    while place < len(values):
        kind = int(rng.integers(4))
        most = min(len(values) - place, 2 ** widths[kind])
        same = 1
        while same < most and values[place + same] == values[place]:
            same += 1
        if rng.random() < 0.5:
            bits += f"1{kind:02b}{same - 1:0{widths[kind]}b}{values[place]:08b}"
            place += same
        else:
            count = int(rng.integers(1, most + 1))
            bits += f"0{kind:02b}{count - 1:0{widths[kind]}b}"
            bits += "".join(f"{value:08b}" for value in values[place : place + count])
            place += count
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


@given(MASKS, st.integers(0, 2**32))
def test_brushes(mask: NDArray[np.bool_], seed: int) -> None:
    data = packed(mask * np.uint8(255), np.random.default_rng(seed))
    np.testing.assert_array_equal(pasted(Brush(data, mask.shape), mask.shape), mask)


def test_a_brush_by_hand() -> None:
    """The stream that Label Studio's documentation would give for two pixels, the second painted."""
    bits = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"  # 8 values of 8 bits; widths 3, 4, 8, 16
    bits += "1" + "00" + "011" + "00000000"  # four times 0
    bits += "1" + "00" + "011" + "11111111"  # four times 255
    data = int(bits.ljust(88, "0"), 2).to_bytes(11)
    np.testing.assert_array_equal(pasted(Brush(data, (1, 2)), (1, 2)), [[False, True]])


def test_brushes_that_do_not_fit() -> None:
    data = packed(np.full((2, 3), 255, np.uint8), np.random.default_rng(0))
    assert refusal(Brush(data, (2, 3)).cover, (3, 2)) == "its brush is for 2 x 3 (H x W), the image is 3 x 2"
    for cut in (0, 5, len(data) - 2):
        assert refusal(Brush(data[:cut], (2, 3)).cover, (2, 3)) == "its brush is cut short"
    assert refusal(Brush(data, (2, 2)).cover, (2, 2)) == (
        "its brush holds 24 values of 8 bits; 16 of 8 bits fill its picture"
    )
    head = f"{8:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    far = int((head + "1" + "00" + "111" + "00000000" + "1" + "00" + "000" + "00000000").ljust(96, "0"), 2).to_bytes(12)
    assert not Brush(far, (1, 2)).cover((1, 2))[2].any()
    far = int((head + "1" + "01" + "1111" + "00000000").ljust(88, "0"), 2).to_bytes(11)
    assert refusal(Brush(far, (1, 2)).cover, (1, 2)) == "its brush runs beyond its picture"
    literal = int((head + "0" + "00" + "111").ljust(64, "0"), 2).to_bytes(8)
    assert refusal(Brush(literal, (1, 2)).cover, (1, 2)) == "its brush is cut short"
