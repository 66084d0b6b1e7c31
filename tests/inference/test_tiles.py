"""Plans: parts that cover, costs that are those of the run, bounds of memory that are kept."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from fullconv.errors import GeometryError, OptionError
from fullconv.inference import tiles
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import BUDGET
from fullconv.inference.tiles import PART_ROWS, SMALLEST, Plan, plan
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
        with mock.patch.object(tiles, "_planned", lambda cut, size, rows, bands, budget: rows):
            rows = tiles._rows((10**6, width))
        assert rows % PART_ROWS == 0
        assert rows == PART_ROWS or rows * width <= tiles.PART_PIXELS


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
        assert all(SMALLEST <= each.budget <= BUDGET >> 4 for each in ways if len(each.bands) > 1)
        assert all(each.overhead == 0 for each in ways if len(each.bands) == 1)

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
        first = plan(staged(), self.size, memory=600 << 20)
        held = np.ones(80 << 20, np.uint8)
        assert plan(staged(), self.size, memory=600 << 20) == first
        assert held.all()

    def test_process_weights_and_parts_count(self) -> None:
        found = plan(staged(), (100, 100))
        numbers = sum(each.numel() for each in staged().net.parameters())
        maps = found.strips(reading(noise(1, 3, 100, 100)), (0, 100)).maps.memory()
        assert found.memory == tiles.PROCESS + 8 * numbers + maps + tiles.PIXEL * 100 * 100

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
