"""Streams of images: order, batches of equal size, and working ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fullconv.data.sample import IMAGE, Array
from fullconv.inference import batches
from fullconv.inference.batches import ahead, coarse_scores, depth_of, to_tensor
from fullconv.inference.reference import Reference
from fullconv.nets import FCN, build
from fullconv.nets.fcn import CoarseScores

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def net() -> FCN:
    torch.manual_seed(0)
    net = build("fcn8s-slim", 3, width=0.1)
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    return net.eval()


def images(seed: int, sizes: list[tuple[int, int]]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_tensors_are_the_images_channels_first() -> None:
    given_images = images(0, [(4, 5)] * 3)
    tensor = to_tensor([given_images[0], given_images[1][:, ::-1], given_images[2]], CPU)
    assert tensor.shape == (3, 3, 4, 5)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor[0, 2, 3, 1] == given_images[0][3, 1, 2]
    assert tensor[1, 0, 2, 4] == given_images[1][2, 0, 0]


@pytest.mark.parametrize(("kind", "expected"), [("uint16", torch.uint16), ("float32", torch.float32)])
def test_measured_values_keep_their_type(kind: str, expected: torch.dtype) -> None:
    values = [(1000 * np.random.default_rng(seed).random((4, 5, 7))).astype(kind) for seed in range(2)]
    tensor = to_tensor(values, CPU)
    assert (tensor.dtype, tensor.shape) == (expected, (2, 7, 4, 5))
    assert tensor[1, 6, 3, 2] == values[1][3, 2, 6]


def test_types_may_differ_within_a_pass() -> None:
    """Of one input's files some may hold whole numbers and some real ones; two inputs have types of their own."""
    torch.manual_seed(0)
    net = build("fcn8s-slim", 3, channels={"bands": 5, "colour": 3}, width=0.1).eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    rng = np.random.default_rng(0)
    stream = [
        {"bands": rng.integers(0, 300, (8, 9, 5)).astype(kind), "colour": rng.integers(0, 256, (8, 9, 3), np.uint8)}
        for kind in ("uint16", "float32", "uint8", "uint16")
    ]
    found = list(coarse_scores(Reference(net), enumerate(stream)))
    for (_, tasks), inputs in zip(found, stream, strict=True):
        plain = {
            name: torch.from_numpy(value.astype(np.float32)).permute(2, 0, 1)[None] for name, value in inputs.items()
        }
        with torch.no_grad():
            expected = net.coarse(plain)["semantic"].scores
        torch.testing.assert_close(tasks["semantic"].scores, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([(8, 9), (9, 8), (1, 37), (33, 20)]), max_size=9), st.sampled_from([1, 100, 300, 1 << 18])
)
def test_a_stream_equals_one_by_one(net: FCN, sizes: list[tuple[int, int]], limit: int) -> None:
    stream = images(1, sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_PIXELS", limit)
        found = list(coarse_scores(Reference(net), ((key, {IMAGE: image}) for key, image in enumerate(stream))))
    assert [key for key, _ in found] == list(range(len(sizes)))
    for (_, tasks), image in zip(found, stream, strict=True):
        with torch.no_grad():
            expected = net.coarse(to_tensor([image], CPU))["semantic"]
        coarse = tasks["semantic"]
        assert coarse.size == image.shape[:2]
        torch.testing.assert_close(coarse.scores, expected.scores, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(coarse.upsample(), expected.upsample(), rtol=1e-4, atol=1e-4)


def test_equal_sizes_in_a_row_share_a_pass(net: FCN, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, ...]] = []
    whole = net.coarse

    def note(x: dict[str, torch.Tensor]) -> dict[str, CoarseScores]:
        passes.append(tuple(x[IMAGE].shape))
        return whole(x)

    monkeypatch.setattr(net, "coarse", note)
    monkeypatch.setattr(batches, "BATCH_PIXELS", 3 * 8 * 8 + 5)
    sizes = [(8, 8)] * 7 + [(8, 9)] + [(8, 8)] * 2 + [(40, 40)] * 2
    list(coarse_scores(Reference(net), ((None, {IMAGE: image}) for image in images(0, sizes))))
    assert [(n, h, w) for n, _, h, w in passes] == [
        (3, 8, 8), (3, 8, 8), (1, 8, 8), (1, 8, 9), (2, 8, 8), (1, 40, 40), (1, 40, 40),
    ]  # fmt: skip


def test_the_nets_mode_stays(net: FCN) -> None:
    net.train()
    list(coarse_scores(Reference(net), [(None, {IMAGE: images(0, [(8, 8)])[0]})]))
    assert net.training
    net.eval()
    list(coarse_scores(Reference(net), [(None, {IMAGE: images(0, [(8, 8)])[0]})]))
    assert not net.training


@given(st.lists(st.integers(), max_size=20), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_ahead_is_map(items: list[int], threads: int, depth: int) -> None:
    assert list(ahead(lambda x: x * 2, items, threads, depth)) == [x * 2 for x in items]


def test_ahead_keeps_the_order_though_later_work_ends_first() -> None:
    def work(delay: float) -> float:
        time.sleep(delay)
        return delay

    delays = [0.03, 0.0, 0.02, 0.0]
    assert list(ahead(work, delays, threads=4, depth=4)) == delays


def test_ahead_takes_no_more_than_its_depth() -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item

    results = ahead(lambda x: x, source(), threads=2, depth=5)
    assert taken == 0
    for consumed in range(1, 20):
        next(results)
        assert consumed <= taken <= consumed + 5
    results.close()
    assert taken <= 24


def test_behind_heavy_items_fewer_may_wait() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for weight in [1] * 10 + [50] + [1] * 10:
            taken.append(weight)
            yield weight

    results = ahead(lambda x: x, source(), threads=2, depth=lambda weight: 100 // weight)
    assert next(results) == 1
    assert taken == [1] * 10 + [50], "the heavy one waits until two others are left"
    for _ in range(8):
        next(results)
    assert len(taken) == 11
    next(results)
    assert len(taken) == 21
    assert len(list(results)) == 11


@pytest.mark.parametrize(("threads", "budget"), [(1, 30), (2, 30), (2, 1), (3, 1000)])
def test_results_that_wait_stay_below_the_budget(threads: int, budget: int) -> None:
    """However fast the work: at most the budget, and one result a thread beyond."""
    weights = [1] * 40 + [100] * 20 + [7, 90, 1] * 10
    lock, held, most = threading.Lock(), 0, 0

    def work(weight: int) -> int:
        nonlocal held, most
        with lock:
            held += weight
            most = max(most, held)
        return weight

    found = []
    for weight in ahead(work, weights, threads, weight=lambda w: w, budget=budget):
        with lock:
            held -= weight
        time.sleep(0.0005)
        found.append(weight)
    assert found == weights
    assert most <= budget + (threads + 1) * 100, "one more is in the hands of this loop"


def test_small_results_run_far_ahead_and_large_ones_do_not() -> None:
    def begun(weight: int) -> int:
        done: list[int] = []

        def work(item: int) -> int:
            done.append(item)
            return item

        results = ahead(work, range(100), threads=2, depth=64, weight=lambda _: weight, budget=50)
        next(results)
        limit = time.monotonic() + 0.2
        while time.monotonic() < limit and len(done) < 65:
            time.sleep(0.005)
        results.close()
        return len(done)

    assert begun(0) == 65, "the consumer's one, and all that the depth allows"
    assert 51 <= begun(1) <= 52
    assert 2 <= begun(50) <= 3
    assert 2 <= begun(1000) <= 3


@pytest.mark.parametrize("where", ["work", "items", "consumer"])
def test_an_end_wakes_the_threads_that_wait_for_room(where: str) -> None:
    """The pool waits for its threads: one left waiting would hang the program."""

    def work(item: int) -> int:
        if where == "work" and item == 3:
            raise ValueError("bad item")
        return item

    def items() -> Iterator[int]:
        yield from range(20)
        if where == "items":
            raise ValueError("bad item")

    before = set(threading.enumerate())
    results = ahead(work, items(), threads=3, depth=15, weight=lambda _: 10, budget=1)
    assert next(results) == 0
    time.sleep(0.02)  # until the threads wait
    if where == "consumer":
        results.close()
    else:
        with pytest.raises(ValueError, match="bad item"):
            list(results)
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]


def test_depth_by_size() -> None:
    assert depth_of(56 * 53) == 512
    assert depth_of(480 * 360) == 24
    assert depth_of(4000 * 3000) == 2


@pytest.mark.parametrize("where", ["work", "items"])
def test_exceptions_come_through_in_their_place(where: str) -> None:
    def work(item: int) -> int:
        if where == "work" and item == 3:
            raise ValueError("bad item")
        return item

    def items() -> Iterator[int]:
        yield from range(3)
        if where == "items":
            raise ValueError("bad item")
        yield from range(3, 10)

    before = set(threading.enumerate())
    results = ahead(work, items(), threads=2, depth=2)
    found: list[int] = []
    with pytest.raises(ValueError, match="bad item"):
        found.extend(results)
    assert found == ([0, 1, 2] if where == "work" else [0])
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]


def test_closing_ends_the_threads_and_cancels_what_waits() -> None:
    done: list[int] = []
    go, begun = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item:
            begun.set()
            go.wait(10)
        done.append(item)
        return item

    before = set(threading.enumerate())
    results = ahead(work, range(50), threads=1, depth=8)
    assert next(results) == 0
    assert begun.wait(10)
    threading.Timer(0.1, go.set).start()
    results.close()
    assert done == [0, 1], "the one at work ends, the others never begin"
    assert not [thread for thread in set(threading.enumerate()) - before if "ThreadPool" in thread.name]
