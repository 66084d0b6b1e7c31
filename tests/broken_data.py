"""A data set with every fault that `doctor` knows, made from a clean one; and what each fault is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from fullconv.labels import VOID, LabelSet
from makers import save

Array = NDArray[np.uint8]
LABELS = LabelSet(("ground", "water", "road", "house"))
COUNTS = {"train": 30, "val": 8, "test": 6}
SIZE = (72, 96)


def scene(seed: int) -> tuple[Array, Array]:
    """A smooth random image, unlike all others, and its mask: each class wherever one of four smooth fields is highest.

    All classes occur in each; a row of void on top.
    """
    rng = np.random.default_rng(seed)

    def smooth(cells: int) -> Array:
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells + 1), dtype=np.uint8))
        return np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BICUBIC))

    fields = np.stack([smooth(5) for _ in LABELS.names])
    mask = fields.argmax(0).astype(np.uint8)
    for label in range(len(LABELS)):
        mask[10 + 12 * label : 18 + 12 * label, 10:20] = label
    mask[0] = VOID
    image = np.stack([smooth(9) for _ in range(3)], 2)
    return (0.7 * image + 0.3 * LABELS.palette()[mask]).astype(np.uint8), mask


def make_clean(root: Path) -> Path:
    """A plain folder that nothing is wrong with."""
    seed = 0
    for split, count in COUNTS.items():
        for number in range(count):
            image, mask = scene(seed)
            save(root / split / "images" / f"{number:02}.png", image)
            save(root / split / "masks" / f"{number:02}.png", mask, LABELS)
            seed += 1
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in LABELS.names))
    return root


def original(split: str, number: int) -> tuple[Array, Array]:
    """Scene `number` of a split, as it was."""
    before = {"train": 0, "val": 30, "test": 38}[split]
    return scene(before + number)


def _coloured(mask: Array) -> Image.Image:
    return Image.fromarray(LABELS.palette()[mask])


def _soft(mask: Array) -> Image.Image:
    """Drawn twice as large and scaled down with antialiasing, as image editors do."""
    height, width = mask.shape
    large = _coloured(mask).resize((4 * width // 3, 4 * height // 3), Image.Resampling.BICUBIC)
    return large.resize((width, height), Image.Resampling.BOX)


def _renumbered(mask: Array) -> Image.Image:
    """A palette whose numbers 2 and 3 have each other's colours."""
    picture = Image.fromarray(mask)
    palette = LABELS.palette().copy()
    palette[[2, 3]] = palette[[3, 2]]
    picture.putpalette(palette.tobytes())
    return picture


def make_broken(root: Path) -> dict[str, set[str]]:
    """Break a clean data set; which names `doctor` should give for each kind of finding."""
    make_clean(root)

    def image(number: int, split: str = "train") -> Path:
        return root / split / "images" / f"{number:02}.png"

    def mask(number: int, split: str = "train") -> Path:
        return root / split / "masks" / f"{number:02}.png"

    def rewrite(number: int, change: Callable[[Array], Array | Image.Image], split: str = "train") -> None:
        changed = change(original(split, number)[1])
        (changed if isinstance(changed, Image.Image) else Image.fromarray(changed)).save(mask(number, split))

    mask(0).unlink()
    shutil.copy(mask(1), root / "train/masks/extra.png")
    image(2).write_bytes(image(2).read_bytes()[:2000])
    image(3).write_bytes(b"")
    mask(4).write_bytes(b"damaged")
    rewrite(5, lambda m: m[::2, ::2])
    upright = Image.open(image(6))
    upright.load()
    exif = Image.Exif()
    exif[274] = 8  # stored lying on its side: a viewer turns it by 270 degrees clockwise
    image(6).unlink()
    upright.transpose(Image.Transpose.ROTATE_270).save(image(6).with_suffix(".jpg"), exif=exif, quality=95)
    Image.open(mask(6)).transpose(Image.Transpose.ROTATE_270).save(mask(6))
    rewrite(7, lambda m: np.where(m == 3, 9, m).astype(np.uint8))
    rewrite(8, _coloured)
    rewrite(9, lambda m: np.repeat(np.where(m == VOID, 0, m)[:, :, None], 3, axis=2))
    rewrite(10, _soft)
    _coloured(original("train", 11)[1]).save(mask(11).with_suffix(".jpg"), quality=90)
    mask(11).unlink()
    rewrite(12, _renumbered)
    for number in range(COUNTS["test"]):
        rewrite(number, lambda m: np.where(m == VOID, VOID, m + 1).astype(np.uint8), "test")
    for number in range(COUNTS["val"]):
        rewrite(number, lambda m: np.where(m == 3, 2, m).astype(np.uint8), "val")
    shutil.copy(image(0, "val"), image(13))
    shutil.copy(mask(0, "val"), mask(13))
    brighter = ImageEnhance.Brightness(Image.open(image(1, "val"))).enhance(1.15)
    brighter.save(image(14).with_suffix(".jpg"), quality=60)
    image(14).unlink()
    shutil.copy(mask(1, "val"), mask(14))
    ImageOps.mirror(Image.open(image(2, "val"))).save(image(15))
    ImageOps.mirror(Image.open(mask(2, "val"))).save(mask(15))
    Image.open(image(16)).convert("L").save(image(16))
    wide = np.asarray(Image.open(image(17)).convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(image(17))
    save(image(18), np.full((*SIZE, 3), 77, np.uint8))
    rewrite(19, lambda m: np.full_like(m, VOID))
    shutil.copy(image(20), image(21))
    Image.open(image(22)).save(root / "train/images/drawing.gif")
    shutil.copy(image(23), image(23).with_suffix(".bmp"))
    return {
        "image without mask": {"train/00.png"},
        "mask without image": {"train/extra.png"},
        "one name twice": {"train/23.png"},
        "not read": {"train/drawing.gif"},
        "unreadable image": {"train/02", "train/03"},
        "unreadable mask": {"train/04"},
        "other size": {"train/05"},
        "sides swapped": {"train/06"},
        "value of no class": {"train/07"},
        "colours": {"train/08"},
        "grey as RGB": {"train/09"},
        "soft edges": {"train/10"},
        "lossy mask": {"train/11"},
        "palettes disagree": {"train/12"},
        "classes from 1": {f"test/{number:02}" for number in range(COUNTS["test"])},
        "class missing": {"val: house"},
        "same image across splits": {"train/13"},
        "similar image across splits": {"train/14"},
        "augmented copy across splits": {"train/15"},
        "kinds differ": {"train/16", "train/17"},
        "constant image": {"train/18"},
        "mostly void": {"train/19"},
        "same image, other mask": {"train/20"},
    }
