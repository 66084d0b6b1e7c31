"""How the mask files of a task are coded, found from what they hold, and what is wrong with each of them.

A mask file holds class numbers, numbers that mean something else (0 and 255, classes counted from 1), or colours; each
perhaps with soft edges that hold neither. What the data set declares (names, colours, a mapping) decides; where it
declares nothing, what most files hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fullconv.data.doctor.colours import colour_table, far_areas, named_by_colour, solid_colours
from fullconv.data.doctor.facts import SOLID, MaskFacts, summed
from fullconv.data.mask import MaskReader, unpacked
from fullconv.labels import VOID, LabelSet

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

_EDGE = range(32, 224)
"""Grey of soft edges between black and white areas; nearer to either lies what compression makes of the areas."""


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
        guessed: nothing says which colour is which class; the classes are named by their colours.
    """

    labels: LabelSet
    reader: MaskReader
    declared: bool
    colours: Mapping[int, int]
    recovered: bool = False
    threshold: bool = False
    binary: bool = False
    from_one: frozenset[str] = frozenset()
    guessed: bool = False


def find_coding(masks: Sequence[tuple[str, MaskFacts]], reader: MaskReader, labels: LabelSet | None) -> Coding:
    """The coding of a task from all its masks.

    Args:
        masks: (split, facts) of each.
        reader: as the data set declares it.
        labels: as declared; None where nothing is.
    """
    usable = [(split, facts) for split, facts in masks if facts.problem is None]
    coloured = [facts for _, facts in usable if facts.coloured and (reader.colors or not facts.grey)]
    own = set(solid_colours(coloured))
    numbered = [
        (split, _as_numbers(facts))
        for split, facts in usable
        if not facts.coloured or (facts.grey and not reader.colors and not own.issuperset(facts.values.tolist()))
    ]
    numbers = [facts for _, facts in numbered]
    declared = labels is not None
    two = labels is None or (len(labels) == 2 and not reader.label_mapping)
    threshold = two and _is_thresholded(numbers)
    binary = threshold or (two and _only_0_and_255(numbers))
    from_one = _splits_from_one(numbered, None if labels is None else len(labels))
    if binary or reader.label_mapping:
        from_one = frozenset()
    if labels is None and numbered:
        numbered_labels = LabelSet.numbered(_count(numbered, from_one))
        labels = LabelSet(("background", "foreground")) if binary else numbered_labels
    table, recovered, guessed = colour_table(coloured, numbers, reader, labels)
    guessed = guessed and not numbers
    if labels is None or guessed:  # names that the data set has would be given to the wrong colours
        labels = LabelSet(*named_by_colour(table)) if table else LabelSet.numbered(1)
    elif recovered:
        table = {colour: number if number < len(labels) else VOID for colour, number in table.items()}
        shown = {number: unpacked(colour) for colour, number in table.items() if number != VOID}
        labels = LabelSet(labels.names, tuple(shown.get(k, colour) for k, colour in enumerate(labels.colours)))
    if reader.classes != len(labels):
        reader = MaskReader(len(labels))
    if binary:
        reader = MaskReader(len(labels), {0: 0, VOID: 1}, reader.colors)
    return Coding(labels, reader, declared, table, recovered, threshold, binary, from_one, guessed)


def verdict(facts: MaskFacts, coding: Coding, split: str) -> str:
    """What is wrong with a mask: one of this file's names."""
    if facts.problem is not None:
        return UNREADABLE
    if facts.lossy:
        return LOSSY
    if is_coloured(facts, coding):
        if known(facts, coding).all():
            return COLOURED if coding.recovered else OK
        return OUTSIDE if far_areas(facts, coding.reader, coding.colours) else SOFT
    if facts.coloured:
        return GREY_RGB
    if coding.threshold:
        return SOFT if len(facts.values) > 2 else BINARY
    if coding.binary:
        return BINARY if VOID in facts.values else OK
    if split in coding.from_one:
        return FROM_ONE
    strange = ~known(facts, coding)
    if not strange.any():
        return OK
    if strange.sum() >= _SOFT_VALUES and facts.flat[strange].sum() < SOLID * facts.counts[strange].sum():
        return SOFT
    return FROM_ONE if _counts_from_one(facts, len(coding.labels)) else OUTSIDE


def class_counts(facts: MaskFacts, coding: Coding, split: str) -> NDArray[np.int64]:
    """(256,): the pixels of each class, and of void at 255, as far as the facts tell."""
    result = np.zeros(VOID + 1, np.int64)
    if facts.problem is not None:
        return result
    if is_coloured(facts, coding):
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


def is_coloured(facts: MaskFacts, coding: Coding) -> bool:
    """Whether a mask holds colours of classes, and not class numbers that were saved as grey RGB."""
    if not facts.coloured or not facts.grey or coding.reader.colors:
        return facts.coloured
    return bool(coding.colours) and bool(np.isin(facts.values, list(coding.colours)).all())


def _as_numbers(facts: MaskFacts) -> MaskFacts:
    """The facts of grey RGB as those of one of its channels."""
    return replace(facts, values=facts.values & np.uint32(255)) if facts.coloured else facts


def _count(numbered: Sequence[tuple[str, MaskFacts]], from_one: frozenset[str]) -> int:
    """The number of classes that masks of numbers hold, soft edges left out where there are any."""
    counts, flat = summed([facts for _, facts in numbered])
    few = len(counts) <= 64
    solid = {value for value in counts if value < VOID and (few or flat[value] >= SOLID * counts[value])}
    highest = [
        value - (split in from_one) for split, facts in numbered for value in facts.values.tolist() if value in solid
    ]
    return min(max(highest, default=0) + 1, VOID)


def _is_thresholded(masks: Sequence[MaskFacts]) -> bool:
    """Whether grey masks are black and white areas with soft edges between them."""
    counts, flat = summed(masks)
    if not counts or max(counts) > VOID or any(_holds_class_1(facts) for facts in masks):
        return False
    dark = sum(n for v, n in counts.items() if v < 32)
    bright = sum(n for v, n in counts.items() if v >= 128)
    between = sum(n for v, n in counts.items() if 32 <= v < 128)
    edges = [v for v in counts if v in _EDGE]
    soft = sum(flat[v] for v in edges) < SOLID * sum(counts[v] for v in edges)
    return soft and len(edges) >= 3 and max(counts) >= 192 and min(dark, bright) > between


def _holds_class_1(facts: MaskFacts) -> bool:
    """Whether a mask is one of 0, 1 and void already."""
    return not facts.lossy and 1 in facts.values and bool(np.isin(facts.values, (0, 1, VOID)).all())


def _only_0_and_255(masks: Sequence[MaskFacts]) -> bool:
    values = {int(v) for facts in masks for v in facts.values}
    return bool(values) and values <= {0, VOID} and VOID in values


def known(facts: MaskFacts, coding: Coding) -> NDArray[np.bool_]:
    """(n,): which of a mask's values or colours are classes or void."""
    if is_coloured(facts, coding):
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


def _splits_from_one(numbered: Sequence[tuple[str, MaskFacts]], classes: int | None) -> frozenset[str]:
    """The splits whose masks, all together, hold no 0 but the number of classes.

    Where that is not declared it is one more than the highest number of the other splits; if all are without 0, all
    that begin at 1 count from it.
    """
    held: dict[str, set[int]] = {}
    for split, facts in numbered:
        held.setdefault(split, set()).update(facts.values.tolist())
    numbers = {split: values - {VOID} for split, values in held.items() if values - {VOID}}
    without = {split for split, values in numbers.items() if min(values) == 1 or (classes and 0 not in values)}
    if classes is None:
        others = [max(values) for split, values in numbers.items() if split not in without]
        classes = max(others) + 1 if others else None
    return frozenset(split for split in without if classes is None or max(numbers[split]) == classes)


def threshold_text() -> str:
    """The mapping as YAML."""
    return f"label_mapping: {{{', '.join(f'{key}: {target}' for key, target in THRESHOLD.items())}}}"
