"""Short texts that nobody has checked: class names, lists of images, YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from reprlib import Repr
from typing import Any

import yaml

from fullconv.errors import DataError, one_line, printable

MAX_BYTES = 2**20

_MAX_DIGITS = 20
_SHOWN = 60


def dotted(value: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as one level of dotted names.

    >>> dotted({"recipe": {"lr": 0.1, "augmentation": {"flip": True}}, "seed": 0})
    {'recipe.lr': 0.1, 'recipe.augmentation.flip': True, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= dotted(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """A short UTF-8 text, with or without byte order mark.

    Args:
        max_bytes: the largest file that is read, a multiple of 1 MiB.

    Raises:
        DataError: larger than `max_bytes`, not UTF-8, or not to be read; one line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            expected = "a short text" if max_bytes == MAX_BYTES else "a smaller file; split it"
            raise DataError(f"{printable(path)}: is larger than {max_bytes >> 20} MiB; expected {expected}")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{printable(path)}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{printable(path)}: cannot be read ({error.strerror}); check the path") from error


def read_yaml(path: Path) -> Any:
    """What a short YAML file holds; no value of it is larger than its text.

    Raises:
        DataError: what `read_text` raises; not YAML, or with aliases or merge keys; one line.
    """
    text = read_text(path)
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506  (a SafeLoader)
    except DataError as error:
        raise DataError(f"{printable(path)}: {error}") from error
    except Exception as error:  # PyYAML's constructors of tagged values fail in any way
        raise DataError(f"{printable(path)}: is not valid YAML ({one_line(error)}); correct it there") from error


def brief(value: object) -> str:
    """A value as Python writes it, on one line and cut short; of a large one, only a part is looked at.

    >>> brief({"names": ["a", "b"]}), brief("x" * 100)
    ("{'names': ['a', 'b']}", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...")
    """
    text = printable(_REPR.repr(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


class _PlainLoader(yaml.SafeLoader):
    """Without what lets a few hundred bytes stand for gigabytes, or for hours."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # aliases of aliases double, or more, with each line
            event = self.peek_event()  # type: ignore[no-untyped-call]  # of the stubs
            raise _unwanted(f"the alias *{brief(event.anchor)[1:-1]}", event.start_mark)
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":  # each that surrounds another copies it
                raise _unwanted("a merge key <<", key.start_mark)
        super().flatten_mapping(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MAX_DIGITS:  # 1:1:1:... takes time by the square, and Python refuses to print 0xfff...
            raise _unwanted(f"a number of {len(node.value)} digits", node.start_mark)
        return super().construct_yaml_int(node)


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def _unwanted(what: str, mark: yaml.Mark) -> DataError:
    return DataError(f"line {mark.line + 1} has {what}, which is not read; write the value itself")


_REPR = Repr()
_REPR.maxlevel = 3
_REPR.maxlist = _REPR.maxdict = _REPR.maxtuple = _REPR.maxset = 20
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 200
