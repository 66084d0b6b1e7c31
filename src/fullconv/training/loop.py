"""The training loop: steps, evaluations, states; ends on time, on request, or at its last step."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from fullconv.errors import TrainingError
from fullconv.inference.batches import ahead, to_tensor
from fullconv.inference.evaluate import Evaluation, evaluate_net
from fullconv.metrics import Scores
from fullconv.nets import FCN
from fullconv.training.draws import Batches, Draw
from fullconv.training.loading import Batch, load_batch
from fullconv.training.losses import class_weights, cross_entropy
from fullconv.training.optimizer import make_optimizer, training_mode
from fullconv.training.run import RunFolder
from fullconv.training.sampling import sampled
from fullconv.training.schedule import Length, rate
from fullconv.training.setup import RunOptions, Splits, class_notes, make_net, surroundings
from fullconv.training.state import Place, load_state, save_state
from fullconv.training.summary import Summary, write_summary
from fullconv.weights.donor import Donor
from fullconv.weights.modelfile import ModelFile, write_model

STATE_SECONDS = 60.0
"""Time between two saved states, at least; more where saving takes long."""

EVALUATIONS = 10
"""Times that val is scored in a run, at most."""

REPORT_SECONDS = 5.0
"""Kept for previews, curves and the page at the end of a run bounded by time."""

ROW_SECONDS = 2.0
"""Time between two lines of metrics.csv."""


@dataclass(frozen=True)
class Tick:
    """What a progress bar shows; sent after every step, file or image.

    Attributes:
        phase: "check", "train", "evaluate" or "report".
        done: 0..1 of the phase.
        loss: running mean, of the last steps.
        images_per_s: trained a second.
        seconds_left: of the training.
        mean_iu: of the last evaluation.
    """

    phase: str
    done: float
    loss: float | None = None
    images_per_s: float | None = None
    seconds_left: float | None = None
    mean_iu: float | None = None


Listener = Callable[[Tick], None]


@dataclass(frozen=True)
class Trained:
    """What a run came to.

    Attributes:
        path: the run folder.
        model: its best model file.
        scores: of that model on val; None if it was stopped before the first evaluation.
        steps: done.
        seconds: spent.
        stopped: by Ctrl-C, before its end.
    """

    path: Path
    model: Path
    scores: Scores | None
    steps: int
    seconds: float
    stopped: bool


@dataclass(frozen=True)
class Run:
    """What a trainer works with."""

    folder: RunFolder
    splits: Splits
    options: RunOptions
    accelerator: Accelerator
    tell: Listener
    start: float
    command: str
    donors: list[Donor]


class Trainer:
    """One run; see `train`.

    Args:
        run: folder, data, options; `run.start` is when the run's clock began (time.monotonic).
        resume: go on from the folder's state.
    """

    def __init__(self, run: Run, resume: bool) -> None:
        self.context = run
        self.folder, self.options, self.accelerator = run.folder, run.options, run.accelerator
        self.stop = False
        seconds = None if run.options.minutes is None else run.options.minutes * 60
        self.length = Length(run.options.steps, seconds)
        # Until it is measured, the end is taken to need a thirtieth of the time.
        self.place = Place(reserve=min(10.0, (seconds or 0) / 30))
        self.best: Evaluation | None = None
        self.best_iu = -1.0
        self.net, self.notes = make_net(run.options, run.donors, run.splits.train.dataset.labels)
        self.notes += class_notes(run.splits)
        run.donors.clear()  # half a gigabyte, for some
        self.net.to(run.accelerator.device)
        optimizer = make_optimizer(self.net, run.options.recipe)
        if resume:
            self.place = load_state(run.folder.state, self.net, optimizer)
            run.folder.restore_rows(self.place.step)
            self.best_iu = run.folder.best_mean_iu()
        self.before = self.place.seconds
        self.model, self.optimizer = run.accelerator.prepare(self.net, optimizer)
        self.weights: dict[str, Tensor | None] = {}
        for task, pixels in run.splits.train.pixels.items():
            factors = class_weights(pixels.tolist(), run.options.recipe.class_weights)
            self.weights[task] = None if factors is None else torch.tensor(factors, device=run.accelerator.device)
        self.losses: list[float] = []  # of the steps since the last line of metrics.csv
        self.recent: deque[float] = deque(maxlen=20)  # of the last steps, for the progress bar
        self.row_start = time.monotonic()
        self.speed: float | None = None
        self.last_iu: float | None = None
        self.saving = 0.0  # seconds that the last state took

    @property
    def elapsed(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.before + time.monotonic() - self.context.start

    def run(self) -> Trained:
        """Train to the end, or until `stop` is set."""
        options, accelerator = self.options, self.accelerator
        if accelerator.is_main_process:
            facts = {
                "fingerprint": self.context.splits.fingerprint(),
                "command": self.context.command,
                **surroundings(),
            }
            self.folder.write_options({**options.to_yaml(), **facts})
            accelerator.init_trackers("events")
        samples = len(self.context.splits.train.dataset)
        batches = Batches(samples, options.recipe.batch, options.seed, self.place.step)
        training_mode(self.model)
        self.row_start = time.monotonic()
        next_state = time.monotonic() + STATE_SECONDS
        loading = ahead(self._load, batches, threads=1, depth=4)
        self._advance()
        while self.place.progress < 1 and not self.stop:
            self._step(next(loading))
            self._advance()
            self._tell()
            if time.monotonic() - self.row_start > ROW_SECONDS:
                self._log()
            if 1 > self.place.progress >= max(self.place.next_evaluation, 1 / EVALUATIONS):
                self._log()
                self._evaluate()
                self.row_start = time.monotonic()
            if time.monotonic() > next_state:
                self._save_state()
                # A state that takes long to write is written less often.
                next_state = time.monotonic() + max(STATE_SECONDS, 20 * self.saving)
        loading.close()
        self._log()
        if not self.stop:
            self._evaluate()
        self._save_state()
        return self._finish()

    def _advance(self) -> None:
        self.place.reach(self.length.progress(self.place.step, self.elapsed, self.place.reserve))

    def _finish(self) -> Trained:
        scores = self.best.scores if self.best else None
        if self.accelerator.is_main_process:
            if self.best_iu < 0 or not self.folder.best.exists():  # stopped before the first evaluation
                self._write_model(self.folder.best, None)
            summary = Summary(
                self.folder,
                self.context.splits,
                self.options,
                self.notes,
                self.best,
                self.elapsed,
                self.context.command,
            )
            scores = write_summary(summary, lambda done: self.context.tell(Tick("report", done)))
        self.accelerator.end_training()
        return Trained(self.folder.path, self.folder.best, scores, self.place.step, self.elapsed, self.stop)

    def _load(self, draws: list[Draw]) -> Batch:
        data, options = self.context.splits.train.dataset, self.options
        return load_batch(data, draws, options.recipe.augmentation, options.seed)

    def _step(self, batch: Batch) -> None:
        recipe, device = self.options.recipe, self.accelerator.device
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["factor"] * rate(recipe.schedule, recipe.warmup, self.place.progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            scores = self.model({name: to_tensor(images, device) for name, images in batch.inputs.items()})
        by_task = {next(iter(batch.masks)): scores} if isinstance(scores, Tensor) else scores
        targets = {task: torch.from_numpy(np.stack(masks)).to(device) for task, masks in batch.masks.items()}
        targets = sampled(targets, batch.draws, self.net, recipe.loss_share, self.options.seed)
        losses = [
            cross_entropy(by_task[task], target, recipe.reduction, self.weights[task], recipe.loss_share)
            for task, target in targets.items()
        ]
        loss = torch.stack(losses).sum()
        value = loss.item()
        if not np.isfinite(value):  # the last saved state stays: these weights may be beyond repair
            raise TrainingError(
                f"the loss is {value} at step {self.place.step} (images {', '.join(batch.names[:10])}); "
                f"lower the learning rate ({recipe.lr:g}) with --lr and start a new run"
            )
        self.accelerator.backward(loss)
        if recipe.clip:
            self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.place.step += 1
        self.losses.append(value)
        self.recent.append(value)

    def _evaluate(self) -> None:
        """Score val; keep the model if it is the best so far."""
        began = time.monotonic()
        evaluation = evaluate_net(
            cast(FCN, self.accelerator.unwrap_model(self.model)),
            self.context.splits.val.dataset,
            self.options.precision,
            lambda done, total: self.context.tell(Tick("evaluate", done / total)),
        )
        scores = evaluation.scores
        self.last_iu = scores.mean_iu
        self._row(
            val_pixel_accuracy=scores.pixel_accuracy,
            val_mean_accuracy=scores.mean_accuracy,
            val_mean_iu=scores.mean_iu,
            val_fw_iu=scores.fw_iu,
        )
        if scores.mean_iu > self.best_iu:
            self.best_iu, self.best = scores.mean_iu, evaluation
            self._write_model(self.folder.best, scores)
        spent, pause = time.monotonic() - began, 1 / EVALUATIONS
        if self.length.seconds is not None:
            # The end needs an evaluation, files and pictures; all evaluations together may take a tenth of the time.
            self.place.reserve = max(self.place.reserve, 1.2 * (spent + self.saving) + REPORT_SECONDS)
            pause = max(pause, 10 * spent / self.length.seconds)
            if self.place.progress + pause + 2 * spent / self.length.seconds > 1:  # the one at the end comes as soon
                pause = 1 - self.place.progress
        self.place.next_evaluation = self.place.progress + pause

    def _log(self) -> None:
        """A line of metrics.csv about the steps since the last one."""
        now = time.monotonic()
        if self.losses:
            self.speed = len(self.losses) * self.options.recipe.batch / max(now - self.row_start, 1e-9)
            rates = [group["lr"] for group in self.optimizer.param_groups]
            self._row(loss=sum(self.losses) / len(self.losses), lr=max(rates), images_per_s=self.speed)
            self.losses.clear()
        self.row_start = now

    def _row(self, **values: float) -> None:
        if not self.accelerator.is_main_process:
            return
        epoch = self.place.step * self.options.recipe.batch / len(self.context.splits.train.dataset)
        self.folder.add({"step": self.place.step, "epoch": epoch, "seconds": self.elapsed, **values})
        self.accelerator.log({k: v for k, v in values.items() if np.isfinite(v)}, step=self.place.step)

    def _write_model(self, path: Path, scores: Scores | None) -> None:
        if not self.accelerator.is_main_process:
            return
        net = cast(FCN, self.accelerator.unwrap_model(self.model))
        record = {**self.options.to_yaml(), "steps_done": self.place.step, "seconds": round(self.elapsed, 1)}
        metrics = {} if scores is None else {"val": scores.to_json()}
        write_model(path, ModelFile(net, self.context.splits.train.dataset.labels, record, metrics))

    def _save_state(self) -> None:
        if not self.accelerator.is_main_process:
            return
        began = time.monotonic()
        self.place.seconds = self.elapsed
        save_state(self.folder.state, self.accelerator.unwrap_model(self.model), self.optimizer.optimizer, self.place)
        self._write_model(self.folder.last, None)
        self.saving = time.monotonic() - began

    def _tell(self) -> None:
        progress = self.place.progress
        if self.length.seconds is not None:
            left = max(0.0, self.length.seconds - self.elapsed)
        else:
            left = (1 - progress) / max(progress, 1e-9) * self.elapsed
        loss = sum(self.recent) / len(self.recent)
        self.context.tell(Tick("train", progress, loss, self.speed, left, self.last_iu))


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run after its step, with model and report; a second one at once."""

    def ask(_signum: int, _frame: FrameType | None) -> None:
        if trainer.stop:
            raise KeyboardInterrupt
        trainer.stop = True

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return
    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
