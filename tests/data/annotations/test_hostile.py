"""Every value of every tool's file, replaced by others: the import works, or says in one line what is wrong."""

from __future__ import annotations

import base64
import copy
import io
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullconv.data.annotations import import_annotations
from fullconv.errors import FullconvError
from makers import save

HOSTILE: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**12, 10**400, 1e308, "", "x", "../../../etc/passwd", "\0", "\ud800", "a\nb", [], {},
    [None], [[]], [[[1, 2]]], {"a": 1}, [1] * 7,
)  # fmt: skip
RING = [[0, 0], [4, 0], [4, 2], [0, 2]]


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ones((2, 2), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def labelstudio(kind: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "original_width": 5, "original_height": 4, "value": {**value, kind: ["a"]}}


BRUSH = [0, 0, 0, 80, 57, 27, 255, 128, 0]
FILES: dict[str, dict[str, Any]] = {
    "coco": {
        "a.json": {
            "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 5}],
            "categories": [{"id": 1, "name": "a"}],
            "annotations": [
                {"image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 2]]},
                {"image_id": 1, "category_id": 1, "segmentation": {"size": [4, 5], "counts": [3, 4, 13]}},
                {"image_id": 1, "category_id": 1, "segmentation": {"size": [4, 5], "counts": "34="}},
            ],
        }
    },
    "labelme": {
        "a.json": {
            "imagePath": "a.png", "imageHeight": 4, "imageWidth": 5, "imageData": text(png()),
            "shapes": [
                {"label": "a", "shape_type": "polygon", "points": RING},
                {"label": "b", "shape_type": "circle", "points": RING[:2]},
                {"label": "b", "shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": text(png())},
            ],
        }
    },
    "labelstudio": {
        "a.json": [
            {
                "data": {"image": "a.png"},
                "annotations": [
                    {
                        "was_cancelled": False,
                        "result": [
                            labelstudio("polygonlabels", points=RING),
                            labelstudio("rectanglelabels", x=1, y=1, width=50, height=50, rotation=3),
                            labelstudio("ellipselabels", x=1, y=1, radiusX=50, radiusY=50, rotation=3),
                            labelstudio("brushlabels", format="rle", rle=BRUSH),
                        ],
                    }
                ],
            }
        ]
    },
    "supervisely": {
        "meta.json": {"classes": [{"title": "a", "color": "#102030"}]},
        "ann/a.png.json": {
            "size": {"height": 4, "width": 5},
            "objects": [
                {"classTitle": "a", "geometryType": "polygon", "points": {"exterior": RING, "interior": [RING]}},
                {"classTitle": "a", "geometryType": "rectangle", "points": {"exterior": RING[:2], "interior": []}},
                {
                    "classTitle": "a",
                    "geometryType": "bitmap",
                    "bitmap": {"data": text(zlib.compress(png())), "origin": [1, 1]},
                },
            ],
        },
    },
    "datumaro": {"dataset_meta.json": {"label_map": {"0": "background"}, "segmentation_colors": [[0, 0, 0]]}},
}  # fmt: skip


def places(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value in a JSON, the whole included."""
    yield keys
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*keys, key))


def replaced(value: Any, keys: tuple[Any, ...], other: Any) -> Any:
    if not keys:
        return other
    value = copy.copy(value)
    value[keys[0]] = replaced(value[keys[0]], keys[1:], other)
    return value


def run(root: Path, name: str) -> str | None:
    """The message if the import is refused; what it wrote is removed if not."""
    out = root.parent / "out"
    try:
        import_annotations(root, out, format=name, others="void")
    except FullconvError as error:
        return str(error)
    shutil.rmtree(out)
    return None


@pytest.mark.parametrize("name", FILES)
def test_every_value_replaced(tmp_path: Path, name: str) -> None:
    root = tmp_path / "in"
    save(root / "a.png", np.zeros((4, 5, 3), np.uint8))
    save(root / "masks" / "a.png", np.zeros((4, 5, 3), np.uint8))
    refused = 0
    for file, whole in FILES[name].items():
        for each, content in FILES[name].items():
            (root / each).parent.mkdir(exist_ok=True)
            (root / each).write_text(json.dumps(content))
        for keys in places(whole):
            for other in HOSTILE:
                (root / file).write_text(json.dumps(replaced(whole, keys, other)))
                message = run(root, name)
                refused += message is not None
                assert "\n" not in (message or "")
                assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert refused > 50
