"""Runs side by side, from folders made by hand: what is read is what is there, and damage is told."""

from __future__ import annotations

import csv
import functools
import json
import math
import statistics
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from fullconv import compare as module
from fullconv.compare import compare
from fullconv.data.sample import SEMANTIC
from fullconv.errors import DataError, ModelFileError, OptionError
from fullconv.labels import LabelSet
from fullconv.nets import FCN, build
from fullconv.report.compare import SCORES
from fullconv.weights.modelfile import KEY, ModelFile, write_model

NAMES = ("ground", "road", "car")
COLUMNS = (
    "step", "epoch", "seconds", "loss", "loss_per_pixel", "lr", "images_per_s", "val_pixel_accuracy",
    "val_mean_accuracy", "val_mean_iu", "val_fw_iu",
)  # fmt: skip
ROWS: tuple[Mapping[str, float], ...] = (
    {"step": 10, "seconds": 6.0, "loss": 2.0, "loss_per_pixel": 2.0, "lr": 0.1, "images_per_s": 20.0},
    {"step": 10, "seconds": 7.0, "val_mean_iu": 0.35, "val_pixel_accuracy": 0.5, "val_mean_accuracy": 0.4,
     "val_fw_iu": 0.3},
    {"step": 20, "seconds": 12.0, "loss": 1.0, "loss_per_pixel": 1.0, "lr": 0.1, "images_per_s": 40.0},
    {"step": 20, "seconds": 13.0, "val_mean_iu": 0.25, "val_pixel_accuracy": 0.4, "val_mean_accuracy": 0.3,
     "val_fw_iu": 0.2},
    {"step": 30, "seconds": 18.0, "loss": 0.5, "loss_per_pixel": 0.5, "lr": 0.1, "images_per_s": 21.0},
)  # fmt: skip


@functools.cache
def net(classes: int) -> FCN:
    return build("fcn1s-slim", classes, width=0.1)


def scores(mean_iu: float, names: Sequence[str] = NAMES) -> dict[str, Any]:
    """As model files keep them; the last class has no IU."""
    iu = [mean_iu + 0.1, *[mean_iu - 0.1] * (len(names) - 2), None]
    return {
        "pixel_accuracy": mean_iu + 0.2, "mean_accuracy": mean_iu + 0.1, "mean_iu": mean_iu, "fw_iu": mean_iu + 0.05,
        "iu": iu, "accuracy": iu, "pixels": [1] * len(names),
    }  # fmt: skip


def make_run(
    path: Path,
    val: Mapping[str, Any] | float | None = 0.5,
    *,
    names: Sequence[str] = NAMES,
    finished: bool = True,
    rows: Sequence[Mapping[str, float]] | None = ROWS,
    class_rows: Sequence[Mapping[str, float | str]] = (),
    model: bool = True,
    last: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A run folder as training leaves it.

    Args:
        val: its best model's mean IU, its scores, or None.
        last: what its last model says of the training, if there is one.
    """
    path.mkdir(parents=True)
    saved = {
        "data": "data", "net": {"trunk": "slim", "classes": {SEMANTIC: len(names)}},
        "recipe": {"lr": 0.002, "augmentation": {"scale": [0.7, 1.5]}}, "seed": 0, "steps": 30, "minutes": None,
        "fingerprint": "aaaa-bbbb", "command": f"fullconv train --out {path}", "torch": "2",
    }  # fmt: skip
    (path / "run.yaml").write_text(yaml.safe_dump(saved | options), "utf-8")
    if rows is not None:
        with (path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(rows)
    if class_rows:
        with (path / "class_iu.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(class_rows[0]))
            writer.writeheader()
            writer.writerows(class_rows)
    if model:
        val = scores(val, names) if isinstance(val, float) else val
        labels = {SEMANTIC: LabelSet(tuple(names))}
        write_model(
            path / "best.safetensors", ModelFile(net(len(names)), labels, {}, {} if val is None else {"val": val})
        )
    if last is not None:
        labels = {SEMANTIC: LabelSet(tuple(names))}
        write_model(path / "last.safetensors", ModelFile(net(len(names)), labels, last))
    if finished:
        (path / "report.html").write_text("a page")
    return path


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite the header of a model file."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + length])
    header = json.loads(entries["__metadata__"][KEY])
    change(header)
    entries["__metadata__"][KEY] = json.dumps(header)
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


class TestReading:
    def test_a_run_is_what_its_files_say(self, tmp_path: Path) -> None:
        run = compare([make_run(tmp_path / "a", 0.5)]).runs[0]
        assert (run.name, run.path, run.finished, run.notes) == ("a", str(tmp_path / "a"), True, ())
        assert run.scores == {key: scores(0.5)[key] for key in SCORES}
        assert run.iu == {"ground": 0.6, "road": 0.4, "car": None}
        assert (run.seconds, run.steps, run.images_per_s, run.fingerprint) == (18.0, 30, 21.0, "aaaa-bbbb")
        assert run.options == {
            "data": "data", "net.trunk": "slim", "net.classes.semantic": 3, "recipe.lr": 0.002,
            "recipe.augmentation.scale": [0.7, 1.5], "seed": 0, "steps": 30, "minutes": None, "torch": "2",
        }  # fmt: skip
        wanted = set(COLUMNS) - {"epoch", "lr"}
        assert run.rows == [{key: value for key, value in row.items() if key in wanted} for row in ROWS]

    def test_runs_of_one_name_are_called_by_their_paths(self, tmp_path: Path) -> None:
        paths = [make_run(tmp_path / each / "run") for each in "xy"]
        assert [run.name for run in compare(paths).runs] == [str(path) for path in paths]

    def test_without_a_model_the_tables_tell_the_best_scores(self, tmp_path: Path) -> None:
        class_rows = [{"step": 10, "ground": 0.7, "step ": ""}, {"step": 20, "ground": 0.1, "step ": 0.2}]
        run = compare([make_run(tmp_path / "a", model=False, class_rows=class_rows)]).runs[0]
        assert run.scores == {"pixel_accuracy": 0.5, "mean_accuracy": 0.4, "mean_iu": 0.35, "fw_iu": 0.3}
        assert run.iu == {"ground": 0.7, "step ": None}
        assert run.notes == ("a has no best.safetensors: its scores are the best in metrics.csv",)

    def test_a_run_just_begun_has_no_numbers(self, tmp_path: Path) -> None:
        run = compare([make_run(tmp_path / "a", model=False, rows=None, finished=False)]).runs[0]
        assert (run.scores, run.iu, run.rows) == ({}, {}, [])
        assert (run.seconds, run.steps, run.images_per_s) == (None, None, None)
        assert run.notes == (
            "a is unfinished: 0 of 30 steps (no report.html: it is still at work, or was killed)",
            "a was never scored, and has no best.safetensors",
        )

    @pytest.mark.parametrize(
        ("options", "finished", "note"),
        [
            ({}, True, None),
            ({}, False, "a is unfinished (no report.html: it is still at work, or was killed)"),
            ({"steps": 1000}, True, "a is unfinished: 30 of 1,000 steps"),
            ({"steps": None, "minutes": 2.0}, True, "a is unfinished: 0.3 of 2 minutes"),
            ({"steps": None, "minutes": 0.3}, True, None),
            ({"steps": "many", "minutes": True}, True, None),
        ],
    )
    def test_what_did_not_come_to_its_end(
        self, tmp_path: Path, options: dict[str, Any], finished: bool, note: str | None
    ) -> None:
        found = compare([make_run(tmp_path / "a", finished=finished, **options)])
        assert found.runs[0].finished is (note is None)
        assert found.notes == (() if note is None else (note,))

    @pytest.mark.parametrize(
        ("options", "progress", "note"),
        [
            ({}, 1, None),
            ({"steps": None, "minutes": 2.0}, 1.0, None),  # though its last line is of long before
            ({"steps": None, "minutes": 0.4}, 0.75, "a is unfinished: 0.3 of 0.4 minutes"),  # 18 s of 24
            ({"steps": 32}, 0.96875, "a is unfinished: 31 of 32 steps"),
            ({"steps": None}, 0.999, "a is unfinished: 100 % of it"),
            ({"steps": None, "minutes": 0.4}, None, None),  # older runs did not write it down
            ({"steps": None, "minutes": 0.4}, 1.5, None),
            ({"steps": None, "minutes": 0.4}, False, None),
            ({"steps": None, "minutes": 0.4}, "0.75", None),
        ],
    )
    def test_the_last_model_knows_whether_a_run_came_to_its_end(
        self, tmp_path: Path, options: dict[str, Any], progress: Any, note: str | None
    ) -> None:
        last = {"steps_done": 31} | ({} if progress is None else {"progress": progress})
        found = compare([make_run(tmp_path / "a", last=last, **options)])
        assert found.runs[0].finished is (note is None)
        assert found.notes == (() if note is None else (note,))
        assert found.runs[0].steps == 31
        made = make_run(tmp_path / "b", last=last, finished=False, **options)
        killed = " (no report.html: it is still at work, or was killed)"
        assert compare([made]).notes == ((note or "a is unfinished").replace("a", "b", 1) + killed,)

    def test_a_run_may_have_gone_on_after_its_last_line(self, tmp_path: Path) -> None:
        last = {"steps_done": 33, "seconds": 20.5, "progress": 1.0}
        run = compare([make_run(tmp_path / "a", last=last)]).runs[0]
        assert (run.steps, run.seconds, run.finished) == (33, 20.5, True)
        earlier = {"steps_done": 3, "seconds": 2.5, "progress": 0.1}  # or written lines after its last state
        run = compare([make_run(tmp_path / "b", last=earlier)]).runs[0]
        assert (run.steps, run.seconds, run.finished) == (30, 18.0, False)

    def test_time_and_steps_are_those_of_all_stages(self, tmp_path: Path) -> None:
        stages = {"strides": [32, 16, 8], "net": "fcn8s-slim", "minutes": None, "first": None}
        run = make_run(tmp_path / "run", 0.5, stages=stages, last={"steps_done": 31, "progress": 1})
        make_run(run / "32s", 0.3, stages=stages, rows=ROWS[:3])
        make_run(run / "16s", 0.4, stages=stages, rows=None, last={"steps_done": 100, "seconds": 50.0})
        make_run(run / "8s", 0.9)  # which is none of the stages
        found = compare([run]).runs[0]
        assert (found.steps, found.seconds) == (20 + 100 + 31, 12.0 + 50.0 + 18.0)
        assert (found.scores["mean_iu"], found.images_per_s, len(found.rows)) == (0.5, 21.0, len(ROWS))
        assert (found.finished, found.notes) == (True, ())
        alone = compare([run / "32s"]).runs[0]
        assert (alone.steps, alone.seconds) == (20, 12.0)
        (run / "run.yaml").write_text((run / "run.yaml").read_text().replace("steps: 30", "steps: 40"))
        assert compare([run]).notes == ()  # its end is the last stage's
        (run / "last.safetensors").unlink()
        assert compare([run]).notes == ("run is unfinished: 30 of 40 steps",)

    @pytest.mark.parametrize("strides", [None, 32, "32", [], [32], ["32", 8], [32.0, 8]])
    def test_odd_stages_add_nothing(self, tmp_path: Path, strides: Any) -> None:
        run = make_run(tmp_path / "run")
        text = (run / "run.yaml").read_text()
        (run / "run.yaml").write_text(f"{text}stages: {{strides: {json.dumps(strides)}}}\n")
        for name in ("32s", "32.0s"):
            make_run(run / name)
        found = compare([run]).runs[0]
        assert (found.steps, found.seconds) == (30, 18.0)

    def test_a_model_never_scored(self, tmp_path: Path) -> None:
        found = compare([make_run(tmp_path / "a", None), make_run(tmp_path / "b")])
        assert (found.runs[0].scores, found.runs[0].iu, found.notes) == ({}, {}, ("a was never scored",))
        assert found.scores("mean_iu") == [(None, False), (0.5, False)]

    def test_texts_can_be_printed_and_values_be_json(self, tmp_path: Path) -> None:
        odd = {
            "a\x1bb": "\x1b[31m",
            "when": yaml.safe_load("2026-01-01"),
            "inf": math.inf,
            "list": [math.nan, {"k": "\n"}],
        }
        path = make_run(tmp_path / "r\x1b", 0.5, names=("a\x1b", "b", "c"), **odd)
        found = compare([path])
        text = json.dumps(found.to_json(), allow_nan=False, ensure_ascii=False)
        assert text.encode().isascii()
        assert "\x1b" not in text
        options = found.runs[0].options
        assert (options["a\\x1bb"], options["when"], options["inf"]) == ("\\x1b[31m", "2026-01-01", "inf")
        assert options["list"] == ["nan", {"k": "\\n"}]
        assert "a\\x1b" in found.runs[0].iu


class TestDamage:
    @pytest.mark.parametrize("tail", [b"", b"\0\0\0", b"40,x", b"40,2,"])
    def test_a_table_cut_anywhere_has_the_lines_before(self, tmp_path: Path, tail: bytes) -> None:
        table = make_run(tmp_path / "a", model=False) / "metrics.csv"
        content, whole = table.read_bytes(), module._read_metrics(table)
        for end in range(content.index(b"\n") + 1, len(content) + 1):
            table.write_bytes(content[:end] + tail)
            assert module._read_metrics(table) == whole[: content[:end].count(b"\n") - 1], end

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("loss", "x"), ("step", ""), ("step", "nan"), ("step", "-1"), ("step", "1e300"), ("seconds", "-2"),
            ("images_per_s", "-1"), ("val_mean_iu", "1.5"), ("val_mean_iu", "-0.5"), ("val_fw_iu", "inf"),
        ],
    )  # fmt: skip
    def test_damage_in_the_middle(self, tmp_path: Path, column: str, value: str) -> None:
        folder = make_run(tmp_path / "a", rows=[ROWS[0], {**ROWS[1], column: value}, ROWS[2]])  # type: ignore[dict-item]
        with pytest.raises(DataError, match=r"metrics.csv: line 3 is damaged; move the file away to compare without"):
            compare([folder])

    def test_a_damaged_last_line_is_left_out(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "a", rows=[*ROWS, {"step": "?"}])  # type: ignore[dict-item]
        assert len(compare([folder]).runs[0].rows) == len(ROWS)

    def test_numbers_that_were_not_measured(self, tmp_path: Path) -> None:
        rows = [{"step": 1, "loss": math.inf, "val_mean_iu": math.nan, "loss_per_pixel": -1.0, "lr": "?"}]
        assert compare([make_run(tmp_path / "a", rows=rows)]).runs[0].rows == [{"step": 1, "loss_per_pixel": -1}]

    def test_scores_of_classes_stay_in_range(self, tmp_path: Path) -> None:
        class_rows = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 2.0}, {"step": 30, "loss": 0.5}]
        folder = make_run(tmp_path / "a", model=False, class_rows=class_rows)
        with pytest.raises(DataError, match=r"class_iu.csv: line 3 is damaged"):
            compare([folder])

    def test_a_table_of_something_else(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "a")
        (folder / "metrics.csv").write_text("time,loss\n1,2\n")
        with pytest.raises(DataError, match=r"metrics.csv: has no column 'step'; move the file away"):
            compare([folder])
        (folder / "metrics.csv").write_text(f"step,loss\n1,{'2' * 200_000}\n")
        with pytest.raises(DataError, match=r"metrics.csv: is no table \(Error: field larger than field limit"):
            compare([folder])

    def test_too_many_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = make_run(tmp_path / "a")
        monkeypatch.setattr(module, "MAX_ROWS", len(ROWS))
        compare([folder])
        monkeypatch.setattr(module, "MAX_ROWS", len(ROWS) - 1)
        with pytest.raises(DataError, match=r"metrics.csv: holds more than 4 lines; expected a run's metrics"):
            compare([folder])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- 1", r"run.yaml: holds \[1\]; expected the options of a run"),
            ("a: &x 1\nb: *x", "run.yaml: line 2 has the alias"),
            ("a: [", "run.yaml: is not valid YAML"),
            ("\n".join(f"o{i}: 1" for i in range(2001)), "run.yaml: holds 2001 options; expected at most 2000"),
        ],
    )
    def test_options_of_something_else(self, tmp_path: Path, text: str, message: str) -> None:
        folder = make_run(tmp_path / "a")
        (folder / "run.yaml").write_text(text)
        with pytest.raises(DataError, match=message):
            compare([folder])

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header.update(metrics=[]),
            lambda header: header.update(metrics={"val": 1}),
            lambda header: header["metrics"]["val"].pop("fw_iu"),
            lambda header: header["metrics"]["val"].update(mean_iu=1.5),
            lambda header: header["metrics"]["val"].update(mean_iu=True),
            lambda header: header["metrics"]["val"].update(mean_iu="0.5"),
            lambda header: header["metrics"]["val"].update(mean_iu=math.nan),
            lambda header: header["metrics"]["val"].update(iu=[0.5, 0.5]),
            lambda header: header["metrics"]["val"].update(iu=[0.5, 0.5, -0.1]),
            lambda header: header["metrics"]["val"].update(iu=None),
            lambda header: header.update(labels={}),
            lambda header: header.update(labels={"semantic": {"names": ["a", "a", "b"]}}),
            lambda header: header.pop("labels"),
        ],
    )
    def test_a_model_with_another_header(self, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        folder = make_run(tmp_path / "a")
        with_header(folder / "best.safetensors", lambda header: None)
        compare([folder])
        with_header(folder / "best.safetensors", change)
        with pytest.raises(ModelFileError, match=r"best.safetensors: its labels and scores are not those of a model"):
            compare([folder])

    @pytest.mark.parametrize(
        "change",
        [
            lambda header: header.update(training=[]),
            lambda header: header.update(training="steps_done"),
            lambda header: header.update(training=None),
            lambda header: header.pop("training"),
            lambda header: header["training"].update(steps_done=math.nan, seconds="x", progress=math.inf),
            lambda header: header.update(format=99),
        ],
    )
    def test_an_odd_last_model_says_nothing(self, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        last = {"steps_done": 99, "seconds": 99.0, "progress": 0.5}
        folder = make_run(tmp_path / "a", last=last)
        with_header(folder / "last.safetensors", lambda header: None)
        run = compare([folder]).runs[0]
        assert (run.steps, run.seconds, run.finished) == (99, 99.0, False)
        with_header(folder / "last.safetensors", change)
        run = compare([folder]).runs[0]
        assert (run.steps, run.seconds, run.finished, run.notes) == (30, 18.0, True, ())

    def test_a_damaged_last_model_says_nothing(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "a", last={"steps_done": 99})
        content = (folder / "last.safetensors").read_bytes()
        for damaged in (b"", content[:-1], content[:99], b"\0" * 99):
            (folder / "last.safetensors").write_bytes(damaged)
            run = compare([folder]).runs[0]
            assert (run.steps, run.finished, run.notes) == (30, True, ())


class TestWhichRuns:
    def test_none_or_too_many(self, tmp_path: Path) -> None:
        for paths in ([], [tmp_path] * 33):
            with pytest.raises(OptionError, match=rf"{len(paths)} runs; expected 1 to 32 run folders"):
                compare(paths)

    def test_one_named_twice(self, tmp_path: Path) -> None:
        folder = make_run(tmp_path / "a")
        with pytest.raises(OptionError, match=r"a/../a is named twice; name every run once"):
            compare([folder, folder / ".." / "a"])

    def test_what_holds_no_run(self, tmp_path: Path) -> None:
        for path in (tmp_path / "absent", tmp_path):
            with pytest.raises(
                OptionError, match=r"holds no run \(no run.yaml\); name a run's folder, such as runs/NAME"
            ):
                compare([path])
        make_run(tmp_path / "a")
        with pytest.raises(OptionError, match=rf"holds no run \(no run.yaml\); name those in it: {tmp_path}/\*"):
            compare([tmp_path])


class TestComparing:
    def test_of_stages_their_strides_alone_are_options(self, tmp_path: Path) -> None:
        stages = {"strides": [32, 8], "net": "fcn8s-slim", "minutes": None, "first": {"seed": 0, "recipe": {"lr": 1.0}}}
        found = compare([make_run(tmp_path / "a", stages=stages), make_run(tmp_path / "b")])
        differing = found.options(equal=False)
        assert {name for name in differing if "stages" in name} == {"stages.strides", "stages.net"}

    def test_options_that_differ_and_those_that_do_not(self, tmp_path: Path) -> None:
        a = make_run(tmp_path / "a", seed=1)
        b = make_run(
            tmp_path / "b", seed=2, recipe={"lr": 0.01, "augmentation": {"scale": [0.7, 1.5]}}, new=None, newer=5
        )
        found = compare([a, b])
        assert found.options(equal=False) == {"recipe.lr": [0.002, 0.01], "seed": [1, 2], "newer": [None, 5]}
        assert found.options(equal=True)["recipe.augmentation.scale"] == [[0.7, 1.5]] * 2
        assert found.options(equal=True)["new"] == [None, None]
        assert found.to_json()["differing"]["recipe.lr"] == {"a": 0.002, "b": 0.01}

    def test_the_best_are_marked(self, tmp_path: Path) -> None:
        found = compare([make_run(tmp_path / name, value) for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.6))])
        assert found.scores("mean_iu") == [(0.5, False), (0.6, True), (0.6, True)]
        assert [marked for _, marked in found.iu("ground")] == [False, True, True]
        assert found.iu("car") == [(None, False)] * 3
        assert found.to_json()["best"] == {key: ["b", "c"] for key in SCORES}
        assert compare([tmp_path / "a"]).scores("mean_iu") == [(0.5, False)]

    def test_seeds_have_a_mean_and_a_deviation(self, tmp_path: Path) -> None:
        values = {0: 0.5, 1: 0.6, 2: 0.7}
        paths = [make_run(tmp_path / f"s{seed}", value, seed=seed) for seed, value in values.items()]
        paths.append(make_run(tmp_path / "moved", 0.6, seed=3, data="another/path"))
        paths.append(make_run(tmp_path / "short", 0.1, seed=4, finished=False))
        paths.append(make_run(tmp_path / "stopped", 0.1, seed=7, last={"progress": 0.75}))
        paths.append(make_run(tmp_path / "other", 0.1, seed=5, recipe={"lr": 1.0}))
        paths.append(make_run(tmp_path / "unscored", None, seed=6))
        (group,) = compare(paths).groups
        assert (group.names, group.seeds) == (("s0", "s1", "s2", "moved"), (0, 1, 2, 3))
        assert group.mean["mean_iu"] == pytest.approx(0.6)
        assert group.deviation["mean_iu"] == pytest.approx(math.sqrt(0.02 / 3))
        assert group.mean["fw_iu"] == pytest.approx(statistics.fmean([0.55, 0.65, 0.75, 0.65]))
        assert "deviation" not in " ".join(compare(paths).notes)

    def test_seeds_of_stages_are_seeds(self, tmp_path: Path) -> None:
        paths = []
        for seed in (0, 1):
            first = {"seed": seed, "command": f"train {seed}", "recipe": {"lr": 0.1}}
            path = tmp_path / f"s{seed}"
            stages = {"strides": [32, 8], "net": "fcn8s-slim", "minutes": None, "first": first}
            paths.append(make_run(path, seed=seed, stages=stages, init=[str(path / "32s" / "best.safetensors")]))
        (group,) = compare(paths).groups
        assert group.seeds == (0, 1)
        other = make_run(tmp_path / "o", seed=2, stages={**stages, "strides": [32, 16]}, init=["x"])
        assert compare([paths[0], other]).groups == ()
        alone = [make_run(tmp_path / f"i{seed}", seed=seed, init=[f"{seed}.safetensors"]) for seed in (0, 1)]
        assert compare(alone).groups == ()

    def test_other_versions_or_data_are_no_seeds(self, tmp_path: Path) -> None:
        first = make_run(tmp_path / "a", seed=0)
        for name, change in (("b", {"torch": "3"}), ("c", {"fingerprint": "cccc-bbbb"})):
            assert compare([first, make_run(tmp_path / name, seed=1, **change)]).groups == ()

    def test_equal_seeds_are_told(self, tmp_path: Path) -> None:
        found = compare([make_run(tmp_path / name, seed=0) for name in "ab"])
        assert found.groups[0].seeds == (0, 0)
        assert found.notes == ("a, b: some have equal seeds, so that their deviation is not that over seeds",)

    @pytest.mark.parametrize(
        ("prints", "comparable", "note"),
        [
            (("t-v", "t-v"), True, None),
            (("t-v", "u-v"), True, "trained on different data (fingerprints differ) and scored on the same"),
            (("t-v", "t-w"), False, "the runs' data differs (fingerprints differ): scores of different data do not"),
            (("t-v", None), False, "b: run.yaml has no fingerprint of the data, so that scores may be of different"),
            (("", 5), False, "a: run.yaml has no fingerprint of the data, so that scores may be of different data"),
        ],
    )
    def test_scores_of_different_data_do_not_compare(
        self, tmp_path: Path, prints: tuple[Any, Any], comparable: bool, note: str | None
    ) -> None:
        values = zip("ab", prints, (0.5, 0.6), (1, 2), strict=True)
        found = compare([make_run(tmp_path / n, iu, fingerprint=p, seed=seed) for n, p, iu, seed in values])
        assert found.comparable is comparable
        assert found.scores("mean_iu")[1] == (0.6, comparable)
        assert len(found.notes) == (note is not None)
        assert all(note in each for each in found.notes if note)

    def test_other_classes_stand_where_the_names_are_equal(self, tmp_path: Path) -> None:
        a, b = make_run(tmp_path / "a", 0.5), make_run(tmp_path / "b", 0.6, names=("road", "house", "tree", "car"))
        found = compare([a, b])
        assert found.classes == ["ground", "road", "car", "house", "tree"]
        assert [value for value, _ in found.iu("road")] == [0.4, 0.7]
        assert [value for value, _ in found.iu("ground")] == [0.6, None]
        assert not found.comparable
        (note,) = found.notes
        assert note.startswith("the runs' classes differ (a has 3, b has 4): a class's IU stands where a run has one")
