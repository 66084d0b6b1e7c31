"""The training loop: steps, evaluations, states; ends on time, on request, or at its last step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from fullconv.errors import TrainingError
from fullconv.inference.batches import ahead
from fullconv.training import processes
from fullconv.training.context import Run, Trained, opening
from fullconv.training.draws import Batches, Share
from fullconv.training.learner import Learner, NotFiniteError, StepLoss
from fullconv.training.loading import Loader
from fullconv.training.progress import Tick
from fullconv.training.schedule import Length, rate
from fullconv.training.splits import class_notes
from fullconv.training.start import make_net
from fullconv.training.state import Place, forget_later, load_state, save_state, unwritable
from fullconv.training.summary import Summary, write_summary
from fullconv.training.trackers import Trackers
from fullconv.training.validation import Validation
from fullconv.weights.modelfile import ModelFile, write_model

STATE_SECONDS = 60.0
"""Time between two saved states, at least; more where saving takes long."""

EVALUATIONS = 10
"""Times that val is scored in a run, at most."""

ROWS = 500
"""Lines of metrics.csv about steps, at least, as far as there are steps."""

DISPLAY = 20
"""Steps to a line, at most (the released solvers' `display`)."""

REPORT_SECONDS = 5.0
"""Kept for previews, curves and the page at the end of a run bounded by time; of a short one an eighth at most."""

FAILED = "failed"
"""Folder in the run's of the state in which a loss was not finite."""


class Trainer:
    """One run; see `train`.

    Args:
        run: folder, data, options.
        resume: go on from the folder's state.
    """

    def __init__(self, run: Run, resume: bool) -> None:
        self.context, self.resumed = run, resume
        self.folder, self.options, self.accelerator = run.folder, run.options, run.accelerator
        self.asked = self.stop = self.save = False  # of this process; of all; a state is due
        seconds = None if run.options.minutes is None else run.options.minutes * 60
        self.length = Length(run.options.steps, seconds)
        # Until it is measured, the end is taken to need a thirtieth of the time.
        self.place = Place(reserve=min(10.0, (seconds or 0) / 30))
        self.trackers: Trackers | None = None  # of several processes the main one has them
        self.warnings: tuple[str, ...] = ()
        train = run.splits.train
        net, self.notes = make_net(
            run.options.net, run.options.seed, run.options.init, run.donors, train.dataset.labels
        )
        self.notes += [*class_notes(run.splits), *run.notes]
        run.donors.clear()  # half a gigabyte, for some
        if run.accelerator.device.type == "cuda":  # the peak is of this run alone
            torch.cuda.reset_peak_memory_stats(run.accelerator.device)
        self.learner = Learner(net, run.options, train.pixels, run.accelerator)
        self.validation = Validation(run)
        self.folder.add_columns(self.learner.columns)
        self.folder.add_columns(self.validation.columns(), before=None)
        self.folder.class_names = {task: labels.names for task, labels in train.dataset.labels.items()}
        if resume:
            self.place, notes = load_state(run.folder.state, net, self.learner.optimizer)
            self.notes += notes
            self.warnings = tuple(notes)
            self._require_one_place()
            if self.is_main:
                forget_later(run.folder.state, self.place.step)
            run.folder.restore_rows(self.place.step)
            self.validation.best_iu = run.folder.best_mean_iu()
        self.finished = self.place.progress >= 1
        self.before = self.place.seconds
        self.recent: deque[StepLoss] = deque(maxlen=20)  # of the last steps, for the progress bar
        self.row_start, self.row_steps = time.monotonic(), 0  # of the steps since the last line
        self.speed: float | None = None
        self.saving = 0.0  # seconds that the last state took
        self.spent = {"waiting for data": 0.0, "scoring val": 0.0, "saving": 0.0}

    @property
    def elapsed(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.before + time.monotonic() - self.context.start

    @property
    def is_main(self) -> bool:
        """Of several processes one alone writes files."""
        return processes.is_main()

    def run(self) -> Trained:
        """Train to the end, or until `stop` is set.

        Raises:
            TrainingError: as `train`.
        """
        try:
            if self.is_main:
                with self._writing():
                    self._begin()
            if not self.finished:
                self._train()
            return self._finish()
        finally:
            if self.trackers is not None:
                with self._writing():
                    self.trackers.finish()

    def _begin(self) -> None:
        """Write the first files, and tell what is done."""
        if not self.folder.options.exists():
            # First, so that a run is never without a state to go on from.
            save_state(self.folder.state, self.learner.net, self.learner.optimizer, self.place)
            self.folder.write_options({**self.options.to_yaml(), **self.context.record})
        self.trackers = Trackers(self.folder.path, self.options, self.place.step)
        text = opening(self.context, self.place, self.notes, self.resumed)
        self.context.tell(Tick("begin", self.place.progress, text=text))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What cannot be written ends the run, with a word on the states that are there."""
        try:
            yield
        except OSError as error:
            raise unwritable(self.folder.state, error, self.folder.options.exists()) from error

    def _require_one_place(self) -> None:
        """Of several processes all must have read one state."""
        step = str(self.place.step)
        main = processes.text_of_main(step)
        wrong = f"read the state of step {step}, the first process that of step {main}; {self.folder.state} must be one"
        processes.agree(None if step == main else wrong)

    def _train(self) -> None:
        options, data = self.options, self.context.splits.train
        recipe = options.recipe
        batches = Batches(len(data.dataset), recipe.batch, options.seed, self.place.step, recipe.order == "replacement")
        share = Share(recipe.accumulate, processes.rank(), processes.count())
        loader = Loader(data.dataset, data.sizes, recipe.augmentation, options.seed, share)
        self.row_start = time.monotonic()
        self.next_state = time.monotonic() + STATE_SECONDS
        loading = ahead(loader, batches, threads=options.workers, depth=max(4, 2 * options.workers))
        try:
            self._advance()
            while self.place.progress < 1 and not self.stop:
                row = int(self.place.progress * ROWS)
                began = time.monotonic()
                parts = next(loading)
                self.spent["waiting for data"] += time.monotonic() - began
                began = time.monotonic()
                self._note(self.learner.step(parts, self.place.step, self._rate()))
                if options.compile and "compiling" not in self.spent:
                    self.spent["compiling"] = time.monotonic() - began
                self._advance()
                self._tell()
                due = 1 > self.place.progress >= max(self.place.next_evaluation, 1 / EVALUATIONS)
                if due or int(self.place.progress * ROWS) > row or self.place.step % DISPLAY == 0:
                    self._log()
                if due:
                    self._evaluate()
                if self.save and self.place.progress < 1:
                    self._save_state()
                    # A state that takes long to write is written less often.
                    self.next_state = time.monotonic() + max(STATE_SECONDS, 20 * self.saving)
            if self.place.progress >= 1:  # else what the next line has gathered is kept in the state
                self._log()
                self._evaluate()
            self._save_state()
        except NotFiniteError as error:
            raise self._failed(error) from error
        finally:
            loading.close()

    def _rate(self) -> float:
        recipe = self.options.recipe
        return rate(recipe.schedule, recipe.warmup, self.place.progress)

    def _note(self, loss: StepLoss) -> None:
        place = self.place
        place.step += 1
        place.loss_steps += 1
        sums = place.loss_sums or [0.0] * len(loss.columns)
        place.loss_sums = [total + value for total, value in zip(sums, loss.columns.values(), strict=True)]
        self.row_steps += 1
        self.recent.append(loss)

    def _advance(self) -> None:
        """Go on with the main process's clock; where one was asked to stop, all do."""
        clock = [self.elapsed, float(time.monotonic() > self.next_state)] if self.is_main else [0.0, 0.0]
        elapsed, save, asked = processes.total([*clock, float(self.asked)], self.accelerator.device)
        self.save, self.stop = save > 0, asked > 0
        place = self.place
        if place.step == 0:
            place.begun = elapsed
        place.reach(self.length.progress(place.step, elapsed, place.begun, place.reserve))

    def _finish(self) -> Trained:
        finished, best = self.place.progress >= 1, self.validation.of_best()
        if self.is_main:
            if best is None:  # stopped before the first evaluation
                self._write_model(self.folder.best)
            summary = Summary(
                self.folder,
                self.context.splits,
                self.options,
                self.notes,
                best,
                self.place.step,
                self.elapsed,
                self.accelerator.device,
                str(self.context.record.get("command", "")),
                self._facts(),
            )
            with self._writing():
                write_summary(summary, lambda done: self.context.tell(Tick("report", done)))
        # Asked for while the rest was done, too, and in any process: stages that follow do not begin.
        (asked,) = processes.total([float(self.asked)], self.accelerator.device)
        return Trained(
            self.folder.path,
            self.folder.best,
            best.scores if best else None,
            self.place.step,
            self.elapsed,
            self.stop or asked > 0,
            finished,
            self.warnings,
        )

    def _facts(self) -> dict[str, str]:
        own = self.elapsed - self.before  # of this session, if the run was resumed
        facts = {name: f"{100 * seconds / max(own, 1e-9):.1f} %" for name, seconds in self.spent.items()}
        if processes.count() > 1:
            facts["processes"] = str(processes.count())
        if self.accelerator.device.type == "cuda":
            facts["TF32 in float32 convolutions"] = "yes" if torch.backends.cudnn.allow_tf32 else "no"
            facts["peak GPU memory"] = f"{torch.cuda.max_memory_allocated(self.accelerator.device) / 2**30:.2f} GiB"
        return facts

    def _evaluate(self) -> None:
        """Score val; keep the model if it is the best so far."""
        began, validation = time.monotonic(), self.validation
        evaluation = validation.score(self.learner.net)
        self._row(**validation.row(evaluation))
        if self.is_main:
            self.folder.add_class_iu(self.place.step, {t: scores.iu for t, scores in evaluation.by_task().items()})
        if validation.is_best(evaluation):
            self._write_model(self.folder.best, validation.record(evaluation))
        spent, pause = time.monotonic() - began, 1 / EVALUATIONS
        self.spent["scoring val"] += spent
        # By the main process's clock all take the same decisions.
        own = [spent, self.saving] if self.is_main else [0.0, 0.0]
        spent, saving = processes.total(own, self.accelerator.device)
        if self.length.seconds is not None:
            # The end needs an evaluation, files and pictures; all evaluations together may take a tenth of the time.
            # A best model of before a resume is scored once more for its report.
            again = spent if validation.best is None else 0.0
            report = min(REPORT_SECONDS, self.length.seconds / 8)
            self.place.reserve = max(self.place.reserve, 1.2 * (spent + saving) + again + report)
            pause = max(pause, 10 * spent / self.length.seconds)
            if self.place.progress + pause + 2 * spent / self.length.seconds > 1:  # the one at the end comes as soon
                pause = 1 - self.place.progress
        self.place.next_evaluation = self.place.progress + pause
        self.row_start = time.monotonic()

    def _log(self) -> None:
        """A line of metrics.csv about the steps since the last one."""
        now, place = time.monotonic(), self.place
        if place.loss_steps:
            self.speed = self.row_steps * self.options.recipe.batch / max(now - self.row_start, 1e-9)
            means = {c: v / place.loss_steps for c, v in zip(self.learner.columns, place.loss_sums, strict=True)}
            self._row(**means, lr=self.learner.rate, images_per_s=self.speed)
            place.loss_steps, place.loss_sums, self.row_steps = 0, [], 0
        self.row_start = now

    def _row(self, **values: float) -> None:
        if not self.is_main:
            return
        epoch = self.place.step * self.options.recipe.batch / len(self.context.splits.train.dataset)
        self.folder.add({"step": self.place.step, "epoch": epoch, "seconds": self.elapsed, **values})
        if self.trackers is not None:
            with self._writing():
                self.trackers.log(values, self.place.step)

    def _write_model(self, path: Path, metrics: Mapping[str, object] | None = None) -> None:
        if not self.is_main:
            return
        record = {
            **self.options.to_yaml(),
            "steps_done": self.place.step,
            "progress": self.place.progress,
            "seconds": round(self.elapsed, 1),
        }
        with self._writing():
            labels = self.context.splits.train.dataset.labels
            write_model(path, ModelFile(self.learner.net, labels, record, metrics or {}))

    def _save_state(self) -> None:
        began = time.monotonic()
        self.learner.require_finite(self.place.step)
        if not self.is_main:
            return
        self.place.seconds = self.elapsed
        # Before the state, which may be the run's last: what belongs to its step is there when it is.
        self._write_model(self.folder.last)
        self.folder.sync()
        save_state(self.folder.state, self.learner.net, self.learner.optimizer, self.place)
        self.saving = time.monotonic() - began
        self.spent["saving"] += self.saving

    def _failed(self, error: NotFiniteError) -> TrainingError:
        """The error, with the weights that it met saved apart from the good states."""
        text = ""
        if self.is_main:
            path = save_state(self.folder.path / FAILED, self.learner.net, self.learner.optimizer, self.place)
            text = f"{error}; the weights of that step are in {path}"
        return TrainingError(processes.text_of_main(text))  # all wait until they are

    def _tell(self) -> None:
        progress = self.place.progress
        if self.length.seconds is not None:
            left = max(0.0, self.length.seconds - self.elapsed)
        else:
            left = (1 - progress) / max(progress, 1e-9) * self.elapsed
        means = {c: sum(each.columns[c] for each in self.recent) / len(self.recent) for c in self.learner.columns}
        told = self.speed, left, self.validation.last_iu, self.place.step, means.get("loss_per_pixel")
        self.context.tell(Tick("train", progress, means["loss"], *told))
