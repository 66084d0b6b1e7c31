"""How masks are coded, found from masks that were coded on purpose; what is mended gives the clean masks back."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fullconv.data.doctor import coding as code
from fullconv.data.doctor.coding import Coding, class_counts, find_coding, verdict
from fullconv.data.doctor.facts import MaskFacts, counted
from fullconv.data.doctor.mending import mended
from fullconv.data.mask import MaskReader, RawMask
from fullconv.errors import DataError
from fullconv.labels import VOID, LabelSet, voc_colour

Array = NDArray[np.uint8]
OWN = ((60, 16, 152), (132, 41, 246), (110, 193, 228), (226, 169, 41), (254, 221, 58))
PLAIN = MaskReader(VOID)


def raw(values: NDArray[np.generic], palette: Array | None = None, lossy: bool = False) -> RawMask:
    return RawMask(np.asarray(values), palette, lossy)


def areas(seed: int, classes: int, void: bool = True, size: tuple[int, int] = (24, 32)) -> Array:
    """Rectangles of every class on class 0; class 0 covers most."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    for label in range(1, classes):
        y, x = rng.integers(0, size[0] - 6), rng.integers(1, size[1] - 6)
        mask[y : y + 6, x : x + 6] = label
    for label in range(classes):  # however the rectangles lie, each class has an area
        mask[3 * label : 3 * label + 3, 2:8] = label
    if void:
        mask[:, 0] = VOID
    return mask


def coded(
    masks: list[RawMask], labels: LabelSet | None = None, reader: MaskReader | None = None, splits: str = "train"
) -> tuple[Coding, list[str], list[Array]]:
    """Coding, verdicts and mended masks of a data set; `splits`: one for all, or one a mask, separated by spaces."""
    names = splits.split() * (len(masks) if " " not in splits else 1)
    facts = [(split, counted(mask)) for split, mask in zip(names, masks, strict=True)]
    coding = find_coding(facts, reader or MaskReader(len(labels or [0] * VOID)), labels)
    verdicts = [verdict(each, coding, split) for split, each in facts]
    return coding, verdicts, [mended(mask, coding, split) for split, mask in zip(names, masks, strict=True)]


def same(found: list[Array], expected: list[Array]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)


TWO = LabelSet(("ok", "scratch"))
FIVE = LabelSet(("a", "b", "c", "d", "e"), OWN)


@pytest.mark.parametrize("labels", [None, TWO])
@pytest.mark.parametrize("rgb", [False, True])
def test_two_classes_as_0_and_255(labels: LabelSet | None, rgb: bool) -> None:
    clean = [areas(seed, 2, void=False) for seed in range(3)] + [np.zeros((24, 32), np.uint8)]
    masks = [raw(np.repeat(255 * m[..., None], 3, 2) if rgb else 255 * m) for m in clean]
    coding, verdicts, found = coded(masks, labels)
    assert coding.binary
    assert coding.labels.names == (("ok", "scratch") if labels else ("background", "foreground"))
    assert verdicts == ([code.GREY_RGB] * 4 if rgb else [code.BINARY] * 3 + [code.OK])
    same(found, clean)


def soft(mask: Array) -> Array:
    """0/255 with edges as scaling by a half leaves them."""
    large = Image.fromarray(255 * mask).resize(
        (2 * mask.shape[1] + 7, 2 * mask.shape[0] + 5), Image.Resampling.BILINEAR
    )
    return np.asarray(large.resize(mask.shape[::-1], Image.Resampling.BOX))


@pytest.mark.parametrize("labels", [None, TWO])
@pytest.mark.parametrize("mostly_white", [False, True])
def test_two_classes_with_soft_edges(labels: LabelSet | None, mostly_white: bool) -> None:
    clean = [areas(seed, 2, void=False) ^ np.uint8(mostly_white) for seed in range(4)]
    masks = [soft(m) for m in clean]
    coding, verdicts, found = coded([raw(m) for m in masks], labels)
    assert (coding.threshold, coding.binary, len(coding.labels)) == (True, True, 2)
    assert set(verdicts) == {code.SOFT}
    same(found, [(m >= 128).astype(np.uint8) for m in masks])
    for mask, own in zip(found, clean, strict=True):
        assert (mask != own).mean() < 0.05


def test_a_hard_mask_among_soft_ones_is_0_and_255() -> None:
    clean = [areas(seed, 2, void=False) for seed in range(3)]
    masks = [raw(soft(m)) for m in clean[:2]] + [raw(255 * clean[2])]
    _, verdicts, found = coded(masks, TWO)
    assert verdicts == [code.SOFT, code.SOFT, code.BINARY]
    same(found[2:], clean[2:])


def test_masks_of_0_and_1_are_not_thresholded_because_of_one_that_is_not() -> None:
    clean = [areas(seed, 2) for seed in range(4)]
    coding, verdicts, found = coded([*map(raw, clean), raw(soft(areas(9, 2, void=False)), lossy=True)], TWO)
    assert not coding.threshold
    assert verdicts == [code.OK] * 4 + [code.LOSSY]
    same(found[:4], clean)


def test_three_grey_levels_that_fill_areas_are_no_edges() -> None:
    scaled = [raw(areas(seed, 4, void=False) * np.uint8(85)) for seed in range(3)]  # 0, 85, 170, 255
    coding, verdicts, _ = coded(scaled, TWO)
    assert not coding.threshold
    assert set(verdicts) == {code.OUTSIDE}


@pytest.mark.parametrize("labels", [None, LabelSet.numbered(4)])
def test_classes_counted_from_1_in_all_splits(labels: LabelSet | None) -> None:
    clean = [areas(seed, 4) for seed in range(3)]
    masks = [raw(np.where(m == VOID, VOID, m + 1).astype(np.uint8)) for m in clean]
    coding, verdicts, found = coded(masks, labels, splits="train train val")
    assert coding.from_one == {"train", "val"}
    assert len(coding.labels) == 4
    assert set(verdicts) == {code.FROM_ONE}
    same(found, clean)


@pytest.mark.parametrize("labels", [None, LabelSet.numbered(4)])
def test_classes_counted_from_1_in_one_split(labels: LabelSet | None) -> None:
    clean = [areas(seed, 4) for seed in range(3)]
    masks = [raw(clean[0]), raw(clean[1]), raw(np.where(clean[2] == VOID, VOID, clean[2] + 1).astype(np.uint8))]
    coding, verdicts, found = coded(masks, labels, splits="train train test")
    assert coding.from_one == {"test"}
    assert len(coding.labels) == 4
    assert verdicts == [code.OK, code.OK, code.FROM_ONE]
    same(found, clean)


@pytest.mark.parametrize("labels", [None, LabelSet.numbered(4)])
def test_a_split_without_class_0_does_not_count_from_1(labels: LabelSet | None) -> None:
    clean = [areas(0, 4), np.clip(areas(1, 4), 1, None)]
    coding, verdicts, found = coded([raw(m) for m in clean], labels, splits="train val")
    assert coding.from_one == set()
    assert verdicts == [code.OK, code.OK]
    same(found, clean)


def test_a_single_mask_counted_from_1() -> None:
    clean = [areas(seed, 4) for seed in range(3)]
    masks = [raw(clean[0]), raw(clean[1]), raw(np.where(clean[2] == VOID, VOID, clean[2] + 1).astype(np.uint8))]
    coding, verdicts, found = coded(masks, LabelSet.numbered(4))
    assert verdicts == [code.OK, code.OK, code.FROM_ONE]
    same(found, clean)
    assert class_counts(counted(masks[2]), coding, "train")[:4].tolist() == np.bincount(clean[2].ravel())[:4].tolist()


@pytest.mark.parametrize("declared", [False, True])
def test_rgb_masks_in_the_colours_of_voc(declared: bool) -> None:
    clean = [areas(seed, 5) for seed in range(3)]
    table = LabelSet.numbered(5).palette()
    coding, verdicts, found = coded([raw(table[m]) for m in clean], LabelSet.numbered(5) if declared else None)
    assert coding.recovered
    assert len(coding.labels) == 5, "as many as the highest that occurs"
    assert set(verdicts) == {code.COLOURED}
    same(found, clean)


@pytest.mark.parametrize("declared", [False, True])
def test_rgb_masks_in_colours_of_their_own(declared: bool) -> None:
    # Class 0 is black, and the others come in the order of their frequency.
    table = np.array([(0, 0, 0), *OWN[1:]], np.uint8)
    clean = [np.repeat([0, 1, 2, 3, 4], [8, 7, 6, 5, 4]).astype(np.uint8)[:, None].repeat(12, 1)]
    coding, verdicts, found = coded([raw(table[m]) for m in clean], LabelSet.numbered(5) if declared else None)
    same(found, clean)
    assert verdicts == [code.COLOURED]
    assert coding.labels.colours == tuple(map(tuple, table.tolist()))
    if not declared:
        assert coding.labels.names[1] == "#8429f6"


def test_black_is_void_where_it_is_a_colour_too_many() -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:5] = OWN
    clean = [areas(seed, 5) for seed in range(3)]
    for mask in clean:
        mask[:, :2] = VOID
    _, _, found = coded([raw(table[m]) for m in clean], LabelSet.numbered(5))
    for one, own in zip(found, clean, strict=True):
        np.testing.assert_array_equal(one == VOID, own == VOID)
        pairs = {(int(a), int(b)) for a, b in zip(one.ravel(), own.ravel(), strict=True)}
        assert len(pairs) == 6, "one class each, in whatever order"


def test_palette_masks_say_which_colour_is_which() -> None:
    table = FIVE.palette()
    clean = [areas(seed, 5) for seed in range(4)]
    masks = [raw(clean[0], table), raw(clean[1], table), raw(table[clean[2]]), raw(table[clean[3]])]
    coding, verdicts, found = coded(masks)
    assert verdicts == [code.OK, code.OK, code.COLOURED, code.COLOURED]
    assert len(coding.labels) == 5
    same(found, clean)


@pytest.mark.parametrize("table", [LabelSet.numbered(5).palette(), FIVE.palette()], ids=["voc", "own"])
def test_a_mask_of_background_alone_among_rgb_masks(table: Array) -> None:
    table = table.copy()
    table[0] = 0
    clean = [areas(seed, 5) for seed in range(3)] + [np.zeros((24, 32), np.uint8)]
    coding, verdicts, found = coded(
        [raw(table[m]) for m in clean], LabelSet(FIVE.names, tuple(map(tuple, table[:5].tolist())))
    )
    assert verdicts == [code.COLOURED] * 4
    same(found, clean)
    undeclared, _, found = coded([raw(table[m]) for m in clean])
    assert len(undeclared.labels) >= 5
    assert (found[3] == 0).all()
    assert class_counts(counted(raw(table[clean[3]])), coding, "train")[0] == 24 * 32


DECLARED = MaskReader(5, colors={**{colour: k for k, colour in enumerate(OWN)}, (0, 0, 0): VOID})


def declared_table() -> Array:
    table = np.zeros((256, 3), np.uint8)
    table[:5] = OWN
    return table


def test_declared_colours_and_their_shades_and_strangers() -> None:
    table, clean = declared_table(), [areas(seed, 5) for seed in range(5)]
    masks = [table[m] for m in clean]
    masks[1] = np.where(clean[1][..., None] == 1, table[1] + np.uint8([5, 0, 9]), masks[1])  # another export
    masks[2][12:20, 12:20] = (1, 254, 3)  # an area of no class
    masks[3][15, 3:9] = (96, 110, 200)  # a line between classes
    coding, verdicts, found = coded([raw(m) for m in masks], FIVE, DECLARED)
    assert not coding.recovered
    assert verdicts == [code.OK, code.SOFT, code.OUTSIDE, code.SOFT, code.OK]
    same([found[0], found[1], found[4]], [clean[0], clean[1], clean[4]])
    expected = clean[2].copy()
    expected[12:20, 12:20] = VOID
    same([found[2]], [expected])
    assert set(np.unique(found[3][15, 3:9])) <= set(np.unique(clean[3][14:17, 2:10])), "of the neighbours"
    rest = np.ones(clean[3].shape, bool)
    rest[15, 3:9] = False
    np.testing.assert_array_equal(found[3][rest], clean[3][rest])


def test_a_palette_mask_of_declared_colours() -> None:
    table, clean = declared_table(), areas(0, 5)
    shifted = np.zeros((256, 3), np.uint8)
    shifted[100:105] = OWN
    values = np.where(clean == VOID, 99, clean + 100).astype(np.uint8)
    reader = DECLARED
    _, _, found = coded([raw(table[clean]), raw(values, shifted)], FIVE, reader)
    same(found, [clean, clean])
    np.testing.assert_array_equal(found[1], reader.labels("m", raw(values, shifted)))


def test_lossy_colours_are_told_where_they_can_be() -> None:
    table = FIVE.palette()
    table[VOID] = 0
    clean = [areas(seed, 5, size=(48, 64)) for seed in range(3)]
    pictures = []
    for mask in clean:
        file = BytesIO()
        Image.fromarray(table[mask]).save(file, "JPEG", quality=92, subsampling=0)
        pictures.append(raw(np.asarray(Image.open(file)), lossy=True))
    _, verdicts, found = coded(pictures, FIVE, DECLARED)
    assert set(verdicts) == {code.LOSSY}
    for one, own in zip(found, clean, strict=True):
        assert (one != own).mean() < 0.05


def test_a_declared_mapping_is_kept() -> None:
    reader = MaskReader(3, {10: 0, 20: 1, 30: 2, 255: VOID})
    clean = areas(0, 3)
    values = np.array([10, 20, 30] + [0] * 252 + [255], np.uint8)[clean]
    strange = values.copy()
    strange[20:22, 20:30] = 77
    coding, verdicts, found = coded([raw(values), raw(strange)], LabelSet.numbered(3), reader)
    assert verdicts == [code.OK, code.OUTSIDE]
    expected = clean.copy()
    expected[20:22, 20:30] = VOID
    same(found, [clean, expected])
    np.testing.assert_array_equal(
        class_counts(counted(raw(values)), coding, "train"), np.bincount(clean.ravel(), minlength=256)
    )


def test_a_value_of_no_class_is_void_also_where_255_is_a_class() -> None:
    clean = areas(0, 2, void=False)
    strange = 255 * clean
    strange[20:22, 20:30] = 77
    _, verdicts, found = coded([raw(255 * clean), raw(strange)], TWO, MaskReader(2, {0: 0, 255: 1}))
    assert verdicts == [code.OK, code.OUTSIDE]
    expected = clean.copy()
    expected[20:22, 20:30] = VOID
    same(found, [clean, expected])


def test_values_of_no_class_become_void_and_soft_edges_the_nearest_class() -> None:
    labels = LabelSet.numbered(3)
    clean = np.repeat([0, 1, 2], 10).astype(np.uint8)[None].repeat(20, 0)
    strange = np.where(clean == 2, 7, clean).astype(np.uint8)
    edge = clean.copy()
    edge[:, 10] = np.arange(100, 120)  # a column of twenty values between classes 0 and 1
    _, verdicts, found = coded([raw(clean), raw(strange), raw(edge)], labels)
    assert verdicts == [code.OK, code.OUTSIDE, code.SOFT]
    same(found[:2], [clean, np.where(clean == 2, VOID, clean).astype(np.uint8)])
    expected = clean.copy()
    assert set(np.unique(found[2][:, 10])) <= {0, 1}, "either neighbour is as near"
    np.testing.assert_array_equal(np.delete(found[2], 10, 1), np.delete(expected, 10, 1))


@pytest.mark.parametrize(("value", "classes"), [(0, 1), (VOID, 2), (1, 1)])
def test_masks_of_one_value(value: int, classes: int) -> None:
    coding, verdicts, _ = coded([raw(np.full((5, 6), value, np.uint8))] * 2)
    assert len(coding.labels) == classes
    assert verdicts == [{0: code.OK, VOID: code.BINARY, 1: code.FROM_ONE}[value]] * 2


def test_nothing_that_can_be_read() -> None:
    facts = MaskFacts(problem="m.png: is empty")
    coding = find_coding([("train", facts)], PLAIN, None)
    assert verdict(facts, coding, "train") == code.UNREADABLE
    assert class_counts(facts, coding, "train").sum() == 0
    assert len(coding.labels) == 1


def test_a_photo_is_no_mask() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    with pytest.raises(
        DataError, match="no colour of the masks fills an area; give the classes their colours in a YAML"
    ):
        coded([raw(noise)])


def test_a_palette_mask_that_contradicts_itself() -> None:
    table = FIVE.palette().copy()
    table[[0, 1]] = table[[1, 0]]
    values = np.array([[0, 1], [0, 1]], np.uint8)
    with pytest.raises(
        DataError, match="the mask: is a palette mask, where index 0 is class 0 by its number and class 1"
    ):
        coded([raw(values, table)], FIVE, DECLARED)


def test_the_threshold_as_yaml() -> None:
    assert code.threshold_text() == "label_mapping: {0-127: 0, 128-255: 1}"


CODINGS = ("numbers", "palette", "grey as RGB", "0 and 255", "from 1", "voc colours", "declared colours", "mapping")


@settings(max_examples=120)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from(CODINGS), st.booleans(), st.integers(1, 4))
def test_a_clean_mask_in_any_coding_is_given_back(
    seed: int, classes: int, kind: str, declared: bool, count: int
) -> None:
    classes = 2 if kind == "0 and 255" else classes
    # Grey RGB has no void that could be told from white; in 0 and 255 white is the other class.
    clean = [areas(seed + k, classes, void=kind not in ("0 and 255", "grey as RGB")) for k in range(count)]
    labels = LabelSet.numbered(classes)
    voc = labels.palette()
    reader = None
    if kind == "numbers":
        masks = [raw(m) for m in clean]
    elif kind == "palette":
        masks = [raw(m, voc) for m in clean]
    elif kind == "grey as RGB":
        masks = [raw(np.repeat(m[..., None], 3, 2)) for m in clean]
    elif kind == "0 and 255":
        masks = [raw(m * np.uint8(255)) for m in clean]
    elif kind == "from 1":
        masks = [raw(np.where(m == VOID, VOID, m + 1).astype(np.uint8)) for m in clean]
    elif kind == "voc colours":
        masks = [raw(voc[m]) for m in clean]
    elif kind == "declared colours":
        declared = True
        table = {**{OWN[k]: k for k in range(classes)}, (0, 0, 0): VOID}
        masks, reader = [raw(declared_table()[m]) for m in clean], MaskReader(classes, colors=table)
    else:
        declared = True
        values = np.append(np.arange(255, dtype=np.uint8) * 3 + 40, 7).astype(np.uint8)
        masks = [raw(values[m]) for m in clean]
        reader = MaskReader(classes, {**{int(values[k]): k for k in range(classes)}, 7: VOID})
    assume(all((m == k).any() for m in clean for k in range(classes)))
    coding, verdicts, found = coded(masks, labels if declared else None, reader)
    same(found, clean)
    assert len(coding.labels) == classes
    for mask, own in zip(masks, clean, strict=True):
        expected = np.bincount(own.ravel(), minlength=256)
        np.testing.assert_array_equal(class_counts(counted(mask), coding, "train"), expected)
        if set(verdicts) == {code.OK}:  # then training's own reader agrees
            np.testing.assert_array_equal(coding.reader.labels("m", replace(mask, palette=None)), own)
    named = {"grey as RGB": code.GREY_RGB, "0 and 255": code.BINARY, "from 1": code.FROM_ONE}
    assert set(verdicts) == {code.COLOURED if kind == "voc colours" else named.get(kind, code.OK)}
    assert voc_colour(1) == tuple(voc[1])
