"""Timed: a process that does one thing again and again and says how long it took: an engine with a net, or the
convolutions that show what the machine can do.

It reads requests from standard input and answers each on standard output, a line of JSON both. What libraries print
goes to standard error. See `fullconv.inference.contender` for the other end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fullconv.data.sample import Array, Values
from fullconv.errors import FullconvError, one_line
from fullconv.inference.timings import PLAIN

if TYPE_CHECKING:
    from fullconv.inference.batches import Runner
    from fullconv.nets import FCN

Labels = Callable[[Mapping[str, Values]], dict[str, Array]]
"""Inputs by name, (H, W, C) -> labels (H, W) uint8 by task."""

BRIEF = 0.25
"""Seconds. What takes less goes once uncounted before it counts: the processes between have emptied the caches."""


class Timer(Protocol):
    """What is timed; answers are JSON objects."""

    def start(self) -> dict[str, Any]:
        """Make ready, and do it for the first time."""
        ...

    def turn(self, number: int) -> dict[str, Any]:
        """Do it once more, with the image of that number."""
        ...

    def answer(self, path: str) -> dict[str, Any]:
        """Write what comes out, for all images."""
        ...


class LabelTimer:
    """Times from uint8 images to labels.

    Args:
        make: gives what labels an image, and what counts the multiplications that one takes.
        images: inputs by name, all of one size.
    """

    def __init__(
        self, make: Callable[[], tuple[Labels, Callable[[], int]]], images: Sequence[Mapping[str, Values]]
    ) -> None:
        self.make, self.images, self.last = make, images, 0.0

    def start(self) -> dict[str, Any]:
        """Build, compile, and label the first image; reading files does not count."""
        begin = time.perf_counter()
        self.label, count = self.make()
        self.label(self.images[0])
        return {"seconds": time.perf_counter() - begin, "multiplications": count()}

    def turn(self, number: int) -> dict[str, Any]:
        """Label one image."""
        image = self.images[number % len(self.images)]
        if self.last < BRIEF:
            self.label(image)
        begin = time.perf_counter()
        self.label(image)
        self.last = time.perf_counter() - begin
        return {"seconds": self.last}

    def answer(self, path: str) -> dict[str, Any]:
        """Write the labels of all images: ``NUMBER.TASK`` (H, W) uint8."""
        from safetensors.numpy import save_file

        found: dict[str, Array] = {}
        for number, image in enumerate(self.images):
            begin = time.perf_counter()
            labels = self.label(image)
            self.last = time.perf_counter() - begin
            found |= {f"{number}.{task}": each for task, each in labels.items()}
        save_file(found, path)
        return {}


def read_images(path: Path) -> list[dict[str, Values]]:
    """Inputs by name of every image in a safetensors file of ``NUMBER.INPUT`` (H, W, C)."""
    from safetensors.numpy import load_file

    found: dict[int, dict[str, Values]] = {}
    for key, values in load_file(path).items():
        number, _, name = key.partition(".")
        found.setdefault(int(number), {})[name] = values
    return [found[number] for number in sorted(found)]


def net_timer(model: str, engine: str, precision: str, images: str, samples: str) -> LabelTimer:
    """An engine with a model file's net.

    Args:
        engine: of `ENGINES`, or "plain".
        images, samples: files as `read_images` takes them; int8 is calibrated on the samples.
    """
    from fullconv.weights.modelfile import read_model

    net = read_model(model).net
    ranges = read_images(Path(samples)) if precision == "int8" else []
    timed = read_images(Path(images))
    height, width = next(iter(timed[0].values())).shape[:2]
    return LabelTimer(lambda: made(net, engine, precision, (height, width), ranges), timed)


def made(
    net: FCN, engine: str, precision: str, size: tuple[int, int], samples: Sequence[Mapping[str, Values]] = ()
) -> tuple[Labels, Callable[[], int]]:
    """What labels images of a size, and what counts the multiplications of one."""
    import torch

    from fullconv.inference.batches import to_tensor
    from fullconv.inference.cropped import CroppedNet
    from fullconv.inference.engines import engine as engine_of
    from fullconv.inference.reference import Reference

    cpu = torch.device("cpu")
    runner: Runner
    count: Callable[[], int]

    def tensors(inputs: Mapping[str, Values]) -> dict[str, torch.Tensor]:
        return {name: to_tensor([each], cpu) for name, each in inputs.items()}

    if engine == PLAIN:
        runner = Reference(net, precision)
        count = partial(CroppedNet(net, lambda _: {}).multiplications, size)
    else:
        runner = chosen = engine_of(net, engine, precision, samples=[tensors(each) for each in samples])
        count = lambda: chosen.plan(size).multiplications  # noqa: E731

    @torch.inference_mode()
    def label(inputs: Mapping[str, Values]) -> dict[str, Array]:
        return {task: each.labels()[0].numpy() for task, each in runner.coarse(tensors(inputs)).items()}

    return label, count


def serve(make: Callable[[dict[str, Any]], Timer]) -> None:
    """Answer requests until standard input ends.

    Args:
        make: gives the timer of a request "start", whose fields it gets.
    """
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        with suppress(OSError):  # where memory runs out this process ends, and not the one that measures
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        timer: Timer | None = None
        for line in sys.stdin:
            request = json.loads(line)
            what = request.pop("do")
            try:
                if what == "start":
                    timer = make(request)
                    found = timer.start()
                else:
                    found = getattr(timer, what)(**request)
            except FullconvError as error:
                found = {"error": str(error)}
            except Exception as error:  # of any type: it becomes a row of the table
                found = {"error": one_line(error)}
            out.write(json.dumps({**found, "memory": peak_memory()}) + "\n")
            out.flush()


def peak_memory() -> int | None:
    """Bytes that this process held at most; None where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):  # on Linux, where `ru_maxrss` starts at what the parent held
        return int(Path("/proc/self/status").read_text("ascii", "replace").split("VmHWM:")[1].split()[0]) << 10
    with suppress(ImportError):
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return None


def timer_of(request: dict[str, Any]) -> Timer:
    """The machine's peak, or a net with an engine, as a request says."""
    import torch

    torch.set_num_threads(request.pop("threads"))
    kind = request.pop("kind")
    if kind == "machine":
        from fullconv.inference.ceiling import Ceiling

        return Ceiling(**request)
    return net_timer(**request)


if __name__ == "__main__":
    serve(timer_of)
