"""A module that the user's own code makes, named as FILE.py:NAME."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullconv.errors import FullconvError, OptionError, one_line, printable, unknown_name

if TYPE_CHECKING:
    from torch import nn


def is_code(text: str) -> bool:
    """Whether it names Python code, rather than a net or a model file."""
    return text.endswith(".py") or text.rpartition(":")[0].endswith(".py")


def load_user_module(text: str) -> nn.Module:
    """Run FILE.py and take NAME of it: a module, or a function or class that makes one without arguments.

    The file's folder is searched for imports while it runs.

    Raises:
        OptionError: no such file or name, a function that needs arguments, something that is no module.
        FullconvError: the code failed.
    """
    from torch import nn

    file, _, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    path, shown = Path(file).resolve(), printable(file)
    if not path.is_file():
        raise OptionError(f"{shown} {'is a folder' if path.is_dir() else 'does not exist'}; expected FILE.py:NAME")
    if not name:
        raise OptionError(f"{shown} is code; add the name of what makes the net, such as {shown}:build")
    with _running(path, shown):
        made = _executed(path)
    known = [key for key, value in vars(made).items() if not key.startswith("_") and _defined_in(made, value)]
    if not hasattr(made, name):
        raise unknown_name(f"name in {shown}:", name, known)
    value = getattr(made, name)
    if callable(value) and not isinstance(value, nn.Module):
        _check_arguments(f"{shown}:{name}", value)
        with _running(path, shown):
            value = value()
    if not isinstance(value, nn.Module):
        raise OptionError(f"{shown}:{name} gives {type(value).__name__}; expected a torch.nn.Module")
    return value


def _executed(path: Path) -> Any:
    # Under a name of its own: "resnet.py" must not hide an installed package from what it imports.
    spec = importlib.util.spec_from_file_location(f"_inspected_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("no loader for this file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and annotations look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def _running(path: Path, shown: str) -> Iterator[None]:
    """The file's folder comes first in imports; what the code raises becomes one line, which names the place."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        number = lines[-1] if lines else getattr(error, "lineno", None)  # of a syntax error
        where = f", line {number}" if number else ""
        raise FullconvError(
            f"{shown}{where} raised {one_line(error)}; correct it, or see all of it with fullconv --debug"
        ) from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _check_arguments(shown: str, factory: Any) -> None:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise OptionError(
            f"{shown}: {error}; name a function without required arguments, such as def build(): return ..."
        ) from None
    except ValueError:  # a builtin without a signature; calling it will tell
        return


def _defined_in(module: Any, value: object) -> bool:
    """What the file itself makes, rather than imports."""
    from torch import nn

    return isinstance(value, nn.Module) or (callable(value) and getattr(value, "__module__", "") == module.__name__)
