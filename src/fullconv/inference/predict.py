"""Label files: palette PNG masks of exactly the images' sizes, in a folder with a table of shares, and a journal by
which another call goes on where one stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch

from fullconv import __version__
from fullconv.errors import ModelFileError, OptionError, one_line, printable
from fullconv.inference.calibration import calibration, digest_of
from fullconv.inference.engines import Engine
from fullconv.inference.engines import engine as choose
from fullconv.inference.jobs import RASTERS, Job, left_out, plan, require_told_apart
from fullconv.inference.journal import Entry, Identity, Journal, difference, held, record_of
from fullconv.inference.labelling import Item, Labelling, labelled
from fullconv.inference.model import Model
from fullconv.inference.scenes import Scene
from fullconv.inference.shares import NAME as SHARES
from fullconv.inference.shares import remove_shares, write_shares
from fullconv.inference.spool import discard, folder_of
from fullconv.inference.verify import Verification

Progress = Callable[[float, int, str], None]
"""Called with (files done, files in all, name of the last one); the first call may count many that were kept. Of a
scene the share that is done counts; while its file is made the name is `WRITING` (see `fullconv.inference.labelling`).
"""

Tell = Callable[[str], None]
"""Called with a note, as soon as there is one."""


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        written: masks, in the order of the inputs.
        failures: (image, one line that says why).
        notes: what the user should know of all of them, a line each.
        kept: masks that an earlier call had finished, in the order of the inputs.
        checks: (image, how far its answer is from the plain net's), where that was asked for.
    """

    written: list[Path] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    checks: list[tuple[Path, Verification]] = field(default_factory=list)


def predict(
    model: Model | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path = "predictions",
    *,
    overlay: bool = False,
    scores: bool = False,
    precision: str = "float32",
    progress: Progress | None = None,
    resume: bool = False,
    tell: Tell | None = None,
    confidence: bool = False,
    engine: str = "torch",
    tile: int | str = "auto",
    memory: int | None = None,
    verify: bool = False,
) -> Outcome:
    """Label files: palette PNG masks of the images' sizes, of scenes (see `is_scene`) GeoTIFFs where they lie on
    earth, and beside those in a folder ``shares.csv``.

    Args:
        model: a `Model`, or its file.
        inputs: files, folders (searched through) and globs.
        out: folder of the masks, or a path ending in .png, or of a scene in .tif, for a single file.
        overlay: of pictures also write ``NAME_overlay.png``.
        scores: of pictures also write ``NAME_scores.npy``, (K, H, W) float32.
        confidence: of scenes also write ``NAME_confidence.tif``, every class's probability in steps of 1/255.
        engine, precision, tile, memory: see `fullconv.inference.engines.engine`; int8 is calibrated on the images.
        progress, resume, tell, verify: see `predict_files`.

    Raises:
        DataError: an input that matches nothing; the folder cannot be written, or not any more.
        OptionError: files that would overwrite each other or an input; a call that cannot be resumed, or was made with
            other options; options that no image can be labelled with.
    """
    given, out = [inputs] if isinstance(inputs, str | Path) else inputs, Path(out)
    path = None if isinstance(model, Model) else Path(model)
    loaded = model if isinstance(model, Model) else Model.load(model)
    _require_one_input(loaded)
    ((_, taken),) = loaded.net.options.inputs.items()
    jobs = plan(given, out, overlay=overlay, scores=scores, confidence=confidence, bands=taken.bands)
    folder = None if out.suffix.lower() in (".png", *RASTERS) else out
    if resume:
        if out.suffix.lower() != ".png" and path is None:
            raise OptionError("resume tells models apart by their files; give the file's path instead of the Model")
        require_told_apart(given, jobs, out)
    samples = calibration(loaded, jobs) if precision == "int8" else ()
    identity: dict[str, str | bool] = {}
    if path is not None and (folder is not None or any(job.is_scene for job in jobs)):
        identity = {"model": _digest(path), "overlay": overlay, "scores": scores, "confidence": confidence}
        if samples:
            identity["calibration"] = digest_of(samples)
    runner = choose(loaded.net, engine, precision, tile=tile, memory=memory, samples=samples)
    if all(job.is_scene for job in jobs):
        labels, confident = loaded.label_sets[next(iter(loaded.net.options.classes))], any(j.confidence for j in jobs)
        Scene(runner, labels, confident).require_room(job.image for job in jobs)
    return predict_files(
        loaded, jobs, engine=runner, progress=progress, folder=folder, identity=identity, resume=resume, tell=tell,
        verify=verify,
    )  # fmt: skip


def predict_files(
    model: Model,
    jobs: Sequence[Job],
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
    folder: Path | None = None,
    identity: Identity | None = None,
    resume: bool = False,
    tell: Tell | None = None,
    verify: bool = False,
) -> Outcome:
    """Label every job; bad images are named and the rest goes on.

    With `resume` the folder becomes byte for byte what a call makes of it that is never interrupted.

    Args:
        engine: of the model's net; default: torch, float32.
        progress: called after every file, and after every part of a scene.
        folder: of all masks; it gets a table of shares and a journal.
        identity: the model's digest, and further options that the files depend on; empty: nothing can go on from them.
        resume: keep what a call of this identity finished, of images that are unchanged; failures are tried again.
        tell: called with each note.
        verify: compare every answer with the plain net's.

    Raises:
        OptionError: a net of several inputs, or not of colour; a folder that another call labels into; a single image
            that the net or the options do not fit.
        GeometryError: a single image that the net does not fit.
        DataError: the disk is full, or the folder cannot be written; what was done is kept.
    """
    call = _Call(len(jobs), progress, tell)
    _require_one_input(model)
    engine = engine or choose(model.net)
    if engine.why:
        call.note(engine.why)
    task, *others = model.net.options.classes
    scores = [p for name, p in model.net.heads[task].named_parameters() if name.startswith("score.")]
    if not any(bool(p.any()) for p in scores):
        call.note("the score layers are all zero: every pixel is of class 0 until the model is trained")
    if others:
        call.note(f"these are the labels of {task!r}; for {', '.join(others)} use Model.predict_tasks in Python")
    made_by = {} if not identity else {
        **identity, "engine": engine.name, "precision": engine.precision, "tile": str(engine.tile),
        "memory": str(engine.memory), "device": next(model.net.parameters()).device.type, "fullconv": __version__,
        "torch": torch.__version__, "threads": str(torch.get_num_threads()), **_compiler_versions(engine),
    }  # fmt: skip
    check = (lambda image, found: call.outcome.checks.append((image, found))) if verify else None
    how = Labelling(model, engine, None, check, resume and bool(made_by), made_by, call.begun, call.note)
    for note in left_out(jobs):
        call.note(note)
    if folder is None:
        _alone(replace(how, strict=len(jobs) == 1), jobs, call)
    else:
        with held(folder) as journal:
            _into_folder(replace(how, journal=journal), jobs, call)
    return call.outcome


class _Call:
    """What a call tells while it goes on, and at its end."""

    def __init__(self, total: int, progress: Progress | None, tell: Tell | None) -> None:
        self.outcome, self._total, self._progress, self._tell = Outcome(), total, progress, tell

    def note(self, text: str) -> None:
        self.outcome.notes.append(text)
        if self._tell is not None:
            self._tell(text)

    def keep(self, jobs: Sequence[Job]) -> None:
        """Images that need no labelling, before any other."""
        self.outcome.kept += [job.mask for job in jobs]
        if jobs:
            self._show(jobs[-1])

    def add(self, item: Item, failure: str | None) -> None:
        """An image that was labelled, or was not."""
        if failure is None:
            self.outcome.written.append(item.job.mask)
        else:
            self.outcome.failures.append((item.job.image, failure))
        self._show(item.job)

    def begun(self, share: float, name: str) -> None:
        """A scene of which a share is done."""
        if self._progress is not None:
            done = len(self.outcome.kept) + len(self.outcome.written) + len(self.outcome.failures)
            self._progress(done + share, self._total, name)

    def _show(self, job: Job) -> None:
        self.begun(0, job.image.name)


def _alone(how: Labelling, jobs: Sequence[Job], call: _Call) -> None:
    """Label files that lie in no folder of masks. A single scene has a record, by which a finished one is kept."""
    if how.identity and len(jobs) == 1 and jobs[0].is_scene:
        journal, job = record_of(jobs[0].mask), jobs[0]
        found, entries = journal.read()
        entry = entries.get(job.mask.name)
        classes = next(iter(how.model.net.options.classes.values()))
        if how.resume and found == how.identity and entry and entry.holds(job.stamp(), job.outputs, classes):
            discard(folder_of(job.mask))
            call.keep([job])
            return
        if how.resume and entry and found != how.identity:
            raise _other(job.mask, found, how.identity)
        journal.remove()
        journal.sweep(())
        how = replace(how, record=lambda entry: journal.write(how.identity, [entry]))
    with closing(labelled(how, jobs, {})) as done:
        for item, failure, _ in done:
            call.add(item, failure)


def _other(where: Path, found: Identity, made_by: Identity) -> OptionError:
    """What is there is not thrown away for a slip of the options."""
    return OptionError(
        f"{printable(where)} was labelled with {difference(found, made_by)}; --resume needs the options of that call: "
        "repeat them, or leave --resume out to label anew"
    )


def _into_folder(how: Labelling, jobs: Sequence[Job], call: _Call) -> None:
    """Label what an earlier call has not finished, or all; each step leaves a folder that another call goes on from."""
    journal, made_by, resume = cast(Journal, how.journal), how.identity, how.resume
    names = how.model.label_sets[next(iter(how.model.net.options.classes))].names
    table = journal.folder / SHARES
    stopped = not table.exists()
    found, entries = journal.read()
    if resume and entries and found and found != made_by:
        raise _other(journal.folder, found, made_by)
    remove_shares(table)
    done: dict[Job, Entry] = {}
    if made_by and found == made_by:
        for job in jobs:
            entry = entries.get(journal.name(job.mask))
            if entry and entry.holds(job.stamp(), job.outputs, len(names)):
                done[job] = entry
        if done and stopped and not resume:
            call.note(f"a call that stopped had labelled {len(done)} of these {len(jobs)} images; --resume keeps them")
    journal.sweep([table, *(path for job in jobs for path in job.outputs)])
    journal.write(made_by, done.values())

    kept = dict(done) if resume else {}
    for job in kept:
        if job.is_scene:
            discard(folder_of(job.mask))
    call.keep(list(kept))
    with closing(labelled(how, jobs, kept)) as answers:
        for item, failure, entry in answers:
            if entry is not None:
                done[item.job] = entry
            else:
                done.pop(item.job, None)
            call.add(item, failure)
    journal.require()
    rows = [(job.image, done[job]) for job in jobs if job in done]
    journal.write(made_by, [entry for _, entry in rows])  # in the order of the inputs, whatever came when
    write_shares(table, names, rows)


def _compiler_versions(engine: Engine) -> dict[str, str]:
    """Of packages that an engine's bits depend on."""
    names = ("openvino", "nncf") if engine.precision == "int8" else ("openvino",) if engine.name == "openvino" else ()
    return {name: version(name) for name in names}


def _require_one_input(model: Model) -> None:
    if len(model.net.options.inputs) > 1:
        raise OptionError("this net has several inputs; label its images in Python: Model.predict({name: image, ...})")


def _digest(path: Path) -> str:
    """sha256 of a model file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"{printable(path)} cannot be read ({one_line(error)})") from error
