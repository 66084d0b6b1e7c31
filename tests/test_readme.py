"""The README's commands and its Python, as written, on a tiny data set."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rasters
from caffe_nets import bilinear, layer_shapes
from caffe_writer import write_caffemodel
from fullconv.cli import main
from makers import make_folder, scene
from torchvision_nets import random_net

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def steps() -> list[tuple[str, str]]:
    """(language, block) in the order of the page, of what a reader may run."""
    return re.findall(r"^```(sh|python)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README takes for granted."""
    make_folder(tmp_path / "DATA")
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(scene(0)[0])
    picture.save(tmp_path / "photos" / "one.jpg")
    Image.fromarray(scene(0, size=(80, 96))[0]).save(tmp_path / "photo.jpg")
    rasters.write(tmp_path / "scene.tif", scene(0, size=(90, 70))[0])
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef make_net():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.MaxPool2d(2))\n"
    )
    (tmp_path / "EXPORT").mkdir()
    picture.save(tmp_path / "EXPORT" / "one.jpg")
    corners = [[2, 2], [9, 2], [9, 8], [2, 8]]
    entry = {"imagePath": "one.jpg", "shapes": [{"label": "a", "shape_type": "polygon", "points": corners}]}
    (tmp_path / "EXPORT" / "one.json").write_text(json.dumps({"version": "5.2.1", **entry}))
    # The released file's layers and sizes, 538 MB, and torchvision's ResNet-18: zeros and random numbers in them.
    layers = [
        (name, kind, [bilinear(shape) if kind == "Deconvolution" else np.zeros(shape, np.float32) for shape in shapes])
        for name, kind, shapes in layer_shapes("voc-fcn8s")
    ]
    write_caffemodel(tmp_path / "fcn8s-heavy-pascal.caffemodel", layers)
    torch.save(random_net("resnet18").state_dict(), tmp_path / "resnet18-f37072fd.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_block_is_the_two_make_commands() -> None:
    assert re.findall(r"^make (\w+)", blocks("sh")[0], re.MULTILINE) == ["demo", "test"]
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "check"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_commands_and_python_work_as_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verbs: list[str] = []
    names: dict[str, Any] = {}
    for language, block in steps():
        if language == "python":
            exec(compile(block, "README.md", "exec"), names)
            continue
        for line in block.splitlines():
            if not line.startswith("fullconv "):
                continue
            # A quarter of an hour is too long for a test; everything else is as written.
            meant = {"--minutes": "--steps", "15": "2", "MODEL": "runs/DATA-fcn4s-slim/best.safetensors"}
            text = [meant.get(word, word) for word in shlex.split(line, comments=True)]
            monkeypatch.setattr(sys, "argv", text)
            with pytest.raises(SystemExit) as stop:
                main()
            assert not stop.value.code, text
            verbs.append(text[1])
    assert set(verbs) == {
        "train", "evaluate", "predict", "inspect", "fetch", "convert", "heatmap", "doctor", "import", "upper-bound",
        "compare", "benchmark",
    }  # fmt: skip
    written = (
        "labels/one.png",
        "labels/one_overlay.png",
        "photo-labels.png",
        "cat.png",
        "fields.png",
        "page.html",
        "labels/scene.tif",
    )
    assert all((place / name).exists() for name in (*written, "FIXED/classes.txt", "NEW/masks/one.png"))
    assert names["scores"].shape == (1, 3, 137, 237)  # as its comment says
