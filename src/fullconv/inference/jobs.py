"""Which images there are to label, and where their masks go: files, folders and globs in, jobs out."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fullconv.data import wafermaps
from fullconv.data.image import SUFFIXES, find_images
from fullconv.errors import DataError, OptionError, printable
from fullconv.inference.journal import stamp
from fullconv.inference.raster import confidence_path
from fullconv.inference.scenes import is_scene, sources

RASTERS = (".tif", ".tiff")
"""Of masks that are rasters."""


@dataclass(frozen=True)
class Job:
    """One image to label: where it is and where its mask goes, and what else is wanted.

    `number` is that of a map in a file of wafer maps; the image is then this map, not the file. A mask that ends in
    .tif is of a scene (see `fullconv.inference.scenes`).
    """

    image: Path
    mask: Path
    overlay: Path | None = None
    scores: Path | None = None
    number: int | None = None
    confidence: Path | None = None

    @property
    def is_scene(self) -> bool:
        """Whether the image is labelled as a raster."""
        return self.mask.suffix.lower() in RASTERS

    @property
    def outputs(self) -> list[Path]:
        """All that will be written."""
        return [path for path in (self.mask, self.overlay, self.scores, self.confidence) if path is not None]

    def stamp(self) -> str:
        """What tells the image from its later versions and from others, all files that it is read from; see
        `fullconv.inference.journal.stamp`."""
        try:
            return stamp(self.image, self.number, sources(self.image) if self.is_scene else ())
        except DataError:
            return ""


def plan(
    inputs: Sequence[str | Path], out: str | Path, *, overlay: bool = False, scores: bool = False,
    confidence: bool = False, bands: Sequence[int] = (),
) -> list[Job]:  # fmt: skip
    """The jobs of files, folders (searched through) and globs; masks keep the folders' structure. An ``.npz`` file of
    wafer maps gives a job for each map. The mask of a scene (see `is_scene`) is a .tif, every other a .png.

    In folders, hidden files are left out, and so is `out` where it lies in one of them. VRTs are found in no folder,
    since the files that they are made of are labelled already: name them.

    Args:
        out: a folder, or a path ending in .png or .tif for a single file.
        overlay, scores, confidence: see `predict`; each is left out of images that have none, see `left_out`.
        bands: that the net takes, see `is_scene`.

    Raises:
        DataError: an input that matches nothing.
        OptionError: two images with one mask, a file that would replace an input, a single mask for several images, or
            an overlay, scores or confidences where no image has them.
    """
    out = Path(out)
    single = out.suffix.lower() in (".png", *RASTERS)
    if single and out.is_dir():
        raise OptionError(
            f"{printable(out)} is a folder; name a file in it, or a folder that does not end in .png or .tif"
        )
    found = _found(inputs, out)
    if not single:
        found = {p: mask.with_suffix(".tif") if is_scene(p, bands) else mask for p, mask in found.items()}
    # a.jpg and a.png in one folder: their masks keep the whole name.
    masks = Counter(found.values())
    found = {p: mask if masks[mask] == 1 else mask.with_name(p.name + mask.suffix) for p, mask in found.items()}
    if not single and out.suffix.lower() in SUFFIXES:
        raise OptionError(
            f"{out} would be a {out.suffix[1:]} file; masks are PNG, and of rasters TIFF: name a folder, or a file in "
            ".png or .tif"
        )
    jobs = []
    for image, relative, number in _with_maps(found):
        mask = out if single else out / relative
        more = mask.with_name(f"{mask.stem}_overlay.png"), mask.with_name(f"{mask.stem}_scores.npy")
        job = Job(image, mask, number=number)
        if job.is_scene:
            jobs.append(replace(job, confidence=confidence_path(mask) if confidence else None))
        else:
            jobs.append(replace(job, overlay=more[0] if overlay else None, scores=more[1] if scores else None))
    _require_possible(jobs, overlay or scores, confidence)
    if single and len(jobs) > 1:
        raise OptionError(f"{out} is one file for {len(jobs)} images; give a folder")
    taken: dict[Path, Path] = {}
    sources = {job.image.resolve() for job in jobs}
    for job in jobs:
        for path in job.outputs:
            if path in taken:
                raise OptionError(f"{taken[path]} and {job.image} would both become {path}; label them separately")
            if path.resolve() in sources:
                raise OptionError(f"{path}, made from {job.image}, would replace an image; choose another folder")
            taken[path] = job.image
    return jobs


def left_out(jobs: Sequence[Job]) -> Iterator[str]:
    """What images have not, though others have it: a line each."""
    scenes = sum(job.is_scene for job in jobs)
    if scenes and any(job.overlay or job.scores for job in jobs):
        yield f"there is no overlay and no .npy of scores of the {scenes} of {len(jobs)} images that are rasters"
    if len(jobs) == 1 and not scenes and jobs[0].number is None and is_scene(jobs[0].image):
        yield (
            f"{printable(jobs[0].image)} is labelled as a picture, without its coordinates; end --out in .tif to keep "
            "them"
        )
    if any(job.confidence for job in jobs) and scenes < len(jobs):
        yield f"there are no confidences of the {len(jobs) - scenes} of {len(jobs)} images that are no rasters"


def require_told_apart(inputs: Iterable[str | Path], jobs: Iterable[Job], out: Path) -> None:
    """Raise OptionError where it cannot be told what an earlier call wrote."""
    if out.suffix.lower() == ".png":
        raise OptionError(f"{printable(out)} is a single mask; --resume goes on in a folder: name one")
    root = out.resolve()
    masks = (job.image for job in jobs if job.image.name.lower().endswith((".png", "_scores.npy")))
    if any(Path(path).resolve() == root for path in inputs) or any(path.resolve().parent == root for path in masks):
        raise OptionError(
            f"{printable(out)} holds images and masks, which --resume cannot tell apart; choose a folder for the masks"
        )


def _require_possible(jobs: Sequence[Job], pictures: bool, confidence: bool) -> None:
    """Raise OptionError for outputs that no image has: those of pictures, or confidences."""
    job = jobs[0]
    if pictures and all(each.is_scene for each in jobs):
        raise OptionError(
            f"{printable(job.image)} is labelled as a raster, of which there is no overlay and no .npy of scores; "
            "name its mask in .png to label it as a picture, or take confidence, every class's probability"
        )
    if confidence and not any(each.is_scene for each in jobs):
        raise OptionError(
            f"{printable(job.image)} is no raster, and confidences are bands of one; scores writes an .npy of a "
            "picture's, or name a mask in .tif"
        )


def _found(inputs: Sequence[str | Path], out: Path) -> dict[Path, Path]:
    """Every image named, with its mask's path relative to `out`."""
    found: dict[Path, Path] = {}
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            own = out.resolve() if out.resolve() != path.resolve() else None  # masks of an earlier call are no images
            inside = [image for image in find_images(path) if own not in image.resolve().parents]
            inside += [each for each in sorted(path.rglob("*.npz")) if wafermaps.recognise(each)]
            if not inside:
                raise DataError(f"{path} holds no image; expected files ending in {', '.join(sorted(SUFFIXES))}")
            found |= {p: p.relative_to(path).with_suffix(".png") for p in inside}
        elif path.exists():
            found[path] = Path(path.stem + ".png")
        else:
            matches = sorted(Path(p) for p in glob.glob(str(given), recursive=True) if Path(p).is_file())
            if not matches:
                raise DataError(f"{given} does not exist and matches no file; check the path")
            found |= {p: Path(p.stem + ".png") for p in matches}
    return found


def _with_maps(found: Mapping[Path, Path]) -> Iterator[tuple[Path, Path, int | None]]:
    """Image, relative path of its mask, and number; a file of wafer maps is as many images as it has maps."""
    for image, relative in found.items():
        if not wafermaps.recognise(image):
            yield image, relative, None
            continue
        maps = wafermaps.wafer_maps(image)
        for number in range(len(maps)):
            yield image, relative.with_name(f"{maps.name(number)}.png"), number
