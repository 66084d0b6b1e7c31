"""Val, scored now and then during a run: the best evaluation so far, and what is written of one."""

from __future__ import annotations

from fullconv.inference.evaluate import Evaluation, evaluate_net
from fullconv.nets import FCN
from fullconv.training.context import Run
from fullconv.training.progress import Tick
from fullconv.weights.modelfile import read_model

SCORES = ("pixel_accuracy", "mean_accuracy", "mean_iu", "fw_iu")
"""Of `Scores`, what metrics.csv shows: of the first task as ``val_mean_iu``, of others as ``val_TASK_mean_iu``."""


class Validation:
    """A run's evaluations; of several tasks the first decides which model is the best.

    Args:
        run: whose val is scored.

    Attributes:
        best_iu: mean IU of the best model so far, 0..1; -1: there is none. A run that goes on sets it.
        best: its evaluation; None: none was made, or not since the run was resumed.
        last_iu: mean IU of the last one.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.best_iu = -1.0
        self.best: Evaluation | None = None
        self.last_iu: float | None = None
        self._names = {
            task: f"val_{task}" if number else "val" for number, task in enumerate(run.splits.val.dataset.labels)
        }

    def score(self, net: FCN) -> Evaluation:
        """Score a net, in shares of all processes."""
        evaluation = evaluate_net(
            net,
            self.run.splits.val.dataset,
            self.run.options.precision,
            lambda done, total: self.run.tell(Tick("evaluate", done / total)),
        )
        self.last_iu = evaluation.scores.mean_iu
        return evaluation

    def is_best(self, evaluation: Evaluation) -> bool:
        """Whether it is better than all before; it is then kept as `best`."""
        better = evaluation.scores.mean_iu > self.best_iu
        if better:
            self.best, self.best_iu = evaluation, evaluation.scores.mean_iu
        return better

    def of_best(self) -> Evaluation | None:
        """That of the best model, scored once more where it is of before a resume; None if there was none."""
        if self.best is None and self.best_iu >= 0:
            self.best = self.score(read_model(self.run.folder.best).net.to(self.run.accelerator.device))
        return self.best

    def columns(self) -> list[str]:
        """Of metrics.csv, beside those that every run has."""
        return [f"{name}_{key}" for name in list(self._names.values())[1:] for key in SCORES]

    def row(self, evaluation: Evaluation) -> dict[str, float]:
        """What metrics.csv shows of it, by column."""
        scores = evaluation.by_task()
        return {f"{name}_{key}": getattr(scores[task], key) for task, name in self._names.items() for key in SCORES}

    def record(self, evaluation: Evaluation) -> dict[str, object]:
        """What a model file holds of it."""
        return {self._names[task]: scores.to_json() for task, scores in evaluation.by_task().items()}
