"""Pasted borders against whole maps, and against what was measured of the paper's net."""

from __future__ import annotations

from functools import cache
from itertools import accumulate
from typing import cast

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fullconv.geometry import Window
from fullconv.inference import staged as module
from fullconv.inference.blank import Border, common
from fullconv.inference.map_kinds import Staged
from fullconv.inference.staged import StagedNet
from fullconv.nets import build
from fullconv.nets.rectangles import Interval, Size
from fullconv.nets.trunks import Trunk
from thin_nets import noise, outputs_of, positive, reading, thin

KINDS = ("vgg16", "vgg16bn", "alexnet", "googlenet", "resnet18", "slim")
IMAGES = [(1, 1), (1, 120), (90, 1), (37, 150), (64, 64), (131, 70), (260, 33)]


@cache
def staged(kind: str) -> StagedNet:
    return StagedNet.of(thin(f"fcn8s-{kind}", padding="paper", width=1 / 16))


def border_of(net: StagedNet, size: Size) -> list[Border | None]:
    return net.borders(size)["image"]


@cache
def of_the_paper() -> StagedNet:
    """FCN-8s on VGG-16 with all its channels, on a device without memory."""
    with torch.device("meta"):
        return StagedNet.of(build("fcn8s-vgg16", 21, padding="paper").eval())


class TestOfThePaper:
    """At 500x500."""

    def test_what_is_saved(self) -> None:
        net = of_the_paper()
        with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
            net.net.coarse(torch.empty(1, 3, 500, 500))
        all_of_it = counter.get_total_flops()
        assert round(all_of_it / 1e9) == 362  # the last upsampling, which is not counted here, makes it 363
        saved = all_of_it - 2 * net.multiplications((500, 500))
        assert saved / all_of_it == pytest.approx(0.31, abs=0.01)
        # Twelve convolutions' own cells: 112.5 GFLOP were measured.
        assert saved / 1e9 == pytest.approx(112.5, rel=0.025)

    def test_positions_that_see_the_image(self) -> None:
        net = of_the_paper()
        seeing = {
            stage.name: (border.seeing[0][1] - border.seeing[0][0], border.seeing[1][1] - border.seeing[1][0])
            for stage, border in zip(net.trunks["image"], border_of(net, (500, 500)), strict=True)
            if border is not None
        }
        # Of 698, 349, 175, 88 and 44 (the project's measurements).
        expected = {"relu1_1": 502, "relu2_1": 255, "relu3_1": 131, "relu3_2": 133}
        expected |= {"relu4_1": 70, "relu4_2": 72, "relu5_1": 40, "relu5_2": 42}
        assert {name: seeing[name] for name in expected} == {name: (n, n) for name, n in expected.items()}

    def test_positions_by_the_windows_alone(self) -> None:
        first, same, pool = Window(3, padding=100), Window(3, padding=1), Window(2, 2, ceil=True)
        path = [first, same, pool, same, same, pool, *[same] * 3, pool, *[same] * 3, pool, *[same] * 3]
        ranges = list(accumulate(path, lambda at, window: window.outputs_of(*at), initial=(0, 500)))[1:]
        seeing = [
            stop - start for (start, stop), window in zip(ranges, path, strict=True) if window.stride == 1
        ]  # fmt: skip
        assert seeing == [502, 504, 255, 257, 131, 133, 135, 70, 72, 74, 40, 42, 44]


def full_map(net: StagedNet, x: Tensor, number: int) -> Tensor:
    """The map behind a stage, all rows at once."""
    maps = net.maps((x.shape[2], x.shape[3]), reading(x), len(x))
    each = [one for one in maps.every if isinstance(one, Staged)][number]
    for wanted in (each, *maps.coarse.values()):
        wanted.want((0, wanted.size[1]))
    with torch.inference_mode():
        return each.rows(0, each.size[0])


@pytest.mark.parametrize("size", IMAGES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_pasted_maps_are_those_of_the_trunk(kind: str, size: Size) -> None:
    net = staged(kind)
    x = noise(2, 3, *size)
    stages, found = net.trunks["image"], border_of(net, size)
    names = [stage.name for stage in stages]
    trunk = cast(Trunk, net.net.trunks["image"])
    expected = outputs_of(trunk, names, net.net.prepared({"image": x})["image"])
    assert any(border is not None for border in found)
    for number, (stage, border) in enumerate(zip(stages, found, strict=True)):
        if border is not None or number == len(stages) - 1:
            y = full_map(net, x, number)
            assert y.shape == expected[stage.name].shape
            assert (y - expected[stage.name]).abs().max() <= 2e-5 * expected[stage.name].abs().max(), stage.name


@pytest.mark.parametrize("size", [(1, 1), (50, 90), (300, 40)], ids=str)
@pytest.mark.parametrize("kind", ["vgg16", "alexnet", "googlenet", "resnet18"])
def test_cells_that_see_the_image_are_those_that_it_changes(kind: str, size: Size) -> None:
    """Weights that cancel nothing: the cells that differ between a black image and a white one, all of them."""
    net = StagedNet.of(positive(thin(f"fcn32s-{kind}", padding="paper", width=1 / 16)))
    images = torch.stack([torch.full((3, *size), value, dtype=torch.float32) for value in (0.0, 255.0)])
    trunk = cast(Trunk, net.net.trunks["image"])
    maps = outputs_of(trunk, [stage.name for stage in net.trunks["image"]], images)
    met = 0
    for stage, border in zip(net.trunks["image"], border_of(net, size), strict=True):
        if border is None:
            continue
        black, white = maps[stage.name]
        cells = (black != white).any(0).nonzero()
        hull = tuple((int(cells[:, axis].min()), int(cells[:, axis].max()) + 1) for axis in (0, 1))
        assert hull == border.seeing, stage.name
        met += 1
    assert met >= 2


def test_the_image_of_nothing_is_small() -> None:
    """Its size is bounded, whatever the image's; the further one has the same cells as the nearer."""
    net = staged("vgg16")
    one, other = border_of(net, (700, 3000)), border_of(net, (764, 4024))
    for near, far in zip(one, other, strict=True):
        assert (near is None) == (far is None)
        if near is not None and far is not None:
            assert max(near.blank.shape[2:]) <= 800
            # The rest beyond a multiple of the stride may differ.
            assert near.blank.shape == far.blank.shape
            assert torch.equal(near.blank, far.blank)


def test_same_padding_has_no_borders() -> None:
    net = StagedNet.of(thin("fcn8s-vgg16", padding="same", width=1 / 16))
    assert not any(border_of(net, (64, 64)))


def test_large_images_see_nearly_everything() -> None:
    """Pasting does not pay where 97 of 100 cells see the image."""
    net = staged("slim")
    assert any(border_of(net, (100, 100)))
    with torch.device("meta"):
        far = StagedNet.of(build("fcn8s-slim", 4, padding="paper").eval())
    assert not any(border_of(far, (20000, 20000)))


def blank_of(net: StagedNet, size: Size) -> Tensor:
    """The map of nothing that the first pasted stage has."""
    return next(border.blank for border in border_of(net, size) if border is not None)


def test_sizes_that_differ_by_whole_strides_share_an_image_of_nothing() -> None:
    net = StagedNet.of(thin("fcn8s-vgg16", padding="paper", width=1 / 16))
    first = blank_of(net, (500, 375))
    assert blank_of(net, (532, 375)) is first
    assert blank_of(net, (500, 439)) is first
    assert blank_of(net, (501, 375)) is not first


def test_blank_maps_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    net = StagedNet.of(thin("fcn8s-slim", padding="paper", width=1 / 16))
    first = blank_of(net, (10, 10))
    for height in range(11, 16):
        blank_of(net, (height, 10))
    assert blank_of(net, (10, 10)) is first
    monkeypatch.setattr(module, "KEPT", first.nbytes)
    blank_of(net, (11, 10))
    assert blank_of(net, (10, 10)) is not first, "each alone is more than one of its maps"
    assert len(net._blanks) == 1


class TestBorder:
    border = Border(torch.arange(30.0).view(1, 1, 5, 6), ((2, 5), (3, 4)), ((2, 5), (2, 6)), (2, 2))

    def test_the_part_that_the_image_changes(self) -> None:
        assert self.border.changing(((0, 7), (0, 8))) == ((2, 5), (3, 4))
        assert self.border.changing(((4, 7), (3, 8))) == ((4, 5), (3, 4))
        assert self.border.changing(((0, 2), (0, 8))) == ((0, 0), (0, 0))
        assert self.border.changing(((0, 7), (4, 8))) == ((0, 0), (4, 4))

    def test_all_around_it(self) -> None:
        """Of a 7x8 map: rows 2 to 4 and columns 2 to 5 are alike where nothing is seen."""
        y = torch.full((2, 1, 3, 1), -1.0)
        found = self.border.around(y, ((0, 7), (0, 8)))
        rows, columns = [0, 1, 2, 2, 2, 3, 4], [0, 1, 2, 2, 2, 2, 4, 5]
        expected = self.border.blank[:, :, rows][:, :, :, columns].repeat(2, 1, 1, 1)
        expected[:, :, 2:5, 3:4] = -1
        assert torch.equal(found, expected)

    def test_where_the_image_changes_nothing(self) -> None:
        found = self.border.around(None, ((5, 7), (6, 8)))
        assert torch.equal(found, self.border.blank[:, :, 3:5, 4:6])


@pytest.mark.parametrize(
    ("one", "other", "expected"), [((0, 5), (3, 9), (3, 5)), ((0, 3), (3, 9), (3, 3)), ((7, 9), (0, 4), (7, 7))]
)
def test_common_cells(one: Interval, other: Interval, expected: Interval) -> None:
    assert common(one, other) == expected
