"""From files to files: images are read ahead of the net, go through it in batches, and are written behind it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.sample import Values
from fullconv.data.wafer import render
from fullconv.data.wafermaps import WaferMaps, wafer_maps
from fullconv.errors import DataError, GeometryError, OptionError, printable
from fullconv.files import atomic
from fullconv.inference import batches
from fullconv.inference.batches import ahead, coarse_scores, depth_of, to_tensor
from fullconv.inference.engines import Engine, given
from fullconv.inference.jobs import Job
from fullconv.inference.journal import HOPELESS, Entry, Journal, entry_of, stamp, unwritable
from fullconv.inference.model import Model, Prediction
from fullconv.inference.scenes import Scene
from fullconv.inference.tiles import COPIES, Beside, scores_pixel
from fullconv.inference.verify import Verification, verify


@dataclass(frozen=True, eq=False)
class Item:
    """An image on its way: read, or not since it was labelled before, or not since it cannot be."""

    job: Job
    stamp: str = ""
    inputs: Mapping[str, Values] | None = None
    kept: Entry | None = None
    failure: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        if self.inputs is None:
            return (self.kept.height, self.kept.width) if self.kept else (0, 0)
        height, width = next(iter(self.inputs.values())).shape[:2]
        return height, width

    @property
    def pixels(self) -> int:
        """That are held in memory."""
        return 0 if self.inputs is None else self.size[0] * self.size[1]


@dataclass(frozen=True, eq=False)
class Labelling:
    """How images are labelled.

    Attributes:
        model: the net and its labels.
        engine: that runs the net.
        journal: of the masks' folder; gets an entry of each image when its files are in place.
        record: called with the entry of a scene instead, where there is no such folder.
        check: called with each image and how far its answer is from the plain net's, which costs another pass.
        resume: scenes go on with what a call that stopped has left.
        identity: of what labels.
        begun: called with (share of a scene that is done, its name, or `WRITING`).
        note: called with each note.
        strict: an image that the net or the options do not fit ends the call; default: it is that image's failure.
    """

    model: Model
    engine: Engine
    journal: Journal | None = None
    check: Callable[[Path, Verification], None] | None = None
    resume: bool = False
    identity: Mapping[str, str | bool] = field(default_factory=dict)
    begun: Callable[[float, str], None] | None = None
    note: Callable[[str], None] | None = None
    strict: bool = False
    record: Callable[[Entry], None] | None = None


WRITING = "writing the GeoTIFF"
"""What is done with a scene whose pixels are all labelled."""

UNFIT = (OptionError, GeometryError)
"""Errors of an image that the net or the options do not fit."""

LABELS = 4
"""Bytes a pixel of a picture's labels, while they are taken from the scores."""

Done = tuple[Item, str | None, Entry | None]
"""An image; None, or why nothing was written; its entry."""


def labelled(how: Labelling, jobs: Sequence[Job], kept: Mapping[Job, Entry]) -> Generator[Done]:
    """Label every job that is not kept.

    Args:
        kept: what an earlier call finished.

    Yields:
        In order; files that cannot be read come a batch early.

    Raises:
        DataError: the disk is full, or the folder has vanished; never for one image's sake.
        OptionError, GeometryError: where the call is strict; a net that no image fits.
    """
    for are_scenes, group in groupby(jobs, key=lambda job: job.is_scene):
        if are_scenes:
            yield from (_label_scene(how, job) for job in group if job not in kept)
        else:
            yield from _pictures(how, list(group), kept)


def _label_scene(how: Labelling, job: Job) -> Done:
    item, journal, entry = Item(job, job.stamp()), how.journal, None
    scene = Scene(
        how.engine, how.model.label_sets[next(iter(how.model.net.options.classes))], job.confidence is not None,
        how.resume, {**{name: str(value) for name, value in how.identity.items()}, "image": item.stamp}, how.note,
        restart=not how.strict,
    )  # fmt: skip

    def show(done: int, total: int) -> None:
        if how.begun is not None:
            how.begun(done / total, job.image.name if done < total else WRITING)

    def finished(size: tuple[int, int], counts: list[int]) -> None:
        nonlocal entry
        name = job.mask.name if journal is None else journal.name(job.mask)
        entry = entry_of(name, item.stamp, job.outputs, size, counts)
        if journal is not None:
            journal.append(entry)
        elif how.record is not None:
            how.record(entry)

    if journal is not None:
        journal.require()
    try:
        scene.label(job.image, job.mask, show, finished)
    except DataError as error:
        if _is_hopeless(error):
            raise
        return item, str(error), None
    except UNFIT as error:
        if how.strict:
            raise
        return item, f"{printable(job.image)}: {error}", None
    try:
        if how.check is not None:
            how.check(job.image, scene.verify(job.image))
    except (DataError, *UNFIT) as error:  # the files are in place, and recorded
        return item, f"{printable(job.image)}: labelled, but not verified: {error}", entry
    return item, None, entry


def _is_hopeless(error: BaseException | None) -> bool:
    """Whether the disk is why."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in HOPELESS:
            return True
        error = error.__cause__
    return False


def _pictures(how: Labelling, jobs: Sequence[Job], kept: Mapping[Job, Entry]) -> Iterator[Done]:
    """Label pictures, and maps in files of wafer maps."""
    model, journal = how.model, how.journal
    how = replace(how, engine=_counting(how, any(job.scores is not None for job in jobs)))
    maps = {path: _opened(path) for path in {job.image for job in jobs if job.number is not None}}

    def inputs(job: Job) -> Mapping[str, Values]:
        if job.number is None:
            return model.inputs(job.image)
        found = maps[job.image]
        if isinstance(found, DataError):
            raise found
        return model.inputs(render(found[job.number]))

    def read(job: Job) -> Item:
        if job in kept:
            return Item(job, kept=kept[job])
        try:
            mark = stamp(job.image, job.number)  # before it is read: if it changes meanwhile, it is read again
            return Item(job, mark, inputs(job))
        except DataError as error:
            return Item(job, failure=str(error))

    def again(item: Item) -> Mapping[str, Values] | None:
        try:
            return item.inputs or inputs(item.job)
        except DataError:
            return None

    def answers() -> Iterator[tuple[Item, Prediction | None]]:
        for batch in _batches(ahead(read, jobs, weight=lambda item: item.pixels)):
            if batch[0].failure is not None:
                yield batch[0], None
            elif (why := _unfit(how, batch[0])) is not None:
                unfit = [item for item in batch if item.kept is None]
                yield from ((replace(item, failure=f"{printable(item.job.image)}: {why}"), None) for item in unfit)
            elif not all(item.kept for item in batch):
                # Sums differ in their last bits with the number of images that go together: kept ones go along.
                whole = [((item, values), values) for item in batch if (values := again(item)) is not None]
                for (item, values), tasks in coarse_scores(how.engine, whole):
                    if item.kept is None:
                        prediction = next(iter(model.predictions(values, tasks).values()))
                        _ = prediction.labels  # here, so that the writing threads only encode
                        if how.check is not None:
                            how.check(item.job.image, _verified(how.engine, values))
                        yield item, prediction

    yield from ahead(partial(_write, journal), answers(), depth=lambda answer: depth_of(max(answer[0].pixels, 1)))


def _counting(how: Labelling, scores: bool) -> Engine:
    """The engine, whose plans count a picture beside the net: itself twice, its labels, and scores that are written."""
    classes = next(iter(how.model.net.options.classes.values()))
    inputs = sum(each.channels * (4 if each.bands or each.log else 1) for each in how.model.net.options.inputs.values())
    pixel = 2 * inputs + LABELS + (COPIES + 2) * scores_pixel(how.engine.cut) + (2 * 4 * classes if scores else 0)
    return replace(how.engine, beside=Beside(image=pixel))


def _unfit(how: Labelling, item: Item) -> str | None:
    """Why images of this one's size cannot be labelled."""
    try:
        how.engine.plan(item.size)
    except UNFIT as error:
        if how.strict:
            raise
        return str(error)
    return None


def _verified(engine: Engine, inputs: Mapping[str, Values]) -> Verification:
    device = next(engine.net.parameters()).device
    tensors = {name: to_tensor([values], device) for name, values in inputs.items()}
    height, width = next(iter(tensors.values())).shape[2:]
    return verify(engine, (height, width), given(tensors, (height, width)))


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Images of one size that follow each other, as many as go through the net together; failures by themselves.

    Where they begin and end does not depend on which images are kept.
    """
    batch: list[Item] = []
    for item in items:
        if item.failure is not None:
            yield [item]
            continue
        if batch and item.size != batch[0].size:
            yield batch
            batch = []
        batch.append(item)
        if (len(batch) + 1) * item.size[0] * item.size[1] > batches.BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _write(journal: Journal | None, answer: tuple[Item, Prediction | None]) -> tuple[Item, str | None, Entry | None]:
    item, prediction = answer
    job = item.job
    if prediction is None:
        return item, item.failure, None
    if journal is not None:
        journal.require()
    try:
        prediction.save(job.mask)
        if job.overlay is not None:
            with atomic(job.overlay, durable=False) as path:
                Image.fromarray(prediction.overlay()).save(path, compress_level=1)
        if job.scores is not None:
            with atomic(job.scores, durable=False) as path:
                _write_array(path, prediction.scores())
        if journal is None:
            return item, None, None
        counts = np.bincount(prediction.labels.ravel(), minlength=256)[: len(prediction.label_set)].tolist()
        entry = entry_of(journal.name(job.mask), item.stamp, job.outputs, item.size, counts)
    except (DataError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if journal is not None and isinstance(cause, OSError) and cause.errno in HOPELESS:
            raise unwritable(job.mask, cause, journal.kept) from error
        if isinstance(error, DataError):
            return item, str(error), None
        return item, f"{job.mask}: its overlay or scores cannot be written ({error}); check the folder and disk", None
    journal.append(entry)  # here: whoever takes the results may be many images behind
    return item, None, entry


def _write_array(path: Path, values: NDArray[np.float32]) -> None:
    """As `numpy.save`, whose errors do not say that the disk is full."""
    values = np.ascontiguousarray(values)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(values))
        file.write(values.data)


def _opened(path: Path) -> WaferMaps | DataError:
    try:
        return wafer_maps(path)
    except DataError as error:
        return error
