"""Benchmark: engines, precisions and sizes of image beside each other, with this net on this machine.

Each combination runs in a process of its own, so that its peak of memory is its own; those of one size take turns,
image by image, so that a machine that slows for a while slows all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fullconv.errors import OptionError, unknown_name
from fullconv.inference.ceiling import CHANNELS, LAYERS, SIDE
from fullconv.inference.compilers import ABLE, COMPILERS, compiler
from fullconv.inference.contender import COMMAND, Contender, take_turns
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.pictures import Pictures, write_images
from fullconv.inference.timings import PLAIN, Row, Timings
from fullconv.inspect import named_net
from fullconv.labels import LabelSet
from fullconv.machine import cores, free_memory
from fullconv.nets import NETS, build
from fullconv.nets.precision import has_bfloat16
from fullconv.nets.rectangles import Size
from fullconv.nets.unit_scale import unit_scale
from fullconv.weights.modelfile import ModelFile, read_header, write_model

TABLE = {PLAIN: ("float32", "bfloat16"), **ABLE}
"""Engines and the precisions that each has."""

USUAL = (500, 500)
"""The size where nothing tells another: the paper's."""

REPEATS = 7

INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "avx2_vnni")
"""Any of these instructions makes int8 faster than float32."""

ROOM = 1.5
"""Times the largest peak so far that must be free for another process to be started beside those that are."""

CONVOLUTIONS = {"layers": LAYERS, "channels": CHANNELS, "side": SIDE}
"""That the machine's peak is measured on."""

LONGEST = 100_000
"""Rows or columns that a record is believed."""

Tell = Callable[[str], None]
"""Called with a note, as soon as there is one."""

Progress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what is done)."""


def benchmark(
    model: str | Path,
    sizes: Sequence[Size] = (),
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    *,
    images: str | Path | None = None,
    repeats: int = REPEATS,
    threads: int | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Timings:
    """Measure how fast a net labels images here.

    Args:
        model: a model file, or a name of `NETS`, which gets random weights.
        sizes: (H, W); default: the crops that the model was trained on, else `USUAL`.
        engines: of `TABLE`; default: all that are installed.
        precisions: default: those that each engine has and this processor is quick in.
        images: a folder; default: smooth noise.
        repeats: images that each median is of.
        threads: default: all that the process may use.
        progress, tell: see `Progress`, `Tell`.

    Raises:
        OptionError: an unknown name, nothing to measure, or numbers out of range.
        ModelFileError: a file that is no model.
        DataError: images that cannot be read.
    """
    if not 1 <= repeats <= 10_000:
        raise OptionError(f"{repeats} repeats; expected 1 to 10000")
    threads = cores() if threads is None else threads
    if not 1 <= threads <= 1024:
        raise OptionError(f"{threads} threads; expected 1 to 1024")
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if tell is not None:
            tell(text)

    pairs = combinations(engines, precisions, note)
    net = named_net(str(model), None, None).eval()
    random = str(model) in NETS
    pictures = Pictures.of(net, None if images is None else Path(images))
    crop = None if random else crop_of(read_header(model).get("training"))
    sizes = list(dict.fromkeys(sizes)) or [crop or USUAL]
    with tempfile.TemporaryDirectory(prefix="fullconv-") as place:
        if random:
            note(
                f"{model} has random weights at unit scale: times are those of trained ones, agreement is not, for "
                "scores lie closer together"
            )
        if images is None and any(precision == "int8" for _, precision in pairs):
            note("int8's ranges were chosen on synthetic images; with --images they are chosen on real ones")
        path = _random(str(model), Path(place)) if random else Path(model)
        rows, peaks = [], dict[str, float]()
        shown = Steps(len(sizes) * (len(pairs) + 1) * (repeats + 1), progress)
        for size in sizes:
            files = write_images(pictures, size, Path(place))
            entrants = [Entrant(*pair, request_of(path, pair, files)) for pair in pairs]
            found, reached = race(entrants, size, Path(place), repeats=repeats, threads=threads, shown=shown, note=note)
            rows += sorted(found, key=lambda row: row.median or float("inf"))
            for name, rate in reached.items():
                peaks[name] = max(rate, peaks.get(name, 0.0))
        plain = {size: CroppedNet(net, lambda _: {}).multiplications(size) for size in sizes}
    return Timings(str(model), threads, repeats, tuple(rows), peaks, plain, tuple(notes))


def combinations(engines: Sequence[str], precisions: Sequence[str], note: Tell) -> list[tuple[str, str]]:
    """(engine, precision) to measure: the plain net in float32 first, which the others are compared with.

    Raises:
        OptionError: an unknown name, or none that can be measured.
    """
    for name in engines:
        if name not in TABLE:
            raise unknown_name("engine", name, TABLE)
    known = list(dict.fromkeys(each for has in TABLE.values() for each in has))
    for name in precisions:
        if name not in known:
            raise unknown_name("precision", name, known)
    wanted = list(dict.fromkeys(precisions)) or quick()
    pairs, missing = [], []
    for name in dict.fromkeys(engines or TABLE):
        for precision in wanted:
            if precision in TABLE[name]:
                try:
                    if name in COMPILERS:
                        compiler(name, precision)
                except OptionError as error:
                    missing.append(f"{name} {precision} is left out: {error}")
                else:
                    pairs.append((name, precision))
    reasons = {each.partition(": ")[2]: each for each in reversed(missing)}
    if not pairs:
        why = "; ".join(reversed(reasons.values())) or (
            f"{' and '.join(engines or TABLE)} cannot compute in {' or '.join(wanted)}; "
            + "; ".join(f"{name} has {', '.join(TABLE[name])}" for name in engines or TABLE)
        )
        raise OptionError(f"nothing to measure: {why}")
    for each in reversed(reasons.values()):
        note(each)
    base = (PLAIN, "float32")
    return [base, *(each for each in pairs if each != base)]


def quick() -> list[str]:
    """Precisions that this processor has instructions for."""
    found = torch.cpu.get_capabilities()
    bfloat16 = ["bfloat16"] if has_bfloat16(torch.device("cpu")) else []
    return ["float32", *bfloat16, *(["int8"] if any(found.get(name) for name in INT8) else [])]


def _random(name: str, place: Path) -> Path:
    """A model file of a named net."""
    net, path = unit_scale(build(name)), place / "model.safetensors"
    labels = {task: LabelSet.numbered(count) for task, count in net.options.classes.items()}
    write_model(path, ModelFile(net, labels))
    return path


def request_of(model: Path, pair: tuple[str, str], files: tuple[Path, Path]) -> dict[str, str]:
    """What `fullconv.inference.timed` is asked for, to run a model file with (engine, precision)."""
    (engine, precision), (images, samples) = pair, files
    request = {"kind": "net", "model": str(model), "engine": engine, "precision": precision}
    return {**request, "images": str(images), "samples": str(samples)}


def crop_of(training: object) -> Size | None:
    """What a model's record says that it was trained on; a file may say anything."""
    found: Any = training
    for key in ("recipe", "augmentation", "crop"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list) or len(found) != 2:
        return None
    height, width = found
    return (height, width) if all(type(n) is int and 1 <= n <= LONGEST for n in found) else None


class Steps:
    """Counts what is done."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def tell(self, what: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, what)


@dataclass(frozen=True)
class Entrant:
    """One that takes part.

    Attributes:
        name, precision: of its row.
        request: what its process is to do, see `fullconv.inference.timed`.
        command: the process.
    """

    name: str
    precision: str
    request: Mapping[str, Any]
    command: Sequence[str] = COMMAND


def race(
    entrants: Sequence[Entrant], size: Size, place: Path, *, repeats: int = REPEATS, threads: int,
    shown: Steps | None = None, note: Tell | None = None,
) -> tuple[list[Row], dict[str, float]]:  # fmt: skip
    """Let processes label images of one size in turns.

    Args:
        entrants: the first one's labels are those that the others' are compared with.
        place: a folder for labels.

    Returns:
        A row for each, in their order, and the most operations a second that the machine reached in between, by
        precision.
    """
    truth: Path | None = None
    waiting, rows, peaks = list(entrants), list[Row](), dict[str, float]()
    machine = {"kind": "machine", "precisions": sorted({each.precision for each in entrants}), **CONVOLUTIONS}
    shown, where = shown or Steps(0, None), f"{size[0]}x{size[1]}"
    while waiting:
        with ExitStack() as stack:
            ceiling = stack.enter_context(Contender(machine, threads))
            started, most = list[tuple[Contender, Row]](), 0
            reached = [ceiling.start()]
            shown.tell(f"{where}: the machine's peak")
            while waiting and (not started or free_memory() > ROOM * most):
                entrant = waiting.pop(0)
                contender = stack.enter_context(Contender(entrant.request, threads, entrant.command))
                first, out = contender.start() or {}, place / f"labels-{len(rows) + len(started)}.safetensors"
                agreed = None
                if contender.ask("answer", path=str(out)) is not None:
                    if entrant is entrants[0]:
                        truth = out
                    agreed = None if truth is None else agreement(truth, out)
                    if out != truth:
                        out.unlink()
                known = first.get("seconds"), None, agreed, first.get("multiplications")
                started.append((contender, Row(entrant.name, entrant.precision, size, (), *known)))
                most = max(most, contender.memory or 0)
                shown.tell(f"{where}: {entrant.name} {entrant.precision}")
            if waiting:
                shown.total += repeats + 1
                if note is not None:
                    note(
                        f"{where}: memory holds {len(started)} of {len(started) + len(waiting)} combinations at once; "
                        "the others took turns after them, and their times are compared across minutes"
                    )
            answers = take_turns([ceiling, *(each for each, _ in started)], repeats, partial(shown.tell, where))
            for each in [*reached, *answers[0]]:
                for precision, rate in (each or {}).get("rates", {}).items():
                    peaks[precision] = max(rate, peaks.get(precision, 0.0))
            for (contender, row), turns in zip(started, answers[1:], strict=True):
                seconds = () if contender.error else tuple(float(turn["seconds"]) for turn in turns)
                rows.append(replace(row, seconds=seconds, memory=contender.memory, error=contender.error))
    return rows, peaks


def agreement(truth: Path, other: Path) -> float:
    """The share of pixels with equal labels, over all images and tasks of two files of labels."""
    from safetensors.numpy import load_file

    expected, found = load_file(truth), load_file(other)
    equal = sum(int((expected[key] == found[key]).sum()) for key in expected)
    return equal / sum(each.size for each in expected.values())
