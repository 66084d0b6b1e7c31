"""Masks in colours: CVAT's segmentation masks, Datumaro's and Supervisely's lists; and Supervisely's own JSON."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data.annotations import import_annotations
from fullconv.data.annotations.painted import Painted
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal

RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)
ROWS = [[BLACK, RED, GREEN], [GREEN, GREEN, RED]]
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar: big:255,0,0::\nroad:0,255,0::\nnever:1,2,3::\n"


def image(path: Path) -> None:
    save(path, np.zeros((2, 3, 3), np.uint8))


def paint(path: Path, rows: Any = ROWS) -> Path:
    return save(path, np.array(rows, np.uint8))


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


# CVAT's segmentation masks


def cvat_masks(root: Path, labelmap: str = LABELMAP) -> Path:
    image(root / "JPEGImages" / "a.png")
    paint(root / "SegmentationClass" / "a.png")
    paint(root / "SegmentationObject" / "a.png")
    (root / "labelmap.txt").write_text(labelmap)
    return root


def test_label_map(tmp_path: Path) -> None:
    done = import_annotations(cvat_masks(tmp_path / "in"), tmp_path / "out")
    assert done.labels.names == ("background", "car: big", "road", "never")
    assert done.labels.colours == (BLACK, RED, GREEN, (1, 2, 3))
    assert mask(tmp_path / "out/masks/a.png") == [[0, 1, 2], [2, 2, 1]]
    assert done.pixels.tolist() == [1, 2, 3, 0]
    assert done.images == 1
    assert [note for note in done.notes if "without" in note] == []


def test_background_as_void_and_a_subset(tmp_path: Path) -> None:
    done = import_annotations(
        cvat_masks(tmp_path / "in"), tmp_path / "out", background="void", classes=["road"], others="void"
    )
    assert done.labels.names == ("road",)
    assert mask(tmp_path / "out/masks/a.png") == [[255, 255, 0], [0, 0, 255]]
    assert "labels outside of the classes become void: 'car: big' (1)" in done.notes
    done = import_annotations(tmp_path / "in", tmp_path / "out2", classes=["road"], others="background")
    assert mask(tmp_path / "out2/masks/a.png") == [[0, 0, 1], [1, 1, 0]]


def test_lists_are_splits_and_images_may_lie_elsewhere(tmp_path: Path) -> None:
    root = cvat_masks(tmp_path / "in")
    paint(root / "SegmentationClass" / "sub" / "b.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("sub/b\n")
    (root / "JPEGImages").rename(tmp_path / "pictures")
    image(tmp_path / "pictures" / "b.png")
    image(tmp_path / "pictures" / "c.png")
    done = import_annotations(root, tmp_path / "out", images=tmp_path / "pictures")
    assert sorted(p.parent.parent.name + p.name for p in (tmp_path / "out").rglob("masks/*.png")) == [
        "traina.png",
        "valb.png",
    ]
    assert "1 images without annotations are left out; --empty takes them as background" in done.notes


@pytest.mark.parametrize("line", ["road", "road:1,2::", "road:1,2,256::", ":1,2,3::", "road:1,2,x::"])
def test_lines_of_no_label_map(tmp_path: Path, line: str) -> None:
    root = cvat_masks(tmp_path / "in", f"a:0,0,0::\n{line}\n")
    message = f"{root / 'labelmap.txt'}: {line!r} is not 'name:r,g,b::'; correct the line"
    assert refusal(import_annotations, root, tmp_path / "out") == message


def test_lists_of_colours_that_cannot_be_used(tmp_path: Path) -> None:
    root = cvat_masks(tmp_path / "in", "a:0,0,0::\nb:0,0,0::\n")
    assert refusal(import_annotations, root, tmp_path / "out") == (
        f"{root / 'labelmap.txt'}: gives [0, 0, 0] to 'a' and 'b'; give each its own"
    )
    (root / "labelmap.txt").write_text("#\n")
    message = refusal(import_annotations, root, tmp_path / "out")
    assert message == f"{root / 'labelmap.txt'}: lists no classes; export it again"
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "labelmap.txt").write_text(LABELMAP)
    assert refusal(import_annotations, tmp_path / "none", tmp_path / "out") == (
        f"{tmp_path / 'none'}: has no masks in folders called masks, masks_human, segmentationclass; export it again"
    )


def test_unknown_colours_are_listed_most_frequent_first(tmp_path: Path) -> None:
    root = cvat_masks(tmp_path / "in")
    paint(root / "SegmentationClass" / "a.png", [[(9, 9, 9), RED, (1, 0, 255)], [(1, 0, 255), GREEN, RED]])
    image(root / "JPEGImages" / "b.png")
    paint(root / "SegmentationClass" / "b.png", [[(1, 0, 255)] * 3] * 2)
    assert refusal(import_annotations, root, tmp_path / "out") == (
        f"the masks hold 2 colours that {root / 'labelmap.txt'} does not list: #0100FF (8 pixels), #090909 (1 pixels); "
        "correct the list, or the masks"
    )


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    root = cvat_masks(tmp_path / "in")
    paint(root / "SegmentationClass" / "a.png", [[RED, RED]])
    assert refusal(import_annotations, root, tmp_path / "out") == (
        f"mask {root / 'SegmentationClass/a.png'} is 1 x 2 (H x W), its image {root / 'JPEGImages/a.png'} 2 x 3; "
        "export it again with the images that belong to it"
    )


def painted(path: Path) -> Painted:
    return Painted(path, {"background": BLACK, "car": RED, "road": GREEN}, Path("list"))


def test_palette_and_grey_masks(tmp_path: Path) -> None:
    """A palette goes by its colours; grey by its colours, or by its values where those lead nowhere."""
    picture = Image.fromarray(np.array([[0, 7], [3, 7]], np.uint8))
    picture.putpalette([*RED, *BLACK, *BLACK, *BLACK, *BLACK, *BLACK, *BLACK, *GREEN])
    picture.save(tmp_path / "p.png")
    assert painted(tmp_path / "p.png").read()[0].tolist() == [[1, 2], [0, 2]]
    save(tmp_path / "g.png", np.array([[0, 1, 2]], np.uint8))
    assert painted(tmp_path / "g.png").read()[0].tolist() == [[0, 1, 2]]
    save(tmp_path / "h.png", np.array([[0, 1, 3]], np.uint8))
    places, unknown = painted(tmp_path / "h.png").read()
    assert places.tolist() == [[0, -1, -1]]
    assert unknown == {"#010101": 1, "#030303": 1}
    save(tmp_path / "a.png", np.array([[(255, 0, 0, 0), (0, 255, 0, 9)]], np.uint8))
    assert painted(tmp_path / "a.png").read()[0].tolist() == [[1, 2]]


def test_masks_that_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", np.zeros((2, 2, 3), np.uint8))
    assert refusal(painted(tmp_path / "a.jpg").read) == (
        f"{tmp_path / 'a.jpg'}: is JPEG, expected a mask as PNG, TIFF or BMP"
    )
    save(tmp_path / "w.png", np.zeros((2, 2), np.uint16))
    assert refusal(painted(tmp_path / "w.png").read) == (
        f"{tmp_path / 'w.png'}: holds wide values, expected colours of 8 bits; save it as RGB"
    )


# Datumaro


def datumaro(root: Path, **more: Any) -> Path:
    image(root / "images" / "a.png")
    paint(root / "masks" / "a.png")
    colours = [list(BLACK), list(RED), list(GREEN)]
    meta = {"label_map": {"0": "background", "10": "b", "2": "a"}, "segmentation_colors": colours}
    (root / "dataset_meta.json").write_text(json.dumps({**meta, **more}))
    return root


def test_datumaro_counts_by_number(tmp_path: Path) -> None:
    done = import_annotations(datumaro(tmp_path / "in"), tmp_path / "out")
    assert done.labels.names == ("background", "a", "b")
    assert mask(tmp_path / "out/masks/a.png") == [[0, 1, 2], [2, 2, 1]]
    root = datumaro(tmp_path / "old", segmentation_colors=None, label_colors=[list(BLACK), list(RED), list(GREEN)])
    assert import_annotations(root, tmp_path / "out2").labels == done.labels


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"label_map": ["a"]}, "label_map is ['a'], expected class names by number"),
        ({"label_map": {"a": "a"}}, "label_map is 'a', expected a number"),
        ({"label_map": {"0": "a"}}, "label_map is {'0': 'a'}, expected as many classes as there are colours, 3"),
        (
            {"segmentation_colors": [[0, 0], [1, 1, 1], [2, 2, 2]]},
            "segmentation_colors[0] is [0, 0], expected [r, g, b]",
        ),
        ({"segmentation_colors": [[0, 0, 256]] * 3}, "segmentation_colors[0][2] is 256, expected a whole number"),
    ],
)
def test_datumaro_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    assert message in refusal(import_annotations, datumaro(tmp_path / "in", **more), tmp_path / "out")


def test_a_real_piece_of_datumaro(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "annotations/datumaro/common_semantic_segmentation_dataset"
    done = import_annotations(source / "dataset", tmp_path / "out")
    assert done.labels.names == ("Animal", "Archway", "Bicyclist", "Child", "Road")  # Void is void
    for name in ("0001", "0002"):
        with Image.open(source / "dataset" / "masks" / f"{name}.png") as picture:
            colours = np.asarray(picture.convert("RGB"))[0].tolist()
        found = mask(tmp_path / "out" / "masks" / f"{name}.png")[0]
        assert [list(done.labels.colours[label]) for label in found] == colours
    message = refusal(import_annotations, source / "non_standard_dataset", tmp_path / "no")
    assert message.startswith("2 images have no file below ")
    assert message.endswith(": images/gt_0001, images/gt_0002; name the folder that holds them with --images")


# Supervisely


CLASSES = [{"title": "Car", "shape": "any", "color": "#FF0000"}, {"title": "Road", "color": "#00ff00"}]


def supervisely(root: Path, *objects: dict[str, Any], classes: Any = CLASSES, **more: Any) -> Path:
    """A project with one image, 2 x 3; its label file is returned."""
    image(root / "ds" / "img" / "a.png")
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    path = root / "ds" / "ann" / "a.png.json"
    path.parent.mkdir(exist_ok=True)
    whole = {"description": "", "tags": [], "size": {"height": 2, "width": 3}, "objects": list(objects)}
    path.write_text(json.dumps({**whole, **more}))
    return path


def bitmap(rows: Any, origin: Any) -> dict[str, Any]:
    """As Supervisely's own library writes it: a palette PNG, index 0 transparent."""
    picture = Image.fromarray(np.array(rows, np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    stream = io.BytesIO()
    picture.save(stream, "PNG", transparency=0)
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    return {"classTitle": "Car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": origin}}


def polygon(exterior: Any, *interior: Any, kind: str | None = "polygon") -> dict[str, Any]:
    return {"classTitle": "Road", "geometryType": kind, "points": {"exterior": exterior, "interior": list(interior)}}


def test_supervisely(tmp_path: Path) -> None:
    hole = [[1, 0], [2, 0], [2, 1], [1, 1]]
    supervisely(
        tmp_path / "in",
        polygon([[0, 0], [3, 0], [3, 2], [0, 2]], hole, kind=None),
        bitmap([[0, 1], [1, 1]], [-1, 0]),
        polygon([[3, 2], [2, 1]], kind="rectangle"),
        {"classTitle": "Car", "geometryType": "line", "points": {}},
    )
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("background", "Car", "Road")
    assert done.labels.colours[1:] == (RED, GREEN)
    assert mask(tmp_path / "out/masks/a.png") == [[1, 0, 2], [1, 2, 2]]
    assert "1 annotations without area are left out: 1 line" in done.notes


def test_supervisely_bitmap_without_a_type(tmp_path: Path) -> None:
    supervisely(tmp_path / "in", {**bitmap([[1]], [2, 1]), "geometryType": None})
    import_annotations(tmp_path / "in", tmp_path / "out")
    assert mask(tmp_path / "out/masks/a.png") == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("entry", "more", "message"),
    [
        (bitmap([[1]], [0]), {}, "bitmap.origin is [0], expected [x, y]"),
        (bitmap([[1] * 9] * 9, [0, 0]), {}, "its bitmap is 9 x 9 (H x W), larger than the image, 2 x 3 (H x W)"),
        (polygon([[0, 0]], kind="rectangle"), {}, "points.exterior is [[0, 0]], expected two points"),
        ({"classTitle": "Car"}, {}, "objects[0] has no 'points'"),
        (polygon([]), {"size": {"height": 3, "width": 2}}, "is 3 x 2 (H x W), its image"),
        (polygon([]), {"size": {"height": 3}}, "size has no 'width'"),
        (polygon([]), {"classes": [{"title": "a", "color": "red"}]}, "color is 'red', expected a colour such as"),
        (polygon([]), {"classes": [{"title": "a", "color": "#12345"}]}, "expected a colour such as '#50E3C2'"),
    ],
)
def test_supervisely_refused(tmp_path: Path, entry: dict[str, Any], more: dict[str, Any], message: str) -> None:
    supervisely(tmp_path / "in", entry, classes=more.pop("classes", CLASSES), **more)
    assert message in refusal(import_annotations, tmp_path / "in", tmp_path / "out")


def test_masks_in_supervisely_colours(tmp_path: Path) -> None:
    for tile in ("Tile 1", "Tile 2"):
        image(tmp_path / "in" / tile / "images" / "a.png")
        paint(tmp_path / "in" / tile / "masks" / "a.png", [[RED] * 3, [GREEN] * 3])
    (tmp_path / "in" / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("Car", "Road")  # colours cover everything: there is no background
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["images/Tile 1/images/a.png", "images/Tile 2/images/a.png", "masks/Tile 1/images/a.png",
                     "masks/Tile 2/images/a.png"]  # fmt: skip
    assert mask(tmp_path / "out/masks/Tile 2/images/a.png") == [[0] * 3, [1] * 3]


def test_a_real_list_that_is_not_what_the_masks_hold(shared_data: Path, tmp_path: Path) -> None:
    message = refusal(import_annotations, shared_data / "aerial", tmp_path / "out")
    assert message.startswith(
        f"the masks hold 6 colours that {shared_data / 'aerial/classes.json'} does not list: #8429F6 ("
    )
    assert not (tmp_path / "out").exists()
