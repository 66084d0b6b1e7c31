"""Every error a user can meet.

    FullconvError
    ├── OptionError       a name, number or combination of options that cannot work
    ├── GeometryError     sizes, strides or crops that do not fit together
    ├── DataError         an image, mask or data set that cannot be used as it is
    ├── ModelFileError    a model file that is damaged, foreign or too new
    └── TrainingError     a run that cannot go on (a loss that is not finite)

Each message says what was found, what was expected and how to fix it, in one line.
The command line prints the message alone and exits with 1 (2 for ``OptionError``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FullconvError(Exception):
    """Base of all errors raised on purpose by fullconv."""


class OptionError(FullconvError, ValueError):
    """An option's name or value cannot work."""


class GeometryError(FullconvError, ValueError):
    """Sizes, strides or crops do not fit together."""


class DataError(FullconvError, ValueError):
    """An image, mask or data set cannot be used as it is."""


class ModelFileError(FullconvError, ValueError):
    """A model file is damaged, foreign or too new."""


class TrainingError(FullconvError, RuntimeError):
    """A training run cannot go on."""


def printable(value: object) -> str:
    """A path or another text as one line that can be printed anywhere: what cannot be shown is escaped.

    >>> printable("a\\nb.png")
    'a\\\\nb.png'
    """
    text = str(value).encode("utf-8", "backslashreplace").decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shape_text(shape: Iterable[int]) -> str:
    """A shape for a message.

    >>> shape_text((64, 3, 3, 3)), shape_text(())
    ('64x3x3x3', 'a single number')
    """
    return "x".join(map(str, shape)) or "a single number"


def one_line(error: BaseException, limit: int = 200) -> str:
    """An exception's type and text for a message of ours, whatever a file put into it; the text is shortened.

    >>> one_line(ValueError("line 1\\nline 2")), one_line(KeyError())
    ('ValueError: line 1 line 2', 'KeyError')
    """
    text = printable(" ".join(str(error).split()))[:limit]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def unknown_name(kind: str, name: object, choices: Iterable[str]) -> OptionError:
    """The error for a name that is in no table: lists the choices and the nearest one.

    >>> unknown_name("trunk", "vgg-16", ["slim", "vgg16"])
    OptionError("unknown trunk 'vgg-16'; did you mean 'vgg16'? Choices: slim, vgg16")
    """
    known = sorted(choices)
    shown = str(name)[:80]  # names come from files too, and may be of any length
    nearest = difflib.get_close_matches(shown, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return OptionError(f"unknown {kind} {shown!r}{hint} Choices: {', '.join(known)}")
