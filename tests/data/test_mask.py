"""Masks of every encoding: values worked out by hand; RGB against a loop over the colours."""

from __future__ import annotations

import dataclasses
import json
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fullconv.data.mask import MaskReader, write_mask
from fullconv.errors import DataError, OptionError
from fullconv.labels import VOID, LabelSet
from makers import save
from refusals import refusal

VALUES = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
COLOURS = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 128, 255): 2, (9, 9, 9): VOID}


def coloured(labels: np.ndarray) -> np.ndarray:
    out = np.zeros((*labels.shape, 3), np.uint8)
    for colour, label in COLOURS.items():
        out[labels == label] = colour
    return out


def refused(reader: MaskReader, path: Path, *texts: str) -> str:
    message = refusal(reader.read, path)
    assert message.startswith(str(path))
    for text in texts:
        assert text in message
    return message


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("palette", [None, LabelSet(("a", "b", "c"), ((9, 9, 9), (1, 2, 3), (200, 0, 0)))])
def test_grey_and_palette_hold_class_numbers(tmp_path: Path, suffix: str, palette: LabelSet | None) -> None:
    path = save(tmp_path / f"ä b.{suffix}", VALUES, palette)
    labels = MaskReader(3).read(path)
    np.testing.assert_array_equal(labels, VALUES)
    assert labels.dtype == np.uint8


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_1_bit(tmp_path: Path, suffix: str) -> None:
    bits = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    Image.fromarray(bits * 255).convert("1").save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(MaskReader(2).read(tmp_path / f"a.{suffix}"), bits)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("colour", [0, 3])  # grey, palette
def test_2_and_4_bits_are_not_stretched(tmp_path: Path, bits: int, colour: int) -> None:
    values = [0, 1, 2, 3]
    row = int("".join(f"{v:0{bits}b}" for v in values), 2).to_bytes(bits // 2, "big")
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, colour, 0, 0, 0)), (b"PLTE", bytes(3 * 2**bits))]
    chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert MaskReader(4).read(tmp_path / "a.png").tolist() == [values]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_values_are_as_they_are(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a.{suffix}", np.array([[0, 300, 2, 255]], np.uint16))
    labels = MaskReader(3, {300: 1}).read(tmp_path / f"a.{suffix}")
    assert labels.tolist() == [[0, 1, 2, 255]]
    refused(MaskReader(3), tmp_path / f"a.{suffix}", "holds value 300 (1 pixels)")


def test_alpha_is_ignored(tmp_path: Path) -> None:
    grey = np.stack([VALUES, np.full_like(VALUES, 7)], axis=-1)
    np.testing.assert_array_equal(MaskReader(3).read(save(tmp_path / "a.png", grey)), VALUES)
    rgba = np.concatenate([coloured(VALUES), np.full((2, 3, 1), 7, np.uint8)], axis=-1)
    np.testing.assert_array_equal(MaskReader(3, colors=COLOURS).read(save(tmp_path / "b.png", rgba)), VALUES)


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(VALUES[:, ::-1].T)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(MaskReader(3).read(tmp_path / "a.png"), VALUES)


def test_label_mapping_changes_what_it_lists_only(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 7, 11, 255, 2]], np.uint8))
    assert MaskReader(3, {7: 1, 11: 255, -1: 255}).read(path).tolist() == [[0, 1, 255, 255, 2]]
    last = save(tmp_path / "c.png", np.array([[65535]], np.uint16))  # -1 must not count from the table's end
    refused(MaskReader(3, {-1: 255}), last, "holds value 65535")
    two = save(tmp_path / "b.png", np.array([[0, 255]], np.uint8))
    assert MaskReader(2, {0: 0, 255: 1}).read(two).tolist() == [[0, 1]]


def test_a_value_that_is_no_class(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 7, 7, 9, 255]], np.uint8))
    expected = "holds value 7 (2 pixels) and 1 other such values; classes are 0..4 and 255 = void; "
    refused(MaskReader(5), path, expected + "map it in the data set's YAML: label_mapping: {7: 255}, or name the class")


def test_the_largest_number_of_classes(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(MaskReader(255).read(save(tmp_path / "a.png", every)), every)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_colours_against_a_loop(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, VOID], np.uint8), (height, width))
    path = save(tmp_path_factory.mktemp("rgb") / "a.png", coloured(labels))
    np.testing.assert_array_equal(MaskReader(3, colors=COLOURS).read(path), labels)


def test_colours_that_differ_in_one_bit_are_told_apart(tmp_path: Path) -> None:
    colours = {(1, 0, 0): 0, (0, 1, 0): 1, (0, 0, 1): 2, (255, 255, 255): 254, (255, 255, 254): VOID}
    path = save(tmp_path / "a.png", np.array([list(colours)], np.uint8))
    assert MaskReader(255, colors=colours).read(path).tolist() == [[0, 1, 2, 254, VOID]]


def test_an_off_table_colour(tmp_path: Path) -> None:
    rgb = coloured(np.zeros((10, 10), np.uint8))
    rgb[0, :3] = (1, 2, 3)
    rgb[1, 0] = (250, 0, 0)
    path = save(tmp_path / "a.png", rgb)
    message = refused(MaskReader(3, colors=COLOURS), path, "4 pixels (4 %)", "most often [1, 2, 3] (3 pixels)")
    assert message.endswith("YAML: colors: {void: [1, 2, 3]}")


def test_rgb_without_colours(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", coloured(VALUES))
    refused(MaskReader(3), path, "is an RGB mask, and the data set has no colours", "colors: {NAME: [R, G, B]}")
    grey = save(tmp_path / "b.png", np.stack([VALUES] * 3, axis=-1))
    refused(MaskReader(3), grey, "its three channels are equal: save it as 8-bit grey")


def palette_mask(path: Path, indices: list[int], palette: list[tuple[int, int, int]]) -> Path:
    picture = Image.fromarray(np.array([indices], np.uint8))
    picture.putpalette([v for colour in palette for v in colour])
    picture.save(path)
    return path


def test_palette_masks_where_the_data_set_has_colours(tmp_path: Path) -> None:
    reader = MaskReader(3, colors=COLOURS)
    unlisted = palette_mask(tmp_path / "a.png", [0, 1, 2], [(5, 5, 5), (255, 0, 0), (6, 6, 6)])
    assert reader.read(unlisted).tolist() == [[0, 1, 2]]
    same = palette_mask(tmp_path / "b.png", [0, 1, 2], [(0, 0, 0), (255, 0, 0), (0, 128, 255)])
    assert reader.read(same).tolist() == [[0, 1, 2]]
    beyond = palette_mask(tmp_path / "c.png", [1, 3], [(0, 0, 0), (0, 128, 255), (0, 0, 0), (255, 0, 0)])
    assert reader.read(beyond).tolist() == [[2, 1]]
    unclear = palette_mask(tmp_path / "d.png", [0, 1], [(0, 0, 0), (0, 128, 255)])
    expected = (
        "index 1 is class 1 by its number and class 2 by its colour [0, 128, 255]; save class numbers as 8-bit grey"
    )
    refused(reader, unclear, expected)


def test_lossy_files(tmp_path: Path) -> None:
    grey = Image.fromarray(VALUES)
    for suffix, kind in (("jpg", "JPEG"), ("webp", "WebP")):
        grey.save(tmp_path / f"a.{suffix}")
        refused(MaskReader(3), tmp_path / f"a.{suffix}", f"is a {kind} file, which may change class numbers", "as PNG")
    grey.save(tmp_path / "a.tif", compression="jpeg")
    refused(MaskReader(3), tmp_path / "a.tif", "is a TIFF with JPEG compression", "LZW or deflate")
    grey.save(tmp_path / "b.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(MaskReader(3).read(tmp_path / "b.tif"), VALUES)


def test_other_files(tmp_path: Path) -> None:
    refused(MaskReader(3), tmp_path / "no.png", "no such file")
    np.save(tmp_path / "a.npy", VALUES)
    refused(MaskReader(3), tmp_path / "a.npy", "is a .npy file, expected a mask as PNG, TIFF or BMP")
    Image.new("CMYK", (2, 2)).save(tmp_path / "c.tif")
    refused(MaskReader(3), tmp_path / "c.tif", "holds CMYK colours")


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_32_bit_values_are_whole_numbers(tmp_path: Path, kind: type) -> None:
    save(tmp_path / "a.tif", VALUES.astype(kind))
    np.testing.assert_array_equal(MaskReader(3).read(tmp_path / "a.tif"), VALUES)
    save(tmp_path / "b.tif", np.array([[0, 65535]], kind))
    assert MaskReader(3, {65535: 2}).read(tmp_path / "b.tif").tolist() == [[0, 2]]
    refused(MaskReader(3), tmp_path / "b.tif", "holds value 65535 (1 pixels); classes are 0..2")
    strange = [-1, 65536, 10**6] + [0.5, np.nan, np.inf, -np.inf, 1e30] * (kind is np.float32)
    for value in strange:
        save(tmp_path / "c.tif", np.array([[1, value]], kind))
        expected = f"holds the value {value:g}, expected whole class numbers of 0..65535; save it as 8-bit grey"
        refused(MaskReader(3), tmp_path / "c.tif", expected)


def test_tables_that_lead_nowhere() -> None:
    with pytest.raises(OptionError, match=r"label_mapping maps 7 to 3; expected classes 0\.\.2 or 255 = void"):
        MaskReader(3, {7: 3})
    with pytest.raises(OptionError, match=r"colors maps \(1, 2, 3\) to -1"):
        MaskReader(3, colors={(1, 2, 3): -1})
    for classes in (0, 256):
        with pytest.raises(OptionError, match=f"{classes} classes; expected 1 to 255"):
            MaskReader(classes)
    with pytest.raises(dataclasses.FrozenInstanceError):
        MaskReader(3).classes = 4  # type: ignore[misc]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 255), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_write_then_read(
    tmp_path_factory: pytest.TempPathFactory, classes: int, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, classes, (height, width), np.uint8)
    mask[rng.random(mask.shape) < 0.2] = VOID
    folder = tmp_path_factory.mktemp("write")
    labels = LabelSet.numbered(classes)
    write_mask(folder / "a.png", mask, labels)
    np.testing.assert_array_equal(MaskReader(classes).read(folder / "a.png"), mask)
    with Image.open(folder / "a.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), labels.palette()[mask])
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_write_takes_views_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.PNG"
    write_mask(path, VALUES, LabelSet.numbered(3))
    write_mask(path, VALUES[:, ::-1].T, LabelSet.numbered(3))
    np.testing.assert_array_equal(MaskReader(3).read(path), VALUES[:, ::-1].T)
    assert path.stat().st_mode & stat.S_IROTH  # a private temporary file would have kept its permissions


def test_write_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = LabelSet.numbered(2)
    with pytest.raises(OptionError, match=r"a\.jpg: masks are written as palette PNG; end the name in \.png"):
        write_mask(tmp_path / "a.jpg", VALUES, labels)
    with pytest.raises(DataError, match=r"a\.png: mask holds value 2; classes are 0\.\.1 and 255 = void"):
        write_mask(tmp_path / "a.png", VALUES, labels)
    for wrong in (VALUES.astype(np.int64), VALUES[None], VALUES[:0]):
        with pytest.raises(DataError, match=r"expected uint8 of shape \(H, W\)"):
            write_mask(tmp_path / "a.png", wrong, labels)
    assert list(tmp_path.iterdir()) == []
    write_mask(tmp_path / "a.png", VALUES % 2, labels)

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(DataError, match=r"cannot be written \(OSError: .*No space left"):
        write_mask(tmp_path / "a.png", VALUES % 2, labels)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_aerial_colours(shared_data: Path) -> None:
    # The colours in classes.json are not those of the masks; these are, and black is of no class.
    colours = {(60, 16, 152): 0, (132, 41, 246): 1, (110, 193, 228): 2, (254, 221, 58): 3, (226, 169, 41): 4}
    colours[155, 155, 155] = VOID
    path = shared_data / "aerial" / "Tile 3" / "masks" / "image_part_006.png"
    refused(MaskReader(5, colors=colours), path, "302 pixels (0.0673 %)", "[0, 0, 0] (302 pixels)")
    labels = MaskReader(5, colors={**colours, (0, 0, 0): VOID}).read(path)
    with Image.open(path) as picture:
        rgb = np.asarray(picture)
    for colour, label in colours.items():
        np.testing.assert_array_equal((rgb == colour).all(axis=-1), (labels == label) & ~(rgb == 0).all(axis=-1))
    listed = {c["color"] for c in json.loads((shared_data / "aerial" / "classes.json").read_text())["classes"]}
    assert "#3C1098" not in listed
