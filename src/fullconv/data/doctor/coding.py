"""How the mask files of a task are coded, found from what they hold, and what is wrong with each of them.

A mask file holds class numbers, numbers that mean something else (0 and 255, classes counted from 1), or colours; each
perhaps with soft edges that hold neither. What the data set declares (names, colours, a mapping) decides; where it
declares nothing, what most files hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fullconv.data.doctor.facts import MaskFacts, counted
from fullconv.data.mask import MaskReader, RawMask, packed, unpacked
from fullconv.data.sample import Array
from fullconv.errors import DataError
from fullconv.labels import VOID, Colour, LabelSet, voc_colour

OK = "ok"
UNREADABLE = "unreadable mask"
LOSSY = "lossy mask"
SOFT = "soft edges"
OUTSIDE = "value of no class"
FROM_ONE = "classes from 1"
BINARY = "0 and 255"
COLOURED = "colours"
GREY_RGB = "grey as RGB"
PALETTES = "palettes disagree"

THRESHOLD = {"0-127": 0, "128-255": 1}
"""The mapping that makes two classes of grey masks with soft edges."""

_SOFT_VALUES = 8
"""As many different values that are no classes are no mistake in numbering: they are edges."""

_SOLID = 0.25
"""Share of the pixels of a class that lie inside areas of it, at least; soft edges have next to none."""

_APART = 24
"""Of 255: two colours that differ by less in every channel are shades of one."""

_NEAR = 40
"""A colour this near to a class's, in every channel, is a shade of it."""


@dataclass(frozen=True)
class Coding:
    """How a task's masks are read, once what is wrong with them is mended.

    Attributes:
        labels: the classes.
        reader: of masks that are as they should be.
        declared: the data set says what its classes are.
        colours: packed colour -> class or 255, for RGB masks; declared, or recovered from the masks.
        recovered: the colours were not declared.
        threshold: grey masks are two classes with soft edges.
        binary: 255 marks class 1.
        from_one: splits whose masks count classes from 1.
    """

    labels: LabelSet
    reader: MaskReader
    declared: bool
    colours: Mapping[int, int]
    recovered: bool = False
    threshold: bool = False
    binary: bool = False
    from_one: frozenset[str] = frozenset()


def find_coding(masks: Sequence[tuple[str, MaskFacts]], reader: MaskReader, labels: LabelSet | None) -> Coding:
    """The coding of a task from all its masks.

    Args:
        masks: (split, facts) of each.
        reader: as the data set declares it.
        labels: as declared; None where nothing is.
    """
    numbered = [(split, facts) for split, facts in masks if facts.problem is None and not _is_coloured(facts)]
    coloured = [facts for _, facts in masks if facts.problem is None and _is_coloured(facts)]
    numbers = [facts for _, facts in numbered]
    declared = labels is not None
    two = labels is None or (len(labels) == 2 and not reader.label_mapping)
    threshold = two and _is_thresholded(numbers)
    binary = threshold or (two and _only_0_and_255(numbers))
    if labels is None and numbered:
        below = [value for value in _solid_values(numbers) if value < VOID]
        numbered_labels = LabelSet.numbered(min(max(below, default=0) + 1, VOID))
        labels = LabelSet(("background", "foreground")) if binary else numbered_labels
    table, recovered = _colour_table(coloured, numbers, reader, labels)
    if labels is None:
        labels = LabelSet(*_named_by_colour(table)) if table else LabelSet.numbered(1)
    elif recovered:
        table = {colour: number if number < len(labels) else VOID for colour, number in table.items()}
        own = {number: unpacked(colour) for colour, number in table.items() if number != VOID}
        labels = LabelSet(labels.names, tuple(own.get(k, colour) for k, colour in enumerate(labels.colours)))
    if reader.classes != len(labels):
        reader = MaskReader(len(labels))
    if binary:
        reader = MaskReader(len(labels), {0: 0, VOID: 1})
    coding = Coding(labels, reader, declared, table, recovered, threshold, binary)
    coding = replace(coding, from_one=_splits_from_one(numbered, coding))
    if not declared and coding.from_one and coding.from_one == {split for split, _ in numbered}:
        fewer = LabelSet.numbered(len(labels) - 1)
        coding = replace(coding, labels=fewer, reader=MaskReader(len(fewer)))
    return coding


def verdict(facts: MaskFacts, coding: Coding, split: str) -> str:
    """What is wrong with a mask: one of this file's names."""
    if facts.problem is not None:
        return UNREADABLE
    if facts.lossy:
        return LOSSY
    if facts.coloured:
        if facts.grey and not coding.reader.colors:
            return GREY_RGB
        if not known(facts, coding).all():
            return SOFT
        return COLOURED if coding.recovered else OK
    if coding.threshold:
        return SOFT if len(facts.values) > 2 else BINARY
    if coding.binary:
        return BINARY if VOID in facts.values else OK
    if split in coding.from_one:
        return FROM_ONE
    strange = ~known(facts, coding)
    if not strange.any():
        return OK
    if strange.sum() >= _SOFT_VALUES and facts.flat[strange].sum() < _SOLID * facts.counts[strange].sum():
        return SOFT
    return FROM_ONE if _counts_from_one(facts, len(coding.labels)) else OUTSIDE


def mended(raw: RawMask, coding: Coding, split: str) -> Array:
    """The classes of a mask, with what `verdict` finds repaired.

    Soft edges take the class of the nearest pixel that has one; values of no class become void.

    Raises:
        DataError: a mask that cannot be read.
    """
    if raw.values.ndim == 3 and (raw.values == raw.values[:, :, :1]).all() and not coding.reader.colors:
        raw = replace(raw, values=raw.values[:, :, 0])
    facts = counted(raw)
    found = verdict(replace(facts, lossy=False), coding, split)
    if facts.coloured:
        return _from_colours(raw.values, coding, shades_too=raw.lossy)
    if coding.threshold:
        return (raw.values > 127).astype(np.uint8)
    if found == FROM_ONE:
        return np.where((raw.values == 0) | (raw.values == VOID), VOID, raw.values - 1).astype(np.uint8)
    if raw.lossy or found == SOFT:
        solid = known(facts, coding) & (facts.flat >= _SOLID * facts.counts)
        return _grown(coding.reader, raw, ~_lookup(facts.values[solid])[raw.values])
    strange = ~_lookup(facts.values[known(facts, coding)])[raw.values]
    result = coding.reader.labels("mask", replace(raw, values=np.where(strange, VOID, raw.values), palette=None))
    result[strange] = VOID
    return result


def class_counts(facts: MaskFacts, coding: Coding, split: str) -> NDArray[np.int64]:
    """(256,): the pixels of each class, and of void at 255, as far as the facts tell."""
    result = np.zeros(VOID + 1, np.int64)
    if facts.problem is not None:
        return result
    if facts.coloured and not (facts.grey and not coding.reader.colors):
        for value, count in zip(facts.values.tolist(), facts.counts.tolist(), strict=True):
            result[coding.colours.get(value, VOID)] += count
        return result
    values = (facts.values & 255).astype(np.int64) if facts.coloured else facts.values.astype(np.int64)
    if coding.threshold:
        classes = (values > 127).astype(np.int64)
    elif split in coding.from_one or _counts_from_one(facts, len(coding.labels)):
        classes = np.where((values == 0) | (values > len(coding.labels)), VOID, values - 1)
    else:
        classes = _classes(values, coding)
    np.add.at(result, classes, facts.counts)
    return result


def solid_colours(masks: Sequence[MaskFacts]) -> list[int]:
    """The colours that fill areas, most frequent first: shades of one colour, and soft edges, are left out."""
    counts, flat = _summed(masks)
    kept: list[int] = []
    for colour in sorted(counts, key=lambda c: (-flat[c], c)):
        if flat[colour] < max(4, _SOLID * counts[colour]):
            continue
        if len(counts) <= 64 or all(_distance(colour, other) > _APART for other in kept):
            kept.append(colour)
    return kept[:VOID]


def _is_coloured(facts: MaskFacts) -> bool:
    return facts.coloured and not facts.grey


def _summed(masks: Sequence[MaskFacts]) -> tuple[dict[int, int], dict[int, int]]:
    """Pixels, and pixels inside areas, of each value over all masks."""
    counts: dict[int, int] = {}
    flat: dict[int, int] = {}
    for facts in masks:
        for value, count, inside in zip(facts.values.tolist(), facts.counts.tolist(), facts.flat.tolist(), strict=True):
            counts[value] = counts.get(value, 0) + count
            flat[value] = flat.get(value, 0) + inside
    return counts, flat


def _solid_values(masks: Sequence[MaskFacts]) -> list[int]:
    """The numbers that masks of numbers hold, soft edges left out where there are any."""
    counts, flat = _summed([replace(f, values=f.values & np.uint32(255)) if f.coloured else f for f in masks])
    few = len(counts) <= 64
    return sorted(v for v in counts if few or flat[v] >= _SOLID * counts[v])


def _is_thresholded(masks: Sequence[MaskFacts]) -> bool:
    """Whether grey masks are dark and bright areas with soft edges between them."""
    counts, _ = _summed(masks)
    if len(counts) < _SOFT_VALUES or max(counts) > VOID:
        return False
    dark = sum(n for v, n in counts.items() if v < 32)
    bright = sum(n for v, n in counts.items() if v >= 128)
    between = sum(n for v, n in counts.items() if 32 <= v < 128)
    return max(counts) >= 192 and dark > bright > between and len(counts) > 32


def _only_0_and_255(masks: Sequence[MaskFacts]) -> bool:
    values = {int(v) for facts in masks for v in facts.values}
    return bool(values) and values <= {0, VOID} and VOID in values


def known(facts: MaskFacts, coding: Coding) -> NDArray[np.bool_]:
    """(n,): which of a mask's values or colours are classes or void."""
    if facts.coloured and not (facts.grey and not coding.reader.colors):
        return np.isin(facts.values, list(coding.colours))
    if coding.threshold:
        return np.isin(facts.values, (0, VOID))
    return _classes(facts.values.astype(np.int64), coding, unknown=-1) >= 0


def _classes(values: NDArray[np.int64], coding: Coding, unknown: int = VOID) -> NDArray[np.int64]:
    """The classes of numbers, by the reader's mapping."""
    mapping = coding.reader.label_mapping or {}
    count = len(coding.labels)
    classes = [mapping.get(v, v if v < count or v == VOID else unknown) for v in values.tolist()]
    return np.array(classes, np.int64).reshape(values.shape)


def _counts_from_one(facts: MaskFacts, count: int) -> bool:
    """Whether a mask holds 1..K, K among them and 0 not."""
    values = {int(v) for v in facts.values} - {VOID}
    return not facts.coloured and count in values and 0 not in values and max(values) == count


def _splits_from_one(numbered: Sequence[tuple[str, MaskFacts]], coding: Coding) -> frozenset[str]:
    """The splits whose masks, all together, hold 1..K or, undeclared, hold no 0 while they hold 1."""
    found = set()
    for split in {split for split, _ in numbered}:
        values = {int(v) for own, facts in numbered if own == split for v in facts.values} - {VOID}
        if not values or 0 in values or coding.reader.label_mapping or coding.binary:
            continue
        if max(values) == len(coding.labels) if coding.declared else min(values) == 1:
            found.add(split)
    return frozenset(found)


def _colour_table(
    coloured: Sequence[MaskFacts], numbered: Sequence[MaskFacts], reader: MaskReader, labels: LabelSet | None
) -> tuple[dict[int, int], bool]:
    """Packed colour -> class, and whether that had to be recovered."""
    if reader.colors:
        return {_number(colour): target for colour, target in reader.colors.items()}, False
    if not coloured:
        return {}, False
    found = solid_colours(coloured)
    known: dict[int, int] = {}
    for facts in numbered:  # masks of numbers that have a palette say which colour is which
        if facts.palette is not None:
            known |= {int(c): int(v) for c, v in zip(packed(facts.palette), facts.values, strict=True)}
    candidates = [known]
    if labels is not None:
        candidates.append({_number(colour): number for number, colour in enumerate(labels.colours)})
    candidates.append({_number(voc_colour(number)): number for number in range(21)})
    for candidate in filter(None, candidates):
        table = {**candidate, _number(voc_colour(VOID)): VOID}
        if sum(colour in table for colour in found) >= 0.9 * len(found):
            return {colour: table.get(colour, VOID) for colour in {*found, *table}}, True
    # Black is background where it occurs, or void where it is one too many; the others by frequency.
    if labels is not None and len(found) == len(labels) + 1 and 0 in found:
        return {0: VOID} | {colour: number for number, colour in enumerate(c for c in found if c)}, True
    ordered = sorted(found, key=lambda colour: colour != 0)
    return {colour: number for number, colour in enumerate(ordered)}, True


def _named_by_colour(table: Mapping[int, int]) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names such as '#8429f6' and the colours themselves, in the order of the classes."""
    own = {number: colour for colour, number in sorted(table.items(), reverse=True) if number != VOID}
    count = max(own, default=0) + 1
    colours = tuple(unpacked(own.get(number, _number(voc_colour(number)))) for number in range(count))
    return tuple(f"#{_number(colour):06x}" for colour in colours), colours


def _from_colours(rgb: Array, coding: Coding, shades_too: bool) -> Array:
    """Classes by colour; where `shades_too`, a colour near to a class's is that class."""
    numbers = packed(rgb)
    known = np.array(sorted(coding.colours), np.uint32)
    if not len(known):
        raise DataError("no colour of the masks fills an area; give the classes their colours in a YAML file")
    place = np.searchsorted(known, numbers).clip(max=len(known) - 1)
    strange = known[place] != numbers
    targets = np.array([coding.colours[int(colour)] for colour in known], np.uint8)
    classes: Array = targets[place]
    if not strange.any():
        return classes
    if shades_too:  # what is left lies between two classes, and takes the nearest pixel's
        palette = np.stack([known >> 16, known >> 8 & 255, known & 255], 1).astype(np.int16)
        values, where = np.unique(numbers[strange], return_inverse=True)
        nearest = np.zeros(len(values), np.intp)
        gaps = np.full(len(values), 256, np.int16)
        shades = np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.int16)
        for index, colour in enumerate(palette):
            gap = np.abs(shades - colour).max(1)
            nearest[gap < gaps], gaps = index, np.minimum(gap, gaps)
        shade = (gaps <= _NEAR)[where]
        rows, columns = (axis[shade] for axis in np.nonzero(strange))
        classes[rows, columns] = targets[nearest[where[shade]]]
        strange[rows, columns] = False
    return _filled(classes, strange)


def _lookup(values: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """(65536,): whether a number is one of these."""
    table = np.zeros(65536, np.bool_)
    table[values] = True
    return table


def _grown(reader: MaskReader, raw: RawMask, strange: NDArray[np.bool_]) -> Array:
    values = np.where(strange, VOID, raw.values)
    return _filled(reader.labels("mask", replace(raw, values=values, palette=None)), strange)


def _filled(classes: Array, strange: NDArray[np.bool_]) -> Array:
    """Strange pixels take the class of the nearest that is not; void where none is."""
    from scipy.ndimage import distance_transform_edt

    if strange.all():
        return np.full_like(classes, VOID)
    if not strange.any():
        return classes
    rows, columns = distance_transform_edt(strange, return_distances=False, return_indices=True)
    nearest: Array = classes[rows, columns]
    return nearest


def _number(colour: Sequence[int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _distance(first: int, second: int) -> int:
    return max(abs(a - b) for a, b in zip(unpacked(first), unpacked(second), strict=True))


def threshold_text() -> str:
    """The mapping as YAML."""
    pairs: list[Any] = [f"{key}: {target}" for key, target in THRESHOLD.items()]
    return f"label_mapping: {{{', '.join(pairs)}}}"
