"""The run folder: what a training run writes, and where."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fullconv.errors import DataError, OptionError
from fullconv.files import atomic
from fullconv.weights.modelfile import read_header

COLUMNS = (
    "step", "epoch", "seconds", "loss", "lr", "images_per_s",
    "val_pixel_accuracy", "val_mean_accuracy", "val_mean_iu", "val_fw_iu",
)  # fmt: skip
"""Of metrics.csv; empty where a row did not measure it."""

Row = dict[str, float | None]


class RunFolder:
    """``runs/NAME/``: run.yaml, best and last model, state/, metrics.csv, events, curves, previews, report.

    Args:
        path: the folder.
        resume: go on in a folder that holds a run; otherwise it must not hold one.

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
        self.previews = self.path / "previews"
        self.report = self.path / "report.html"
        if resume and not self.options.is_file():
            raise OptionError(
                f"{self.path} holds no run to resume; name the folder of one with --out, or drop --resume"
            )
        if not resume and self.options.exists():
            raise OptionError(
                f"{self.path} holds a run already; add --resume to go on with it, or choose another --out"
            )
        # Nothing is made before the first file is written: data that cannot be used must leave no trace.
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            why = "may not be written to" if nearest.is_dir() else "is a file"
            raise OptionError(f"{self.path} cannot be made a folder ({nearest} {why}); choose another --out")
        self.rows: list[Row] = []

    @classmethod
    def free(cls, parent: str | Path, name: str) -> Path:
        """``parent/name``, or the first of ``parent/name-2``, ... that holds no run."""
        number, path = 1, Path(parent) / name
        while path.exists():
            number += 1
            path = Path(parent) / f"{name}-{number}"
        return path

    def write_options(self, options: Mapping[str, Any]) -> None:
        """Write run.yaml: every resolved option, versions, seed and the data's fingerprint."""
        with atomic(self.options) as path:
            path.write_text(yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def read_options(self) -> dict[str, Any]:
        """What `write_options` wrote.

        Raises:
            DataError: the file is damaged.
        """
        try:
            value = yaml.safe_load(self.options.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{self.options} cannot be read ({type(error).__name__}); start a new run") from error
        if not isinstance(value, dict):
            raise DataError(f"{self.options} holds no options; start a new run")
        return value

    def best_mean_iu(self) -> float:
        """On val, of the best model that is there; -1 if there is none or it was never scored."""
        if not self.best.exists():
            return -1.0
        metrics = read_header(self.best).get("metrics", {})
        return float(metrics.get("val", {}).get("mean_iu") or -1.0)

    def add(self, row: Row) -> None:
        """Append a line to metrics.csv."""
        self._append(self.metrics, [row], header=not self.metrics.exists())
        self.rows.append(row)

    @staticmethod
    def _append(path: Path, rows: Sequence[Row], header: bool) -> None:
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if header:
                writer.writeheader()
            writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)

    def restore_rows(self, step: int) -> None:
        """Read metrics.csv back up to a step; later lines, written after the state was saved, are dropped.

        Raises:
            DataError: the file is damaged.
        """
        if not self.metrics.is_file():
            return
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                lines = list(csv.DictReader(file))
            rows: list[Row] = [
                {key: float(value) if value else None for key, value in line.items() if key in COLUMNS}
                for line in lines
            ]
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{self.metrics} cannot be read ({error}); move it away to go on without it") from error
        self.rows = [row for row in rows if (row.get("step") or 0) <= step]
        with atomic(self.metrics) as path:
            self._append(path, self.rows, header=True)


def _text(value: float | None) -> str:
    """Whole numbers with all their digits, as steps need, others with six."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"
