"""Pictures that nets are timed on: cut, mirrored, or made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import DataError, OptionError
from fullconv.inference.pictures import SAMPLES, TIMED, Pictures, fitted, noise, write_images
from fullconv.inference.timed import read_images
from fullconv.nets import FCN, InputOptions, build
from makers import save

SIDES = st.integers(1, 30)


def net(name: str = "fcn8s-slim") -> FCN:
    return build(name, width=0.1)


@given(SIDES, SIDES, SIDES, SIDES)
def test_images_are_cut_in_the_middle_or_mirrored(height: int, width: int, rows: int, columns: int) -> None:
    image = np.arange(height * width * 2, dtype=np.int64).reshape(height, width, 2).astype(np.float32)
    found = fitted(image, (rows, columns))
    # numpy's own mirrors, around a middle cut from far beyond.
    margin = [(60, 60), (60, 60), (0, 0)]
    top, left = 60 + (height - rows) // 2, 60 + (width - columns) // 2
    wide = np.pad(image, margin, mode="symmetric")
    assert np.array_equal(found, wide[top : top + rows, left : left + columns])


def test_noise_is_what_the_net_expects() -> None:
    generator = np.random.default_rng(0)
    picture = noise(InputOptions((100, 120, 140), (50, 50, 50)), (300, 200), generator)
    assert (picture.dtype, picture.shape) == (np.dtype(np.uint8), (300, 200, 3))
    assert np.allclose(picture.mean((0, 1)), (100, 120, 140), atol=15)
    assert 30 < picture.std() < 70
    assert noise(InputOptions((100,) * 3, (1,) * 3), (300, 200), generator).std() > 30
    bands = noise(InputOptions((1000,), (300,), bands=(1,)), (300, 200), generator)
    assert bands.dtype == np.float32
    assert 700 < bands.mean() < 1300
    depth = noise(InputOptions((7.8,), (0.5,), log=True), (300, 200), generator)
    assert 7.5 < np.log(depth).mean() < 8.1


def test_files_hold_other_samples_than_images(tmp_path: Path) -> None:
    images, samples = (read_images(path) for path in write_images(Pictures.of(net(), None), (40, 600), tmp_path))
    assert [len(images), len(samples)] == [TIMED, SAMPLES]
    assert {each["image"].shape for each in images} == {(40, 600, 3)}
    assert {each["image"].shape for each in samples} == {(40, 512, 3)}


def test_a_folder_of_few_gives_them_for_both(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "in" / f"{number}.png", np.full((9, 7, 3), number, np.uint8))
    images, samples = (read_images(p) for p in write_images(Pictures.of(net(), tmp_path / "in"), (5, 5), tmp_path))
    for found in (images, samples):
        assert [int(each["image"].max()) for each in found] == [0, 1]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no folder; expected one with images"):
        Pictures.of(net(), tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images; expected JPEG"):
        Pictures.of(net(), tmp_path)
    with pytest.raises(OptionError, match="for a net with the inputs color, hha; leave it out"):
        Pictures.of(net("nyud-fcn32s-color-hha"), tmp_path)
