"""Plans: parts that cover, costs that are those of the run, bounds of memory that are kept."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import rasters
from fullconv.errors import GeometryError, OptionError
from fullconv.inference import tiles
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import BUDGET
from fullconv.inference.tiles import PART_ROWS, SMALLEST, Beside, Plan, check_memory, check_tile, plan
from makers import save
from thin_nets import noise, reading, thin


@cache
def staged(name: str = "fcn8s-slim", padding: str = "same") -> StagedNet:
    return StagedNet.of(thin(name, padding=padding, width=1 / 16))


def crops(name: str = "fcn8s-slim") -> CroppedNet:
    net = thin(name, width=1 / 16)
    reference = Reference(net)
    return CroppedNet(net, lambda x: {task: each.scores for task, each in reference.coarse(x).items()})


class TestParts:
    @settings(max_examples=60)
    @given(
        st.integers(1, 700), st.integers(1, 700), st.integers(1, 900) | st.sampled_from(["auto", "off"]), st.booleans()
    )
    def test_cover_the_image_once(self, height: int, width: int, tile: int | str, whole: bool) -> None:
        if isinstance(tile, int):
            tile = max(tile, width // 12)
        found = plan(crops() if whole else staged(), (height, width), tile=tile)
        covered = np.zeros((height, width), np.int64)
        for (top, bottom), (left, right) in found.parts:
            assert 0 <= top < bottom <= height
            assert 0 <= left < right <= width
            covered[top:bottom, left:right] += 1
        assert (covered == 1).all()
        for one, other in pairwise(found.parts):
            assert one[1] == other[1] or one[0][1] == height, "band by band"
            assert other[0][0] == (one[0][1] if one[1] == other[1] else 0), "from the top down"

    def test_of_a_tile(self) -> None:
        found = plan(staged(), (250, 130), tile=100)
        assert found.bands == ((0, 65), (65, 130)), "as many as such tiles, all of about one width"
        assert [rows for rows, columns in found.parts if columns[0] == 0] == [(0, 100), (100, 200), (200, 250)]

    def test_of_the_whole_image(self) -> None:
        found = plan(staged(), (250, 130), tile="off")
        assert found.parts == [((0, 250), (0, 130))]
        strips = found.strips(reading(noise(1, 3, 250, 130)), found.bands[0])
        assert all(each.step == each.size[0] for each in strips.maps.every), "every map at once"

    @pytest.mark.parametrize("width", [100, 5000, 10**7])
    def test_begin_with_whole_coarse_cells(self, width: int) -> None:
        for pixel in (0, 10, 3000):
            rows = tiles._rows(width, pixel)
            assert rows % PART_ROWS == 0
            assert rows == PART_ROWS or rows * width * max(pixel, tiles.PIXEL) <= tiles.PART_PIXELS * tiles.PIXEL


class TestMultiplications:
    @pytest.mark.parametrize("padding", ["paper", "same"])
    @pytest.mark.parametrize("tile", ["auto", "off", 50])
    def test_are_those_that_a_run_takes(self, padding: str, tile: int | str) -> None:
        """Of a net without overlap within its stages; torch counts two operations each, and no upsampling here."""
        with mock.patch.object(torch._C, "_has_mkldnn", False):
            cut = StagedNet.of(thin("fcn8s-vgg16", padding=padding, width=1 / 16))
        x = noise(1, 3, 96, 160)
        found = plan(cut, (96, 160), tile=tile)
        with FlopCounterMode(display=False) as counter:
            for columns in found.bands:
                strips = found.strips(reading(x), columns)
                for rows, band in found.parts:
                    if band == columns:
                        strips.scores("semantic", rows)
        assert 2 * found.multiplications == counter.get_total_flops()

    @pytest.mark.parametrize("tile", ["auto", "off"])
    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-vgg16", "fcn8s-resnet18"])
    def test_one_band_costs_no_more_than_one_piece(self, name: str, tile: str) -> None:
        cut = staged(name)
        found = plan(cut, (224, 320), tile=tile)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            cut.net.coarse(noise(1, 3, 224, 320))
        assert 2 * found.least == counter.get_total_flops()
        assert found.overhead == 0.0

    def test_bands_cost_what_they_share(self) -> None:
        one, two, four = (plan(staged(), (400, 800), tile=tile) for tile in (800, 400, 200))
        assert (len(one.bands), len(two.bands), len(four.bands)) == (1, 2, 4)
        assert one.overhead == 0 < two.overhead < four.overhead
        assert four.least == two.least == one.multiplications

    def test_borders_are_not_counted(self) -> None:
        found = plan(staged("fcn8s-vgg16", "paper"), (300, 300))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            staged("fcn8s-vgg16", "paper").net.coarse(noise(1, 3, 300, 300))
        assert 2 * found.multiplications < 0.8 * counter.get_total_flops()
        assert found.overhead == 0


class TestMemory:
    size = (3000, 2500)

    def ways(self) -> list[Plan]:
        """Every plan that a smaller and smaller bound gives."""
        found, bound = [plan(staged(), self.size, memory=1 << 50)], 0
        while True:
            bound = found[-1].memory - 1
            try:
                found.append(plan(staged(), self.size, memory=bound))
            except OptionError:
                return found
            assert found[-1].memory <= bound

    def test_chunks_get_smaller_first_and_then_bands(self) -> None:
        ways = self.ways()
        assert (ways[0].budget, len(ways[0].bands)) == (BUDGET, 1)
        order = [(len(each.bands), -each.budget) for each in ways]
        assert order == sorted(order)
        assert len({each.budget for each in ways if len(each.bands) == 1}) > 4
        assert len({len(each.bands) for each in ways}) > 3
        assert all(SMALLEST <= each.budget <= BUDGET >> 2 for each in ways if len(each.bands) > 1)
        assert all(each.overhead == 0 for each in ways if len(each.bands) == 1)

    def test_chunks_grow_where_blocks_would_overlap_too_much(self) -> None:
        cut = staged("fcn8s-resnet18")
        wide, narrow = (plan(cut, (2000, width), memory=1 << 50) for width in (200_000, 2000))
        usual = tiles._planned(cut, (2000, 200_000), tiles.NOTHING, wide.rows, 1, BUDGET)
        assert wide.budget > BUDGET == narrow.budget
        assert wide.overhead <= tiles.OVERHEAD < usual.overhead or wide.budget == tiles.LARGEST
        assert wide.overhead < usual.overhead
        assert plan(cut, (2000, 200_000), memory=wide.memory - 1).budget < wide.budget

    def test_too_small_a_bound_names_the_least_that_works(self) -> None:
        with pytest.raises(OptionError) as caught:
            plan(staged(), self.size, memory=1 << 20)
        message = str(caught.value)
        assert message.startswith("0.00 GiB of memory for images of 3000 x 2500; give at least ")
        least = float(re.findall(r"([\d.]+)GiB$", message)[0])
        assert plan(staged(), self.size, memory=int(least * 2**30)).memory <= least * 2**30
        assert self.ways()[-1].memory > (least - 0.02) * 2**30

    def test_half_of_the_machines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        best, smallest = self.ways()[0].memory, self.ways()[-1].memory
        monkeypatch.setattr(tiles, "whole_memory", lambda: best + smallest)
        found = plan(staged(), self.size)
        assert found.memory <= (best + smallest) // 2
        assert found.budget < BUDGET
        monkeypatch.setattr(tiles, "whole_memory", lambda: 2 * best)
        assert plan(staged(), self.size).budget == BUDGET

    def test_a_plan_does_not_depend_on_the_moment(self) -> None:
        """A call that goes on must find its parts where they were."""
        found = []
        for available in (1 << 20, 900 << 20):
            memory = SimpleNamespace(total=900 << 20, available=available, free=available)
            with mock.patch("psutil.virtual_memory", lambda memory=memory: memory):
                found.append(plan(staged(), self.size))
        assert found[0] == found[1]
        assert found[0].budget < BUDGET

    def test_too_small_a_machine_does_what_it_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiles, "whole_memory", lambda: 1 << 20)
        assert plan(staged(), self.size) == self.ways()[-1]

    def test_what_is_held_beside_counts(self) -> None:
        beside = Beside(part=100.0, image=3.0, more=lambda part: part[0] * 10**6)
        one, other = plan(staged(), self.size), plan(staged(), self.size, beside=beside, memory=1 << 40)
        assert 64 < other.rows < one.rows
        assert other.rows * 2500 * 100 <= tiles.PART_PIXELS * tiles.PIXEL
        held = 3 * 3000 * 2500 + other.rows * (10**6 + 100 * 2500)
        assert held < other.memory < tiles.PROCESS + held + one.memory
        less = plan(staged(), self.size, beside=beside, memory=other.memory - 1)
        assert less.rows < other.rows
        assert less.memory < other.memory

    @pytest.mark.parametrize(
        ("name", "bound", "options"),
        [("scene.tif", 640, {}), ("scene.tif", 640, {"confidence": True}), ("picture.png", 640, {})],
    )
    def test_the_bound_is_kept(self, tmp_path: Path, name: str, bound: int, options: dict[str, bool]) -> None:
        values = np.zeros((1500, 1500, 3), np.uint8)
        path = save(tmp_path / name, values) if name.endswith("png") else rasters.write(tmp_path / name, values)
        code = f"""
import re
from pathlib import Path
import torch
from fullconv.inference.model import Model
from fullconv.inference.predict import predict
from thin_nets import thin
torch.set_num_threads(1)
out = predict(Model(thin("fcn8s-slim", 60)), {str(path)!r}, "out", memory={bound} << 20, **{options!r})
assert len(out.written) == 1, out.failures
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=surroundings
        )
        assert 200 < float(done.stdout) <= bound

    @pytest.mark.parametrize("tile", ["off", 500])
    def test_the_bound_holds_for_tiles_too(self, tile: int | str) -> None:
        assert plan(staged(), self.size, tile=tile).memory > 352 << 20, "without a bound a tile is the user's"
        with pytest.raises(
            OptionError, match=rf"0.34 GiB .* 3000 x 2500 with a tile of {tile}; give at least [\d.]+GiB"
        ):
            plan(staged(), self.size, tile=tile, memory=352 << 20)


@pytest.mark.parametrize("tile", [0, -3, True, 2.5, "all", "64", None])
def test_tiles_that_are_none(tile: object) -> None:
    message = f"a tile of {tile!r}; expected a number of pixels, auto or off"
    with pytest.raises(OptionError, match=re.escape(message)):
        plan(staged(), (10, 10), tile=tile)  # type: ignore[arg-type]


def test_tiles_that_are_too_small() -> None:
    check_tile(64)
    with pytest.raises(OptionError, match="a tile of 63 pixels; expected 64 or more, auto or off"):
        check_tile(63)


@pytest.mark.parametrize("memory", ["2GiB", -5, 0, 1.5, True])
def test_memory_that_is_none(memory: object) -> None:
    check_memory(None)
    check_memory(1)
    with pytest.raises(OptionError, match=re.escape(f"memory of {memory!r}; expected a number of bytes")):
        check_memory(memory)


def test_crops_are_counted_without_walking_them() -> None:
    cut, seen = crops(), 0
    read_by = CroppedNet.read_by

    def counted(*args: Any) -> Any:
        nonlocal seen
        seen += 1
        return read_by(*args)

    with mock.patch.object(CroppedNet, "read_by", counted):
        plan(cut, (2000, 1500), tile=64)
    assert seen < 200


def test_text() -> None:
    one = Plan((500, 400), ((0, 400),), 128, 1 << 20, 3 << 29, 2 * 10**9, 2 * 10**9, staged())
    assert str(one) == "500 x 400 pixels, 128 rows at a time: 4 GFLOP, 0.0% more than in one piece; about 1.50 GiB"
    two = Plan((500, 400), ((0, 200), (200, 400)), 128, 1 << 20, 1 << 30, 1250 * 10**9, 10**12, staged())
    assert str(two) == (
        "500 x 400 pixels, 128 rows at a time in 2 bands of 200 columns: 2,500 GFLOP, "
        "25.0% more than in one piece; about 1.00 GiB"
    )


def test_a_plan_reads_no_image() -> None:
    with pytest.raises(GeometryError, match=r"a plan reads no image, and rows \(0, 1\) of columns \(0, 2\) were asked"):
        tiles._nothing((0, 1), (0, 2))
