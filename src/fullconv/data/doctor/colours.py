"""Colour-coded masks: which colours are classes, and which class each is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fullconv.data.doctor.facts import SOLID, MaskFacts, summed
from fullconv.data.mask import MaskReader, packed, unpacked
from fullconv.labels import VOID, Colour, LabelSet, voc_colour

_APART = 24
"""Of 255: two colours that differ by less in every channel are shades of one."""

NEAR = 40
"""A colour this near to a class's, in every channel, is a shade of it."""

_FEW = 4
"""Pixels inside areas of a colour below which it may be chance."""


def colour_table(
    coloured: Sequence[MaskFacts], numbered: Sequence[MaskFacts], reader: MaskReader, labels: LabelSet | None
) -> tuple[dict[int, int], bool, bool]:
    """Packed colour -> class, whether that had to be recovered, and whether nothing says which colour is which class.

    Args:
        coloured: masks of colours.
        numbered: masks of numbers, whose palettes may say which colour is which.
        reader: as the data set declares it.
        labels: as declared, or as found from `numbered`; None where nothing says.
    """
    if reader.colors:
        return {_number(colour): target for colour, target in reader.colors.items()}, False, False
    found = solid_colours(coloured)
    if not found:
        return {}, bool(coloured), False
    known: dict[int, int] = {}
    for facts in numbered:
        if facts.palette is not None:
            known |= {int(c): int(v) for c, v in zip(packed(facts.palette), facts.values, strict=True)}
    candidates = [known]
    if labels is not None:
        candidates.append({_number(colour): number for number, colour in enumerate(labels.colours)})
    candidates.append({_number(voc_colour(number)): number for number in range(21)})
    void = {_number(voc_colour(VOID)): VOID}
    for candidate in filter(None, candidates):
        table = {**void, **candidate}
        # Nearly all, or all but one of four and more: that many do not agree by chance.
        if sum(colour in table for colour in found) >= min(0.9 * len(found), max(len(found) - 1, 3)):
            highest = max((k for c, k in candidate.items() if c in found), default=0)
            own = {c: k for c, k in table.items() if labels is not None or k <= highest or k == VOID}
            return {**dict.fromkeys(found, VOID), **own}, True, False
    # Black is background where it occurs, or void where it is one too many; the others by frequency.
    if labels is not None and len(found) == len(labels) + 1 and 0 in found:
        return {0: VOID} | {colour: number for number, colour in enumerate(c for c in found if c)}, True, True
    ordered = sorted(found, key=lambda colour: colour != 0)
    return {colour: number for number, colour in enumerate(ordered)}, True, True


def solid_colours(masks: Sequence[MaskFacts]) -> list[int]:
    """The colours that fill areas, most frequent first: shades of one colour, and soft edges, are left out."""
    counts, flat = summed(masks)
    kept: list[int] = []
    for colour in sorted(counts, key=lambda c: (-flat[c], c)):
        if flat[colour] < max(_FEW, SOLID * counts[colour]):
            continue
        if len(counts) <= 64 or all(_distance(colour, other) > _APART for other in kept):
            kept.append(colour)
    return kept[:VOID]


def far_areas(facts: MaskFacts, reader: MaskReader, colours: Mapping[int, int]) -> list[int]:
    """The colours that fill areas of a mask though they are no class's, nor shades of one; where colours are declared.

    Where they had to be recovered, every colour that fills areas was taken for a class.
    """
    if not reader.colors or facts.lossy:
        return []
    solid = facts.flat >= np.maximum(_FEW, SOLID * facts.counts)
    strange = facts.values[solid & ~np.isin(facts.values, list(colours))]
    gaps = nearest_colours(strange, np.array(list(colours), np.uint32))[1]
    return [int(colour) for colour in strange[gaps > NEAR]]


def nearest_colours(
    values: NDArray[np.uint32], known: NDArray[np.uint32]
) -> tuple[NDArray[np.intp], NDArray[np.int16]]:
    """For each packed colour the place of the nearest known one, and how far apart they are in the worst channel."""
    nearest = np.zeros(len(values), np.intp)
    gaps = np.full(len(values), 256, np.int16)
    channels = _channels(values)
    for index, colour in enumerate(_channels(known)):
        gap = np.abs(channels - colour).max(1, initial=0)
        nearest[gap < gaps], gaps = index, np.minimum(gap, gaps)
    return nearest, gaps


def named_by_colour(table: Mapping[int, int]) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Names such as '#8429f6' and the colours themselves, in the order of the classes."""
    own = {number: colour for colour, number in sorted(table.items(), reverse=True) if number != VOID}
    count = max(own, default=0) + 1
    colours = tuple(unpacked(own.get(number, _number(voc_colour(number)))) for number in range(count))
    return tuple(f"#{_number(colour):06x}" for colour in colours), colours


def _channels(values: NDArray[np.uint32]) -> NDArray[np.int16]:
    """(n,) packed -> (n, 3)."""
    return np.stack([values >> 16, values >> 8 & 255, values & 255], 1).astype(np.int16)


def _number(colour: Sequence[int]) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _distance(first: int, second: int) -> int:
    return max(abs(a - b) for a, b in zip(unpacked(first), unpacked(second), strict=True))
