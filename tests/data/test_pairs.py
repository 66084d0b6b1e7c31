"""Pairs of files."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.pairs import Names, listed, pair_by_stem, pair_folders, prefix_of, require_split
from fullconv.data.scenes import Scene
from fullconv.errors import DataError
from makers import save, save_scene


def test_pairs_by_relative_stem(tmp_path: Path) -> None:
    for name in ("b/0001", "a/0001", "c.d"):
        save_scene(tmp_path / "images" / f"{name}.JPG", tmp_path / "masks" / f"{name}.png", 0)
    for ignored in ("images/.hidden.png", "images/notes.txt", "masks/.git/x.png", "masks/Thumbs.db"):
        (tmp_path / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / ignored).touch()
    pairs = pair_by_stem("data", tmp_path / "images", tmp_path / "masks")
    assert [pair.name for pair in pairs] == ["a/0001", "b/0001", "c.d"]
    assert pairs[0] == Scene.of("a/0001", tmp_path / "images/a/0001.JPG", tmp_path / "masks/a/0001.png")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def files(scenes: tuple[Scene, ...], root: Path) -> dict[str, tuple[str, str]]:
    return {s.name: (s.image.relative_to(root).as_posix(), s.mask.relative_to(root).as_posix()) for s in scenes}


def test_names_that_end_in_what_they_are(tmp_path: Path) -> None:
    touch(tmp_path, "i/a/1_sat.jpg", "i/2_sat.png", "i/3_mask.png", "i/4.jpg", "m/a/1_mask.png", "m/2_mask.png")
    touch(tmp_path, "m/2.png", "m/5_sat.png")
    found = pair_by_stem("data", tmp_path / "i", tmp_path / "m", Names("_sat", "_mask"))
    assert files(found, tmp_path) == {
        "2": ("i/2_sat.png", "m/2_mask.png"),
        "a/1": ("i/a/1_sat.jpg", "m/a/1_mask.png"),
    }


@pytest.mark.parametrize(
    ("names", "image", "mask"),
    [
        (Names(), "1.jpg", "1.png"),
        (Names(), "1.JPEG", "1.tif"),
        (Names("_sat", "_mask"), "1_sat.png", "1_mask.png"),
        (Names("_sat"), "1_sat.png", "1.png"),
        (Names(mask="_mask"), "1.png", "1_mask.png"),
    ],
)
@pytest.mark.parametrize("second", [".", "../both"])
def test_images_and_masks_in_one_folder(tmp_path: Path, names: Names, image: str, mask: str, second: str) -> None:
    root = tmp_path / "both"
    touch(root, image, mask, f"deep/{image}", f"deep/{mask}")
    found = pair_by_stem("data", root, root / second, names)
    assert [(s.name, s.image.name, s.mask.name) for s in found] == [("1", image, mask), ("deep/1", image, mask)]


def test_one_folder_where_a_mask_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg", "1.png", "3.png")
    with pytest.raises(DataError, match=r"data: 1 images without mask \(2\) and 1 masks without image \(3\); masks"):
        pair_by_stem("data", tmp_path, tmp_path)


def test_several_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/{tile}/1.png" for kind in ("i", "m") for tile in ("Tile 1", "x/Tile 2")))
    pairs = [(tmp_path / "i" / tile, tmp_path / "m" / tile) for tile in ("x/Tile 2", "Tile 1")]
    assert files(pair_folders("data", pairs), tmp_path) == {
        "x/Tile 2/1": ("i/x/Tile 2/1.png", "m/x/Tile 2/1.png"),
        "Tile 1/1": ("i/Tile 1/1.png", "m/Tile 1/1.png"),
    }
    assert [scene.name for scene in pair_folders("data", pairs[:1])] == ["1"]


def test_names_from_several_folders_stay_below_where_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder, an absolute one, and one with dots; and one that holds the others."""
    monkeypatch.chdir(tmp_path)
    folders = [Path("a/x"), tmp_path / "b", Path("a/../c")]
    assert [prefix_of(folder, folders) for folder in folders] == ["a/x/", "b/", "c/"]
    folders = [Path("a"), Path("a/x")]
    assert [prefix_of(folder, folders) for folder in folders] == ["", "x/"]
    assert prefix_of(Path("../anywhere"), [Path("../anywhere")]) == ""


def test_accents_stored_in_two_ways_pair(tmp_path: Path) -> None:
    composed, split = unicodedata.normalize("NFC", "mütze"), unicodedata.normalize("NFD", "mütze")
    assert composed != split
    save_scene(tmp_path / "images" / f"{composed}.png", tmp_path / "masks" / f"{split}.png", 0)
    assert len(pair_by_stem("data", tmp_path / "images", tmp_path / "masks")) == 1


def test_what_does_not_pair_is_listed(tmp_path: Path) -> None:
    for index in range(12):
        save_scene(tmp_path / "images" / f"{index:02}.png", tmp_path / "elsewhere" / "x.png", 0)
    save(tmp_path / "masks" / "lost.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError) as caught:
        pair_by_stem("data", tmp_path / "images", tmp_path / "masks")
    assert str(caught.value) == (
        "data: 12 images without mask (00, 01, 02, 03, 04, 05, 06, 07, 08, 09, and 2 more) and 1 masks without image "
        f"(lost); masks lie in {tmp_path / 'masks'} under their image's name, such as 0001.jpg and 0001.png: add or "
        "remove files"
    )


def test_one_name_twice(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.jpg", "images/a.png", "masks/a.png")
    expected = r"^data: .*a\.jpg and a\.png share the name 'a'; rename or remove one$"
    for folders in (("images", "masks"), ("masks", "images")):
        with pytest.raises(DataError, match=expected):
            pair_by_stem("data", *(tmp_path / folder for folder in folders))
    touch(tmp_path, "images/a.tif")
    with pytest.raises(DataError, match=r"^data: .*a\.png and a\.tif share the name 'a'"):  # both are masks
        pair_by_stem("data", tmp_path / "images", tmp_path / "images")


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"holds no pictures; expected files ending in \.jpg, \.jpeg, \.png"):
        pair_by_stem("data", tmp_path, tmp_path)


def test_listed_is_one_printable_line() -> None:
    assert listed(["a", "b\nc", os.fsdecode(b"\xff")]) == r"a, b\nc, \udcff"
    assert listed(str(i) for i in range(11)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 1 more"


def test_require_split() -> None:
    require_split("data", "val", ["train", "val"])
    with pytest.raises(DataError, match=r"^data: has no split 'test'; its splits: train, val$"):
        require_split("data", "test", ["train", "val"])
    with pytest.raises(DataError, match=r"its splits: none$"):
        require_split("data", "test", [])


def test_images_and_masks_in_one_folder_that_nothing_tells_apart(tmp_path: Path) -> None:
    save_scene(tmp_path / "a.png", tmp_path / "b.png", 0)
    with pytest.raises(
        DataError, match="holds images and masks, and no JPEG that would be an image; .* mask_suffix: _"
    ):
        pair_by_stem("x", tmp_path, tmp_path)


def test_masks_that_all_have_one_more_ending(tmp_path: Path) -> None:
    for name in ("1", "2", "21"):
        save_scene(tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}_mask.png", 0)
    with pytest.raises(DataError, match="add or remove files; or set mask_suffix: _mask in a YAML file$"):
        pair_by_stem("x", tmp_path / "images", tmp_path / "masks")
    assert len(pair_by_stem("x", tmp_path / "images", tmp_path / "masks", Names(mask="_mask"))) == 3
