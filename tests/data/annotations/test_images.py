"""Names of images -> files: what is found, what is ambiguous, and what no name can reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullconv.data.annotations.images import Images
from fullconv.data.image import picture_header, read_image
from fullconv.errors import OptionError
from makers import save
from refusals import refusal

DOT = np.zeros((2, 3, 3), np.uint8)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        save(root / name, DOT)
    return root


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("train2017/b.jpg", "images/b.jpg"),
        ("/data/upload/7/b.jpg", "images/b.jpg"),
        ("C:\\Users\\me\\b.jpg", "images/b.jpg"),
        ("..\\images\\b.jpg", "images/b.jpg"),
        ("two/c.jpg", "two/c.jpg"),
        ("c.png", None),
        ("", None),
        ("/", None),
        ("..", None),
        ("B.jpg", None),
    ],
)
def test_names(tmp_path: Path, name: str, found: str | None) -> None:
    tree(tmp_path, "a.jpg", "images/b.jpg", "one/c.jpg", "two/c.jpg")
    assert Images(tmp_path).find(name, "w") == (None if found is None else tmp_path / found)


def test_no_name_leads_outside(tmp_path: Path) -> None:
    tree(tmp_path, "outside/secret.png", "source/a.png")
    images = Images(tmp_path / "source")
    for name in ("../outside/secret.png", str(tmp_path / "outside/secret.png"), "../../outside/secret.png"):
        assert images.find(name, "w", near=tmp_path / "source") is None


def test_beside_comes_first_and_folders_called_images_next(tmp_path: Path) -> None:
    tree(tmp_path, "x/a.png", "y/a.png", "images/b.png", "Visualization/b.png", "JPEGImages/c.png", "ann/c.png")
    images = Images(tmp_path)
    assert images.find("a.png", "w", near=tmp_path / "x") == tmp_path / "x/a.png"
    assert images.find("../y/a.png", "w", near=tmp_path / "x") == tmp_path / "y/a.png"
    assert images.find("b.png", "w") == tmp_path / "images/b.png"
    assert images.find("c.png", "w") == tmp_path / "JPEGImages/c.png"


def test_ambiguous_names(tmp_path: Path) -> None:
    tree(tmp_path, "x/a.png", "y/a.png")
    assert refusal(Images(tmp_path).find, "z/a.png", "f.json: images[0]") == (
        f"f.json: images[0]: image 'z/a.png' may be {tmp_path / 'x/a.png'} or {tmp_path / 'y/a.png'}; "
        "name the folder that holds it with --images"
    )


def test_two_names_never_lead_to_one_image(tmp_path: Path) -> None:
    tree(tmp_path, "images/0.png", "images/1.png")
    images = Images(tmp_path)
    assert images.find("cats/0.png", "w") == images.find("cats/0.png", "w")
    assert refusal(images.find, "dogs/0.png", "w") == (
        f"w: image 'dogs/0.png' leads to {tmp_path / 'images/0.png'}, as 'cats/0.png' does; "
        "keep the images' folders, or name theirs with --images"
    )
    images.find("1.png", "w", near=tmp_path / "a")
    assert "leads to" in refusal(images.find, "1.png", "w", tmp_path / "b")


def test_names_without_suffix_pass_over_masks(tmp_path: Path) -> None:
    tree(tmp_path, "JPEGImages/a.b.jpg", "SegmentationClass/a.b.png")
    images = Images(tmp_path)
    assert images.find("images/a.b", "w", masks=("segmentationclass",)) == tmp_path / "JPEGImages/a.b.jpg"
    assert images.find("images/a", "w", masks=("segmentationclass",)) is None


def test_accents_in_two_forms(tmp_path: Path) -> None:
    tree(tmp_path, "Stra\u00dfe \u00e9.png")
    assert Images(tmp_path).find("Stra\u00dfe e\u0301.png", "w") is not None


def test_where_images_lie(tmp_path: Path) -> None:
    tree(tmp_path, "val/b.png", "elsewhere/c.png")
    (tmp_path / "annotations").mkdir()
    assert Images(tmp_path / "annotations").root == tmp_path  # COCO's; it holds no image itself
    assert Images(tmp_path / "annotations" / "x.json").root == tmp_path
    assert Images(tmp_path / "val" / "x.json").root == tmp_path / "val"
    assert Images(tmp_path / "val", tmp_path / "elsewhere").find("b.png", "w") is None
    tree(tmp_path, "annotations/a.png")
    assert Images(tmp_path / "annotations").root == tmp_path / "annotations"
    with pytest.raises(OptionError, match=r"no: no such folder; name the folder that holds the images$"):
        Images(tmp_path, tmp_path / "no")


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8, 99])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_sizes_are_those_of_the_image_read(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.fromarray(DOT).save(path, exif=exif)
    assert picture_header(path).size == read_image(path).shape[:2]
    assert picture_header(path).size == ((3, 2) if orientation in (6, 8) else (2, 3))


def test_damaged_exif_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(DOT).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert picture_header(path).size == read_image(path).shape[:2] == (2, 3)


def test_sizes_of_other_files(tmp_path: Path) -> None:
    Image.fromarray(DOT).save(tmp_path / "a.bmp")
    np.save(tmp_path / "a.npy", DOT)
    assert picture_header(tmp_path / "a.bmp").size == picture_header(tmp_path / "a.npy").size == (2, 3)
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    assert refusal(picture_header, tmp_path / "a.png") == (
        f"{tmp_path / 'a.png'}: holds a GIF, expected a JPEG, PNG, TIFF, WebP, BMP or .npy file; convert it to PNG"
    )
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert refusal(picture_header, tmp_path / "b.npy") == (
        f"{tmp_path / 'b.npy'}: holds float64 of shape (3,), expected uint8 of shape (H, W) or (H, W, 1 | 3 | 4); "
        "scale it to 0..255 and put the channels last"
    )
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "c.png")
    content = bytearray((tmp_path / "c.png").read_bytes())
    content[16:24] = b"\x00\x01\x00\x00" * 2
    (tmp_path / "c.png").write_bytes(content)
    assert "c.png: " in refusal(picture_header, tmp_path / "c.png")
