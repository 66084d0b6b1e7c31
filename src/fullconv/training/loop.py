"""The training loop: steps, evaluations, states; ends on time, on request, or at its last step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from fullconv.data.augment import FILL, augment
from fullconv.data.sample import Array
from fullconv.errors import TrainingError
from fullconv.inference.batches import ahead, to_tensor
from fullconv.inference.evaluate import Evaluation, evaluate_net
from fullconv.labels import VOID
from fullconv.metrics import Scores
from fullconv.nets import FCN
from fullconv.training.losses import class_weights, cross_entropy
from fullconv.training.run import RunFolder
from fullconv.training.sampling import Batches, Draw
from fullconv.training.schedule import Length, rate
from fullconv.training.setup import RunOptions, Splits, make_net, surroundings
from fullconv.training.state import Place, load_state, save_state
from fullconv.training.summary import Summary, write_summary
from fullconv.weights.modelfile import ModelFile, write_model

STATE_SECONDS = 60.0
"""Time between two saved states, at least; more where saving takes long."""

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


@dataclass(frozen=True)
class Batch:
    """Names, inputs by name and masks by task of a step, each a list of arrays of one size."""

    names: list[str]
    inputs: Mapping[str, list[Array]]
    masks: Mapping[str, list[Array]]


class Window:
    """The steps since the last line of metrics.csv.

    Args:
        start: when they began.
        last_loss, speed: of the window before.
    """

    def __init__(self, start: float, last_loss: float | None = None, speed: float | None = None) -> None:
        self.start, self.losses, self._loss, self.speed = start, list[float](), last_loss, speed

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.start

    @property
    def last_loss(self) -> float | None:
        """Mean of the newest steps."""
        newest = self.losses[-20:]
        return sum(newest) / len(newest) if newest else self._loss


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
        self.place = Place()
        self.best: Evaluation | None = None
        self.net, self.notes = make_net(run.options, resume)
        self.net.to(run.accelerator.device)
        optimizer = make_optimizer(self.net, run.options)
        if resume:
            self.place = load_state(run.folder.state, self.net, optimizer)
            run.folder.restore_rows(self.place.step)
        self.before = self.place.seconds
        seconds = None if run.options.minutes is None else run.options.minutes * 60
        # Until it is measured, the end is taken to need a thirtieth of the time.
        self.length = Length(run.options.steps, seconds, reserve=min(10.0, (seconds or 0) / 30))
        self.model, self.optimizer = run.accelerator.prepare(self.net, optimizer)
        self.weights: dict[str, Tensor | None] = {}
        for task, pixels in run.splits.train.pixels.items():
            factors = class_weights(pixels.tolist(), run.options.recipe.class_weights)
            self.weights[task] = None if factors is None else torch.tensor(factors, device=run.accelerator.device)
        self.window = Window(time.monotonic())

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
        batches = Batches(
            len(self.context.splits.train.dataset),
            options.recipe.batch,
            options.seed,
            self.place.step,
            accelerator.process_index,
            accelerator.num_processes,
        )
        self.model.train()
        self.window = Window(time.monotonic())
        next_state = time.monotonic() + STATE_SECONDS
        loading = ahead(self._load, batches, threads=1, depth=4)
        progress = self.length.progress(self.place.step, self.elapsed)
        while progress < 1 and not self.stop:
            self._step(next(loading), progress)
            progress = self.length.progress(self.place.step, self.elapsed)
            self._tell(progress)
            if self.window.seconds > ROW_SECONDS:
                self._log()
            if progress < 1 and progress >= max(self.place.next_evaluation, 1 / options.evaluations):
                self._log()
                self._evaluate(progress)
                self.window = Window(time.monotonic())
            if time.monotonic() > next_state:
                began = time.monotonic()
                self._save_state()
                # A state that takes long to write is written less often.
                next_state = time.monotonic() + max(STATE_SECONDS, 20 * (time.monotonic() - began))
        loading.close()
        self._log()
        if not self.stop:
            self._evaluate(1.0)
        self._save_state()
        return self._finish()

    def _finish(self) -> Trained:
        scores = self.best.scores if self.best else None
        if self.accelerator.is_main_process:
            if self.place.best < 0 or not self.folder.best.exists():  # stopped before the first evaluation
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
        data, recipe = self.context.splits.train.dataset, self.options.recipe
        samples = []
        for epoch, index in draws:
            rng = np.random.default_rng([self.options.seed, epoch, index])
            samples.append(augment(data[index], recipe.augmentation, rng))
        size = max(s.size[0] for s in samples), max(s.size[1] for s in samples)
        return Batch(
            [s.name for s in samples],
            {name: [_padded(s.inputs[name], size, FILL) for s in samples] for name in data.channels},
            {task: [_padded(s.masks[task], size, VOID) for s in samples] for task in data.labels},
        )

    def _step(self, batch: Batch, progress: float) -> None:
        recipe, device = self.options.recipe, self.accelerator.device
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["factor"] * rate(recipe.schedule, recipe.warmup, progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            scores = self.model({name: to_tensor(images, device) for name, images in batch.inputs.items()})
        by_task = {next(iter(batch.masks)): scores} if isinstance(scores, Tensor) else scores
        losses = []
        for task, masks in batch.masks.items():
            target = torch.from_numpy(np.stack(masks)).to(device)
            losses.append(cross_entropy(by_task[task], target, recipe.reduction, self.weights[task]))
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
        self.window.losses.append(value)

    def _evaluate(self, progress: float) -> None:
        """Score val; keep the model if it is the best so far."""
        began = time.monotonic()
        evaluation = evaluate_net(
            cast(FCN, self.accelerator.unwrap_model(self.model)),
            self.context.splits.val.dataset,
            self.options.precision,
            lambda done, total: self.context.tell(Tick("evaluate", done / total)),
        )
        scores = evaluation.scores
        self._row(
            val_pixel_accuracy=scores.pixel_accuracy,
            val_mean_accuracy=scores.mean_accuracy,
            val_mean_iu=scores.mean_iu,
            val_fw_iu=scores.fw_iu,
        )
        if scores.mean_iu > self.place.best:
            self.place.best, self.best = scores.mean_iu, evaluation
            self._write_model(self.folder.best, scores)
        spent, pause = time.monotonic() - began, 1 / self.options.evaluations
        if self.length.seconds is not None:
            # The end needs an evaluation and pictures; all evaluations together may take a tenth of the time.
            self.length.reserve = max(self.length.reserve, 1.2 * spent + 5)
            pause = max(pause, 10 * spent / self.length.seconds)
            if progress + pause + 2 * spent / self.length.seconds > 1:  # the one at the end comes as soon
                pause = 1 - progress
        self.place.next_evaluation = progress + pause

    def _log(self) -> None:
        """A line of metrics.csv about the steps since the last one."""
        if self.window.losses:
            losses, seconds = self.window.losses, self.window.seconds
            speed = len(losses) * self.options.recipe.batch / max(seconds, 1e-9)
            rates = [group["lr"] for group in self.optimizer.param_groups]
            self._row(loss=sum(losses) / len(losses), lr=max(rates), images_per_s=speed)
            self.window = Window(time.monotonic(), last_loss=losses[-1], speed=speed)

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
        self.place.seconds = self.elapsed
        save_state(self.folder.state, self.accelerator.unwrap_model(self.model), self.optimizer.optimizer, self.place)
        self._write_model(self.folder.last, None)

    def _tell(self, progress: float) -> None:
        if self.length.seconds is not None:
            left = max(0.0, self.length.seconds - self.elapsed)
        else:
            left = (1 - progress) / max(progress, 1e-9) * self.elapsed
        best = self.place.best if self.place.best >= 0 else None
        self.context.tell(Tick("train", progress, self.window.last_loss, self.window.speed, left, best))


def make_optimizer(net: FCN, options: RunOptions) -> Optimizer:
    """SGD or AdamW with three groups: weights (decayed), biases (`bias_lr`, not decayed), batch norm (not decayed).

    With momentum and a constant rate SGD is Caffe's rule (reference 5.4).
    """
    recipe = options.recipe
    weights, biases, scales = [], [], []
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1:
            weights.append(parameter)
        elif name.endswith("bias"):
            biases.append(parameter)
        else:
            scales.append(parameter)
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay, "factor": 1.0},
        {"params": biases, "weight_decay": 0.0, "factor": recipe.bias_lr},
        {"params": scales, "weight_decay": 0.0, "factor": 1.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return AdamW(groups, lr=recipe.lr, fused=True)  # one pass over the weights instead of ten


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


def _padded(array: Array, size: tuple[int, int], fill: int) -> Array:
    """(H, W[, C]) -> at least `size`, filled at the bottom and right."""
    if array.shape[:2] == size:
        return array
    result = np.full((*size, *array.shape[2:]), fill, dtype=np.uint8)
    result[: array.shape[0], : array.shape[1]] = array
    return result
