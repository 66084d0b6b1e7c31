"""Tiny data sets in the real layouts. Each class has its colour in the images, so that nets learn it in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.labels import VOID, LabelSet

Array = NDArray[np.uint8]
COUNTS = {"train": 4, "val": 2, "test": 1}
CLASSES = 3
SIZE = (12, 16)


def scene(seed: int, classes: int = CLASSES, size: tuple[int, int] = SIZE) -> tuple[Array, Array]:
    """An image (H, W, 3) and its mask (H, W): background, a rectangle of each other class, a row of void on top."""
    rng = np.random.default_rng(seed)
    height, width = size
    mask = np.zeros(size, np.uint8)
    for label in range(1, classes):
        y, x = rng.integers(0, height - height // 3), rng.integers(0, width - width // 3)
        mask[y : y + height // 3, x : x + width // 3] = label
    noise = rng.integers(0, 30, (height, width, 3))
    image = (LabelSet.numbered(classes).palette()[mask] // 2 + 60 + noise).astype(np.uint8)
    mask[0] = VOID
    return image, mask


def save(path: Path, array: Array, palette: LabelSet | None = None) -> Path:
    """Write an array as a picture, folders made as needed; with labels as a palette picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(array)
    if palette is not None:
        picture.putpalette(palette.palette().tobytes())
    picture.save(path)
    return path


def save_scene(image_path: Path, mask_path: Path, seed: int, classes: int = CLASSES) -> None:
    """Write one image (as its suffix says) and its grey mask."""
    image, mask = scene(seed, classes)
    save(image_path, image)
    save(mask_path, mask)


def make_folder(
    root: Path, layout: str = "{split}/{kind}/{name}", counts: Mapping[str, int] = COUNTS, classes: int = CLASSES
) -> Path:
    """A plain folder; `layout` places a file, such as ``{kind}/{split}/{name}`` or ``{kind}/{name}``."""
    seed = 0
    for split, count in counts.items():
        for _ in range(count):
            name = f"{seed:04}"
            image, mask = (root / layout.format(split=split, kind=kind, name=name) for kind in ("images", "masks"))
            save_scene(image.with_name(f"{name}.png"), mask.with_name(f"{name}.png"), seed, classes)
            seed += 1
    return root


def make_yaml(root: Path, text: str = "", counts: Mapping[str, int] = COUNTS) -> Path:
    """A folder with images and annotations, and the YAML file that describes it; `text` is added to the file."""
    seed = 0
    for split, count in counts.items():
        for _ in range(count):
            save_scene(root / "images" / split / f"{seed}.jpg", root / "annotations" / split / f"{seed}.png", seed)
            seed += 1
    lines = [*(f"{split}: images/{split}" for split in counts), "masks_dir: annotations", "names: [ground, a, b]", text]
    path = root / "data.yaml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def make_camvid(root: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """CamVid as published with SegNet: grey masks 0..10, 11 = void."""
    for number, (split, count) in enumerate(counts.items()):
        for index in range(count):
            image, mask = scene(100 * number + index, classes=11)
            save(root / split / f"{number:04}TP_{index:06}.png", image)
            save(
                root / f"{split}annot" / f"{number:04}TP_{index:06}.png",
                np.where(mask == VOID, 11, mask).astype(np.uint8),
            )
    return root


def make_voc(root: Path, counts: Mapping[str, int] = COUNTS, year: str = "VOC2012") -> Path:
    """A VOCdevkit: JPEG, palette PNG and lists."""
    folder = root / "VOCdevkit" / year
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for number, (split, count) in enumerate(counts.items()):
        names = [f"2007_{number:03}{index:03}" for index in range(count)]
        for index, name in enumerate(names):
            image, mask = scene(100 * number + index, classes=21)
            save(folder / "JPEGImages" / f"{name}.jpg", image)
            save(folder / "SegmentationClass" / f"{name}.png", mask, LabelSet.numbered(21))
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return root
