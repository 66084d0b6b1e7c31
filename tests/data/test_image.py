"""Hostile and odd pictures: pixels known by hand, or one DataError of one line."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from fullconv.data.image import NUMPY, SUFFIXES, as_image, find_images, format_of, picture_header, read_image
from fullconv.errors import DataError, printable
from refusals import refusal

RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8)
# An upright picture is stored turned; the orientation number says how. By the EXIF specification, row 0 and column 0
# of what is stored are: 1 top, left; 2 top, right; 3 bottom, right; 4 bottom, left; 5 left, top; 6 right, top; 7 right,
# bottom; 8 left, bottom.
STORED = {
    1: RGB,
    2: RGB[:, ::-1],
    3: RGB[::-1, ::-1],
    4: RGB[::-1],
    5: RGB.transpose(1, 0, 2),
    6: RGB[:, ::-1].transpose(1, 0, 2),
    7: RGB[::-1, ::-1].transpose(1, 0, 2),
    8: RGB[::-1].transpose(1, 0, 2),
}


def refused(path: Path, *texts: str) -> str:
    message = refusal(read_image, path)
    assert message.startswith(printable(path))
    for text in texts:
        assert text in message
    return message


def outcome(path: Path) -> str:
    """The message of the DataError; "" where there is a picture. Any other exception goes through."""
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    assert image.dtype == np.uint8
    assert image.shape[2:] == (3,)
    return ""


def bytes_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return out


def png_header(width: int, height: int, bits: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".npy"])
def test_lossless_formats_give_the_pixels_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a picture, ünïcode {suffix}"
    assert suffix in SUFFIXES
    if suffix == ".npy":
        np.save(path, RGB)
    else:
        Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    image = read_image(path)
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert image.flags.c_contiguous


def test_jpeg_is_near_what_was_written(tmp_path: Path) -> None:
    flat = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    Image.fromarray(flat).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - flat).max() <= 3


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes_of(Image.fromarray(RGB), "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(bytes_of(picture, kind, exif=exif, **options))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), RGB)


def test_exif_rotation_of_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, 16:] = 250
    stored = np.ascontiguousarray(upright[:, ::-1].transpose(1, 0, 2))
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 3


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_damaged_exif_is_no_exif(tmp_path: Path, exif: bytes) -> None:
    (tmp_path / "a").write_bytes(bytes_of(Image.fromarray(RGB), "PNG", exif=exif))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), RGB)


def test_an_unknown_orientation_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    (tmp_path / "a").write_bytes(bytes_of(Image.fromarray(RGB), "PNG", exif=exif))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), RGB)


def one(mode: str, value: object, palette: list[int] | None = None) -> Image.Image:
    picture = Image.new(mode, (2, 1), value)
    if palette is not None:
        picture.putpalette(palette)
    return picture


@pytest.mark.parametrize(
    ("picture", "kind", "options", "expected"),
    [
        (one("L", 77), "PNG", {}, (77, 77, 77)),
        (one("1", 255), "PNG", {}, (255, 255, 255)),
        (one("LA", (77, 5)), "PNG", {}, (77, 77, 77)),
        (one("RGBA", (1, 2, 3, 0)), "PNG", {}, (1, 2, 3)),
        (one("P", 1, [0, 0, 0, 9, 8, 7]), "PNG", {}, (9, 8, 7)),
        (one("P", 1, [0, 0, 0, 9, 8, 7]), "PNG", {"transparency": 1}, (9, 8, 7)),
        (one("P", 1, [0, 0, 0, 9, 8, 7]), "PNG", {"transparency": b"\x00\x80"}, (9, 8, 7)),
        (one("RGB", (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, (1, 2, 3)),
        (one("L", 77), "PNG", {"transparency": 77}, (77, 77, 77)),
        # C = 1 - R and so on, with K taking the same off all three: 255 - 55 - 0 = 200
        (one("CMYK", (55, 155, 205, 0)), "TIFF", {}, (200, 100, 50)),
        (one("CMYK", (0, 0, 0, 255)), "TIFF", {}, (0, 0, 0)),
        (one("I;16", 257 * 200 + 128), "PNG", {}, (200, 200, 200)),
        (one("I;16", 257 * 200 + 129), "PNG", {}, (201, 201, 201)),
        (one("I;16", 65535), "TIFF", {}, (255, 255, 255)),
        (one("I;16B", 257 * 3), "TIFF", {}, (3, 3, 3)),
    ],
)
def test_modes(
    tmp_path: Path, picture: Image.Image, kind: str, options: dict[str, object], expected: tuple[int, int, int]
) -> None:
    (tmp_path / "a").write_bytes(bytes_of(picture, kind, **options))
    image = read_image(tmp_path / "a")
    assert image.shape == (1, 2, 3)
    assert image[0, 0].tolist() == list(expected)
    np.testing.assert_array_equal(as_image(picture), image)


def test_ycbcr_and_lab(tmp_path: Path) -> None:
    # BT.601: R = Y + 1.402 (Cr - 128), G = Y - 0.344 (Cb - 128) - 0.714 (Cr - 128), B = Y + 1.772 (Cb - 128)
    assert np.abs(as_image(one("YCbCr", (100, 138, 148))).astype(int)[0, 0] - (128, 82, 118)).max() <= 1
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    red = ImageCms.applyTransform(one("RGB", (200, 30, 60)), lab)
    assert red is not None
    red.save(tmp_path / "lab.tif")
    assert np.abs(read_image(tmp_path / "lab.tif").astype(int)[0, 0] - (200, 30, 60)).max() <= 3


@pytest.mark.parametrize(("mode", "plain", "value"), [("RGBa", "RGBA", (200, 100, 50, 128)), ("La", "LA", (200, 128))])
def test_alpha_that_is_multiplied_in_is_taken_out(mode: str, plain: str, value: tuple[int, ...]) -> None:
    colour = value[:3] if len(value) == 4 else value[:1] * 3
    assert np.abs(as_image(one(plain, value).convert(mode)).astype(int)[0, 0] - colour).max() <= 1


def test_12_bit_grey_is_stretched_from_4095(tmp_path: Path) -> None:
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 1)]
    entries.append((279, 4, 3))
    pixels = b"\xff\xf8\x00\0"  # two values of 12 bits, 4095 and 2048
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + pixels + directory + b"\0\0\0\0")
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [255, 128]


def test_16_bit_colour_keeps_the_high_byte(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">HHH", 0x12FF, 0x8000, 0xFFFF)
    content = png([png_header(1, 1, 16), (b"IDAT", zlib.compress(row)), (b"IEND", b"")])
    (tmp_path / "a.png").write_bytes(content)
    assert read_image(tmp_path / "a.png").tolist() == [[[0x12, 0x80, 0xFF]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_values_are_refused(tmp_path: Path, mode: str) -> None:
    one(mode, 3).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "holds 32-bit", "range is unknown", "convert it to 8 bits")
    with pytest.raises(DataError, match="range is unknown"):
        as_image(one(mode, 3))


def test_frames_are_refused_and_counted(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (4, 4), (i, 9 * i, 0)) for i in range(3)]
    for suffix in ("png", "tif", "webp"):
        pictures[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pictures[1:])
        refused(tmp_path / f"a.{suffix}", "holds 3 pages or frames, expected one")


def test_overviews_are_no_pages(tmp_path: Path) -> None:
    full, small = Image.fromarray(RGB), Image.new("RGB", (1, 1))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    full.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_endless_pages_are_not_walked(tmp_path: Path) -> None:
    base = bytes_of(Image.new("L", (1, 1)), "TIFF")
    first = struct.unpack("<I", base[4:8])[0]
    count = struct.unpack("<H", base[first : first + 2])[0]
    directory = base[first : first + 2 + 12 * count]
    parts, at = [base[:4], struct.pack("<I", len(base)), base[8:]], len(base)
    for _ in range(20_000):
        at += len(directory) + 4
        parts += [directory, struct.pack("<I", at)]
    (tmp_path / "a.tif").write_bytes(b"".join(parts))
    start = time.monotonic()
    refused(tmp_path / "a.tif", "holds 1000 pages or more")
    assert time.monotonic() - start < 10


def test_mpo_is_its_first_picture(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 200))
    first.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[second])
    assert np.abs(read_image(tmp_path / "a.mpo").astype(int) - (200, 0, 0)).max() <= 4


def test_missing_folder_empty_and_special(tmp_path: Path) -> None:
    refused(tmp_path / "no.png", "no such file; check the path")
    refused(tmp_path, "is a folder; name a picture in it")
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", "is empty (0 bytes)")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "is not a regular file")
    refused(tmp_path / ("n" * 300), "cannot be read (OSError", "check the path")
    refused(Path("a\0b.png"), "cannot be decoded (ValueError")


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(self: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", deny)
    refused(path, "may not be read (permission denied)")


def test_names_with_line_breaks_and_undecodable_bytes_are_shown_in_one_line(tmp_path: Path) -> None:
    refused(tmp_path / "a\nb.png", r"a\nb.png: no such file")
    name = os.fsdecode(b"\xff.png")
    with pytest.raises(DataError) as caught:
        read_image(tmp_path / name)
    str(caught.value).encode("utf-8")


def test_images_of_a_folder(tmp_path: Path) -> None:
    wanted = ["B.JPG", "c.tiff", "z.npy", "a/1.png", "a/b/0.webp", "a/b/x.y.bmp", "d/1.Jpeg"]
    others = ["notes.txt", ".hidden.png", "a/._1.png", ".git/x.png", "a/.trash/b/x.png", "png", "e.png.part"]
    for name in (*reversed(wanted), *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "in.png").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == [*wanted, "folder.png/in.png"]
    assert list(find_images(tmp_path / "missing")) == []


def test_formats_by_their_first_bytes() -> None:
    assert format_of(b"\x93NUMPY\x01\x00") == NUMPY
    assert format_of(b"RIFF\0\0\0\0WEBPVP8 ") == "WebP"
    assert format_of(b"RIFF\0\0\0\0WAVEfmt ") is None
    assert format_of(b"\xff\xd8\xff\xe0") == "JPEG"
    assert format_of(b"MM\0*") == "TIFF"
    assert format_of(b"") is None


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"GIF89a" + bytes(30), "holds a GIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "holds PostScript"),
        (b"%PDF-1.7", "holds a PDF"),
        (b"<html>", "holds markup"),
        (b"\0\0\0\x0cjP  \r\n", "holds a JPEG 2000"),
        (b"RIFF\0\0\0\0WAVEfmt ", "holds something unknown"),
        (b"hello", "holds something unknown"),
    ],
)
def test_other_formats_are_never_reached(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    refused(tmp_path / "a.png", found, "expected a JPEG, PNG, TIFF, WebP, BMP or .npy file; convert it to PNG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_truncated(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = bytes_of(Image.fromarray(noise), kind)
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "a").write_bytes(content[: int(len(content) * share)])
        refused(tmp_path / "a", "cannot be decoded", "export it as 8-bit PNG")


def test_a_flipped_bit_in_a_png_never_passes(tmp_path: Path) -> None:
    mask = np.repeat(np.arange(8, dtype=np.uint8), 200).reshape(40, 40)
    content = bytes_of(Image.fromarray(mask), "PNG")
    for position in range(33, len(content) - 12):  # from behind the header to the end marker
        damaged = bytearray(content)
        damaged[position] ^= 4
        (tmp_path / "a").write_bytes(damaged)
        refused(tmp_path / "a")


def test_size_is_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png([png_header(65000, 65000), (b"IDAT", b""), (b"IEND", b"")]))
    refused(tmp_path / "a.png", "65000 x 65000 pixels (H x W)", "at most 268435456", "crop or tile")
    (tmp_path / "b.png").write_bytes(bytes_of(Image.new("RGB", (20, 10)), "PNG"))
    assert read_image(tmp_path / "b.png", max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(DataError, match="is 10 x 20 pixels"):
        read_image(tmp_path / "b.png", max_pixels=199)
    with monkeypatch.context() as patched:
        decoded: list[str] = []
        patched.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append("it"))
        assert "65000 x 65000 pixels" in refusal(picture_header, tmp_path / "a.png")
        assert not decoded
    with pytest.raises(DataError, match="is 0 x 3 pixels"):
        as_image(np.zeros((0, 3), np.uint8))


def test_pillow_s_own_bound_leaks_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pillow warns above its bound and raises above twice that; either would come from Image.open or from decoding.
    for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF"):
        (tmp_path / kind).write_bytes(bytes_of(Image.new("RGB", (20, 10)), kind))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for kind in ("PNG", "JPEG", "BMP", "WEBP"):
            assert read_image(tmp_path / kind).shape == (10, 20, 3)
        refused(tmp_path / "TIFF", "at most 150")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        refused(tmp_path / "WEBP", "DecompressionBombError")
    assert not caught


def test_remarks_on_metadata_are_neither_shown_nor_fatal(tmp_path: Path) -> None:
    acting = (b"acTL", struct.pack(">II", 0, 0))  # an animation of no frames: Pillow warns and reads the picture
    row = b"\0" + bytes([1, 2, 3])
    content = png([png_header(1, 1), acting, (b"IDAT", zlib.compress(row)), (b"IEND", b"")])
    (tmp_path / "a.png").write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PngImagePlugin.PngImageFile(io.BytesIO(content))
        assert len(caught) == 1
        assert read_image(tmp_path / "a.png").tolist() == [[[1, 2, 3]]]
        assert len(caught) == 1


def test_threads_do_not_change_the_warning_filters(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    read_image(tmp_path / "a.png")
    before = list(warnings.filters)
    threads = [threading.Thread(target=read_image, args=(tmp_path / "a.png",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
def test_npy_and_arrays(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", values)
    image = read_image(tmp_path / "a.npy")
    assert image.shape == (2, 3, 3)
    first = values.reshape(2, 3, -1)
    np.testing.assert_array_equal(image, first[:, :, :3] if first.shape[2] > 1 else np.concatenate([first] * 3, axis=2))
    np.testing.assert_array_equal(as_image(values), image)
    np.testing.assert_array_equal(as_image(tmp_path / "a.npy"), image)


def test_npy_refusals(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for values in (
        np.zeros((2, 3)),
        np.zeros((2, 3, 2), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((3, 2, 3, 3), np.uint8),
    ):
        np.save(path, values)
        refused(path, f"holds {values.dtype} of shape {values.shape}, expected uint8 of shape (H, W)")
    np.save(path, RGB)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "cannot be decoded (ValueError: mmap length is greater than file size")
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 3), }".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(9))
    refused(path, "cannot be decoded")
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(path, "cannot be decoded (ValueError: Array can't be memory-mapped: Python objects in dtype")
    np.savez(tmp_path / "b.npz", RGB)
    refused(tmp_path / "b.npz", "holds something unknown")


def test_as_image_takes_what_it_says() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert as_image(grey)[1, 2].tolist() == [5, 5, 5]
    with pytest.raises(DataError, match="array: holds float64 of shape"):
        as_image(np.zeros((2, 3)))
    with pytest.raises(DataError, match="found list; turn a tensor into an array"):
        as_image([[1]])  # type: ignore[arg-type]


def test_as_image_leaves_the_given_picture_alone(tmp_path: Path) -> None:
    picture = one("P", 1, [0, 0, 0, 9, 8, 7])
    picture.info["transparency"] = 1
    assert as_image(picture)[0, 0].tolist() == [9, 8, 7]
    assert picture.info == {"transparency": 1}
    assert picture.mode == "P"
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    (tmp_path / "a.png").write_bytes(bytes_of(stored, "PNG", exif=exif))
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(as_image(opened), RGB)
        assert opened.size == (2, 3)


def test_as_image_of_a_damaged_lazy_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    content = bytes_of(Image.fromarray(noise), "PNG")
    (tmp_path / "a.png").write_bytes(content[:-200])
    with Image.open(tmp_path / "a.png") as picture, pytest.raises(DataError, match=r"a\.png: cannot be decoded"):
        as_image(picture)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 10_000),
)
def test_any_damage_gives_a_picture_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, int]], cut: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    content = bytearray(bytes_of(Image.fromarray(noise), kind))
    for position, value in edits:
        content[position % len(content)] = value
    path = tmp_path_factory.mktemp("damage", numbered=True) / "a"
    path.write_bytes(content[: max(1, len(content) - cut % 5)])
    assert "\n" not in outcome(path)


def test_every_odd_file(shared_data: Path) -> None:
    files = [path for path in sorted((shared_data / "odd").rglob("*")) if path.is_file()]
    assert len(files) > 600
    read = 0
    for path in files:
        start = time.monotonic()
        message = outcome(path)
        assert "\n" not in message
        assert message == "" or message.startswith(str(path))
        read += message == ""
        assert time.monotonic() - start < 5, path
    assert read > 400


def test_odd_files_checked_by_hand(shared_data: Path) -> None:
    odd = shared_data / "odd" / "pillow"
    hopper = read_image(odd / "hopper.png").astype(int)  # 128 x 128 as the orientations below show it
    for name in ("hopper_orientation_2.jpg", "hopper_orientation_3.jpg", "hopper_orientation_4.jpg"):
        turned = read_image(odd / name).astype(int)
        assert turned.shape == hopper.shape
        assert np.abs(turned - hopper).mean() < 8, name
    suite = shared_data / "odd" / "pngsuite"
    for path in sorted(suite.glob("[!x]*.png")):  # x: broken on purpose; all others are valid
        read_image(path)
    for path in sorted(suite.glob("x*.png")):
        refused(path)
    for name in ("tbbn3p08", "tp1n3p08"):  # palette with transparency: the palette's colour, not a background
        with Image.open(suite / f"{name}.png") as picture:
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
            np.testing.assert_array_equal(read_image(suite / f"{name}.png"), palette[np.asarray(picture)])
    with Image.open(suite / "basn0g16.png") as picture:
        wide = np.asarray(picture).astype(float)
    np.testing.assert_array_equal(read_image(suite / "basn0g16.png")[..., 0], np.round(wide / 257))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_in_the_header_is_that_of_the_picture(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (7, 5)).save(tmp_path / "a", kind, exif=exif)
    header = picture_header(tmp_path / "a")
    assert header.size == read_image(tmp_path / "a").shape[:2] == ((7, 5) if orientation > 4 else (5, 7))
    assert header.orientation == orientation


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [
        ("RGB", "PNG", "8-bit RGB"), ("RGBA", "PNG", "8-bit RGBA"), ("L", "PNG", "8-bit grey"),
        ("LA", "PNG", "8-bit grey with alpha"), ("P", "PNG", "8-bit palette"), ("1", "PNG", "1-bit"),
        ("I;16", "PNG", "16-bit grey"), ("CMYK", "JPEG", "8-bit CMYK"), ("F", "TIFF", "32-bit floats"),
        ("I", "TIFF", "32-bit integers"), ("RGB", "BMP", "8-bit RGB"), ("RGBA", "WEBP", "8-bit RGBA"),
        ("PA", "TIFF", "8-bit palette with alpha"), ("RGBX", "TIFF", "8-bit RGB"), ("YCbCr", "TIFF", "8-bit YCbCr"),
        ("LAB", "TIFF", "8-bit LAB"), ("I;16B", "TIFF", "16-bit grey"),
    ],
)  # fmt: skip
def test_the_header_says_what_pixels_there_are(tmp_path: Path, mode: str, kind: str, expected: str) -> None:
    Image.new(mode, (7, 5)).save(tmp_path / "a", kind)
    header = picture_header(tmp_path / "a")
    assert (header.size, header.kind, header.orientation) == ((5, 7), expected, 1)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [(0, "16-bit grey"), (2, "16-bit RGB"), (4, "16-bit grey with alpha"), (6, "16-bit RGBA")],
)
def test_the_header_of_16_bit_pngs(tmp_path: Path, colour: int, expected: str) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]  # PNG, section 11.2.1
    row = zlib.compress(bytes(1 + 2 * channels))
    (tmp_path / "a").write_bytes(png([png_header(1, 1, 16, colour), (b"IDAT", row), (b"IEND", b"")]))
    assert picture_header(tmp_path / "a").kind == expected
    (tmp_path / "a").write_bytes(png([png_header(1, 1, 8, colour), (b"IDAT", row), (b"IEND", b"")]))
    assert picture_header(tmp_path / "a").kind == expected.replace("16", "8")


def tiff(path: Path, values: np.ndarray, **options: object) -> Path:
    """A TIFF of (H, W, C) values, by GDAL."""
    height, width, count = values.shape
    shape = {"height": height, "width": width, "count": count, "dtype": values.dtype}
    if count >= 3:
        options = {"photometric": "RGB", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **shape, **options) as raster:
            raster.write(np.moveaxis(values, 2, 0))
    return path


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("packing", [{}, {"compress": "deflate"}], ids=str)
def test_16_bit_colour_in_tiffs(tmp_path: Path, order: str, packing: dict[str, str]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), np.uint16)
    path = tiff(tmp_path / "a.tif", values, interleave="pixel", ENDIANNESS=order, **packing)
    assert picture_header(path).kind == "16-bit RGB"
    np.testing.assert_array_equal(read_image(path), values >> 8)
    planes = tiff(tmp_path / "b.tif", values, interleave="band", ENDIANNESS=order, **packing)
    if packing:
        np.testing.assert_array_equal(read_image(planes), values >> 8)
    else:
        refused(planes, "holds 16-bit colours in planes of their own; save it as 16-bit PNG")
    small = values.astype(np.uint8)
    np.testing.assert_array_equal(read_image(tiff(tmp_path / "c.tif", small, interleave="band", **packing)), small)


def test_16_bits_a_pixel_are_8_bit_colour(tmp_path: Path) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 16, 3, 4, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    pixel = struct.pack("<HH", 0xF800, 0)  # 5, 6 and 5 bits: red
    (tmp_path / "a").write_bytes(b"BM" + struct.pack("<IHHI", 70, 0, 0, 66) + header + pixel)
    assert read_image(tmp_path / "a").tolist() == [[[255, 0, 0]]]
    assert picture_header(tmp_path / "a").kind == "8-bit RGB"


def test_signed_numbers_are_named(tmp_path: Path) -> None:
    for order in ("LITTLE", "BIG"):
        path = tiff(tmp_path / "a.tif", np.full((5, 7, 1), -3, np.int16), ENDIANNESS=order)
        assert picture_header(path).kind == "signed 16-bit integers"
        refused(path, "holds signed 16-bit integers, whose range is unknown; convert it to 8 bits")


def test_the_header_of_arrays(tmp_path: Path) -> None:
    grey = {(5, 7): "8-bit grey", (5, 7, 1): "8-bit grey"}
    for shape, expected in {**grey, (5, 7, 3): "8-bit RGB", (5, 7, 4): "8-bit RGBA"}.items():
        np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
        header = picture_header(tmp_path / "a.npy")
        assert (header.size, header.kind) == ((5, 7), expected)


def test_headers_of_what_is_no_picture(tmp_path: Path) -> None:
    for content, expected in (
        (b"", "is empty (0 bytes)"),
        (b"GIF89a", "holds a GIF, expected"),
        (b"BM", "cannot be de"),
    ):
        (tmp_path / "a").write_bytes(content)
        assert expected in refusal(picture_header, tmp_path / "a")
    assert "b: no such file" in refusal(picture_header, tmp_path / "b")
