"""Label files: images, folders and globs in; palette PNG masks of exactly the input's size out."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.data.image import SUFFIXES, read_image
from fullconv.data.sample import IMAGE, Array
from fullconv.errors import DataError, OptionError
from fullconv.files import atomic
from fullconv.inference.batches import ahead, coarse_scores
from fullconv.inference.model import Model, Prediction

Report = Callable[[int, int, str], None]
"""Called with (files done, files in all, name of the last one)."""

THREADS = 2
AHEAD = 8
"""Decoding and encoding run in threads beside the net, at most so many files ahead of it."""


@dataclass(frozen=True)
class Job:
    """One image to label: where it is and where its mask goes."""

    image: Path
    mask: Path


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        written: masks, in the order of the inputs.
        failures: (image, one line that says why).
    """

    written: list[Path] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)


def predict(
    model: Model | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    overlay: bool = False,
    scores: bool = False,
    precision: str = "float32",
    report: Report | None = None,
) -> Outcome:
    """Label files: palette PNG masks of the images' sizes.

    Args:
        model: a `Model`, or its file.
        inputs: files, folders (searched through) and globs.
        out: folder of the masks, or a path ending in .png for a single file.
        overlay, scores, precision, report: see `predict_files`.

    Raises:
        DataError: an input that matches nothing.
        OptionError: masks that would overwrite each other or an input.
    """
    jobs = plan([inputs] if isinstance(inputs, str | Path) else inputs, out)
    if isinstance(model, str | Path):
        model = Model.load(model)
    return predict_files(model, jobs, overlay=overlay, scores=scores, precision=precision, report=report)


def plan(inputs: Sequence[str | Path], out: str | Path) -> list[Job]:
    """The jobs of files, folders (searched through) and globs; masks keep the folders' structure.

    Args:
        out: a folder, or a path ending in .png for a single file.

    Raises:
        DataError: an input that matches nothing.
        OptionError: two images with one mask, a mask that would replace an input, or a .png for several images.
    """
    out = Path(out)
    found: dict[Path, Path] = {}  # image -> mask, relative to out
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
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
    if out.suffix.lower() == ".png":
        if len(found) > 1:
            raise OptionError(f"{out} is one file for {len(found)} images; give a folder")
        jobs = [Job(image, out) for image in found]
    else:
        jobs = [Job(image, out / mask) for image, mask in found.items()]
    taken: dict[Path, Path] = {}
    sources = {job.image.resolve() for job in jobs}
    for job in jobs:
        if job.mask in taken:
            raise OptionError(f"{taken[job.mask]} and {job.image} would both become {job.mask}; label them separately")
        if job.mask.resolve() in sources:
            raise OptionError(f"the mask of {job.image} would replace the image {job.mask}; choose another folder")
        taken[job.mask] = job.image
    return jobs


def predict_files(
    model: Model,
    jobs: Sequence[Job],
    *,
    overlay: bool = False,
    scores: bool = False,
    precision: str = "float32",
    report: Report | None = None,
) -> Outcome:
    """Label every job; bad images are named and the rest goes on.

    Args:
        overlay: also write ``NAME_overlay.png``.
        scores: also write ``NAME_scores.npy``, (K, H, W) float32.
        precision: "float32", "bfloat16" or "auto".
        report: called after every file.
    """
    outcome = Outcome()
    if len(model.net.options.inputs) > 1:
        raise OptionError("this net has several inputs; label its images in Python: Model.predict({name: image, ...})")

    def good() -> Iterator[tuple[tuple[Job, Array], dict[str, Array]]]:
        for job, image in ahead(_read, jobs, THREADS, AHEAD):
            if isinstance(image, str):
                outcome.failures.append((job.image, image))
            else:
                yield (job, image), model.inputs(image)

    def answers() -> Iterator[tuple[Job, Prediction]]:
        for (job, image), tasks in coarse_scores(model.net, good(), precision):
            prediction = next(iter(model.predictions({IMAGE: image}, tasks).values()))
            _ = prediction.labels  # here, so that the writing threads only encode
            yield job, prediction

    write = partial(_write, overlay=overlay, scores=scores)
    for job, failure in ahead(write, answers(), THREADS, AHEAD):
        if failure is None:
            outcome.written.append(job.mask)
        else:
            outcome.failures.append((job.image, failure))
        if report is not None:
            report(len(outcome.written) + len(outcome.failures), len(jobs), job.image.name)
    return outcome


def _read(job: Job) -> tuple[Job, Array | str]:
    try:
        return job, read_image(job.image)
    except DataError as error:
        return job, str(error)


def _write(answer: tuple[Job, Prediction], overlay: bool, scores: bool) -> tuple[Job, str | None]:
    job, prediction = answer
    try:
        prediction.save(job.mask)
        if overlay:
            with atomic(job.mask.with_name(f"{job.mask.stem}_overlay.png")) as path:
                Image.fromarray(prediction.overlay()).save(path, compress_level=1)
        if scores:
            with atomic(job.mask.with_name(f"{job.mask.stem}_scores.npy")) as path:
                np.save(path, prediction.scores(), allow_pickle=False)
    except OSError as error:
        return job, f"{job.mask} could not be written: {error.strerror or error}; check the folder and the disk"
    return job, None
