"""Tick: what a running training tells of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """What a progress bar shows; sent after every step, file or image.

    Attributes:
        phase: "check", "begin", "train", "evaluate" or "report".
        done: 0..1 of the phase.
        loss: running mean, of the last steps.
        images_per_s: trained a second, over all processes.
        seconds_left: of the training.
        mean_iu: of the last evaluation.
        step: of the training, done so far.
        loss_per_pixel: beside a loss that is a sum.
        text: of "begin": what is trained, on what, how and where, and which stage it is; lines.
    """

    phase: str
    done: float
    loss: float | None = None
    images_per_s: float | None = None
    seconds_left: float | None = None
    mean_iu: float | None = None
    step: int | None = None
    loss_per_pixel: float | None = None
    text: str = ""


Listener = Callable[[Tick], None]
