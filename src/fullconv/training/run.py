"""The run folder: what a training run writes, and where."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isnan
from pathlib import Path
from typing import Any

import yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from fullconv.data.text import read_yaml
from fullconv.errors import DataError, ModelFileError, OptionError
from fullconv.files import atomic
from fullconv.training.table import Row, Table
from fullconv.weights.modelfile import read_header

COLUMNS = (
    "step", "epoch", "seconds", "loss", "loss_per_pixel", "lr", "images_per_s",
    "val_pixel_accuracy", "val_mean_accuracy", "val_mean_iu", "val_fw_iu",
)  # fmt: skip
"""Of metrics.csv; empty where a row did not measure it. A run's further losses follow ``loss_per_pixel``."""

FAR = {"steps_done": 2.0**53, "seconds": 1e10, "progress": 1.0}
"""What a model's header says of how far its run had come, and the most that each can be."""


class RunFolder:
    """``runs/NAME/``: run.yaml, best and last model, state/, metrics.csv, class_iu.csv, events, curves, report.

    Args:
        path: the folder.
        resume: go on in a folder that holds a run; otherwise it must not hold one.

    Attributes:
        rows: of metrics.csv, by column.
        columns: of metrics.csv.
        class_names: by task, set before the first `add_class_iu`.
        class_rows: of class_iu.csv: ``step``, then the IU (0..1) of every class; None where val does not have it.

    Raises:
        OptionError: the folder holds a run already, or none to resume, or no folder can be made there.
    """

    def __init__(self, path: str | Path, resume: bool = False) -> None:
        self.path = Path(path)
        self.options = self.path / "run.yaml"
        self.best = self.path / "best.safetensors"
        self.last = self.path / "last.safetensors"
        self.state = self.path / "state"
        self.metrics = self.path / "metrics.csv"
        self.class_iu = self.path / "class_iu.csv"
        self.previews = self.path / "previews"
        self.report = self.path / "report.html"
        if resume and not self.options.is_file():
            raise OptionError(
                f"{self.path} holds no run to resume; name the folder of one with --out, or drop --resume"
            )
        if not resume and self.options.exists():
            raise self._taken()
        # Nothing is made before the first file is written: data that cannot be used must leave no trace.
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            why = "may not be written to" if nearest.is_dir() else "is a file"
            raise OptionError(f"{self.path} cannot be made a folder ({nearest} {why}); choose another --out")
        self._metrics, self._classes = Table(self.metrics, COLUMNS), Table(self.class_iu, ("step",))
        self.rows, self.columns, self.class_rows = self._metrics.rows, self._metrics.columns, self._classes.rows
        self.class_names: Mapping[str, Sequence[str]] = {}
        self._resume = resume
        self._held: int | None = None
        self._made: list[Path] = []

    def hold(self, giver: RunFolder | None = None) -> None:
        """Make the folder this process's alone, until `release` or its end.

        Two objects of one folder exclude each other, in one process too.

        Args:
            giver: another object of this folder, whose hold is taken over: no other process has it in between.

        Raises:
            OptionError: another process trains there, or has begun a run since this one looked.
        """
        if giver is not None and giver._held is not None:
            self._held, self._made, giver._held, giver._made = giver._held, giver._made, None, []
        else:
            self._lock()
        if not self._resume and self.options.exists():
            self.release()
            raise self._taken()

    def _lock(self) -> None:
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        if fcntl is not None:
            descriptor = os.open(self.path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = descriptor
            except BlockingIOError as error:
                os.close(descriptor)
                raise OptionError(f"another process trains in {self.path}; choose another --out") from error
            except OSError:  # a file system without locks
                os.close(descriptor)
        self._made = missing

    def release(self) -> None:
        """Let others have the folder, which `hold` made this process's; what `hold` made is gone if it is empty."""
        for path in self._made:
            with suppress(OSError):  # not empty
                path.rmdir()
        self._made = []
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _taken(self) -> OptionError:
        return OptionError(f"{self.path} holds a run already; add --resume to go on with it, or choose another --out")

    @classmethod
    def free(cls, parent: str | Path, name: str) -> Path:
        """``parent/name``, or the first of ``parent/name-2``, ... that is not there yet."""
        number, path = 1, Path(parent) / name
        while path.exists():
            number += 1
            path = Path(parent) / f"{name}-{number}"
        return path

    def write_options(self, options: Mapping[str, Any]) -> None:
        """Write run.yaml: every resolved option, versions, seed and the data's fingerprint."""
        with atomic(self.options) as path:
            text = yaml.dump(dict(options), Dumper=_Unshared, sort_keys=False, allow_unicode=True)
            path.write_text(text, encoding="utf-8")

    def read_options(self) -> dict[str, Any]:
        """What `write_options` wrote.

        Raises:
            DataError: the file is damaged.
        """
        try:
            value = read_yaml(self.options)
        except DataError as error:
            raise DataError(f"{error}; or start a new run") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.options} holds no options; start a new run")
        return value

    def best_mean_iu(self) -> float:
        """On val, of the best model that is there; -1 if there is none or it was never scored."""
        if not self.best.exists():
            return -1.0
        metrics = read_header(self.best).get("metrics", {})
        value = metrics.get("val", {}).get("mean_iu")
        return -1.0 if value is None else float(value)

    def add_columns(self, extra: Iterable[str], before: str | None = "lr") -> None:
        """Further columns of metrics.csv; rows that are there already have nothing in them.

        Args:
            before: the column that they come before, as other losses do; None: they are the last.
        """
        self._metrics.add_columns(extra, before)

    def add(self, row: Row) -> None:
        """Append a line to metrics.csv.

        Raises:
            TrainingError: the disk is full, or cannot be written.
        """
        self._metrics.append(row)

    def add_class_iu(self, step: int, iu: Mapping[str, Sequence[float]]) -> None:
        """Append a line to class_iu.csv.

        Args:
            iu: of every class of `class_names`, 0..1, or NaN where val does not have it; by task.

        Raises:
            TrainingError: the disk is full, or cannot be written.
        """
        names = [name for names in self.class_names.values() for name in names]
        alone = len(self.class_names) == 1 and "step" not in names
        row: Row = {"step": float(step)}
        for task, classes in self.class_names.items():
            for name, value in zip(classes, iu[task], strict=True):
                row[name if alone else f"{task}: {name}"] = None if isnan(value) else float(value)
        self._classes.add_columns(row)
        self._classes.append(row)

    def sync(self) -> None:
        """All rows are on the disk when this returns; a state that is saved then never misses a row before its step.

        Raises:
            TrainingError: the disk is full, or cannot be written.
        """
        self._metrics.sync()
        self._classes.sync()

    def restore_rows(self, step: int) -> None:
        """Read metrics.csv and class_iu.csv back up to a step, rows of that step included; nothing is written yet.

        Later rows, written after the state was saved, are dropped, and so is what a kill or a power cut left at the
        end of a file: half a line, garbage, NUL bytes.

        Raises:
            DataError: a file cannot be read, or is damaged before a row that counts.
        """
        self.add_columns(self._metrics.restore(step))
        self._classes.add_columns(self._classes.restore(step))


def how_far(folder: Path) -> dict[str, float]:
    """How far a run had come when it wrote its last model: those of `FAR` that are known.

    Only the best model of a run has to be whole: of a last one that is missing, damaged or odd nothing is known.
    """
    try:
        training = read_header(folder / "last.safetensors").get("training")
    except ModelFileError:
        return {}
    found = training if isinstance(training, dict) else {}
    numbers = {key: value for key, value in found.items() if key in FAR and isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if not isinstance(value, bool) and 0 <= value <= FAR[key]}


class _Unshared(yaml.SafeDumper):
    """Writes a value that occurs twice twice: `read_yaml` takes no aliases."""

    def ignore_aliases(self, _: object) -> bool:
        return True
