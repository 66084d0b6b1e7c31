"""Verify: the scores of an image in parts against those of the plain net on the whole image, or on windows of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import inf, isfinite
from random import Random

import torch
from torch import Tensor

from fullconv.errors import unknown_name
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.engines import Engine
from fullconv.inference.maps import Images
from fullconv.inference.reference import Reference
from fullconv.inference.strips import Strips
from fullconv.inference.tiles import ENDLESS, SHARE
from fullconv.machine import free_memory
from fullconv.nets.fcn import CoarseScores
from fullconv.nets.rectangles import Interval, Rectangle, Size

WINDOWS, WINDOW = 5, 256
"""How many windows are compared where the whole image does not fit, and their rows and columns."""

ROWS = 256
"""Rows of full-size scores held at a time."""

HELD = 3
"""Maps as large as a net's largest that the plain net holds at once, at most, about."""


@dataclass(frozen=True)
class Verification:
    """How far an engine's answer is from the plain net's.

    Attributes:
        difference: the largest of scores, as a share of the largest score.
        differing: labels that differ.
        ties: those of them where the plain net's two highest scores are equal.
        pixels: compared.
        whole: whether that is the whole image.
        precision: of the engine; the plain net computes in float32.
    """

    difference: float
    differing: int
    ties: int
    pixels: int
    whole: bool
    precision: str

    def __str__(self) -> str:
        where = "the whole image" if self.whole else f"{WINDOWS} windows"
        ties = f" ({self.ties} of them exact ties)" if self.ties else ""
        return (
            f"against the plain net on {where}: largest score difference {self.difference:.1e} of the largest score "
            f"({self.precision}), {self.differing:,} of {self.pixels:,} labels differ{ties}"
        )


@torch.inference_mode()
def verify(engine: Engine, size: Size, images: Images, *, task: str | None = None, seed: int = 0) -> Verification:
    """Compare what an engine makes of an image with the plain net in float32.

    Args:
        size: (H, W).
        images: reads a rectangle of the inputs, (1, C, h, w).
        task: default: the first.
        seed: of the windows, where the plain net has no room for the whole image.

    Raises:
        OptionError: a task that the net has not; as `Engine.plan`.
        GeometryError: an image that the net does not fit.
    """
    task = task or next(iter(engine.net.heads))
    if task not in engine.net.heads:
        raise unknown_name("task", task, list(engine.net.heads))
    plain = CroppedNet.plain(engine.net)
    whole = HELD * 4 * plain.numbers * size[0] * size[1] <= SHARE * free_memory()
    crops = replace(plain, tile=WINDOW)
    everything = Reference(engine.net).coarse(images((0, size[0]), (0, size[1])))[task] if whole else None
    difference, largest, differing, ties, pixels = 0.0, 0.0, 0, 0, 0
    way = engine.plan(size)
    random = Random(seed)  # noqa: S311  (nothing secret)
    for rows, columns in _everything(way.bands, size) if whole else _windows(way.parts, random):
        ours = way.strips(images, columns, tasks=(task,))
        theirs = (
            partial(_of_everything, everything, columns)
            if everything is not None
            else partial(Strips(crops, size, images, columns=columns, budget=ENDLESS, tasks=(task,)).scores, task)
        )
        for top in range(*rows, ROWS):
            block = top, min(top + ROWS, rows[1])
            found, expected = ours.scores(task, block)[0], theirs(block)[0]
            labels, wanted = ours.labels(task, block)[0], expected.max(0).indices
            apart = float((found - expected).abs().max())
            difference = max(difference, apart if isfinite(apart) else inf)  # a NaN is lost in a maximum
            largest = max(largest, float(expected.abs().max()))
            wrong = labels != wanted
            differing, pixels = differing + int(wrong.sum()), pixels + wrong.numel()
            if len(expected) > 1 and bool(wrong.any()):
                best = expected[:, wrong].topk(2, dim=0).values
                ties += int((best[0] == best[1]).sum())
    return Verification(difference / (largest or 1.0), differing, ties, pixels, whole, engine.precision)


def _of_everything(coarse: CoarseScores, columns: Interval, rows: Interval) -> Tensor:
    return coarse.head.rows(coarse.scores, coarse.size, rows)[..., slice(*columns)]


def _everything(bands: tuple[Interval, ...], size: Size) -> Iterator[Rectangle]:
    yield from (((0, size[0]), columns) for columns in bands)


def _windows(parts: list[Rectangle], random: Random) -> Iterator[Rectangle]:
    for _ in range(WINDOWS):
        rows, columns = random.choice(parts)
        top, left = (random.randrange(start, max(start, stop - WINDOW) + 1) for start, stop in (rows, columns))
        yield (top, min(top + WINDOW, rows[1])), (left, min(left + WINDOW, columns[1]))
