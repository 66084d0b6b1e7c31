"""The house's floors: a file imports its own floor or a lower one; and what no file of ours contains."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fullconv

SOURCE = Path(fullconv.__file__).parent

FLOORS = {
    "errors": 0, "classes": 0, "geometry": 0, "fields": 0, "labels": 0, "files": 0, "kinds": 0, "machine": 0,
    "nets": 1, "receptive": 1,
    "weights": 2, "data": 2, "metrics": 2, "report": 2,
    "training": 3, "inference": 3, "inspect": 3, "paper": 3, "paper_results": 3, "units": 3,
    "export": 4, "serve": 4, "demo": 4, "compare": 4,
    "cli": 5, "__main__": 5,
}  # fmt: skip

HEAVY = ("torch", "matplotlib", "numpy", "PIL", "typer", "rich", "jinja2", "yaml")
"""What `import fullconv` alone must not load."""

FILES = sorted(SOURCE.rglob("*.py"))


def part(path: Path) -> str:
    """The file or folder at the top of the package that a file belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """(line, part) of every import from the package, inside functions too."""
    package = ("fullconv", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name[1]) for name in names if name[0] == "fullconv" and len(name) > 1)


def climbs(source: str, path: Path) -> list[str]:
    """Imports of a higher floor, and names taken from the lazy front door."""
    own, found = FLOORS[part(path)], []
    for line, name in imported(ast.parse(source), path):
        if name == "__version__":
            continue
        if name not in FLOORS:
            found.append(f"{path.name}:{line} imports fullconv.{name}: import it from the file where it lives")
        elif FLOORS[name] > own:
            found.append(f"{path.name}:{line} (floor {own}) imports {name} (floor {FLOORS[name]})")
    return found


def forbidden(source: str, path: Path) -> list[str]:
    """What errors and safety forbid in `src`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        what = None
        if isinstance(node, ast.Assert):
            what = "assert (raise one of our errors)"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            what = "bare except"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in {"eval", "exec", "compile", "__import__"}:
                what = node.func.id
            elif node.func.id == "print" and part(path) != "cli":
                what = "print outside the command line"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            safe = any(
                k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True
                for k in node.keywords
            )
            if ast.unparse(node.func) == "torch.load" and not safe:
                what = "torch.load without weights_only=True"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            if {m.split(".")[0] for m in modules} & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}:
                what = "pickle"
        if what:
            found.append(f"{path.name}:{getattr(node, 'lineno', '?')}: {what}")
    return found


def identity(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", [p for p in FILES if part(p) != "__init__"], ids=identity)
def test_a_file_imports_its_own_floor_or_a_lower_one(path: Path) -> None:
    assert part(path) in FLOORS, "a new part of the house: give it a floor here and in the design"
    assert climbs(path.read_text("utf-8"), path) == []


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_a_file_contains_nothing_forbidden(path: Path) -> None:
    assert forbidden(path.read_text("utf-8"), path) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("geometry.py", "import fullconv.nets"),
        ("nets/fcn.py", "from fullconv.weights.modelfile import read_model"),
        ("nets/fcn.py", "def late():\n    from fullconv import metrics"),
        ("nets/trunks/vgg.py", "from ...data import sample"),
        ("nets/fcn.py", "from ..data.sample import Sample"),
        ("metrics.py", "from . import training"),
        ("training/loop.py", "from fullconv import cli"),
        ("inspect.py", "from fullconv import build"),
    ],
)
def test_the_walk_sees_a_climb(file: str, source: str) -> None:
    assert len(climbs(source, SOURCE / file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("nets/fcn.py", "from fullconv import geometry, __version__"),
        ("nets/fcn.py", "from .trunks import TRUNKS"),
        ("nets/trunks/vgg.py", "from ...geometry import Window"),
        ("training/loop.py", "from fullconv.inference.evaluate import evaluate"),
        ("__main__.py", "from fullconv.cli import app"),
        ("geometry.py", "import math, torch.nn"),
    ],
)
def test_the_walk_lets_its_own_and_lower_floors_pass(file: str, source: str) -> None:
    assert climbs(source, SOURCE / file) == []


@pytest.mark.parametrize(
    "source",
    [
        "assert x", "print(x)", "eval(x)", "exec(x)", "import pickle", "from pickle import loads",
        "try:\n    x\nexcept:\n    pass", "torch.load(x)", "torch.load(x, weights_only=False)",
    ],
)  # fmt: skip
def test_the_walk_sees_what_is_forbidden(source: str) -> None:
    assert len(forbidden(source, SOURCE / "metrics.py")) == 1


@pytest.mark.parametrize("source", ["net.eval()", "torch.load(x, weights_only=True)", "re.compile(x)"])
def test_the_walk_lets_namesakes_pass(source: str) -> None:
    assert forbidden(source, SOURCE / "metrics.py") == []
    assert forbidden("print(x)", SOURCE / "cli" / "train.py") == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, fullconv; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
