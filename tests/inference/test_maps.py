"""Maps made from the top down: what is made, how often, what is kept, and the bits of what comes out."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullconv.inference.cropped import CroppedNet
from fullconv.inference.map_kinds import Source, Staged
from fullconv.inference.maps import Map, Maps, Reader
from fullconv.inference.staged import StagedNet
from fullconv.inference.strips import Strips
from fullconv.nets.rectangles import Interval, Size
from thin_nets import noise, reading, thin

KINDS = [
    ("fcn8s-vgg16", "paper"), ("fcn8s-alexnet", "paper"), ("fcn8s-resnet18", "same"), ("fcn8s-googlenet", "same"),
    ("fcn2s-slim", "same"), ("fcn8s-slim", "paper"),
]  # fmt: skip
BUDGETS = [1, 1 << 13, 1 << 16, 1 << 26]


@cache
def staged(name: str, padding: str) -> StagedNet:
    return StagedNet.of(thin(name, padding=padding, width=1 / 16))


def counting(maps: Maps) -> dict[Map, Counter[int]]:
    """How often each row of each map is made from now on; of scores, how often they are taken."""
    made: dict[Map, Counter[int]] = {each: Counter() for each in maps.every}

    def counted(each: Map) -> None:
        make, follow = each.make, getattr(each, "follow", None)

        def making(rows: Interval) -> Tensor:
            made[each].update(range(*rows))
            return make(rows)

        def following(number: int, chunk: Tensor) -> None:
            made[each].update(range(number * each.step, number * each.step + chunk.shape[2]))
            follow(number, chunk)

        if follow is None:
            each.make = making  # type: ignore[method-assign]
        else:
            each.follow = following  # type: ignore[attr-defined]

    for each in maps.every:
        counted(each)
    return made


def live(maps: Maps) -> int:
    """Bytes of all chunks that are kept."""
    return sum(chunk.nbytes for each in maps.every for chunk in each._chunks.values())


def watching(maps: Maps) -> list[int]:
    """The bytes of all chunks at the time when one more is kept."""
    seen = [0]

    def watched(each: Map) -> None:
        keep = each.keep

        def keeping(number: int, chunk: Tensor) -> None:
            keep(number, chunk)
            seen.append(live(maps))

        each.keep = keeping  # type: ignore[method-assign]

    for each in maps.every:
        watched(each)
    return seen


def strips_of(net: StagedNet, x: Tensor, budget: int, columns: Interval | None = None) -> Strips:
    return Strips(net, (x.shape[2], x.shape[3]), reading(x), columns=columns, batch=len(x), budget=budget)


class TestOnce:
    @pytest.mark.parametrize("budget", BUDGETS)
    @pytest.mark.parametrize(("name", "padding"), KINDS)
    def test_every_row_of_every_map_is_made_once(self, name: str, padding: str, budget: int) -> None:
        x = noise(1, 3, 210, 70)
        strips = strips_of(staged(name, padding), x, budget, columns=(11, 48))
        made = counting(strips.maps)
        for top in range(0, 210, 15):
            strips.scores("semantic", (top, top + 15))
        for each, rows in made.items():
            assert max(rows.values(), default=1) == 1, f"{type(each).__name__} {each.size}, chunks of {each.step}"
            if isinstance(each, Source):
                assert sorted(rows) == list(range(210))

    @settings(max_examples=30, derandomize=True)
    @given(
        st.sampled_from(KINDS), st.lists(st.integers(1, 120), min_size=1, max_size=20), st.integers(1, 90),
        st.sampled_from(BUDGETS), st.integers(1, 2), st.booleans(),
    )  # fmt: skip
    def test_however_it_is_asked(
        self, kind: tuple[str, str], steps: list[int], width: int, budget: int, batch: int, labels: bool
    ) -> None:
        height = min(sum(steps), 260)
        strips = strips_of(staged(*kind), noise(batch, 3, height, width), budget)
        made = counting(strips.maps)
        top = 0
        while top < height:
            bottom = min(height, top + steps.pop(0))
            (strips.labels if labels else strips.scores)("semantic", (top, bottom))
            top = bottom
        for rows in made.values():
            assert max(rows.values(), default=1) == 1

    def test_pixels_are_read_once_and_no_others(self) -> None:
        """Of a band: those that it depends on."""
        x, asked = noise(1, 3, 300, 400), []

        def read(rows: Interval, columns: Interval) -> dict[str, Tensor]:
            asked.append((rows, columns))
            return {"image": x[:, :, slice(*rows), slice(*columns)]}

        strips = Strips(staged("fcn32s-slim", "same"), (300, 400), read, columns=(0, 40), budget=1 << 14)
        strips.labels("semantic", (0, 300))
        assert sorted(row for rows, _ in asked for row in range(*rows)) == list(range(300))
        assert len({columns for _, columns in asked}) == 1
        assert asked[0][1][0] == 0
        assert 40 < asked[0][1][1] < 400


class TestLettingGo:
    @pytest.mark.parametrize("name", ["fcn8s-resnet18", "fcn16s-slim", "fcn8s-vgg16"])
    def test_what_is_kept_does_not_grow_with_the_height(self, name: str) -> None:
        """As soon as every map has more rows than a chunk."""
        peaks = []
        for height in (800, 1600):
            strips = strips_of(staged(name, "same"), noise(1, 3, height, 6), 1 << 8)
            seen = watching(strips.maps)
            for top in range(0, height, 50):
                strips.scores("semantic", (top, top + 50))
            peaks.append(max(seen))
        assert peaks[1] <= 1.3 * peaks[0]  # where chunks of several maps meet differs

    @pytest.mark.parametrize("kind", ["stages", "crops"])
    def test_a_finished_image_goes_at_once(self, kind: str) -> None:
        """Not when Python next looks for cycles, which may be many images later."""
        net = staged("fcn8s-slim", "same").net
        cut = staged("fcn8s-slim", "same") if kind == "stages" else CroppedNet.plain(net)
        cut.multiplications((64, 64))  # counting them, once for each size, leaves torch's own cycles
        gc.collect()
        gc.disable()
        try:
            strips = Strips(cut, (64, 64), reading(noise(1, 3, 64, 64)))
            strips.labels("semantic", (0, 64))
            maps = [weakref.ref(each) for each in strips.maps.every]
            del strips
            assert len(maps) > 1
            assert [each() for each in maps] == [None] * len(maps)
        finally:
            gc.enable()

    def test_what_no_reader_may_still_ask_for(self) -> None:
        source = Source((20, 3), 1, lambda rows, columns: torch.zeros(1, 1, rows[1] - rows[0], 3))
        source.step = 4
        one, other = Reader(source), Reader(source)
        one.rows(0, 10)
        assert list(source._chunks) == [0, 1, 2], "the other has read nothing yet"
        other.rows(5, 6)
        assert list(source._chunks) == [0, 1, 2], "the first may still ask for row 0"
        one.rows(9, 12)
        assert list(source._chunks) == [1, 2]
        other.rows(12, 13)
        assert list(source._chunks) == [2, 3]

    @pytest.mark.parametrize("budget", [1 << 14, 1 << 18, 1 << 26])
    @pytest.mark.parametrize(("name", "padding"), KINDS)
    def test_memory_is_told_before(self, name: str, padding: str, budget: int) -> None:
        """Against the chunks that are really kept; what a chunk takes while it is made comes on top."""
        net = StagedNet.of(thin(name, padding=padding, width=1 / 4))
        strips = strips_of(net, noise(2, 3, 600, 90), budget)
        seen = watching(strips.maps)
        for top in range(0, 600, 60):
            strips.scores("semantic", (top, top + 60))
        held = max(seen) + sum(each.lasting() for each in strips.maps.every)
        assert 0.9 * held <= strips.maps.memory() <= 8 * held


class TestBits:
    @pytest.mark.parametrize("budget", [1 << 13, 1 << 16])
    @pytest.mark.parametrize(("name", "padding"), KINDS)
    def test_a_stream_that_begins_further_down_gives_the_same(self, name: str, padding: str, budget: int) -> None:
        net, x = staged(name, padding), noise(1, 3, 230, 65)
        whole = strips_of(net, x, budget)
        expected = torch.cat([whole.scores("semantic", (top, top + 23)) for top in range(0, 230, 23)], 2)
        for start in (64, 137, 229):
            late = strips_of(net, x, budget)
            assert torch.equal(late.scores("semantic", (start, 230)), expected[:, :, start:])

    @pytest.mark.parametrize(("name", "padding"), KINDS)
    def test_whatever_rows_are_asked_for(self, name: str, padding: str) -> None:
        net, x = staged(name, padding), noise(1, 3, 150, 41)
        expected = strips_of(net, x, 1 << 14).labels("semantic", (0, 150))
        one_by_one = strips_of(net, x, 1 << 14)
        rows = [one_by_one.labels("semantic", (top, min(top + 7, 150))) for top in range(0, 150, 7)]
        assert torch.equal(torch.cat(rows, 1), expected)

    def test_images_of_a_batch_do_not_meet(self) -> None:
        net, x = staged("fcn8s-vgg16", "paper"), noise(2, 3, 60, 41)
        both = strips_of(net, x, 1 << 16).scores("semantic", (0, 60))
        changed = x.clone()
        changed[0] = 255 - changed[0]
        assert torch.equal(strips_of(net, changed, 1 << 16).scores("semantic", (0, 60))[1], both[1])


class TestMap:
    def test_rows_of_a_chunk(self) -> None:
        """As many as fit the numbers, at least one, at most all."""
        each = Source((50, 10), 3, lambda *_: torch.zeros(()))
        each.want((2, 7))
        assert each.row_numbers() == 15
        for numbers, step in ((0, 1), (14, 1), (45, 3), (10**9, 50)):
            each.settle(numbers, 1.0)
            assert each.step == step

    def test_columns_wanted_by_several(self) -> None:
        each = Source((50, 10), 3, lambda *_: torch.zeros(()))
        assert each.held == (0, 10)
        for wanted, held in (((4, 6), (4, 6)), ((5, 6), (4, 6)), ((1, 3), (1, 6)), ((8, 9), (1, 9))):
            each.want(wanted)
            assert each.held == held

    def test_a_stage_holds_its_finer_map(self) -> None:
        """A convolution and a pooling of 2x2: four numbers a cell before it."""
        maps = staged("fcn32s-vgg16", "same").maps((64, 64), reading(noise(1, 3, 64, 64)))
        each = next(one for one in maps.every if isinstance(one, Staged) and one.stage.name == "pool1")
        assert each.row_numbers() == 4 * each.channels * 32

    @pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1)])
    def test_multiplications_are_those_of_all_rows(self, size: Size) -> None:
        """A batch has as many times more; half the columns no more than all."""
        net = staged("fcn8s-vgg16", "paper")
        one = net.maps(size, reading(noise(1, 3, *size)))
        three = net.maps(size, reading(noise(3, 3, *size)), batch=3)
        assert three.multiplications() == 3 * one.multiplications() > 0
