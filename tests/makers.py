"""Tiny data sets in the real layouts. Each class has its colour in the images, so that nets learn it in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
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


def save_mat(path: Path, **variables: object) -> Path:
    """Write a MATLAB 5 file, compressed as MATLAB does it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)
    return path


def save_list(path: Path, names: Sequence[str]) -> Path:
    """Write names, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return path


SBD_IDS = {"train": ("2008_000001", "2008_000002", "2008_000003"), "val": ("2008_000004", "2008_000005")}


def sbd_mask(name: str) -> Array:
    """What the SBD maker writes for an id: no void."""
    mask = scene(int(name[-6:]), classes=21)[1]
    mask[0] = 20
    return mask


def make_sbd(root: Path, ids: Mapping[str, Sequence[str]] = SBD_IDS) -> Path:
    """SBD: structs with boundaries beside the label map, as released."""
    dataset = root / "benchmark_RELEASE" / "dataset"
    for split, names in ids.items():
        save_list(dataset / f"{split}.txt", names)
        for name in names:
            save(dataset / "img" / f"{name}.jpg", scene(int(name[-6:]), classes=21)[0])
            boundaries = np.empty((20, 1), object)
            for index in range(20):
                boundaries[index, 0] = scipy.sparse.csc_matrix(np.eye(*SIZE, index) > 0)
            fields = {
                "Boundaries": boundaries,
                "Segmentation": sbd_mask(name),
                "CategoriesPresent": np.array([[20]], np.uint8),
            }
            save_mat(dataset / "cls" / f"{name}.mat", GTcls=fields)
    return root


CONTEXT_NUMBERS = {1: 0, 2: 1, 397: 11, 80: 28, 19: 52, 458: 59, 431: 0}
"""Some of the 459 numbers and their classes: accordion, aeroplane, table, cloth, bedclothes, wood, unknown."""


def make_context(root: Path, counts: Mapping[str, int] = {"train": 3, "val": 2}) -> Path:
    """Pascal-Context beside a VOC2010; a list names one image more, which has no label map."""
    folder, voc2010 = root / "pascal-context", root / "VOCdevkit" / "VOC2010"
    numbers = np.array(list(CONTEXT_NUMBERS), np.uint16)
    for number, (split, count) in enumerate(counts.items()):
        names = [f"2010_{number:03}{index:03}" for index in range(count)]
        save_list(voc2010 / "ImageSets" / "Main" / f"{split}.txt", [*names, f"2010_{number:03}999"])
        for index, name in enumerate(names):
            image, mask = scene(100 * number + index, classes=6)
            save(voc2010 / "JPEGImages" / f"{name}.jpg", image)
            save_mat(folder / "trainval" / f"{name}.mat", LabelMap=numbers[np.where(mask == VOID, 6, mask)])
    return folder


def make_nyud(root: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """NYUDv2 with colour, depth and HHA; labels are counted from 1, 0 is void."""
    for number, (split, count) in enumerate(counts.items()):
        ids = [5001 + 100 * number + index for index in range(count)]
        save_list(root / f"{split}.txt", list(map(str, ids)))
        for each in ids:
            image, mask = scene(each, classes=40)
            save(root / "data" / "images" / f"img_{each}.png", image)
            save(root / "data" / "hha" / f"img_{each}.png", 255 - image)
            save(root / "data" / "depth" / f"img_{each}.png", 2000 + mask.astype(np.uint16))
            save_mat(
                root / "segmentation" / f"img_{each}.mat",
                segmentation=np.where(mask == VOID, 0, mask + 1).astype(np.uint8),
            )
    return root


def make_siftflow(root: Path, counts: Mapping[str, int] = {"trainval": 10, "test": 2}) -> Path:
    """SIFT Flow: semantic labels from 1 with 0 = void, geometric ones from 1 with -1 = void."""
    inside = "spatial_envelope_256x256_static_8outdoorcategories"
    for number, (split, count) in enumerate(counts.items()):
        names = [f"coast_{split}{index}" for index in range(count)]
        save_list(root / f"{split}.txt", names)
        for index, name in enumerate(names):
            image, mask = scene(100 * number + index, classes=33)
            labels = np.where(mask == VOID, 0, mask.astype(np.int16) + 1)
            save(root / "Images" / inside / f"{name}.jpg", image)
            save_mat(root / "SemanticLabels" / inside / f"{name}.mat", S=labels.astype(float), names=["awning"])
            save_mat(root / "GeoLabels" / inside / f"{name}.mat", S=np.where(labels == 0, -1, labels % 3 + 1))
    return root


CITYSCAPES_LABELS = {7: 0, 8: 1, 11: 2, 26: 13, 33: 18, 3: VOID}
"""Some labels and their classes: road, sidewalk, building, car, bicycle, out of roi."""


def make_cityscapes(root: Path, counts: Mapping[str, int] = COUNTS, ending: str = "labelIds") -> Path:
    """Cityscapes, by labels or by the classes that are trained on."""
    values = list(CITYSCAPES_LABELS if ending == "labelIds" else CITYSCAPES_LABELS.values())
    for number, (split, count) in enumerate(counts.items()):
        for index in range(count):
            name = f"ulm/ulm_{number:06}_{index:06}"
            image, mask = scene(100 * number + index, classes=5)
            save(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", image)
            save(
                root / "gtFine" / split / f"{name}_gtFine_{ending}.png",
                np.array(values, np.uint8)[np.where(mask == VOID, 5, mask)],
            )
            save(root / "gtFine" / split / f"{name}_gtFine_instanceIds.png", mask)
    return root


def make_ade20k(root: Path, counts: Mapping[str, int] = {"train": 3, "val": 2}) -> Path:
    """SceneParsing's ADE20K: classes from 1, 0 = void."""
    folder, seed = root / "ADEChallengeData2016", 0
    for split, count in counts.items():
        for _ in range(count):
            image, mask = scene(seed, classes=150)
            part = {"train": "training", "val": "validation"}[split]
            save(folder / "images" / part / f"ADE_{split}_{seed:08}.jpg", image)
            save(
                folder / "annotations" / part / f"ADE_{split}_{seed:08}.png",
                np.where(mask == VOID, 0, mask + 1).astype(np.uint8),
            )
            seed += 1
    return folder


WAFER_MAPS = (
    np.arange(9 * 8, dtype=np.uint8).reshape(9, 8) % 3,
    np.ones((10, 12), np.uint8),
    np.full((8, 9), 2, np.uint8),
)


def make_wafer_maps(root: Path) -> Path:
    """A file of wafer maps of several sizes, in the form in which WM-811K is passed on."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / "val_data.npz"
    np.savez_compressed(
        path,
        flat=np.concatenate([each.ravel() for each in WAFER_MAPS]),
        shapes=np.array([each.shape for each in WAFER_MAPS], np.int16),
        labels=np.array(["Center", "None", "Near-full"]),
    )
    return path
