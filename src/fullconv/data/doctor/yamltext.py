"""What a YAML file would hold to mend a data set: a line to add to it, or the whole file on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from fullconv.data.doctor.listing import Listing
from fullconv.data.folder import as_yaml
from fullconv.errors import printable
from fullconv.labels import LabelSet


def in_yaml(listing: Listing, names: Sequence[str], keys: str) -> str:
    """Where these keys go: into the data set's YAML file, or into one that is made for a plain folder.

    Published layouts have no such file, and get "".
    """
    if listing.description is not None:
        return f"in its YAML file: {keys}"
    if not listing.folders:
        return ""
    whole = as_yaml(Path(listing.source), listing.folders, [quoted(name) for name in names], keys)
    return f"in a YAML file of this one line: {whole}"


def description(listing: Listing, labels: LabelSet) -> str:
    """What a YAML file says of tiles and bands, with the classes, for the repaired copy; "" where it says nothing."""
    given = listing.description
    if given is None or not (given.tile or given.bands or given.preview):
        return ""
    lines = [f"names: [{', '.join(map(quoted, labels.names))}]"]
    if labels != LabelSet(labels.names) and len(set(labels.colours)) == len(labels):  # no two may share one
        colours = (f"{quoted(name)}: {list(colour)}" for name, colour in zip(labels.names, labels.colours, strict=True))
        lines.append(f"colors: {{{', '.join(colours)}}}")
    lines += [f"{key}: {list(bands)}" for key, bands in (("bands", given.bands), ("preview", given.preview)) if bands]
    lines += [f"tile: {given.tile}"] if given.tile else []
    return "".join(f"{line}\n" for line in lines)


def quoted(name: str) -> str:
    """A name in YAML, in quotes where it needs them, such as no, which YAML takes for a boolean."""
    plain = re.fullmatch(r"[^\W\d][\w ]*", name) is not None and yaml.safe_load(name) == name
    return name if plain else _text(name)


def _text(value: str) -> str:
    return printable(json.dumps(value, ensure_ascii=False))
