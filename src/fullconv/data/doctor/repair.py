"""A repaired copy of a data set: a plain folder, with a report of what was changed and what could not be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fullconv.data.doctor import coding as code
from fullconv.data.doctor.budget import PIXELS, Budget, threads_for
from fullconv.data.doctor.coding import verdict
from fullconv.data.doctor.diagnosis import Diagnosis, Looked
from fullconv.data.doctor.findings import KINDS, LEAKS
from fullconv.data.doctor.mending import mended
from fullconv.data.doctor.yamltext import description
from fullconv.data.folder import write_classes
from fullconv.data.image import read_image
from fullconv.data.mask import MaskReader, read_raw, write_mask
from fullconv.data.orientation import turned
from fullconv.data.sample import Array
from fullconv.errors import DataError, OptionError, printable
from fullconv.files import atomic, fresh_folder
from fullconv.labels import LabelSet

Progress = Callable[[int, int], None]

REPORT = "changes.json"

DESCRIPTION = "data.yaml"
"""Written beside the copy of a YAML file's data where the folder alone would not say all that the file says."""

_HELD = 4
"""Mending holds about so many times as much as looking at a mask does."""


@dataclass
class Repaired:
    """What became of a data set.

    Attributes:
        path: of the repaired copy.
        data: what to train on: the copy, or the YAML file in it.
        written: scenes.
        changed: what was done -> the names of the scenes it was done to.
        dropped: why -> the names of the scenes that are not in the copy.
        left: findings that no program can mend, as in the report of `doctor`.
    """

    path: Path
    data: Path
    written: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "path": printable(self.path),
            "data": printable(self.data),
            "written": self.written,
            "changed": _printable(self.changed),
            "dropped": _printable(self.dropped),
            "left": self.left,
        }


def repair(found: Diagnosis, out: str | Path, progress: Progress | None = None) -> Repaired:
    """Write a repaired copy of an examined data set.

    Images are copied byte for byte, but for pictures whose kind differs from most, which become 8-bit RGB PNG; masks
    are written as palette PNG. What cannot be used is left out, and so are the scenes of a split that a later one (of
    train, val and test) has too. What a YAML file says of bands and tiles is said by `DESCRIPTION` in the copy.

    Args:
        found: of the whole examination, not of its fast part.
        out: a new or empty folder.
        progress: called after every scene.

    Raises:
        OptionError: a folder that is not empty, or lies in the data set; data of other than one image and one mask; the
            fast part of an examination.
        DataError: nothing can be used, or the copy cannot be written.
    """
    out = Path(out)
    _require_repairable(found, out)
    leaks = {name: f.kind for f in found.findings if f.kind in LEAKS for name in f.names}
    more = description(found.listing, _labels(found))
    result = Repaired(
        out,
        out / DESCRIPTION if more else out,
        left=[f.title for f in found.findings if "{fix}" not in KINDS[f.kind].remedy],
    )
    for kind, places in (
        ("image without mask", found.listing.lonely_images),
        ("mask without image", found.listing.lonely_masks),
        ("shares its name with another", found.listing.doubles),
    ):
        for place in places:
            result.dropped.setdefault(kind, []).append(f"{place.split}/{place.path.name}")
    budget, held = Budget(PIXELS), [_HELD * _pixels(each) for each in found.looked]
    threads = threads_for(held, os.cpu_count() or 1)
    with fresh_folder(out) as folder, ThreadPoolExecutor(threads) as pool:

        def work(each: Looked) -> tuple[str, list[str], str | None]:
            with budget.taken(_HELD * _pixels(each)):
                return mend(each)

        def mend(each: Looked) -> tuple[str, list[str], str | None]:
            name = f"{each.split}/{each.scene.name}"
            if name in leaks:
                return name, [], leaks[name]
            try:
                mask, changes = _mask(found, each)
            except DataError as error:
                return name, [], str(error)
            # Outside of `try`: what cannot be written ends the repair, it is no scene to leave out.
            return name, changes + _write(found, each, mask, folder), None

        for done, (name, changes, why) in enumerate(pool.map(work, found.looked), 1):
            if why is not None:
                result.dropped.setdefault(why, []).append(name)
            else:
                result.written += 1
                for change in changes:
                    result.changed.setdefault(change, []).append(name)
            if progress is not None:
                progress(done, len(found.looked))
        if not result.written:
            raise DataError(f"{printable(found.listing.source)}: no image and mask can be used; nothing was written")
        write_classes(folder, _labels(found))
        if more:
            splits = "".join(
                f"{split}: {split}/images\n" for split in found.listing.scenes if (folder / split).is_dir()
            )
            (folder / DESCRIPTION).write_text(splits + more, "utf-8")
        (folder / REPORT).write_text(json.dumps(result.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
    return result


_CHANGES = {
    code.LOSSY: "mask of a lossy format: the classes that can be told",
    code.SOFT: "soft edges took the nearest pixel's class",
    code.OUTSIDE: "values of no class became void",
    code.FROM_ONE: "classes counted from 0",
    code.BINARY: "255 became class 1",
    code.COLOURED: "colours became class numbers",
    code.GREY_RGB: "grey RGB became class numbers",
}


def _require_repairable(found: Diagnosis, out: Path) -> None:
    listing = found.listing
    tasks = [task for own in listing.tasks.values() for task in own.values()]
    one = len(listing.inputs) == len(found.codings) == 1
    if found.fast:
        raise OptionError(
            f"{printable(listing.source)}: only some of its masks were looked at; examine it without fast"
        )
    if not one or not all(isinstance(task.reader, MaskReader) for task in tasks):
        raise OptionError(
            f"{printable(listing.source)} is a {listing.layout}; data sets of one picture and one mask file a scene "
            "can be repaired, others by hand"
        )
    source = Path(listing.source).resolve()
    inside = {path.resolve().parent for scenes in listing.scenes.values() for s in scenes for path in (s.image, s.mask)}
    if source.is_dir():
        inside.add(source)
    if any(out.resolve().is_relative_to(folder) for folder in inside):
        raise OptionError(f"{printable(out)} lies in the data set; name a folder beside it")


def _mask(found: Diagnosis, each: Looked) -> tuple[Array, list[str]]:
    """The mask of a scene, mended; what was changed about it.

    Raises:
        DataError: it cannot be used; the text says why, and is the same for all scenes with this fault.
    """
    image, (task, facts) = next(iter(each.images.values())), next(iter(each.masks.items()))
    if image.problem is not None:
        raise DataError("the image cannot be read")
    if facts.problem is not None:
        raise DataError("the mask cannot be read")
    coding, changes = found.codings[task][each.split], []
    raw = read_raw(each.scene.masks[task], allow_lossy=True)
    if facts.size == image.size[::-1] != image.size:
        if image.orientation == 1:  # also where the mask alone says that it is turned: which is right cannot be told
            raise DataError("the mask's sides are swapped, and nothing says which way to turn it")
        raw = replace(raw, values=np.ascontiguousarray(turned(raw.values, image.orientation)))
        changes.append("mask turned as its image is")
    kind = verdict(facts, coding, each.split)
    mask = mended(raw, coding, each.split)
    if kind != code.OK:
        named = " named by them: rename those in classes.txt" if kind == code.COLOURED and coding.guessed else ""
        changes.append(_CHANGES[kind] + named)
    if mask.shape != image.size:
        mask = _scaled(mask, image.size)
        changes.append("mask scaled to its image's size")
    return mask, changes


def _write(found: Diagnosis, each: Looked, mask: Array, folder: Path) -> list[str]:
    """Write the files of a scene; what was changed about its image."""
    image_name, image = next(iter(each.images.items()))
    changes = []
    source = each.scene.images[image_name]
    target = folder / each.split / "images" / f"{each.scene.name}{source.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if image.kind != found.usual_kind and not found.listing.inputs[image_name].kind.measured:
        with atomic(target.with_suffix(".png"), durable=False) as path:
            Image.fromarray(read_image(source)).save(path, compress_level=1)
        changes.append("image converted to 8-bit RGB")
    else:
        shutil.copyfile(source, target)
    write_mask(folder / each.split / "masks" / f"{each.scene.name}.png", mask, _labels(found))
    return changes


def _pixels(each: Looked) -> int:
    sizes = [facts.size for facts in each.images.values()] + [facts.size for facts in each.masks.values()]
    return max(map(prod, sizes))


def _labels(found: Diagnosis) -> LabelSet:
    return found.labels(next(iter(found.codings)))


def _scaled(mask: Array, size: tuple[int, int]) -> Array:
    """A mask of its image's shape, by nearest pixel.

    Raises:
        DataError: the shapes differ by more than rounding.
    """
    (height, width), (wanted_height, wanted_width) = mask.shape, size
    if abs(height * wanted_width - width * wanted_height) > max(height, width, *size):
        raise DataError("the mask's shape is not its image's")
    resized = Image.fromarray(mask).resize((wanted_width, wanted_height), Image.Resampling.NEAREST)
    return np.asarray(resized)


def _printable(groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {printable(key): [printable(name) for name in names] for key, names in groups.items()}
