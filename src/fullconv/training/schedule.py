"""How far a run is, and what that says of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, inf, pi

from fullconv.errors import OptionError


@dataclass(frozen=True)
class Length:
    """A run's length, one of the two.

    Attributes:
        steps: None where time is the bound.
        seconds: of the whole command, None where steps are.
    """

    steps: int | None
    seconds: float | None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise OptionError("a run is as long as its steps or its minutes; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise OptionError(f"{self.steps} steps; expected at least 1")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise OptionError(f"{self.seconds / 60:g} minutes; expected a number above 0")

    def progress(self, step: int, elapsed: float, begun: float, reserve: float) -> float:
        """0..1: the share of the steps done, or of the time for training used.

        Args:
            elapsed: seconds of the whole command.
            begun: those that were over before the first step: imports, the check of the data.
            reserve: those at the end that are not for training: last evaluation, files, report.
        """
        if self.seconds is None:
            return min(step / (self.steps or 1), 1.0)
        left = self.seconds - reserve - begun
        return min(max(elapsed - begun, 0.0) / left, 1.0) if left > 0 else 1.0


def rate(schedule: str, warmup: float, progress: float) -> float:
    """Factor on the learning rate, 0..1: linear rise, then half a cosine to 0 ("cosine") or 1 ("fixed").

    >>> [round(rate("cosine", 0.1, p), 3) for p in (0.0, 0.05, 0.1, 0.55, 1.0)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "fixed":
        return 1.0
    return 0.5 + 0.5 * cos(pi * (progress - warmup) / (1 - warmup)) if warmup < 1 else 1.0
