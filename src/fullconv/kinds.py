"""The kinds of values that options have: those that a Python call, the command line or a file gives are checked."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import TYPE_CHECKING

from fullconv.errors import OptionError, printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ANY = -1
"""Number of values."""


@dataclass(frozen=True)
class Kind:
    """What a value is.

    Attributes:
        type: of it, or of each of several; a truth value counts as no number.
        name: for messages.
        count: of several, a tuple or list; None: one value by itself.
    """

    type: type | UnionType
    name: str
    count: int | None = None

    def holds(self, value: object) -> bool:
        """Whether a value is of this kind."""
        if self.count is None:
            return isinstance(value, self.type) and (self.type is bool or not isinstance(value, bool))
        if not isinstance(value, tuple | list) or self.count not in (ANY, len(value)):
            return False
        return all(map(Kind(self.type, self.name).holds, value))


KINDS = {
    "bool": Kind(bool, "true or false"),
    "int": Kind(int, "a whole number"),
    "float": Kind(int | float, "a number"),
    "str": Kind(str, "a text"),
    "tuple[int, int]": Kind(int, "two whole numbers, (H, W)", 2),
    "tuple[float, float]": Kind(int | float, "two numbers, (low, high)", 2),
    "tuple[str, str]": Kind(str, "the names of two, such as trainaug and val2012", 2),
    "tuple[str, ...]": Kind(str, "a list of texts", ANY),
    "Mapping[str, Any]": Kind(Mapping, "values by name"),
    "Mapping[str, float]": Kind(Mapping, "values by name"),
}
"""By the annotations of options; one that ends in "| None" lets None pass too."""


def require_kinds(options: type[DataclassInstance], values: Mapping[str, object], where: str = "") -> None:
    """Raise OptionError for the first of the values that is not of the kind its option is declared as.

    Args:
        options: the dataclass; its fields of other annotations than `KINDS` are left to checks of their own.
        values: by the names of fields; not all need to be there.
        where: they stand, for the message, such as " in run.yaml".
    """
    for option in fields(options):
        annotation = str(option.type)
        kind = KINDS.get(annotation.removesuffix(" | None"))
        if kind is None or option.name not in values:
            continue
        value = values[option.name]
        if not (kind.holds(value) or (value is None and annotation.endswith(" | None"))):
            raise wrong_kind(option.name, value, kind.name, where)


def wrong_kind(name: str, value: object, expected: str, where: str = "") -> OptionError:
    """The error for a value of another kind than is expected; its text is one short line, whatever the value.

    >>> wrong_kind("minutes", "15", "a number")
    OptionError("minutes '15'; expected a number")
    """
    return OptionError(f"{name} {printable(reprlib.repr(value))}{where}; expected {expected}")
