"""COCO: what the format says, by hand; and a real file against the areas that it states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_api

from fullconv.data.annotations import import_annotations
from fullconv.data.annotations.coco import read
from fullconv.data.annotations.images import Images
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal

BOX = [1, 1, 4, 1, 4, 3, 1, 3]
"""Columns 1 to 3 of rows 1 and 2."""


def annotation(number: int = 1, category: int = 7, segmentation: Any = None, **more: Any) -> dict[str, Any]:
    return {"image_id": number, "category_id": category, "segmentation": segmentation or [BOX], **more}


def coco(folder: Path, *annotations: dict[str, Any], name: str = "a.json", **more: Any) -> Path:
    """A file with the images 1 (`1.png`, 4 x 6) and 2, and the categories 7 and 3."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        save(folder / "images" / f"{number}.png", np.full((4, 6, 3), number, np.uint8))
    images = [{"id": n, "file_name": f"{n}.png", "height": 4, "width": 6} for n in (1, 2)]
    categories = [{"id": 7, "name": "dent"}, {"id": 3, "name": "scratch"}]
    whole = {"images": images, "annotations": list(annotations), "categories": categories, **more}
    path.write_text(json.dumps(whole))
    return path


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


def test_polygons_run_lengths_and_crowds(tmp_path: Path) -> None:
    hole = {"size": [4, 6], "counts": [0, 4, 20]}  # the first column
    rle = np.zeros((4, 6), np.uint8, order="F")
    rle[3] = 1
    compressed = {"size": [4, 6], "counts": coco_api.encode(rle)["counts"].decode()}
    path = coco(
        tmp_path / "in",
        annotation(),
        annotation(category=3, segmentation=hole),
        annotation(category=3, segmentation=compressed, iscrowd=1),
        annotation(2, 3, [[0, 0, 2, 0, 2, 1, 0, 1], [5, 3, 6, 3, 6, 4, 5, 4]], iscrowd=False),
    )
    done = import_annotations(path, tmp_path / "out")
    assert done.labels.names == ("background", "scratch", "dent")  # in the order of the ids
    # The first column, of four pixels, lies over the last row, of six.
    assert mask(tmp_path / "out/masks/1.png") == [
        [1, 0, 0, 0, 0, 0], [1, 2, 2, 2, 0, 0], [1, 2, 2, 2, 0, 0], [1, 255, 255, 255, 255, 255],
    ]  # fmt: skip
    assert mask(tmp_path / "out/masks/2.png") == [[1, 1, 0, 0, 0, 0], [0] * 6, [0] * 6, [0, 0, 0, 0, 0, 1]]
    assert (done.images, done.shapes, done.void) == (2, 4, 5)
    assert done.pixels.tolist() == [9 + 21, 4 + 3, 6]


def test_small_lies_over_large(tmp_path: Path) -> None:
    small = [2, 1, 3, 1, 3, 2, 2, 2]
    path = coco(tmp_path / "in", annotation(category=3, segmentation=[small]), annotation())
    import_annotations(path, tmp_path / "out")
    assert mask(tmp_path / "out/masks/1.png")[1] == [0, 2, 1, 2, 0, 0]


def test_splits_of_a_folder(tmp_path: Path) -> None:
    """Files of instances are read, others beside them are not."""
    coco(tmp_path / "in", annotation(1), name="annotations/instances_train2017.json")
    coco(tmp_path / "in", annotation(2), name="annotations/instances_val2017.json")
    coco(tmp_path / "in", annotation(1), annotation(2), name="annotations/person_keypoints_val2017.json")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png"))
    assert found == ["train/images/1.png", "train/masks/1.png", "val/images/2.png", "val/masks/2.png"]
    assert "2 images without annotations are left out; --empty takes them as background" in done.notes


def test_splits_of_the_names_of_images(tmp_path: Path) -> None:
    path = coco(tmp_path / "in", annotation(1), annotation(2))
    whole = json.loads(path.read_text())
    for image, folder in zip(whole["images"], ("train2017", "val2017"), strict=True):
        image["file_name"] = f"{folder}/0.png"
        save(tmp_path / "in" / folder / "0.png", np.zeros((4, 6, 3), np.uint8))
    path.write_text(json.dumps(whole))
    import_annotations(path, tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("masks/*.png"))
    assert found == ["train/masks/0.png", "val/masks/0.png"]


def test_annotations_without_segmentation_are_noted(tmp_path: Path) -> None:
    path = coco(tmp_path / "in", annotation(), {"image_id": 1, "category_id": 7, "bbox": [0, 0, 1, 1]})
    done = import_annotations(path, tmp_path / "out")
    assert f"{path}: 1 annotations without segmentation are left out" in done.notes


ROW = annotation()


@pytest.mark.parametrize(
    ("annotations", "more", "message"),
    [
        ([annotation(9)], {}, "annotations[0].image_id is 9, the id of no image; export it again"),
        ([annotation(1, 9)], {}, "annotations[0].category_id is 9, expected the id of a category"),
        ([annotation(iscrowd=2)], {}, "annotations[0].iscrowd is 2, expected 0 or 1"),
        ([annotation(segmentation=[[1, 2, 3]])], {}, "segmentation[0] is [1, 2, 3], expected x and y by turns"),
        ([annotation(segmentation=[["1", 2]])], {}, "segmentation[0][0] is '1', expected a number"),
        ([annotation(segmentation={"size": [4], "counts": []})], {}, "size is [4], expected [height, width]"),
        ([annotation(segmentation={"size": [4, 6]})], {}, "annotations[0].segmentation has no 'counts'"),
        ([annotation(segmentation={"size": [4, 6], "counts": "?~"})], {}, "are no compressed run lengths of COCO"),
        ([annotation(segmentation={"size": [4, 6], "counts": [-1]})], {}, "counts[0] is -1, expected a number of 0"),
        ([annotation(segmentation={"size": [6, 4], "counts": [24]})], {}, "for 6 x 4 (H x W) pixels, the image is 4 x"),
        ([annotation(segmentation={"size": [4, 6], "counts": [25]})], {}, "do not add up to 4 x 6 (H x W) pixels"),
        ([ROW], {"categories": [{"id": 7}]}, "categories[0] has no 'name'"),
        ([ROW], {"categories": [{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]}, "expected 'a', the name that"),
        ([ROW], {"images": [{"id": 1, "file_name": "1.png"}]}, "images[0] has no 'height'"),
        ([ROW], {"images": [{"id": 1, "file_name": 1, "height": 4, "width": 6}]}, "file_name is 1, expected text"),
        ([ROW], {"images": 3}, "images is 3, expected a list"),
        (
            [ROW],
            {"images": [{"id": 1, "file_name": "1.png", "height": 6, "width": 4}]},
            "images[0] is 6 x 4 (H x W), its image",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, annotations: list[dict[str, Any]], more: dict[str, Any], message: str) -> None:
    path = coco(tmp_path / "in", *annotations, **more)
    found = refusal(import_annotations, path, tmp_path / "out")
    assert found.startswith(f"{path}: ")
    assert message in found
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in"]


def test_areas_of_a_real_file(shared_data: Path, tmp_path: Path) -> None:
    """The stated areas were counted by the COCO API, which rounds outlines its own way: half a pixel to either side."""
    source = shared_data / "annotations" / "coco"
    whole = json.loads((source / "annotations.json").read_text())
    export = read([source / "annotations.json"], Images(source))
    shapes = [shape for image in export.images for shape in image.shapes]
    sizes = [image.size for image in export.images for _ in image.shapes]
    order = {image["id"]: place for place, image in enumerate(whole["images"])}
    stated = sorted(whole["annotations"], key=lambda each: order[each["image_id"]])
    assert len(shapes) == len(stated) == 12
    for shape, size, each in zip(shapes, sizes, stated, strict=True):
        assert size is not None
        rings = [np.reshape(ring, (-1, 2)) for ring in each["segmentation"]]
        outline = sum(np.hypot(*(ring - np.roll(ring, 1, 0)).T).sum() for ring in rings)
        assert abs(int(shape.cover(size)[2].sum()) - each["area"]) <= 0.5 * outline
    done = import_annotations(source, tmp_path / "out")
    assert done.labels.names[:2] == ("background", "aeroplane")
    assert len(done.labels) == 21
    for image in whole["images"]:
        name = Path(image["file_name"]).name
        assert (tmp_path / "out/images" / name).read_bytes() == (source / image["file_name"]).read_bytes()
        found = MaskReader(21).read(tmp_path / "out/masks" / f"{name[:-4]}.png")
        assert found.shape == (image["height"], image["width"])
