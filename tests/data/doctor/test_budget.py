"""The bound on decoded pixels: what threads hold at once, and how many of them there are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fullconv.data.bands import BandsReader
from fullconv.data.doctor.budget import PIXELS, Budget, pixels_of, threads_for
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind
from fullconv.data.scenes import Input, Scene
from makers import save


@pytest.mark.parametrize(("amount", "at_once"), [(1, 6), (3, 3), (4, 2), (5, 2), (6, 1), (10, 1), (99, 1)])
def test_no_more_is_held_than_there_is(amount: int, at_once: int) -> None:
    budget, lock = Budget(10), threading.Lock()
    inside, most = 0, 0

    def work(_: int) -> None:
        nonlocal inside, most
        with budget.taken(amount):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(18)))
    assert most <= at_once
    assert most == at_once or at_once > 1, "one alone always passes"


def test_an_error_gives_back_what_was_taken() -> None:
    budget = Budget(10)
    with pytest.raises(KeyError), budget.taken(10):
        raise KeyError
    taken = threading.Thread(target=lambda: budget.taken(10).__enter__(), daemon=True)
    taken.start()
    taken.join(timeout=5)
    assert not taken.is_alive()


def test_a_scene_counts_as_its_largest_file(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    mask = save(tmp_path / "b.png", np.zeros((15, 20), np.uint8))
    raster = tmp_path / "c.npy"
    np.save(raster, np.zeros((30, 40, 5), np.uint16))
    (tmp_path / "d.mat").write_bytes(b"MATLAB")
    bands = Input(BandsReader((1,)), InputKind(1, (1,)))
    assert pixels_of(Scene.of("x", image, mask), {IMAGE: Input()}) == 300
    assert pixels_of(Scene.of("x", image, mask), {}) == 300
    assert pixels_of(Scene.of("x", image, tmp_path / "d.mat"), {IMAGE: Input()}) == 200
    assert pixels_of(Scene("x", {"i": image, "j": raster}, {SEMANTIC: mask}), {"i": Input(), "j": bands}) == 1200
    assert pixels_of(Scene.of("x", tmp_path / "none.png", tmp_path / "d.mat"), {IMAGE: Input()}) == 0


def test_threads_by_the_usual_size() -> None:
    assert threads_for([], 7) == 7
    assert threads_for([100] * 9 + [PIXELS], 7) == 7, "one large file among small ones"
    assert threads_for([PIXELS // 3] * 2 + [100], 7) == 3
    assert threads_for([2 * PIXELS], 7) == 1
