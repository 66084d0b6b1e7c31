"""How far a run is, and what that says of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, inf, pi

from fullconv.errors import OptionError


@dataclass
class Length:
    """A run's length: steps, or seconds of which some are kept for the end.

    Attributes:
        steps: None where time is the bound.
        seconds: of the whole command, None where steps are.
        reserve: seconds at the end that are not for training: last evaluation, pictures, report.
    """

    steps: int | None
    seconds: float | None
    reserve: float = 0.0
    _reached: float = 0.0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise OptionError("a run is as long as its steps or its minutes; give one of the two")
        if self.steps is not None and self.steps < 1:
            raise OptionError(f"{self.steps} steps; expected at least 1")
        if self.seconds is not None and not 0 < self.seconds < inf:
            raise OptionError(f"{self.seconds / 60:g} minutes; expected a number above 0")

    def progress(self, step: int, elapsed: float) -> float:
        """0..1, never falling: the share of the steps done, or of the time for training used."""
        if self.steps is not None:
            now = step / self.steps
        else:
            now = elapsed / max((self.seconds or 0.0) - self.reserve, 1e-9)
        self._reached = max(self._reached, min(now, 1.0))
        return self._reached


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
