"""The examination: every file once, in order, within bounds; its fast part."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fullconv.data.doctor.examine as _  # noqa: F401 -- the package's name `examine` is the function
from broken_data import make_broken
from fullconv.data.doctor import SILENT, examine
from fullconv.data.doctor.facts import MaskFacts
from fullconv.data.sample import SEMANTIC
from fullconv.data.scenes import Task
from fullconv.errors import DataError
from fullconv.labels import VOID
from makers import make_folder, save, scene

MODULE = sys.modules["fullconv.data.doctor.examine"]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_scene_in_order_and_progress(tmp_path: Path, threads: int) -> None:
    make_folder(tmp_path, counts={"train": 150, "val": 60})
    seen: list[tuple[int, int]] = []
    callers = set()

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        callers.add(threading.current_thread())

    found = examine(tmp_path, threads=threads, progress=progress)
    assert seen == [(i, 210) for i in range(1, 211)]
    assert callers == {threading.current_thread()}
    expected = [(split, s.name) for split, scenes in found.listing.scenes.items() for s in scenes]
    assert [(each.split, each.scene.name) for each in found.looked] == expected


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    make_broken(tmp_path)
    one, four = (examine(tmp_path, threads=n) for n in (1, 4))
    assert one.to_json() == four.to_json()
    assert one.findings == four.findings


def test_an_error_of_the_caller_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, counts={"train": 400, "val": 2})
    looked: list[int] = []
    begun: list[Path] = []

    def slow(path: Path, task: Task) -> MaskFacts:
        begun.append(path)
        time.sleep(0.005)
        return MaskFacts(problem="x")

    monkeypatch.setattr(MODULE, "mask_facts", slow)

    def stop(done: int, total: int) -> None:
        looked.append(done)
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        examine(tmp_path, threads=2, progress=stop)
    assert looked == [1]
    assert len(begun) < 64, "of 128 that waited"
    assert threading.active_count() == before


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such data set"):
        examine(tmp_path / "none")


def test_the_fast_part_reads_a_sample_of_the_masks_and_no_image(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 100, "val": 10})
    for path in tmp_path.rglob("images/*.png"):
        path.write_bytes(b"")
    found = examine(tmp_path, fast=True)
    assert found.fast
    assert [sum(e.split == split for e in found.looked) for split in ("train", "val")] == [64, 10]
    names = [e.scene.name for e in found.looked if e.split == "train"]
    assert names == sorted(set(names))
    assert (names[0], names[-1]) == ("0000", "0099")
    assert all(each.images == {} for each in found.looked)
    assert found.errors == []


@pytest.mark.parametrize("kind", SILENT)
def test_the_fast_part_finds_what_would_be_learned_wrong(tmp_path: Path, kind: str) -> None:
    make_folder(tmp_path, counts={"train": 100, "val": 10})
    (tmp_path / "classes.txt").write_text("a\nb\nc\n" if kind == "classes from 1" else "a\nb\n")
    for path in tmp_path.rglob("masks/*.png"):
        mask = scene(int(path.stem))[1]
        if kind == "classes from 1":
            save(path, np.where(mask == VOID, VOID, mask + 1).astype(np.uint8))
        else:
            save(path, np.where(mask == 1, 255, 0).astype(np.uint8))
    found = examine(tmp_path, fast=True)
    assert [f.kind for f in found.errors] == [kind]
    assert found.errors[0].count > 74, "all masks are looked at then"
    assert examine(tmp_path).errors == found.errors


def test_a_rare_class_that_is_not_in_the_sample_is_no_error(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 100, "val": 10})
    (tmp_path / "classes.txt").write_text("ok\nscratch\n")
    for path in tmp_path.rglob("masks/*.png"):
        mask = np.zeros((12, 16), np.uint8)
        mask[:2] = VOID
        save(path, mask)
    sample = {each.scene.name for each in examine(tmp_path, fast=True).looked[:64]}
    assert [f.kind for f in examine(tmp_path, fast=True).errors] == ["0 and 255"]
    rare = next(p for p in sorted((tmp_path / "train/masks").iterdir()) if p.stem not in sample or p.stem == "0001")
    mask[5:8, 5:8] = 1
    save(rare, mask)
    assert examine(tmp_path, fast=True).errors == []
    assert examine(tmp_path).errors == []


def test_counts_of_a_split_without_scenes(tmp_path: Path) -> None:
    make_folder(tmp_path)
    for path in (tmp_path / "test/masks").iterdir():
        path.unlink()
    found = examine(tmp_path)
    assert [(f.kind, f.count) for f in found.errors] == [("image without mask", 1)]
    assert found.counts(SEMANTIC)["test"].shape == (0, 256)
    assert found.pixels(SEMANTIC)["test"].tolist() == [0, 0, 0]


MEASURE = """
import sys
import psutil
from fullconv.data.doctor import examine
memory = lambda: psutil.Process().memory_info().rss  # resource's peak would be that of the process that began this one
examine(sys.argv[1], threads=2)  # small: everything is imported
before, peaks = memory(), []
found = examine(sys.argv[2], threads=2, progress=lambda done, total: done % 50 or peaks.append(memory()))
print(len(found.looked), max([*peaks, memory()]) - before)
"""


MEASURE_LARGE = """
import sys, threading, time
import psutil
from fullconv.data.doctor import examine
memory = lambda: psutil.Process().memory_info().rss
examine(sys.argv[1], threads=2)
before, peak, done = memory(), [0], threading.Event()
def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], memory())
watching = threading.Thread(target=watch)
watching.start()
found = examine(sys.argv[2], fast=True, threads=8)
done.set()
watching.join()
print(len(found.looked), peak[0] - before)
"""


def test_memory_for_large_masks_does_not_grow_with_the_threads(tmp_path: Path) -> None:
    make_folder(tmp_path / "small")
    for kind in ("images", "masks"):
        (tmp_path / "large/train" / kind).mkdir(parents=True)
    cells = np.random.default_rng(0).integers(0, 2, (30, 40, 1), dtype=np.uint8) * np.array((128, 64, 32), np.uint8)
    picture = Image.fromarray(cells).resize((4000, 3000), Image.Resampling.NEAREST)
    picture.save(tmp_path / "mask.png", compress_level=1)
    content = (tmp_path / "mask.png").read_bytes()
    for number in range(24):
        for kind in ("images", "masks"):
            (tmp_path / f"large/train/{kind}/{number}.png").write_bytes(content)
    words = [sys.executable, "-c", MEASURE_LARGE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    scenes, grown = map(int, done.stdout.split())
    assert scenes == 24
    assert grown < 640 * 2**20, "8 threads of 12 million pixels that each need 10 bytes a pixel have 960 MB"


def test_memory_for_thousands_of_images_stays_small(tmp_path: Path) -> None:
    make_folder(tmp_path / "small")
    pool = [scene(seed, size=(16, 16)) for seed in range(50)]
    image_bytes, mask_bytes = [], []
    for image, mask in pool:
        image_bytes.append(save(tmp_path / "one.png", image).read_bytes())
        mask_bytes.append(save(tmp_path / "one.png", mask).read_bytes())
    for split in ("train", "val"):
        for kind, contents in (("images", image_bytes), ("masks", mask_bytes)):
            folder = tmp_path / "large" / split / kind
            folder.mkdir(parents=True)
            for number in range(2000):
                (folder / f"{number:04}.png").write_bytes(contents[number % 50])
    words = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    scenes, grown = map(int, done.stdout.split())
    assert scenes == 4000
    assert grown < 100 * 2**20
