"""A bound on the pixels that threads hold decoded at one time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Condition

from fullconv.data.bands import size_of
from fullconv.data.scenes import Input, Scene
from fullconv.errors import DataError, OptionError

PIXELS = 3 * 2**24
"""At one time, of one file of each scene. A picture takes about 10 bytes a pixel while it is decoded, so that half a
gigabyte is enough for any number of threads; one larger picture is decoded alone."""


def threads_for(pixels: Sequence[int], most: int) -> int:
    """As many threads, up to `most`, as find work on files of the usual size: what a thread has needed once, it keeps.

    >>> threads_for([12_000_000] * 3, 16), threads_for([300_000], 16)
    (4, 16)
    """
    usual = sorted(pixels)[len(pixels) // 2] if pixels else 0
    return max(1, min(most, PIXELS // max(usual, 1)))


class Budget:
    """So many of something, which threads take and give back; who asks for more than there is waits."""

    def __init__(self, whole: int) -> None:
        self.whole = whole
        self._free = whole
        self._changed = Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait for `amount`, or for the whole if that is less, and keep it inside the block."""
        amount = min(amount, self.whole)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


def pixels_of(scene: Scene, inputs: Mapping[str, Input]) -> int:
    """Of the largest file of a scene, by the headers; 0 where none can be read.

    Masks of other kinds than pictures are taken to be of their image's size.
    """
    files = [(scene.images[name], source) for name, source in inputs.items()]
    files += [(path, Input()) for path in scene.masks.values()]
    return max((_pixels(path, source) for path, source in files), default=0)


def _pixels(path: Path, source: Input) -> int:
    try:
        height, width = size_of(path, source)
    except (DataError, OptionError):
        return 0
    return height * width
