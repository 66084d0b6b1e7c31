"""Label Studio's JSON: percent coordinates, brushes, and which annotation and image of a task count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fullconv.data.annotations import import_annotations
from fullconv.data.mask import MaskReader
from makers import save
from refusals import refusal

NAME = "/data/upload/1/0a1b2c3d-a.png"


def result(kind: str, label: Any = "dent", **value: Any) -> dict[str, Any]:
    labels = {} if label is None else {kind: [label] if isinstance(label, str) else label}
    return {
        "type": kind, "original_width": 10, "original_height": 4, "image_rotation": 0, "value": {**value, **labels},
    }  # fmt: skip


def box(label: str = "dent", y: float = 0, **more: Any) -> dict[str, Any]:
    """A row of the four."""
    return result("rectanglelabels", label, x=0, y=y, width=100, height=25, **more)


def task(*results: dict[str, Any], name: str = NAME, **annotation: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": name}, "annotations": [{"result": list(results), **annotation}]}


def studio(root: Path, *tasks: Any) -> Path:
    """An export beside `a.png`, 4 x 10."""
    save(root / "a.png", np.zeros((4, 10, 3), np.uint8))
    path = root / "export.json"
    path.write_text(json.dumps(list(tasks)))
    return path


def mask(path: Path) -> list[list[int]]:
    return MaskReader(255).read(path).tolist()


def brush(alpha: list[int]) -> list[int]:
    """rle-pack of RGBA, each pixel a literal run of four."""
    bits = f"{4 * len(alpha):032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    for value in alpha:
        bits += "0" + "00" + "011" + "00000101" * 3 + f"{value:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def test_every_kind_of_result(tmp_path: Path) -> None:
    alpha = np.zeros((4, 10), int)
    alpha[3, 9] = 255
    path = studio(
        tmp_path,
        task(
            result("polygonlabels", points=[[0, 0], [30, 0], [30, 50], [0, 50]], closed=True),
            result("rectanglelabels", "scratch", x=20, y=0, width=20, height=100, rotation=0),
            result("ellipselabels", "scratch", x=65, y=50, radiusX=11, radiusY=15, rotation=0),
            result("brushlabels", format="rle", rle=brush(alpha.ravel().tolist())),
            result("keypointlabels", x=1, y=1),
            result("choices", None, choices=["good"]),
        ),
    )
    done = import_annotations(path, tmp_path / "out")
    assert done.labels.names == ("background", "dent", "scratch")
    # The ellipse: centre (6.5, 2), radii 1.1 and 0.6: only the centre of pixel 6 is near, at 0.5 above and below.
    assert mask(tmp_path / "out/masks/a.png") == [
        [1, 1, 2, 2, 0, 0, 0, 0, 0, 0],
        [1, 1, 2, 2, 0, 0, 2, 0, 0, 0],
        [0, 0, 2, 2, 0, 0, 2, 0, 0, 0],
        [0, 0, 2, 2, 0, 0, 0, 0, 0, 1],
    ]
    assert "2 annotations without area are left out: 1 choices, 1 keypointlabels" in done.notes


def test_rectangles_turn_about_their_corner(tmp_path: Path) -> None:
    """From (5, 0), 2 wide and 3 high, a quarter turn clockwise: columns 2 to 4 of rows 0 and 1."""
    value = {"x": 50, "y": 0.001, "width": 20, "height": 75, "rotation": 90}
    import_annotations(studio(tmp_path, task(result("rectanglelabels", **value))), tmp_path / "out")
    expected = np.zeros((4, 10), int)
    expected[:2, 2:5] = 1
    assert mask(tmp_path / "out/masks/a.png") == expected.tolist()


def test_the_first_annotation_that_was_not_cancelled(tmp_path: Path) -> None:
    whole = task(box("a"), was_cancelled=True)
    whole["annotations"] += [{"result": [box("b")], "was_cancelled": False}, {"result": [box("c")]}]
    assert import_annotations(studio(tmp_path, whole), tmp_path / "out").labels.names == ("background", "b")
    old = {"data": {"image": NAME}, "completions": [{"result": [box("d")]}]}
    done = import_annotations(studio(tmp_path, old), tmp_path / "out2", format="labelstudio")
    assert done.labels.names == ("background", "d")


def test_tasks_without_annotations(tmp_path: Path) -> None:
    save(tmp_path / "b.png", np.zeros((4, 10, 3), np.uint8))
    bare = {"data": {"image": "b.png"}, "annotations": []}
    done = import_annotations(studio(tmp_path, task(box()), bare), tmp_path / "out")
    assert "1 images without annotations are left out; --empty takes them as background" in done.notes


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "/data/upload/1/a.png",
        "/data/local-files/?d=some%20where/a.png",
        "https://host/bucket/a.png?token=1",
        "s3://bucket/a.png",
    ],
)
def test_names_of_images(tmp_path: Path, name: str) -> None:
    path = studio(tmp_path, {"data": {"text": "x", "n": 3, "picture": name}, "annotations": [{"result": [box()]}]})
    assert import_annotations(path, tmp_path / "out").images == 1


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ({"data": {"image": "a.gif"}, "annotations": [], "result": 0}, "[0].data names no image (.jpg, .jpeg"),
        ({"data": [], "annotations": [], "result": 0}, "[0].data is [], expected an object"),
        ({"data": {"image": "a.png"}, "result": 0}, "[0] has no 'completions'"),
        (task(result("rectanglelabels", ["a", "b"])), "expected one label"),
        (task({**box(), "image_rotation": 90}), "image_rotation is 90, expected 0: turn the image itself"),
        (task({**box(), "original_width": 9}), "[0] is 4 x 9 (H x W), its image"),
        (task({**box(), "original_width": "10"}), "original_width is '10', expected a whole number"),
        (task(result("brushlabels", format="png", rle=[])), "value.format is 'png', expected 'rle'"),
        (task(result("brushlabels", format="rle", rle=[256])), "value.rle[0] is 256, expected a number of 0 to 255"),
        (task(result("brushlabels", format="rle", rle=[1])), "result[0]: its brush is cut short; correct it"),
        (task(result("polygonlabels", points=[[1]])), "value.points is [[1]], expected a list of [x, y]"),
        (task(result("ellipselabels", x=1, y=1, radiusX=1)), "value has no 'radiusY'"),
    ],
)
def test_what_is_refused(tmp_path: Path, whole: dict[str, Any], message: str) -> None:
    path = studio(tmp_path / "in", whole)
    found = refusal(import_annotations, path, tmp_path / "out")
    assert found.startswith(f"{path}: [0]")
    assert message in found


def test_a_result_without_a_label_is_another(tmp_path: Path) -> None:
    path = studio(tmp_path, task(box("a"), result("rectanglelabels", None, x=0, y=50, width=100, height=25)))
    assert "are outside of the classes (a): '' (1); " in refusal(import_annotations, path, tmp_path / "out")
