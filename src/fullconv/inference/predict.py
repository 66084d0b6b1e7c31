"""Label files: images, folders and globs in; palette PNG masks of exactly the input's size out."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from fullconv.data import wafermaps
from fullconv.data.image import SUFFIXES, find_images
from fullconv.data.sample import Values
from fullconv.data.wafer import render
from fullconv.errors import DataError, OptionError
from fullconv.files import atomic
from fullconv.inference.batches import ahead, coarse_scores, depth_of
from fullconv.inference.model import Model, Prediction

Progress = Callable[[int, int, str], None]
"""Called with (files done, files in all, name of the last one)."""


@dataclass(frozen=True)
class Job:
    """One image to label: where it is and where its mask goes, and what else is wanted.

    `number` is that of a map in a file of wafer maps; the image is then this map, not the file.
    """

    image: Path
    mask: Path
    overlay: Path | None = None
    scores: Path | None = None
    number: int | None = None

    @property
    def outputs(self) -> list[Path]:
        """All that will be written."""
        return [path for path in (self.mask, self.overlay, self.scores) if path is not None]


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        written: masks, in the order of the inputs.
        failures: (image, one line that says why).
        notes: what the user should know of all of them, a line each.
    """

    written: list[Path] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def predict(
    model: Model | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    overlay: bool = False,
    scores: bool = False,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Outcome:
    """Label files: palette PNG masks of the images' sizes.

    Args:
        model: a `Model`, or its file.
        inputs: files, folders (searched through) and globs.
        out: folder of the masks, or a path ending in .png for a single file.
        overlay: also write ``NAME_overlay.png``.
        scores: also write ``NAME_scores.npy``, (K, H, W) float32.
        precision, progress: see `predict_files`.

    Raises:
        DataError: an input that matches nothing.
        OptionError: files that would overwrite each other or an input.
    """
    jobs = plan([inputs] if isinstance(inputs, str | Path) else inputs, out, overlay=overlay, scores=scores)
    if isinstance(model, str | Path):
        model = Model.load(model)
    return predict_files(model, jobs, precision=precision, progress=progress)


def plan(inputs: Sequence[str | Path], out: str | Path, *, overlay: bool = False, scores: bool = False) -> list[Job]:
    """The jobs of files, folders (searched through) and globs; masks keep the folders' structure. An ``.npz`` file of
    wafer maps gives a job for each map.

    In folders, hidden files are left out, and so is `out` where it lies in one of them.

    Args:
        out: a folder, or a path ending in .png for a single file.
        overlay, scores: see `predict`.

    Raises:
        DataError: an input that matches nothing.
        OptionError: two images with one mask, a file that would replace an input, or a .png for several images.
    """
    out = Path(out)
    found = _found(inputs, out)
    # a.jpg and a.png in one folder: their masks keep the whole name.
    masks = Counter(found.values())
    found = {p: mask if masks[mask] == 1 else mask.with_name(f"{p.name}.png") for p, mask in found.items()}
    if out.suffix.lower() in set(SUFFIXES) - {".png"}:
        raise OptionError(f"{out} would be a {out.suffix[1:]} file; masks are PNG: name a folder or a file in .png")
    jobs = []
    for image, relative, number in _with_maps(found):
        mask = out if out.suffix.lower() == ".png" else out / relative
        more = mask.with_name(f"{mask.stem}_overlay.png"), mask.with_name(f"{mask.stem}_scores.npy")
        jobs.append(Job(image, mask, more[0] if overlay else None, more[1] if scores else None, number))
    if out.suffix.lower() == ".png" and len(jobs) > 1:
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


def predict_files(
    model: Model, jobs: Sequence[Job], *, precision: str = "float32", progress: Progress | None = None
) -> Outcome:
    """Label every job; bad images are named and the rest goes on.

    Args:
        precision: "float32", "bfloat16" or "auto".
        progress: called after every file.

    Raises:
        OptionError: a net of several inputs, or not of colour.
    """
    outcome = Outcome()
    if len(model.net.options.inputs) > 1:
        raise OptionError("this net has several inputs; label its images in Python: Model.predict({name: image, ...})")

    task, *others = model.net.options.classes
    scores = [p for name, p in model.net.heads[task].named_parameters() if name.startswith("score.")]
    if not any(bool(p.any()) for p in scores):
        outcome.notes.append("the score layers are all zero: every pixel is of class 0 until the model is trained")
    if others:
        named = ", ".join(others)
        outcome.notes.append(f"these are the labels of {task!r}; for {named} use Model.predict_tasks in Python")

    def tell(image: Path) -> None:
        if progress is not None:
            progress(len(outcome.written) + len(outcome.failures), len(jobs), image.name)

    maps = {path: wafermaps.wafer_maps(path) for path in {job.image for job in jobs if job.number is not None}}

    def read(job: Job) -> tuple[Job, dict[str, Values] | str]:
        try:
            return job, model.inputs(job.image if job.number is None else render(maps[job.image][job.number]))
        except DataError as error:
            return job, str(error)

    def weight(done: tuple[Job, dict[str, Values] | str]) -> int:
        return 0 if isinstance(done[1], str) else _pixels(next(iter(done[1].values())))

    def good() -> Iterator[tuple[tuple[Job, dict[str, Values]], dict[str, Values]]]:
        for job, inputs in ahead(read, jobs, weight=weight):
            if isinstance(inputs, str):
                outcome.failures.append((job.image, inputs))
                tell(job.image)
            else:
                yield (job, inputs), inputs

    def answers() -> Iterator[tuple[Job, Prediction]]:
        for (job, inputs), tasks in coarse_scores(model.net, good(), precision):
            prediction = next(iter(model.predictions(inputs, tasks).values()))
            _ = prediction.labels  # here, so that the writing threads only encode
            yield job, prediction

    for job, failure in ahead(_write, answers(), depth=lambda answer: depth_of(_pixels(answer[1].image))):
        if failure is None:
            outcome.written.append(job.mask)
        else:
            outcome.failures.append((job.image, failure))
        tell(job.image)
    return outcome


def _pixels(image: Values) -> int:
    pixels: int = image.shape[0] * image.shape[1]
    return pixels


def _write(answer: tuple[Job, Prediction]) -> tuple[Job, str | None]:
    job, prediction = answer
    try:
        prediction.save(job.mask)
        if job.overlay is not None:
            with atomic(job.overlay, durable=False) as path:
                Image.fromarray(prediction.overlay()).save(path, compress_level=1)
        if job.scores is not None:
            with atomic(job.scores, durable=False) as path:
                np.save(path, prediction.scores(), allow_pickle=False)
    except DataError as error:
        return job, str(error)
    except OSError as error:
        return job, f"{job.mask}: its overlay or scores cannot be written ({error}); check the folder and disk"
    return job, None
