"""Fixtures and settings of every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `main` has it, read when torch is loaded

import pytest
import torch
from hypothesis import settings

from command import Result, Run
from fullconv.cli import main

settings.register_profile("fullconv", deadline=None)  # a loaded machine is no failure
settings.load_profile("fullconv")
torch.set_num_threads(1)  # the test processes fill the processors already


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data kept beside the checkout; the project stands alone without it."""
    path = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"real data is not at {path}")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, through the console script's function."""

    def command(*args: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["fullconv", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        assert isinstance(code, int)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return command
