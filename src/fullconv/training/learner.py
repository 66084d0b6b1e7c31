"""Learner: one step at a time, from images to changed weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from fullconv.errors import TrainingError, printable
from fullconv.inference.batches import sent, to_tensor
from fullconv.nets import FCN
from fullconv.nets.precision import learning
from fullconv.training import processes
from fullconv.training.batchnorm import sync_batchnorm
from fullconv.training.draws import generator
from fullconv.training.dropout import key_dropout
from fullconv.training.loading import Batch
from fullconv.training.losses import PIXELWISE, TaskLoss, class_weights
from fullconv.training.optimizer import make_optimizer, training_mode
from fullconv.training.options import RunOptions
from fullconv.training.sampling import Grid, GridScores, sampled


@dataclass(frozen=True)
class StepLoss:
    """What a step's loss was, over all processes.

    Attributes:
        total: what was minimised.
        columns: what metrics.csv shows of it, by the names of `Learner.columns`.
    """

    total: float
    columns: Mapping[str, float]


class NotFiniteError(TrainingError):
    """A loss, gradient or weight is infinite or no number."""


class Learner:
    """A net with all that changes its weights.

    Args:
        net: with its first weights, on the CPU; its dropout is keyed and its batch norm shared, in place.
        options: of the run.
        pixels: of each class in the training data, (K,) by task.
        accelerator: of this process.
    """

    def __init__(
        self,
        net: FCN,
        options: RunOptions,
        pixels: Mapping[str, NDArray[np.int64]],
        accelerator: Accelerator,
    ) -> None:
        self.options, self.accelerator = options, accelerator
        recipe, device = options.recipe, accelerator.device
        self.net = net.to(device)
        self.dropout = key_dropout(self.net, options.seed)
        if options.compile:
            self.dropout.keep_uncompiled()
        if processes.count() > 1:
            sync_batchnorm(self.net)
        self.optimizer = make_optimizer(self.net, recipe)
        self.losses: dict[str, TaskLoss] = {}
        self.factors = {task: float(recipe.task_weights.get(task, 1.0)) for task in pixels}
        for task, counts in pixels.items():
            weights = class_weights(counts.tolist(), recipe.weights_of(task))
            tensor = None if weights is None else torch.tensor(weights, device=device)
            self.losses[task] = TaskLoss(recipe.loss_options(), tensor, recipe.loss_share / recipe.loss_stride**2)
        self.model: nn.Module = accelerator.prepare(GridScores(self.net, options.compile))
        training_mode(self.net)

    @property
    def rate(self) -> float:
        """The learning rate that was set last."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def per_pixel(self) -> bool:
        """Whether the loss by pixel is shown beside it: where it is a sum over pixels."""
        recipe = self.options.recipe
        return recipe.reduction == "sum" and not PIXELWISE.isdisjoint(recipe.loss_options().terms)

    @property
    def columns(self) -> list[str]:
        """What metrics.csv shows of a loss.

        Itself; where it is a sum, its value by pixel; where there are several terms or tasks, each of them.
        """
        terms = list(self.options.recipe.loss_options().terms)
        names = ["loss", "loss_per_pixel"] if self.per_pixel else ["loss"]
        if len(self.losses) * len(terms) == 1:
            return names
        by_task = [[task] if len(self.losses) > 1 else [] for task in self.losses]
        by_term = [[term] if len(terms) > 1 else [] for term in terms]
        return names + ["_".join(["loss", *task, *term]) for task in by_task for term in by_term]

    def step(self, parts: Sequence[Batch], step: int, factor: float) -> StepLoss:
        """One change of the weights.

        The loss of a step is that of its images together, whatever parts and processes they are shared out to.

        Args:
            parts: this process's.
            step: its number, for messages.
            factor: on all learning rates.

        Raises:
            NotFiniteError: the loss or its gradient is infinite or no number; the weights are as they were.
        """
        recipe, several = self.options.recipe, processes.count() > 1
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * group["factor"] * factor
        # For what a user's own layers may draw: a function of the step too.
        torch.manual_seed(int(generator("dropout", step, processes.rank(), seed=self.options.seed).integers(1 << 63)))
        grid = Grid.drawn(step, recipe.loss_stride, self.options.seed)
        targets = [self._targets(part, grid) for part in parts]
        amounts = self._amounts(targets)
        found: list[dict[str, Tensor]] = []
        for index, (part, target) in enumerate(zip(parts, targets, strict=True)):
            last = index == len(parts) - 1
            with nullcontext() if last or not several else self.accelerator.no_sync(self.model):
                by_task = self._forward(part, grid)
                values = {t: self.losses[t](by_task[t], target[t], amounts[t]) for t in self.losses}
                total = torch.stack([self.factors[t] * self.losses[t].total(v) for t, v in values.items()]).sum()
                # Gradients are averaged over the processes, and the loss is a sum over them.
                torch.autograd.backward(total * processes.count() if several else total)
            found.append({task: value.detach().double() for task, value in values.items()})
        loss = self._step_loss({task: torch.stack([each[task] for each in found]).sum(0) for task in values}, amounts)
        if not math.isfinite(loss.total):
            finite = [all(value.isfinite().all() for value in each.values()) for each in found]
            guilty = [part for part, well in zip(parts, finite, strict=True) if not well]
            raise self._not_finite("loss", loss.total, step, guilty)
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not math.isfinite(norm):
            raise self._not_finite("gradient", float(norm), step, parts)
        if recipe.clip:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), recipe.clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def _targets(self, part: Batch, grid: Grid) -> dict[str, Tensor]:
        device = self.accelerator.device
        targets = {task: sent(torch.from_numpy(np.stack(masks)), device) for task, masks in part.masks.items()}
        targets = sampled(targets, part.draws, self.net, self.options.recipe.loss_share, self.options.seed)
        return {task: grid.of(target) for task, target in targets.items()}

    def _amounts(self, targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """By task, what every term is divided by: of the whole step."""
        own = {t: torch.stack([loss.amounts(part[t]) for part in targets]).sum(0) for t, loss in self.losses.items()}
        if processes.count() == 1:
            return own
        device = self.accelerator.device
        flat = iter(processes.total(torch.cat(list(own.values())).tolist(), device))
        return {t: torch.tensor([next(flat) for _ in a], dtype=a.dtype, device=device) for t, a in own.items()}

    def _forward(self, part: Batch, grid: Grid) -> dict[str, Tensor]:
        device = self.accelerator.device
        self.dropout.set_draws(part.draws)
        images = {name: to_tensor(each, device) for name, each in part.inputs.items()}
        with learning(device, self.options.precision):
            scores: dict[str, Tensor] = self.model(images, grid)
        return scores

    def _step_loss(self, found: Mapping[str, Tensor], amounts: Mapping[str, Tensor]) -> StepLoss:
        values = [value for task in found for value in found[task].tolist()]
        values = processes.total(values, self.accelerator.device)
        rest = iter(values)
        by_task = {t: torch.tensor([next(rest) for _ in v], dtype=torch.float64) for t, v in found.items()}
        total = sum(self.factors[t] * self.losses[t].total(v).item() for t, v in by_task.items())
        shown = [total]
        if self.per_pixel:
            shown.append(
                sum(self.factors[t] * self.losses[t].per_pixel(v, amounts[t].cpu()).item() for t, v in by_task.items())
            )
        # Of one term of one task there is no column beside the loss itself.
        return StepLoss(total, dict(zip(self.columns, [*shown, *values], strict=False)))

    def require_finite(self, step: int) -> None:
        """Raise NotFiniteError unless all that training goes on from is finite: a loss may be the last that was.

        Weights, running statistics of batch norm and the optimizer's averages; of all processes, which all raise it.
        """
        averages = [value for each in self.optimizer.state.values() for value in each.values()]
        tensors = [value for value in [*self.net.state_dict().values(), *averages] if isinstance(value, Tensor)]
        bad = not all(tensor.isfinite().all().item() for tensor in tensors)
        if sum(processes.total([float(bad)], self.accelerator.device)):
            raise NotFiniteError(f"weights or averages are infinite or no numbers after step {step}; {self._remedy()}")

    def _not_finite(self, what: str, value: float, step: int, parts: Sequence[Batch]) -> NotFiniteError:
        """With the images of these parts; of several processes with those of the first that has any."""
        names = processes.first_text(", ".join(printable(name) for part in parts for name in part.names) or None)
        return NotFiniteError(
            f"the {what} is {value} at step {step}{f' (images {names})' if names else ''}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        return f"lower the learning rate ({self.options.recipe.lr:g}) with --lr and start a new run"
