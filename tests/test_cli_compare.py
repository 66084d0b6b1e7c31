"""`fullconv compare`: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command import Run, one_line
from fullconv.compare import compare
from test_compare import make_run


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two seeds and another rate."""
    monkeypatch.setenv("COLUMNS", "120")
    return [
        make_run(tmp_path / "a", 0.5, seed=0),
        make_run(tmp_path / "b", 0.6, seed=1),
        make_run(tmp_path / "c[x]", 0.55, recipe={"lr": 0.01, "augmentation": {"scale": [0.7, 1.5]}}),
    ]


def cells(out: str, head: str) -> list[str]:
    """The words of the one line that begins so."""
    (line,) = [line for line in out.splitlines() if line.startswith(head + " ")]
    return line.removeprefix(head).split()


def test_three_runs_are_columns(run: Run, three: list[Path]) -> None:
    shown = run("compare", *three)
    assert shown.code == 0, shown.err
    assert max(map(len, shown.out.splitlines())) <= 120
    assert cells(shown.out, "run") == ["a", "b", "c[x]"]
    assert cells(shown.out, "mean IU") == ["50.0", "60.0*", "55.0"]
    assert cells(shown.out, "pixel accuracy") == ["70.0", "80.0*", "75.0"]
    assert cells(shown.out, "minutes") == ["0.3", "0.3", "0.3"]
    assert cells(shown.out, "steps") == ["30", "30", "30"]
    assert cells(shown.out, "images/s") == ["21.0", "21.0", "21.0"]
    assert cells(shown.out, "ground") == ["60.0", "70.0*", "65.0"]
    assert cells(shown.out, "car") == ["n/a", "n/a", "n/a"]
    assert cells(shown.out, "recipe.lr") == ["0.002", "0.002", "0.01"]
    assert cells(shown.out, "seed") == ["0", "1", "0"]
    assert "* the best" in shown.out
    assert "2 runs that differ in the seed alone (a, b):\n  mean IU 55.0 ± 7.1   pixel accuracy 75.0 ± 7.1" in shown.out
    assert "trunk" not in shown.out


def test_more_runs_are_rows(run: Run, three: list[Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "d", 0.7, fingerprint="other-data")
    shown = run("compare", *three, other)
    assert shown.code == 0, shown.err
    assert cells(shown.out, "c[x]") == ["55.0", "75.0", "65.0", "60.0", "0.3", "30", "21.0"]
    assert cells(shown.out, "d") == ["70.0", "90.0", "80.0", "75.0", "0.3", "30", "21.0"]
    assert "recipe.lr: 0.002 (a, b, d), 0.01 (c[x])" in shown.out
    assert "*" not in shown.out
    assert "note: the runs' data differs (fingerprints differ): scores of different data do not compare" in shown.out
    assert "IU of each class: with --report or --json" in shown.out


def test_one_run_and_one_without_numbers(run: Run, tmp_path: Path) -> None:
    shown = run("compare", make_run(tmp_path / "a", None, rows=None, finished=False))
    assert shown.code == 0, shown.err
    for head in ("mean IU", "minutes", "steps", "images/s"):
        assert cells(shown.out, head) == ["n/a"]
    assert "note: a was never scored" in shown.out
    assert "the best" not in shown.out


def test_a_page_and_where_it_is(run: Run, three: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    shown = run("compare", *three, "--report", page)
    assert shown.out.splitlines()[-1] == f"Report    {page}"
    assert "fullconv compare" in page.read_text("utf-8")


def test_for_machines(run: Run, three: list[Path], tmp_path: Path) -> None:
    shown = run("compare", *three, "--json", "--report", tmp_path / "page.html")
    assert json.loads(shown.out) == compare(three).to_json()
    assert (tmp_path / "page.html").is_file()


def test_what_is_no_run(run: Run, tmp_path: Path) -> None:
    assert "holds no run (no run.yaml); name a run's folder" in one_line(run("compare", tmp_path), 2)
