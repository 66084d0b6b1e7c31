"""From draws to batches: which samples, how they are filled to one size, and that nothing else matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.data.augment import FILL, Augmentation, augment
from fullconv.data.sample import IMAGE, SEMANTIC, Array, InputKind, Sample, Values
from fullconv.labels import VOID, LabelSet
from fullconv.training.draws import Draw, Share
from fullconv.training.loading import Batch, Loader
from inmemory import InMemory

SIZES = ((12, 16), (20, 9), (5, 5), (12, 16), (7, 30), (20, 9))
KINDS = {IMAGE: InputKind(), "depth": InputKind(1, log=True), "radar": InputKind(2)}


def sample(number: int) -> Sample:
    random = np.random.default_rng(number)
    size = SIZES[number]
    inputs: dict[str, Values] = {
        IMAGE: random.integers(0, 256, (*size, 3), dtype=np.uint8),
        "depth": random.uniform(1, 9, (*size, 1)).astype(np.float32),
        "radar": random.integers(0, 60000, (*size, 2)).astype(np.uint16),
    }
    masks: dict[str, Array] = {task: random.integers(0, 3, size, dtype=np.uint8) for task in (SEMANTIC, "side")}
    return Sample(f"s{number}", inputs, masks)


LABELS = {SEMANTIC: LabelSet.numbered(3), "side": LabelSet.numbered(3)}
DATA = InMemory([sample(number) for number in range(len(SIZES))], "train", LABELS, KINDS)


def load(draws: list[Draw], share: Share = Share(), augmentation: Augmentation = Augmentation()) -> list[Batch]:  # noqa: B008  (frozen)
    return Loader(DATA, SIZES, augmentation, seed=7, share=share)(draws)


def filled(number: int, size: tuple[int, int]) -> Sample:
    """By hand: the sample at the top left; pictures grey around it, measured values their mean, masks void."""
    own = DATA[number]
    rows, columns = own.size
    inputs: dict[str, Values] = {}
    masks: dict[str, Array] = {}
    for name, array in own.inputs.items():
        around = FILL if name == IMAGE else array.astype(np.float64).mean((0, 1)).astype(array.dtype)
        inputs[name] = np.empty((*size, array.shape[2]), array.dtype)
        inputs[name][:] = around
        inputs[name][:rows, :columns] = array
    for task, mask in own.masks.items():
        masks[task] = np.full(size, VOID, np.uint8)
        masks[task][:rows, :columns] = mask
    return Sample(own.name, inputs, masks)


def same(batch: Batch, draws: list[Draw], size: tuple[int, int]) -> None:
    """The batch holds these draws' samples, whole, filled to this size."""
    assert list(batch.draws) == draws
    expected = [filled(index, size) for _, index in draws]
    assert batch.names == [each.name for each in expected]
    assert list(batch.inputs) == list(KINDS)
    assert list(batch.masks) == [SEMANTIC, "side"]
    for name, arrays in batch.inputs.items():
        for array, each in zip(arrays, expected, strict=True):
            assert array.dtype == each.inputs[name].dtype
            assert np.array_equal(array, each.inputs[name])
    for task, masks in batch.masks.items():
        for mask, each in zip(masks, expected, strict=True):
            assert mask.dtype == np.uint8
            assert np.array_equal(mask, each.masks[task])


def test_samples_of_one_size_are_as_they_are() -> None:
    (batch,) = load([(0, 0), (0, 3)])
    same(batch, [(0, 0), (0, 3)], (12, 16))
    assert batch.masks[SEMANTIC][0] is DATA[0].masks[SEMANTIC], "not copied"


def test_samples_of_several_sizes_are_filled_to_the_largest_height_and_width() -> None:
    draws = [(0, 2), (0, 1), (0, 4)]
    (batch,) = load(draws)
    same(batch, draws, (20, 30))


def test_processes_fill_to_the_largest_of_the_step() -> None:
    """Their parts together are what one process would have had."""
    draws = [(3, 2), (3, 0), (3, 4), (3, 5), (3, 1)]
    (whole,) = load(draws)
    for rank in range(2):
        (own,) = load(draws, Share(1, rank, 2))
        same(own, draws[rank::2], (20, 30))
        assert own.names == whole.names[rank::2]


def test_parts_fill_to_their_own_largest() -> None:
    draws = [(3, 2), (3, 0), (3, 3), (3, 5), (3, 1)]
    parts = load(draws, Share(2))
    assert len(parts) == 2
    same(parts[0], [(3, 2), (3, 3), (3, 1)], (20, 16))
    same(parts[1], [(3, 0), (3, 5)], (20, 16))
    for rank in range(2):  # the same parts, whoever takes them
        (own,) = load(draws, Share(2, rank, 2))
        same(own, draws[rank::2], (20, 16))
    small = load([(0, 2), (0, 0), (0, 2), (0, 1)], Share(2))
    assert [part.masks[SEMANTIC][0].shape for part in small] == [(5, 5), (20, 16)]


@pytest.mark.parametrize("share", [Share(), Share(2), Share(1, 1, 3)])
def test_a_crop_is_the_size_of_all(share: Share) -> None:
    draws = [(0, index) for index in range(6)]
    augmentation = Augmentation((8, 10), (0.5, 2.0), flip=True, jitter=0.2)
    for part in load(draws, share, augmentation):
        for (epoch, index), image, mask in zip(part.draws, part.inputs[IMAGE], part.masks[SEMANTIC], strict=True):
            # The stream of a draw: its use is the second, then the draw, then the seed.
            expected = augment(DATA[index], augmentation, np.random.default_rng([1, epoch, index, 7]), KINDS)
            assert image.shape == (8, 10, 3)
            assert np.array_equal(image, expected.inputs[IMAGE])
            assert np.array_equal(mask, expected.masks[SEMANTIC])


draws = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5)), min_size=4, max_size=8)


@given(draws, st.sampled_from([Augmentation(flip=True, jitter=0.3), Augmentation((9, 11), (0.5, 2.0), flip=True)]))
def test_a_sample_is_a_function_of_its_draw_alone(draws: list[Draw], augmentation: Augmentation) -> None:
    """Whatever it comes with, and whoever loads it; what is filled up aside."""
    (whole,) = load(draws, augmentation=augmentation)
    for share in (Share(4), Share(2), Share(2, 1, 2), Share(1, 2, 3)):
        for part in load(draws, share, augmentation):
            for draw, image in zip(part.draws, part.inputs[IMAGE], strict=True):
                other = whole.inputs[IMAGE][draws.index(draw)]
                height, width = augmentation.crop or SIZES[draw[1]]
                assert np.array_equal(image[:height, :width], other[:height, :width])
    again = load(draws, augmentation=augmentation)[0]
    assert all(np.array_equal(a, b) for a, b in zip(whole.inputs["radar"], again.inputs["radar"], strict=True))


def test_another_seed_or_epoch_is_another_crop() -> None:
    augmentation = Augmentation((4, 4))
    loaded = [Loader(DATA, SIZES, augmentation, seed)([(epoch, 1)])[0] for seed in range(4) for epoch in range(4)]
    assert len({batch.inputs[IMAGE][0].tobytes() for batch in loaded}) > 12
