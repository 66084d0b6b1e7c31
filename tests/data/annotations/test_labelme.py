"""LabelMe: what the format says, by hand; and real files against labelme's own masks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.annotations import import_annotations
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal


def png(array: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.array(array, np.uint8)).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def shape(label: Any, kind: str | None, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme(path: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    """A label file of a 4 x 6 image beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{path.stem}.png"}
    path.write_text(json.dumps({**whole, "imageData": None, "imageHeight": 4, "imageWidth": 6, **more}))
    return path


def image(path: Path) -> Path:
    return save(path, np.zeros((4, 6, 3), np.uint8))


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


def test_every_kind_of_shape(tmp_path: Path) -> None:
    image(tmp_path / "in/a.png")
    labelme(
        tmp_path / "in/a.json",
        shape("b", "polygon", [[0, 0], [6, 0], [6, 1], [0, 1]]),
        shape("a", "rectangle", [[2, 3], [0, 0]]),
        shape("c", "circle", [[4.5, 2.5], [5.6, 2.5]]),
        shape("b", "mask", [[4, 2], [5, 3]], mask=png([[1, 0], [0, 255]])),
        shape("b", "linestrip", [[0, 0], [6, 4]]),
        shape("_background_", None, [[0, 0], [1, 0], [1, 1], [0, 1]]),
        shape("__ignore__", "polygon", [[5, 0], [6, 0], [6, 1], [5, 1]]),
    )
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.labels.names == ("background", "a", "b", "c")
    assert mask(tmp_path / "out/masks/a.png") == [
        [0, 1, 2, 2, 2, 255], [1, 1, 0, 0, 3, 0], [1, 1, 0, 3, 2, 3], [0, 0, 0, 0, 3, 2],
    ]  # fmt: skip
    assert "1 annotations without area are left out: 1 linestrip" in done.notes
    assert "label '__ignore__' becomes void (255)" in done.notes


def test_the_order_of_labels_txt(tmp_path: Path) -> None:
    image(tmp_path / "in/a.png")
    (tmp_path / "in/labels.txt").write_text("__ignore__\n_background_\nz\na\n")
    labelme(tmp_path / "in/a.json", shape("a", "rectangle", [[0, 0], [6, 2]]))
    assert import_annotations(tmp_path / "in", tmp_path / "out").labels.names == ("background", "z", "a")
    labelme(tmp_path / "in/a.json", shape("q", "rectangle", [[0, 0], [6, 2]]))
    assert refusal(import_annotations, tmp_path / "in", tmp_path / "no") == (
        "1 labels are outside of the classes (z, a): 'q' (1); "
        "add them with --classes, or choose --others background or --others void"
    )


def test_images_elsewhere_embedded_and_not_annotated(tmp_path: Path) -> None:
    row = shape("a", "rectangle", [[0, 0], [6, 1]])
    image(tmp_path / "in/images/a.png")
    labelme(tmp_path / "in/labels/a.json", row, imagePath="..\\images\\a.png")
    labelme(tmp_path / "in/labels/b.json", row, imagePath="gone.jpg", imageData=png(np.zeros((4, 6, 3))))
    labelme(tmp_path / "in/labels/c.json", row, imagePath="gone-too.jpg")
    image(tmp_path / "in/labels/d.png")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == ["a.png", "b.png"]
    assert mask(tmp_path / "out/masks/b.png") == [[1] * 6] + [[0] * 6] * 3
    assert f"1 images have no file below {tmp_path / 'in'}: gone-too.jpg" in done.notes
    assert "1 images without annotations are left out; --empty takes them as background" in done.notes
    done = import_annotations(tmp_path / "in", tmp_path / "with", empty=True)
    assert mask(tmp_path / "with/masks/d.png") == [[0] * 6] * 4
    assert done.images == 3


def test_two_label_files_of_one_image_are_merged(tmp_path: Path) -> None:
    image(tmp_path / "in/images/a.png")
    labelme(tmp_path / "in/one/a.json", shape("a", "rectangle", [[0, 0], [6, 1]]), imagePath="../images/a.png")
    labelme(tmp_path / "in/two/a.json", shape("b", "rectangle", [[0, 1], [6, 2]]), imagePath="../images/a.png")
    done = import_annotations(tmp_path / "in", tmp_path / "out")
    assert done.images == 1
    assert mask(tmp_path / "out/masks/a.png") == [[1] * 6, [2] * 6, [0] * 6, [0] * 6]


def test_a_single_file(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    path = labelme(tmp_path / "a.json", shape("a", "rectangle", [[0, 0], [6, 1]]))
    assert import_annotations(path, tmp_path / "out").images == 1


@pytest.mark.parametrize(
    ("entry", "more", "message"),
    [
        (shape("a", "cuboid", [[0, 0]]), {}, "shapes[0].shape_type is 'cuboid', expected polygon, rectangle, circle"),
        (shape("a", "circle", [[0, 0]]), {}, "shapes[0].points is [[0, 0]], expected two points"),
        (shape("a", "polygon", [[0, "1"]]), {}, "shapes[0].points[1] is '1', expected a number"),
        (shape(None, "polygon", []), {}, "shapes[0] has no 'label'"),
        (shape("a", "mask", [[0, 0], [1, 1]]), {}, "shapes[0] has no 'mask'"),
        (shape("a", "mask", [[0, 0], [1, 1]], mask="-"), {}, "shapes[0]: its bitmap is damaged (Error: "),
        (shape("a", "mask", [[0, 0], [1, 1]], mask=png([[1]])), {}, "1 x 1 (H x W), its points say 2 x 2 (H x W)"),
        (shape("a", "polygon", []), {"imageHeight": 6, "imageWidth": 4}, "the sides are swapped: turn the image"),
        (shape("a", "polygon", []), {"imageWidth": "6"}, "imageWidth is '6', expected a whole number"),
        (shape("a", "polygon", []), {"imagePath": "x", "imageData": "ß"}, "imageData is no base64 (ValueError: "),
        (shape("a", "polygon", []), {"imagePath": "x", "imageData": "abcd" * 9}, "imageData: holds something unknown"),
    ],
)
def test_what_is_refused(tmp_path: Path, entry: dict[str, Any], more: dict[str, Any], message: str) -> None:
    image(tmp_path / "in/a.png")
    path = labelme(tmp_path / "in/a.json", entry, **more)
    found = refusal(import_annotations, tmp_path / "in", tmp_path / "out")
    assert found.startswith(f"{path}")
    assert message in found
    assert not (tmp_path / "out").exists()


def flat(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose eight neighbours are of their own class; none beside the edge of the image."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, 1, constant_values=254), (3, 3))
    return (around == mask[:, :, None, None]).all((2, 3))


def test_real_files_against_the_masks_of_labelme(shared_data: Path, tmp_path: Path) -> None:
    """labelme draws outlines too, around rounded points: masks differ within a pixel of boundaries only."""
    source = shared_data / "annotations" / "labelme"
    import_annotations(source, tmp_path / "out")
    names = (source / "data_dataset_voc" / "class_names.txt").read_text().split("\n")
    assert (tmp_path / "out/classes.txt").read_text().split("\n")[:-1] == ["background", *names[1:]]
    masks = sorted((source / "data_dataset_voc" / "SegmentationClass").glob("*.png"))
    assert len(masks) == 3
    for path in masks:
        theirs, ours = MaskReader(21).read(path), MaskReader(21).read(tmp_path / "out/masks" / path.name)
        differ = ours != theirs
        assert not (differ & flat(ours) & flat(theirs)).any()
        assert 0 < differ.mean() < 0.01
