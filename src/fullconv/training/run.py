"""The run folder: what a training run writes, and where."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from typing import Any

import yaml

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from fullconv.data.text import read_yaml
from fullconv.errors import DataError, OptionError, TrainingError, printable
from fullconv.files import atomic
from fullconv.weights.modelfile import read_header

COLUMNS = (
    "step", "epoch", "seconds", "loss", "loss_per_pixel", "lr", "images_per_s",
    "val_pixel_accuracy", "val_mean_accuracy", "val_mean_iu", "val_fw_iu",
)  # fmt: skip
"""Of metrics.csv; empty where a row did not measure it. A run's further losses follow ``loss_per_pixel``."""

Row = dict[str, float | None]


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
        self._metrics, self._classes = _Table(self.metrics, COLUMNS), _Table(self.class_iu, ("step",))
        self.rows, self.columns, self.class_rows = self._metrics.rows, self._metrics.columns, self._classes.rows
        self.class_names: Mapping[str, Sequence[str]] = {}
        self._resume = resume
        self._held: int | None = None

    def hold(self) -> None:
        """Make the folder this process's alone, until `release` or its end.

        Raises:
            OptionError: another process trains there, or has begun a run since this one looked.
        """
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
        if not self._resume and self.options.exists():
            self.release()
            raise self._taken()

    def release(self) -> None:
        """Let others have the folder, which `hold` made this process's; it is gone if nothing was written."""
        with suppress(OSError):  # not empty
            self.path.rmdir()
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

    def add_columns(self, extra: Iterable[str]) -> None:
        """Further columns of metrics.csv, after the other losses; rows that are there already have nothing in them."""
        self._metrics.add_columns(extra, before="lr")

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


class _Unshared(yaml.SafeDumper):
    """Writes a value that occurs twice twice: `read_yaml` takes no aliases."""

    def ignore_aliases(self, _: object) -> bool:
        return True


class _Table:
    """A CSV file of numbers that grows by lines; its header and what was read back are written anew, atomically.

    Attributes:
        columns: of the file; may grow.
        rows: of the file, by column; columns that a row lacks are empty.
    """

    def __init__(self, path: Path, columns: Iterable[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self.rows: list[Row] = []
        self._header: list[str] | None = None  # of the file that this object has written

    def add_columns(self, names: Iterable[str], before: str | None = None) -> None:
        place = len(self.columns) if before is None else self.columns.index(before)
        self.columns[place:place] = [name for name in dict.fromkeys(names) if name not in self.columns]

    def append(self, row: Row) -> None:
        self.rows.append(row)
        if self._header != self.columns:
            self._rewrite()
            return
        with _writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            self._write(file, [row])

    def sync(self) -> None:
        if self._header == self.columns:
            with _writing(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())
        elif self.rows or self.path.exists():  # what `restore` dropped must not come back with a later state
            self._rewrite()

    def restore(self, step: int) -> list[str]:
        """The file's columns, which may be fewer, more and in another order; none if there is no file."""
        if not self.path.is_file():
            return []
        try:
            header, lines, first = self._read()
        except (OSError, ValueError, csv.Error) as error:
            raise self._unreadable(error) from error
        rows: list[Row] = []
        damaged: tuple[int, str] | None = None
        for number, line in enumerate(lines, first):
            row = _row(line, header)
            if row is None:
                damaged = damaged or (number, line)
            elif (row["step"] or 0) <= step:
                if damaged:
                    found, expected = f"line {damaged[0]}: found {damaged[1][:40]!r}", f"{len(header)} numbers"
                    raise self._unreadable(f"{found}, expected {expected}")
                rows.append(row)
        self.rows[:] = rows
        self._header = None
        return header

    def _read(self) -> tuple[list[str], list[str], int]:
        """Header, complete lines below it, and the number of the first of them."""
        content = self.path.read_bytes()
        text = content[: content.rfind(b"\n") + 1].decode("utf-8", "replace")
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, strict=True)  # of the header alone, for names may be quoted; no number is
        header = next(reader, ["step"])
        if header[:1] != ["step"] or len(set(header)) < len(header):
            raise ValueError(f"line 1: found {','.join(header)[:40]!r}, expected columns, the first of them step")
        return header, lines.read().split("\n")[:-1], reader.line_num + 1

    def _unreadable(self, why: object) -> DataError:
        return DataError(f"{printable(self.path)} cannot be read ({why}); move it away to go on without it")

    def _rewrite(self) -> None:
        with _writing(self.path), atomic(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(self.columns)
            self._write(file, self.rows)
        self._header = list(self.columns)

    def _write(self, file: io.TextIOBase, rows: Iterable[Row]) -> None:
        writer = csv.DictWriter(file, self.columns, restval="")
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _row(line: str, header: Sequence[str]) -> Row | None:
    """The numbers of a line; None: it is damaged."""
    fields = line.removesuffix("\r").split(",")
    try:
        row = dict(zip(header, [float(field) if field else None for field in fields], strict=True))
    except ValueError:
        return None
    return row if (row["step"] or 0.0).is_integer() and fields[0] else None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{printable(path)}: cannot be written ({error.strerror}); free some space and go on with --resume"
        ) from error


def _text(value: float | None) -> str:
    """Whole numbers with all their digits, as steps need, others with six."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
