"""The package's outside: public names, version, start-up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fullconv

ROOT = Path(__file__).resolve().parents[1]


def test_every_public_name_exists_and_is_listed() -> None:
    for name in fullconv.__all__:
        assert getattr(fullconv, name) is not None
    assert set(fullconv.__all__) <= set(dir(fullconv))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fullconv.trian


def test_changelog_and_version_agree() -> None:
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading.group(1) == fullconv.__version__


def test_constraints_pin_every_dependency_exactly() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.DOTALL | re.MULTILINE)
    assert block is not None
    wanted = {name.lower() for name in re.findall(r'"([\w-]+)', block.group(1))}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    assert wanted <= set(pins)
    assert pins["torch"] == "2.13.0"


def test_help_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; sys.argv = ['fullconv', '--help']\n"
        "from fullconv.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'matplotlib', 'accelerate', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
