"""Masks of any coding -> class numbers, with what is wrong with them repaired."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fullconv.data.doctor.coding import FROM_ONE, SOFT, Coding, is_coloured, known, verdict
from fullconv.data.doctor.colours import NEAR, far_areas, nearest_colours
from fullconv.data.doctor.facts import SOLID, MaskFacts, as_read, counted
from fullconv.data.mask import RawMask, packed
from fullconv.data.sample import Array
from fullconv.errors import DataError
from fullconv.labels import VOID
from fullconv.metrics.boundary import filled


def mended(raw: RawMask, coding: Coding, split: str) -> Array:
    """The classes of a mask, with what `verdict` finds repaired: (H, W) uint8, 255 = void.

    Soft edges take the class of the nearest pixel that has one; values and colours of no class become void.

    Raises:
        DataError: no colour of the masks fills an area; a palette mask whose numbers and colours disagree.
    """
    raw = as_read("the mask", raw, coding.reader)
    facts = counted(raw)
    if is_coloured(facts, coding):
        return _from_colours(raw, facts, coding)
    if facts.coloured:
        raw = replace(raw, values=raw.values[:, :, 0])
        facts = counted(raw)
    if coding.threshold:
        return (raw.values > 127).astype(np.uint8)
    found = verdict(replace(facts, lossy=False), coding, split)
    if found == FROM_ONE:
        return np.where((raw.values == 0) | (raw.values == VOID), VOID, raw.values - 1).astype(np.uint8)
    sure = known(facts, coding)
    soft = raw.lossy or found == SOFT
    if soft:
        sure &= facts.flat >= SOLID * facts.counts
    strange = ~_lookup(facts.values[sure])[raw.values]
    classes = coding.reader.labels("mask", replace(raw, values=np.where(strange, VOID, raw.values), palette=None))
    if soft:
        return _settled(classes, strange)
    classes[strange] = VOID
    return classes


def _from_colours(raw: RawMask, facts: MaskFacts, coding: Coding) -> Array:
    """Classes by colour. Shades that fill areas, or that compression made, are the class whose colour is near."""
    known = np.array(sorted(coding.colours), np.uint32)
    if not len(known):
        raise DataError("no colour of the masks fills an area; give the classes their colours in a YAML file")
    numbers = packed(raw.values)
    place = np.searchsorted(known, numbers).clip(max=len(known) - 1)
    targets = np.array([coding.colours[int(colour)] for colour in known], np.uint8)
    classes: Array = targets[place]
    strange = known[place] != numbers
    if not strange.any():
        return classes
    values, where = np.unique(numbers[strange], return_inverse=True)
    nearest, gaps = nearest_colours(values, known)
    areas = facts.values[facts.flat >= SOLID * facts.counts]
    shade = (gaps <= NEAR) & (raw.lossy | np.isin(values, areas))
    of_none = np.isin(values, far_areas(facts, coding.reader, coding.colours))
    decided = (shade | of_none)[where]
    rows, columns = (axis[decided] for axis in np.nonzero(strange))
    classes[rows, columns] = np.where(of_none, VOID, targets[nearest])[where[decided]]
    strange[rows, columns] = False
    return _settled(classes, strange)


def _lookup(values: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """(65536,): whether a number is one of these."""
    table = np.zeros(65536, np.bool_)
    table[values] = True
    return table


def _settled(classes: Array, strange: NDArray[np.bool_]) -> Array:
    """Strange pixels take the class of the nearest that is not; void where none is."""
    return np.full_like(classes, VOID) if strange.all() else filled(classes, ~strange)
