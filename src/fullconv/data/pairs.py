"""Images and their masks, found by name."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fullconv.data.image import SUFFIXES, find_images
from fullconv.data.scenes import Scene
from fullconv.errors import DataError, printable

JPEG = (".jpg", ".jpeg")

LISTED = 10
"""How many file names or problems a message lists."""


@dataclass(frozen=True)
class Names:
    """What is added to a scene's name in the names of its files, before their suffixes: ``0001_sat.jpg`` and
    ``0001_mask.png`` are scene ``0001``."""

    image: str = ""
    mask: str = ""


PLAIN = Names()


def pair_folders(source: str, folders: Sequence[tuple[Path, Path]], names: Names = PLAIN) -> tuple[Scene, ...]:
    """The pairs of several folders of images, each with its folder of masks; see `pair_by_stem`.

    Where there are several, a scene's name begins with what tells its folder from the others.
    """
    if len(folders) == 1:
        return pair_by_stem(source, *folders[0], names)
    every = [images for images, _ in folders]
    return tuple(
        replace(scene, name=prefix_of(images, every) + scene.name)
        for images, masks in folders
        for scene in pair_by_stem(source, images, masks, names)
    )


def prefix_of(folder: Path, folders: Sequence[Path]) -> str:
    """What the names of a folder's scenes begin with, where a split has several folders.

    >>> prefix_of(Path("data/Tile 1/images"), [Path("data/Tile 1/images"), Path("data/Tile 3/images")])
    'Tile 1/images/'
    """
    if len(folders) == 1:
        return ""
    # Without ".." in them: names become paths below folders of results.
    place, *others = (Path(os.path.abspath(each)) for each in (folder, *folders))  # noqa: PTH100 -- links stay
    inner = place.relative_to(os.path.commonpath(others))
    return f"{inner.as_posix()}/" if inner.parts else ""


def pair_by_stem(source: str, images: Path, masks: Path, names: Names = PLAIN) -> tuple[Scene, ...]:
    """Pair the pictures below two folders by their relative path without suffix, in order of names.

    Hidden files and files of other kinds are ignored. In a folder of both, a JPEG is an image and another file a mask,
    unless their names tell.

    Raises:
        DataError: no picture, two pictures of one name, an image without mask or a mask without image; one line.
    """
    found, labelled = images_and_masks(source, images, masks, names)
    if not found and labelled and images.resolve() == masks.resolve():
        raise DataError(
            f"{printable(images)}: holds images and masks, and no JPEG that would be an image; tell them apart with "
            "image_suffix or mask_suffix in a YAML file, such as mask_suffix: _mask"
        )
    if not found:
        raise DataError(f"{printable(images)}: holds no pictures; expected files ending in {', '.join(SUFFIXES)}")
    lonely = [found[key].name for key in found if key not in labelled]
    unused = [labelled[key].name for key in labelled if key not in found]
    if lonely or unused:
        raise mismatch(source, lonely, unused, f"{printable(masks)}")
    return tuple(Scene.of(file.name, file.path, labelled[key].path) for key, file in sorted(found.items()))


def images_and_masks(
    source: str, images: Path, masks: Path, names: Names = PLAIN, doubles: list[ImageFile] | None = None
) -> tuple[dict[str, ImageFile], dict[str, ImageFile]]:
    """The images and the masks below two folders, which may be one, by the scenes' names.

    Args:
        doubles: where given, the second of two pictures of one name goes there.

    Raises:
        DataError: two pictures of one name, where `doubles` is not given.
    """
    mixed = images.resolve() == masks.resolve()

    def is_image(path: Path) -> bool:
        if not mixed or names.image:
            return path.stem.endswith(names.image)
        return not path.stem.endswith(names.mask) if names.mask else path.suffix.lower() in JPEG

    def is_mask(path: Path) -> bool:
        return path.stem.endswith(names.mask) and not (mixed and is_image(path) and not names.mask)

    return (
        images_by_name(source, images, names.image, is_image, doubles),
        images_by_name(source, masks, names.mask, is_mask, doubles),
    )


def mismatch(source: str, lonely: Sequence[str], unused: Sequence[str], masks: str) -> DataError:
    """The error for images without mask and masks without image."""
    parts = [
        f"{len(names)} {what} ({listed(names)})"
        for names, what in ((lonely, "images without mask"), (unused, "masks without image"))
        if names
    ]
    suffix = common_suffix(lonely, unused)
    hint = f"; or set mask_suffix: {suffix} in a YAML file" if suffix else ""
    return DataError(
        f"{printable(source)}: {' and '.join(parts)}; masks lie in {masks} under their image's name, such as 0001.jpg "
        f"and 0001.png: add or remove files{hint}"
    )


def common_suffix(images: Sequence[str], masks: Sequence[str]) -> str:
    """What every mask's file name has after an image's, before the file's suffix; "" where they differ in more.

    >>> common_suffix(["1.jpg", "2.jpg"], ["1_mask.png", "2_mask.png"])
    '_mask'
    """
    stems = {Path(name).stem for name in images}
    found = {
        stem[len(prefix) :]
        for stem in (Path(name).stem for name in masks)
        for prefix in [max((s for s in stems if stem.startswith(s)), key=len, default="")]
    }
    return found.pop() if stems and len(found) == 1 and len(masks) > 1 else ""


def listed(names: Iterable[str]) -> str:
    """The first ten, and how many more."""
    every = [printable(name) for name in names]
    more = [f"and {len(every) - LISTED} more"] if len(every) > LISTED else []
    return ", ".join(every[:LISTED] + more)


def require_split(source: str, split: str, have: Sequence[str]) -> None:
    """Raise DataError, naming the splits there are, unless `split` is one of them."""
    if split not in have:
        raise DataError(f"{printable(source)}: has no split {split!r}; its splits: {', '.join(have) or 'none'}")


@dataclass(frozen=True)
class ImageFile:
    """A file that may hold an image; `name` is its relative path without suffix."""

    name: str
    path: Path


def images_by_name(
    source: str,
    folder: Path,
    ending: str = "",
    keep: Callable[[Path], bool] = lambda _: True,
    doubles: list[ImageFile] | None = None,
) -> dict[str, ImageFile]:
    """The images below a folder that are kept, by name without `ending`; the keys are NFC, because file systems store
    accents in two ways.

    Raises:
        DataError: two of one name, where there are no `doubles` that the second is put into.
    """
    found: dict[str, ImageFile] = {}
    for path in filter(keep, find_images(folder)):
        name = path.relative_to(folder).with_suffix("").as_posix().removesuffix(ending)
        key = unicodedata.normalize("NFC", name)
        if key in found and doubles is not None:
            doubles.append(ImageFile(name, path))
            continue
        if key in found:
            raise DataError(
                f"{printable(source)}: {printable(found[key].path)} and {printable(path.name)} share the name "
                f"{printable(name)!r}; rename or remove one"
            )
        found[key] = ImageFile(name, path)
    return found
