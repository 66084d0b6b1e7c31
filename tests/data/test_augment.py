"""Augmentation: images that hold their own coordinates, so that every pixel says where it came from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fullconv.data.augment import FILL, Augmentation, augment, margin
from fullconv.data.sample import IMAGE, SEMANTIC, Array, InputKind, Sample
from fullconv.errors import OptionError
from fullconv.labels import VOID

MARK = 7
sides = st.integers(1, 60)
crops = st.tuples(st.integers(1, 70), st.integers(1, 70))
seeds = st.integers(0, 10_000)


def coordinates(height: int, width: int) -> Sample:
    """Row, column and a mark as the image's channels; row and column as the masks of two tasks."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return Sample(
        "s", {IMAGE: np.stack([rows, columns, np.full_like(rows, MARK)], 2)}, {"row": rows, "column": columns}
    )


def noise(seed: int, size: tuple[int, int], channels: int, kind: str = "uint8") -> Sample:
    rng = np.random.default_rng(seed)
    most = 65536 if kind == "uint16" else 256
    image = rng.integers(0, most, (*size, channels)).astype(kind)
    image = image * np.float32(12.345) - 1000 if kind == "float32" else image
    return Sample("s", {IMAGE: image}, {SEMANTIC: rng.integers(0, 5, size, dtype=np.uint8)})


def apply(sample: Sample, options: Augmentation, seed: int) -> Sample:
    return augment(sample, options, np.random.default_rng(seed))


def shown(sample: Sample) -> tuple[NDArray[np.bool_], Array, Array]:
    """Which pixels show the image; and the masks of both tasks."""
    return sample.masks["row"] != VOID, sample.masks["row"], sample.masks["column"]


@settings(deadline=None)
@given(sides, sides, crops, st.floats(0.2, 3), st.floats(1, 2), st.booleans(), seeds)
def test_image_and_mask_move_together(
    height: int, width: int, crop: tuple[int, int], low: float, ratio: float, flip: bool, seed: int
) -> None:
    options = Augmentation(crop, (low, low * ratio), flip)
    result = apply(coordinates(height, width), options, seed)
    image = result.inputs[IMAGE].astype(int)
    assert image.shape == (*crop, 3)
    assert {mask.shape for mask in result.masks.values()} == {crop}
    there, rows, columns = shown(result)
    assert there.any()
    # Bilinear and nearest read the same place, to half a source pixel and the rounding to whole numbers; a shrunk
    # image's bilinear filter is one-sided at its border, by at most the shrinking.
    tolerance = 1 + max(1 / low, 1)
    assert np.abs(image[there][:, 0] - rows[there]).max() <= tolerance
    assert np.abs(image[there][:, 1] - columns[there]).max() <= tolerance
    assert (image[there][:, 2] == MARK).all()
    assert np.array_equal(there, columns != VOID)
    assert (image[~there] == FILL).all()


@settings(deadline=None)
@given(sides, sides, crops, st.floats(0.3, 3), seeds)
def test_the_factor_is_that_of_the_scale(
    height: int, width: int, crop: tuple[int, int], factor: float, seed: int
) -> None:
    there, rows, columns = shown(apply(coordinates(height, width), Augmentation(crop, (factor, factor)), seed))
    for axis, (size, mask) in enumerate(((height, rows), (width, columns))):
        lines = np.flatnonzero(there.any(axis=1 - axis))
        whole = crop[axis] / factor > size
        expected = min(crop[axis], max(1, round(size * factor))) if whole else crop[axis]
        assert len(lines) == expected, "a margin exactly where the scaled image is smaller than the crop"
        assert np.array_equal(lines, np.arange(lines[0], lines[0] + len(lines))), "in one piece"
        read = mask.max(axis=1 - axis, where=there, initial=0)[lines].astype(float)
        if len(read) > 1:
            steps, step = (
                np.diff(read),
                size / expected if whole else 1 / factor,
            )  # a whole line count rounds the factor
            assert (steps >= np.floor(step - 1e-6)).all()
            assert (steps <= np.ceil(step + 1e-6)).all()


@settings(deadline=None)
@given(sides, sides, crops, st.sampled_from([1, 3, 5]), seeds, st.sampled_from(["uint8", "uint16", "float32"]))
def test_crops_at_scale_1_are_copies(
    height: int, width: int, crop: tuple[int, int], channels: int, seed: int, kind: str
) -> None:
    sample = noise(seed, (height, width), channels, kind)
    result = apply(sample, Augmentation(crop), seed)
    image, mask = result.inputs[IMAGE], result.masks[SEMANTIC]
    assert image.shape == (*crop, channels)
    assert (image.dtype, mask.dtype) == (kind, np.uint8)
    # Where it lies is found by trying every place.
    inner = min(height, crop[0]), min(width, crop[1])
    places = [
        (y, x, v, u)
        for y in range(height - inner[0] + 1)
        for x in range(width - inner[1] + 1)
        for v in range(crop[0] - inner[0] + 1)
        for u in range(crop[1] - inner[1] + 1)
        if np.array_equal(
            mask[v : v + inner[0], u : u + inner[1]], sample.masks[SEMANTIC][y:, x:][: inner[0], : inner[1]]
        )
    ]

    def fits(y: int, x: int, v: int, u: int) -> bool:
        ground = np.full((*crop, channels), margin(sample.inputs[IMAGE]), kind)
        ground[v : v + inner[0], u : u + inner[1]] = sample.inputs[IMAGE][y:, x:][: inner[0], : inner[1]]
        void = np.full(crop, VOID, np.uint8)
        void[v : v + inner[0], u : u + inner[1]] = sample.masks[SEMANTIC][y:, x:][: inner[0], : inner[1]]
        return np.array_equal(ground, image) and np.array_equal(void, mask)

    assert any(fits(*place) for place in places)


def test_every_place_is_reached() -> None:
    sample = coordinates(6, 5)
    starts = {
        (int(r.masks["row"][0, 0]), int(r.masks["column"][0, 0]))
        for r in (apply(sample, Augmentation((4, 3)), seed) for seed in range(200))
    }
    assert starts == {(y, x) for y in range(3) for x in range(3)}


def test_small_images_lie_anywhere_in_the_crop() -> None:
    corners = set()
    for seed in range(200):
        there, _, _ = shown(apply(coordinates(4, 3), Augmentation((6, 5)), seed))
        corners.add((int(there.any(axis=1).argmax()), int(there.any(axis=0).argmax())))
    assert corners == {(y, x) for y in range(3) for x in range(3)}


def test_flips_mirror_half_of_the_samples_left_and_right() -> None:
    sample = noise(0, (5, 7), 3)
    mirrored = 0
    for seed in range(100):
        result = apply(sample, Augmentation(flip=True), seed)
        image, mask = result.inputs[IMAGE], result.masks[SEMANTIC]
        flipped = np.array_equal(image, sample.inputs[IMAGE][:, ::-1])
        assert flipped or np.array_equal(image, sample.inputs[IMAGE])
        expected = sample.masks[SEMANTIC][:, ::-1] if flipped else sample.masks[SEMANTIC]
        assert np.array_equal(mask, expected)
        mirrored += flipped
    assert 30 < mirrored < 70


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([1, 3, 5]), st.floats(0.05, 1), seeds)
def test_jitter_changes_images_alone_and_no_given_array(channels: int, strength: float, seed: int) -> None:
    sample = noise(seed, (9, 11), channels)
    image, mask = sample.inputs[IMAGE].copy(), sample.masks[SEMANTIC].copy()
    for array in (sample.inputs[IMAGE], sample.masks[SEMANTIC]):
        array.flags.writeable = False  # an attempt would raise
    result = apply(sample, Augmentation(jitter=strength), seed)
    assert np.array_equal(result.masks[SEMANTIC], mask)
    assert result.inputs[IMAGE].shape == image.shape
    assert result.inputs[IMAGE].dtype == np.uint8
    assert np.array_equal(sample.inputs[IMAGE], image)


def test_jitter_of_grey_is_brightness_and_contrast_by_hand() -> None:
    # Without saturation a channel is (x - mean) * contrast + mean * brightness, kept to 0..255, rounded.
    image = np.array([[[10], [250]], [[90], [50]]], np.uint8)  # mean 100
    result = apply(Sample("s", {IMAGE: image}, {}), Augmentation(jitter=0.5), 3)
    brightness, contrast, _ = 1 + np.random.default_rng(3).uniform(-0.5, 0.5, 3)
    expected = np.clip((image.astype(float) - 100) * contrast + 100 * brightness, 0, 255)
    assert np.abs(result.inputs[IMAGE] - expected).max() <= 0.5
    assert (brightness, contrast) != (1, 1)


def test_jitter_keeps_grey_colours_grey_and_changes_saturation() -> None:
    grey = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], 3, axis=2)
    spreads = []
    red = np.full((4, 4, 3), 100, np.uint8)
    red[..., 0] = 140
    for seed in range(30):
        flat = apply(Sample("s", {IMAGE: grey}, {}), Augmentation(jitter=0.4), seed).inputs[IMAGE].astype(int)
        assert np.abs(flat - flat[..., :1]).max() <= 1
        changed = apply(Sample("s", {IMAGE: red}, {}), Augmentation(jitter=0.4), seed).inputs[IMAGE].astype(int)
        spreads.append((changed.max(axis=2) - changed.min(axis=2)).mean())
    assert min(spreads) < 35
    assert max(spreads) > 45


@given(st.tuples(sides, sides), crops, seeds)
@settings(max_examples=30, deadline=None)
def test_a_pure_function_of_sample_and_generator(size: tuple[int, int], crop: tuple[int, int], seed: int) -> None:
    options = Augmentation(crop, (0.5, 2), flip=True, jitter=0.3)
    first, second = (apply(noise(1, size, 3), options, seed) for _ in range(2))
    assert np.array_equal(first.inputs[IMAGE], second.inputs[IMAGE])
    assert np.array_equal(first.masks[SEMANTIC], second.masks[SEMANTIC])


def test_several_inputs_share_the_place() -> None:
    sample = coordinates(40, 50)
    both = Sample("s", {IMAGE: sample.inputs[IMAGE], "depth": sample.inputs[IMAGE][:, :, :1]}, sample.masks)
    for seed in range(20):
        result = apply(both, Augmentation((20, 30), (0.5, 2), flip=True), seed)
        assert result.inputs["depth"].shape == (20, 30, 1)
        assert np.array_equal(result.inputs["depth"][..., 0], result.inputs[IMAGE][..., 0])


def test_nothing_to_change_changes_nothing() -> None:
    sample = noise(0, (3, 4), 3)
    result = apply(sample, Augmentation(), 0)
    assert result.name == "s"
    assert np.array_equal(result.inputs[IMAGE], sample.inputs[IMAGE])
    assert np.array_equal(result.masks[SEMANTIC], sample.masks[SEMANTIC])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (8, 8), "scale": (0.0, 1.0)}, r"scale \(0.0, 1.0\); expected 0.1 <= low <= high <= 10"),
        ({"crop": (8, 8), "scale": (2.0, 1.0)}, "expected 0.1 <= low <= high"),
        ({"crop": (8, 8), "scale": (1.0, float("nan"))}, "expected 0.1 <= low <= high"),
        ({"scale": (0.5, 2.0)}, "without a crop; give a crop, or leave the scale at 1"),
        ({"crop": (8, 0)}, r"crop \(8, 0\); expected \(H, W\) of at least 1 x 1"),
        ({"jitter": 1.5}, r"jitter 1.5; expected 0\.\.1"),
        ({"jitter": float("nan")}, r"jitter nan; expected 0\.\.1"),
        ({"shift": -1}, r"shift -1; expected 0\.\.4096"),
        ({"shift": 4097}, r"shift 4097; expected 0\.\.4096"),
        ({"shift": 1.5}, r"shift 1.5; expected a whole number"),
        ({"shift": True}, r"shift True; expected a whole number"),
        ({"flip": 1}, "^flip 1; expected true or false$"),
        ({"jitter": "0.5"}, "^jitter '0.5'; expected a number$"),
        ({"crop": 3}, r"^crop 3; expected two whole numbers, \(H, W\)$"),
        ({"crop": (8, 8), "scale": (1.0,)}, r"^scale \(1.0,\); expected two numbers, \(low, high\)$"),
    ],
)
def test_options_that_cannot_be(options: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Augmentation(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_the_margin_of_measured_values_is_their_mean(kind: str) -> None:
    image = noise(0, (9, 11), 4, kind).inputs[IMAGE]
    found = margin(image)
    assert isinstance(found, np.ndarray)
    assert found.dtype == kind
    assert np.abs(found - image.astype(np.float64).mean((0, 1))).max() <= (1 if kind == "uint16" else 0.01)
    assert margin(noise(0, (9, 11), 4).inputs[IMAGE]) == FILL


@settings(deadline=None)
@given(sides, sides, crops, st.floats(0.2, 3), st.floats(1, 2), seeds, st.sampled_from(["uint8", "uint16", "float32"]))
def test_constant_images_stay_constant(
    height: int, width: int, crop: tuple[int, int], low: float, ratio: float, seed: int, kind: str
) -> None:
    values = np.array([FILL, 0, 255] if kind == "uint8" else [60_000, 7, 12_345], kind)
    sample = Sample("s", {IMAGE: np.tile(values, (height, width, 1))}, {SEMANTIC: np.zeros((height, width), np.uint8)})
    result = apply(sample, Augmentation(crop, (low, low * ratio), flip=True), seed)
    image, shown_ = result.inputs[IMAGE], result.masks[SEMANTIC] != VOID
    assert (image.dtype, image.shape) == (kind, (*crop, 3))
    np.testing.assert_allclose(image[shown_].astype(float), np.tile(values, (shown_.sum(), 1)), rtol=1e-6)
    if kind != "uint8":
        np.testing.assert_allclose(image[~shown_].astype(float), np.tile(values, ((~shown_).sum(), 1)), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(sides, sides, crops, st.floats(0.3, 3), seeds, st.sampled_from(["uint16", "float32"]))
def test_measured_values_are_resampled_as_pictures_are(
    height: int, width: int, crop: tuple[int, int], factor: float, seed: int, kind: str
) -> None:
    """Of the same numbers, bytes differ by their rounding alone."""
    picture = noise(seed, (height, width), 3)
    values = Sample("s", {IMAGE: picture.inputs[IMAGE].astype(kind)}, picture.masks)
    options = Augmentation(crop, (factor, factor), flip=True)
    one, other = apply(picture, options, seed), apply(values, options, seed)
    assert np.array_equal(one.masks[SEMANTIC], other.masks[SEMANTIC])
    inside = one.masks[SEMANTIC] != VOID
    assert np.abs(one.inputs[IMAGE][inside].astype(float) - other.inputs[IMAGE][inside]).max() <= 1.01


def test_high_numbers_are_not_cut_or_wrapped() -> None:
    """Bilinear, by hand: twice as many pixels, whose centres lie a quarter pixel beside those of the two."""
    image = np.array([[[1000], [65_000]]], np.uint16)
    sample = Sample("s", {IMAGE: image}, {SEMANTIC: np.zeros((1, 2), np.uint8)})
    result = apply(sample, Augmentation((2, 4), (2, 2)), 0)
    assert result.inputs[IMAGE][0, :, 0].tolist() == [1000, 17_000, 49_000, 65_000]


def test_jitter_is_for_pictures() -> None:
    picture = noise(0, (6, 7), 3)
    inputs = {"colour": picture.inputs[IMAGE], "bands": noise(1, (6, 7), 5, "uint16").inputs[IMAGE]}
    inputs["height"] = noise(1, (6, 7), 1, "float32").inputs[IMAGE]
    result = apply(Sample("s", inputs, picture.masks), Augmentation(jitter=0.5), 0)
    assert not np.array_equal(result.inputs["colour"], inputs["colour"])
    for name in ("bands", "height"):
        assert np.array_equal(result.inputs[name], inputs[name])
        assert result.inputs[name].dtype == inputs[name].dtype


@pytest.mark.parametrize(
    ("kind", "photo"),
    [
        (InputKind(), True),
        (InputKind(light=False), False),  # HHA: angles and heights in three bytes
        (InputKind(3, (1, 2, 3)), False),
        (InputKind(3, log=True), False),
    ],
)
def test_only_photographs_are_jittered_and_framed_in_grey(kind: InputKind, photo: bool) -> None:
    image = np.random.default_rng(0).integers(0, 200, (6, 8, 3), dtype=np.uint8)
    scene = Sample("a", {"x": image}, {SEMANTIC: np.zeros((6, 8), np.uint8)})
    jittered = augment(scene, Augmentation(jitter=0.5), np.random.default_rng(1), {"x": kind})
    assert np.array_equal(jittered.inputs["x"], image) != photo
    framed = augment(scene, Augmentation((6, 20)), np.random.default_rng(1), {"x": kind}).inputs["x"]
    expected = [FILL] * 3 if photo else np.floor(image.mean((0, 1))).tolist()
    assert framed[0, 0].tolist() == expected or framed[0, -1].tolist() == expected


def translated(array: NDArray[np.generic], offset: tuple[int, int], size: tuple[int, int], fill: object) -> Array:
    """Pixel by pixel: what stands at (y, x) of a window in which the array begins at `offset`."""
    result = np.full((*size, *array.shape[2:]), fill, array.dtype)
    for y in range(size[0]):
        for x in range(size[1]):
            v, u = y - offset[0], x - offset[1]
            if 0 <= v < array.shape[0] and 0 <= u < array.shape[1]:
                result[y, x] = array[v, u]
    return result


def offset_of(result: Sample) -> tuple[int, int] | None:
    """Where the first pixel of `coordinates` came to lie; None if no pixel is left."""
    there, rows, columns = shown(result)
    if not there.any():
        return None
    y, x = (int(axis[0]) for axis in np.nonzero(there))
    return y - int(rows[y, x]), x - int(columns[y, x])


@settings(deadline=None)
@given(sides, sides, st.integers(1, 70), seeds)
def test_a_shift_translates_and_keeps_the_size(height: int, width: int, shift: int, seed: int) -> None:
    sample = coordinates(height, width)
    result = apply(sample, Augmentation(shift=shift), seed)
    offset = offset_of(result) or (height, 0)  # all has moved out
    assert max(map(abs, offset)) <= max(shift, height)
    for name, mask in sample.masks.items():
        assert np.array_equal(result.masks[name], translated(mask, offset, (height, width), VOID))
    image = translated(sample.inputs[IMAGE], offset, (height, width), FILL)
    assert np.array_equal(result.inputs[IMAGE], image)


def test_a_shift_reaches_every_place_and_none_beyond() -> None:
    offsets = [offset_of(apply(coordinates(9, 8), Augmentation(shift=2), seed)) for seed in range(600)]
    assert set(offsets) == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert min(offsets.count(place) for place in set(offsets)) > 5  # 24 each are expected


@settings(deadline=None)
@given(sides, sides, crops, st.integers(1, 40), seeds)
def test_a_shift_comes_before_the_crop(height: int, width: int, crop: tuple[int, int], shift: int, seed: int) -> None:
    sample = coordinates(height, width)
    result = apply(sample, Augmentation(crop, shift=shift), seed)
    offset = offset_of(result)
    if offset is None:
        assert (result.inputs[IMAGE] == FILL).all()
        return
    first = offset_of(apply(sample, Augmentation(crop), seed))  # the same crop, whose place is drawn first
    assert first is not None
    move = offset[0] - first[0], offset[1] - first[1]
    assert max(map(abs, move)) <= shift
    for found, array, fill in (
        (result.inputs[IMAGE], sample.inputs[IMAGE], FILL),
        (result.masks["row"], sample.masks["row"], VOID),
    ):
        moved = translated(array, move, (height, width), fill)
        assert np.array_equal(found, translated(moved, first, crop, fill))


def test_a_shift_and_a_crop_reach_every_place() -> None:
    sample = coordinates(6, 5)
    offsets = {offset_of(apply(sample, Augmentation((4, 3), shift=1), seed)) for seed in range(600)}
    assert offsets == {(y, x) for y in range(-3, 2) for x in range(-3, 2)}


def test_a_shift_is_scaled_with_the_image() -> None:
    """Of a whole image at twice its size, a margin is twice the shift; nothing else changes."""
    sample, shifts = coordinates(7, 9), set()
    whole = apply(sample, Augmentation((14, 18), (2, 2)), 0)
    for seed in range(100):
        result = apply(sample, Augmentation((14, 18), (2, 2), shift=3), seed)
        there, _, _ = shown(result)
        rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
        down, across = (
            int(lines[0]) if lines[0] else int(lines[-1]) + 1 - size for lines, size in ((rows, 14), (columns, 18))
        )
        assert np.array_equal(result.masks["row"], translated(whole.masks["row"], (down, across), (14, 18), VOID))
        assert np.array_equal(result.masks["column"], translated(whole.masks["column"], (down, across), (14, 18), VOID))
        shifts.add((down, across))
    assert {value for pair in shifts for value in pair} == {-6, -4, -2, 0, 2, 4, 6}


@settings(deadline=None)
@given(sides, sides, crops, st.floats(0.2, 3), st.floats(1, 2), st.integers(1, 80), seeds)
def test_image_and_mask_are_shifted_together(
    height: int, width: int, crop: tuple[int, int], low: float, ratio: float, shift: int, seed: int
) -> None:
    result = apply(coordinates(height, width), Augmentation(crop, (low, low * ratio), flip=True, shift=shift), seed)
    image, (there, rows, columns) = result.inputs[IMAGE].astype(int), shown(result)
    assert image.shape == (*crop, 3)
    assert (image[~there] == FILL).all()
    assert np.array_equal(there, columns != VOID)
    if there.any():  # as in `test_image_and_mask_move_together`
        tolerance = 1 + max(1 / low, 1)
        assert np.abs(image[there][:, 0] - rows[there]).max() <= tolerance
        assert np.abs(image[there][:, 1] - columns[there]).max() <= tolerance
        assert (image[there][:, 2] == MARK).all()


@pytest.mark.parametrize("kind", ["uint16", "float32"])
@pytest.mark.parametrize("crop", [None, (9, 11), (5, 20)])
def test_what_moves_in_beside_measured_values_is_their_mean(kind: str, crop: tuple[int, int] | None) -> None:
    sample, voids = noise(0, (9, 11), 4, kind), 0
    for seed in range(10):
        result = apply(sample, Augmentation(crop, shift=6), seed)
        void = result.masks[SEMANTIC] == VOID
        assert result.inputs[IMAGE].dtype == kind
        assert (result.inputs[IMAGE][void] == margin(sample.inputs[IMAGE])).all()
        assert np.isin(result.inputs[IMAGE][~void], sample.inputs[IMAGE]).all()
        voids += int(void.sum())
    assert voids


def test_what_moves_in_beside_bytes_that_are_no_picture_is_their_mean() -> None:
    image = np.random.default_rng(0).integers(0, 100, (6, 8, 3), dtype=np.uint8)
    scene = Sample("a", {"x": image}, {SEMANTIC: np.zeros((6, 8), np.uint8)})
    result = augment(scene, Augmentation(shift=4), np.random.default_rng(2), {"x": InputKind(light=False)})
    void = result.masks[SEMANTIC] == VOID
    assert void.any()
    assert (result.inputs["x"][void] == np.floor(image.mean((0, 1)))).all()


def test_a_large_shift_may_leave_nothing() -> None:
    results = [apply(coordinates(5, 6), Augmentation(crop, shift=4096), 0) for crop in (None, (3, 9))]
    for result in results:
        assert (result.masks["row"] == VOID).all()
        assert (result.inputs[IMAGE] == FILL).all()


def test_no_shift_draws_nothing() -> None:
    """Old runs stay as they were."""
    found, expected = np.random.default_rng(0), np.random.default_rng(0)
    augment(coordinates(9, 8), Augmentation(shift=0), found)
    assert found.bit_generator.state == expected.bit_generator.state
    augment(coordinates(9, 8), Augmentation((4, 3), (1, 2), flip=True, shift=0), found)
    expected.uniform(size=4)  # scale, row, column, flip
    assert found.bit_generator.state == expected.bit_generator.state
