"""Ctrl-C and SIGTERM end a run as it should end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fullconv.training import processes
from fullconv.training.loop import Trainer


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM, as schedulers send it) ends the run after its step, with model and report; a
    second Ctrl-C at once."""

    def ask(number: int, _: FrameType | None) -> None:
        if trainer.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        trainer.asked = True
        trainer.stop = processes.count() == 1  # several agree on it after their next step

    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
