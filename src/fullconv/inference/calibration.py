"""Calibration: the images on which int8 finds the ranges of a net's features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from random import Random

import torch
from torch import Tensor

from fullconv.data.wafer import render
from fullconv.data.wafermaps import wafer_maps
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError, OptionError
from fullconv.inference.batches import to_tensor
from fullconv.inference.jobs import Job
from fullconv.inference.model import Model
from fullconv.inference.samples import digest

IMAGES = 16
"""Of which the ranges are taken, at most; where there are as many, at least half. Of thin VGG-16 and ResNet-18 nets
trained on CamVid, labels agree with float32's as often by the ranges of 8 images as of 32."""

SIDE = 512
"""Rows and columns of an image that are used, at most. By halves as large, 0.2 and 1 % fewer of those labels agree."""

WINDOWS = 4
"""Of a scene."""


def calibration(model: Model, jobs: Sequence[Job], seed: int = 0) -> list[Mapping[str, Tensor]]:
    """Inputs by name, (1, C, H, W), of some of the images, drawn evenly; what cannot be read is left out.

    Raises:
        OptionError: none can be read, or the net has several inputs.
    """
    if len(model.net.options.inputs) > 1:
        raise OptionError("int8 is calibrated on files of one input; this net has several")
    random, found = Random(seed), list[Mapping[str, Tensor]]()  # noqa: S311  (nothing secret)
    device = torch.device("cpu")
    wanted = sum(WINDOWS if job.is_scene else 1 for job in jobs)
    step = max(1, ceil(wanted / IMAGES))
    drawn = jobs[::step]
    others = [job for number, job in enumerate(jobs) if number % step]
    for number, job in enumerate([*drawn, *others]):
        if len(found) >= (IMAGES if number < len(drawn) else 1):
            break
        try:
            if job.is_scene:
                found += [_scene(model, job, random) for _ in range(WINDOWS)]
            else:
                found.append(_picture(model, job, device))
        except DataError:
            continue
    if not found:
        raise OptionError("int8 is calibrated on the images that are labelled, and none of them can be read")
    return found


def digest_of(samples: Iterable[Mapping[str, Tensor]]) -> str:
    """Of inputs by name, image by image, so of the ranges that a net gets from them; hex."""
    return digest(
        (f"{number}.{name}", sample[name]) for number, sample in enumerate(samples) for name in sorted(sample)
    )


def _picture(model: Model, job: Job, device: torch.device) -> dict[str, Tensor]:
    inputs = model.inputs(job.image if job.number is None else render(wafer_maps(job.image)[job.number]))
    return {name: to_tensor([values[:SIDE, :SIDE]], device) for name, values in inputs.items()}


def _scene(model: Model, job: Job, random: Random) -> dict[str, Tensor]:
    ((name, options),) = model.net.options.inputs.items()
    with RasterReader(job.image, options.bands) as reader:
        (rows, columns) = (_window(n, random) for n in reader.size)
        return {name: torch.from_numpy(reader.read(rows, columns)).permute(2, 0, 1)[None]}


def _window(size: int, random: Random) -> tuple[int, int]:
    start = random.randrange(max(1, size - SIDE + 1))
    return start, min(start + SIDE, size)
