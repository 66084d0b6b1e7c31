"""Perceptual hashes against an independent implementation; resemblances against a plain double loop."""

from __future__ import annotations

import itertools
import tracemalloc
from io import BytesIO

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance
from scipy.fft import dctn

from fullconv.data.doctor import similar
from fullconv.data.doctor.similar import COPY, SIDE, TURNS, Look, look_of, perceptual_hash, resemblances

SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, size: tuple[int, int] = (120, 160)) -> Image.Image:
    """A drawing of a dozen grey ellipses and boxes on a shaded ground, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    height, width = size
    shade = rng.uniform(-60, 60, 2)
    rows, columns = np.mgrid[0:height, 0:width]
    ground = 128 + shade[0] * (rows / height - 0.5) + shade[1] * (columns / width - 0.5)
    picture = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = rng.uniform(-20, width), rng.uniform(-20, height)
        box = (x, y, x + rng.uniform(15, 70), y + rng.uniform(15, 70))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)(box, fill=int(rng.integers(0, 256)))
    return picture


def look(picture: Image.Image) -> Look:
    return look_of(np.asarray(picture))


def plain_alike(first: Look, others: list[Look]) -> tuple[int, str] | None:
    """The first other that resembles it, as it is or else turned, by the documented bounds."""
    for name, turn in TURNS:
        for index, other in enumerate(others):
            turned = np.ascontiguousarray(turn(other.thumb))
            bits = bin(first.hash ^ perceptual_hash(turned)).count("1")
            if other.thumb.std() < 4 or bits > 12 or first.thumb.std() == 0:
                continue
            if np.corrcoef(first.thumb.ravel(), turned.ravel())[0, 1] >= 0.93:
                return index, name
    return None


@settings(max_examples=25)
@given(SEEDS, st.integers(20, 300), st.integers(20, 300))
def test_the_hash_is_imagehash_s(seed: int, height: int, width: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    for picture in (Image.fromarray(noise), drawn(seed, (height, width))):
        found, expected = look(picture), imagehash.phash(picture).hash.ravel()
        low = dctn(found.thumb.astype(float), type=2)[:8, :8].ravel()
        # A drawing may be the same in all its rows: frequencies are then nought but rounding, as is their median.
        clear = np.abs(low - np.median(low)) > 1e-9 * np.abs(low).max()
        bits = np.array(list(f"{found.hash:064b}")) == "1"
        np.testing.assert_array_equal(bits[clear], expected[clear])


def test_the_frequencies_are_those_of_the_cosine_transform() -> None:
    thumb = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    low = dctn(thumb.astype(float), type=2)[:8, :8]
    bits = "".join("01"[int(value > np.median(low))] for value in low.ravel())
    assert perceptual_hash(thumb) == int(bits, 2)


def test_the_turns_are_the_eight_of_a_square() -> None:
    square = np.arange(9, dtype=np.uint8).reshape(3, 3)
    results = {turn(square).tobytes(): index for index, (_, turn) in enumerate(TURNS)}
    assert len(results) == len(TURNS) == 8
    for (_, one), (_, other) in itertools.product(TURNS, TURNS):  # closed, so a group: each is undone by one of them
        assert np.ascontiguousarray(one(np.ascontiguousarray(other(square)))).tobytes() in results
    names = {
        "mirrored left to right": Image.Transpose.FLIP_LEFT_RIGHT,
        "mirrored top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
        "turned by 90 degrees": Image.Transpose.ROTATE_90,
        "turned by 180 degrees": Image.Transpose.ROTATE_180,
        "turned by 270 degrees": Image.Transpose.ROTATE_270,
    }
    own = dict(TURNS)
    for name, method in names.items():
        np.testing.assert_array_equal(own[name](square), np.asarray(Image.fromarray(square).transpose(method)))


@pytest.mark.parametrize("block", [1, 3, 64])
def test_resemblances_are_those_of_a_double_loop(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "_BLOCK", block)
    pictures = [drawn(seed) for seed in range(7)]
    first = [look(p) for p in pictures]
    second = [
        look(pictures[2].transpose(Image.Transpose.ROTATE_90)),
        look(pictures[5]),
        look(drawn(99)),
        look(pictures[5].transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        look(Image.new("L", (50, 50), 7)),
    ]
    expected = [(i, *found) for i, each in enumerate(first) if (found := plain_alike(each, second)) is not None]
    assert [(r.first, r.second, r.how) for r in resemblances(first, second)] == expected
    assert {(2, 0), (5, 1)} <= {(i, j) for i, j, _ in expected}, "5 as it is, not mirrored"
    assert resemblances([], second) == resemblances(first, []) == []


@settings(max_examples=25)
@given(SEEDS, st.integers(60, 95), st.floats(0.85, 1.15), st.floats(0.5, 2.0), st.sampled_from(range(8)))
def test_copies_of_other_quality_brightness_size_and_side_are_found(
    seed: int, quality: int, brightness: float, scale: float, turn: int
) -> None:
    picture = drawn(seed)
    copy = ImageEnhance.Brightness(picture).enhance(brightness)
    copy = copy.resize((round(copy.width * scale), round(copy.height * scale)), Image.Resampling.BICUBIC)
    copy = Image.fromarray(np.ascontiguousarray(TURNS[turn][1](np.asarray(copy))))
    file = BytesIO()
    copy.save(file, "JPEG", quality=quality)
    found = resemblances([look(picture)], [look(Image.open(file))])
    assert len(found) == 1
    assert (found[0].how == COPY) == (turn == 0)


@settings(max_examples=25)
@given(SEEDS)
def test_unrelated_pictures_are_not_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    looks = [look(drawn(int(each))) for each in rng.integers(0, 2**32, 12)]
    found = resemblances(looks[:6], looks[6:])
    assert len(found) <= 1, "of 288 comparisons"


def test_flat_pictures_look_like_nothing() -> None:
    grey: NDArray[np.uint8] = np.full((40, 40), 100, np.uint8)
    faint = grey + np.random.default_rng(0).integers(0, 3, grey.shape, dtype=np.uint8)
    assert resemblances([look_of(faint)], [look_of(faint), look_of(grey)]) == []


def test_memory_is_bounded_by_the_block() -> None:
    rng = np.random.default_rng(0)
    looks = [Look(thumb, perceptual_hash(thumb)) for thumb in rng.integers(0, 256, (1500, SIDE, SIDE), dtype=np.uint8)]
    tracemalloc.start()
    assert resemblances(looks, looks[:1000]) != []  # each is a copy of itself
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A block's distances to all, as 8-byte hashes and their counts, beside the hashes and turned views themselves.
    assert peak < 2 * 8 * similar._BLOCK * 1000 + 500 * len(looks), "all at once would be 12 MB and more"


def test_where_all_look_alike_each_is_named_once() -> None:
    same = look(drawn(1))
    assert [(r.first, r.second) for r in resemblances([same] * 200, [same] * 150)] == [(i, 0) for i in range(200)]
