"""The geometry against the reference's tables, torch's own sizes and gradients, and the laws of an algebra."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fullconv.errors import GeometryError
from fullconv.geometry import (
    CoordinateMap,
    Crop,
    Layer,
    Window,
    alignment,
    compose,
    coordinate_map,
    inputs,
    inputs_of_all,
    output_size,
    receptive_field,
    upsampling,
    widest,
)
from windows import composed

SIZES = range(1, 1001)

# The nets of the reference, typed from its tables (1.1, 1.2, 2.4): the layers that have a window, in order.
POOL2, POOL3 = Window(2, 2, ceil=True), Window(3, 2, ceil=True)
SAME3, SAME5 = Window(3, padding=1), Window(5, padding=2)


def vgg16(pad: int, pool: Window = POOL2) -> list[Window]:
    blocks = [Window(3, padding=pad), SAME3, pool, SAME3, SAME3, pool, *[SAME3] * 3, pool, *[SAME3] * 3, pool]
    return [*blocks, *[SAME3] * 3, pool, Window(7), Window(1)]


POOLS = {2: 3, 4: 6, 8: 10, 16: 14, 32: 18}
"""Stride -> layers of VGG-16 up to and with the pooling that reaches it."""


def alexnet(pad: int) -> list[Window]:
    convolutions = [Window(11, 4, pad), POOL3, SAME5, POOL3, SAME3, SAME3, SAME3, POOL3]
    return [*convolutions, Window(6), Window(1)]


def googlenet(pad: int, branch: Window = SAME5, pool4: Window = POOL3) -> list[Window]:
    stem = [Window(7, 2, pad), POOL3, Window(1), SAME3, POOL3]
    return [*stem, branch, branch, POOL3, *[branch] * 5, pool4, branch, branch]


def deconvolution(kernel: int, stride: int) -> Window:
    return Window(kernel, stride, transposed=True)


def sizes(path: list[Window], size: int) -> list[int]:
    return [output_size(path[:n], size) for n in range(1, len(path) + 1)]


class TestVgg16:
    """Reference 3.2."""

    @pytest.mark.parametrize("pad", [97, 100, 101])
    def test_sizes_follow_the_closed_formulas(self, pad: int) -> None:
        path = vgg16(pad)
        for height in SIZES:
            padded = height + 2 * pad - 2
            assert output_size(path[:1], height) == output_size(path[:2], height) == padded
            for stride, layers in POOLS.items():
                assert output_size(path[:layers], height) == ceil(padded / stride)
            assert output_size(path, height) == ceil(padded / 32) - 6

    def test_margins_of_the_papers_crops(self) -> None:
        margins = {19: set[int](), 27: set[int](), 31: set[int](), 5: set[int](), 9: set[int]()}
        path = vgg16(100)
        for height in SIZES:
            f = output_size(path, height)
            assert f == ceil((height + 6) / 32)
            pool4, pool3 = (output_size(path[: POOLS[s]], height) for s in (16, 8))
            at16 = deconvolution(4, 2).output_size(f)
            at8 = deconvolution(4, 2).output_size(at16)
            up32, up16, up8 = (deconvolution(2 * s, s).output_size(n) for s, n in ((32, f), (16, at16), (8, at8)))
            assert (at16, at8, up32, up16, up8) == (2 * f + 2, 4 * f + 6, 32 * f + 32, 32 * f + 48, 32 * f + 56)
            for offset, left_over in (
                (19, up32 - 19 - height), (27, up16 - 27 - height), (31, up8 - 31 - height),
                (5, pool4 - 5 - at16), (9, pool3 - 9 - at8),
            ):  # fmt: skip
                margins[offset].add(left_over)
        assert {offset: (min(left), max(left)) for offset, left in margins.items()} == {
            19: (19, 50), 27: (27, 58), 31: (31, 62), 5: (4, 5), 9: (6, 9),
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("height", "expected"),
        [
            (1, (199, 100, 50, 25, 13, 7, 1, 64, 80, 88)),
            (53, (251, 126, 63, 32, 16, 8, 2, 96, 112, 120)),
            (56, (254, 127, 64, 32, 16, 8, 2, 96, 112, 120)),
            (64, (262, 131, 66, 33, 17, 9, 3, 128, 144, 152)),
            (224, (422, 211, 106, 53, 27, 14, 8, 288, 304, 312)),
            (256, (454, 227, 114, 57, 29, 15, 9, 320, 336, 344)),
            (375, (573, 287, 144, 72, 36, 18, 12, 416, 432, 440)),
            (480, (678, 339, 170, 85, 43, 22, 16, 544, 560, 568)),
            (500, (698, 349, 175, 88, 44, 22, 16, 544, 560, 568)),
            (512, (710, 355, 178, 89, 45, 23, 17, 576, 592, 600)),
            (640, (838, 419, 210, 105, 53, 27, 21, 704, 720, 728)),
        ],
    )
    def test_worked_table(self, height: int, expected: tuple[int, ...]) -> None:
        path, twice = vgg16(100), deconvolution(4, 2)
        ups = [deconvolution(64, 32)], [twice, deconvolution(32, 16)], [twice, twice, deconvolution(16, 8)]
        ends = [path[:1], *(path[:layers] for layers in POOLS.values()), path, *([*path, *up] for up in ups)]
        assert tuple(output_size(end, height) for end in ends) == expected

    @pytest.mark.parametrize("pad", [97, 100, 150])
    def test_crop_offsets(self, pad: int) -> None:
        path = vgg16(pad)
        assert upsampling(path, [], 32) == (deconvolution(64, 32), pad - 81)
        twice, to16 = upsampling(path, path[: POOLS[16]], 2)
        assert (twice, -to16) == (deconvolution(4, 2), 5)
        fused16 = [*path, twice]
        assert upsampling(fused16, [], 16) == (deconvolution(32, 16), pad - 73)
        twice, to8 = upsampling(fused16, path[: POOLS[8]], 2)
        assert (twice, -to8) == (deconvolution(4, 2), 9)
        assert upsampling([*fused16, twice], [], 8) == (deconvolution(16, 8), pad - 69)
        # the skips, cropped, reach the image with the same offset
        assert alignment([*path[: POOLS[16]], Crop(5), deconvolution(32, 16)], []) == pad - 73
        assert alignment([*path[: POOLS[8]], Crop(9), deconvolution(16, 8)], []) == pad - 69

    def test_literal_offsets_of_the_released_nets(self) -> None:
        path, twice = vgg16(100), deconvolution(4, 2)
        assert alignment([*path, deconvolution(64, 32)], []) == 19
        assert alignment([*path, twice, deconvolution(32, 16)], []) == 27
        assert alignment([*path, twice, twice, deconvolution(16, 8)], []) == 31

    def test_smallest_legal_pad(self) -> None:
        """Pitfall 14."""

        def legal(pad: int, height: int) -> bool:
            try:
                return deconvolution(64, 32).output_size(output_size(vgg16(pad), height)) - (pad - 81) >= height
            except GeometryError:
                return False

        assert all(legal(97, height) for height in SIZES)
        assert [height for height in SIZES if not legal(96, height)] == [1, 2]

    def test_without_the_big_pad(self) -> None:
        for height in range(193, 1001):
            assert output_size(vgg16(1), height) == ceil(height / 32) - 6
        with pytest.raises(GeometryError, match="size 6 is too small"):
            output_size(vgg16(1), 192)
        floored = vgg16(1, Window(2, 2))
        assert output_size(floored, 224) == 1
        with pytest.raises(GeometryError, match="size 6 is too small"):
            output_size(floored, 223)

    def test_score_units_sit_where_the_reference_says(self) -> None:
        for pad in (97, 100):
            field = receptive_field(vgg16(pad))
            assert (field.stride, field.centre) == (32, Fraction(225, 2) - pad)
        same = [SAME3, *vgg16(1)[1:-2], Window(7, padding=3), Window(1)]
        field = receptive_field(same)
        assert (field.stride, field.centre) == (32, Fraction(31, 2))
        assert upsampling(same, [], 32) == (deconvolution(64, 32), 16)


class TestAlexNet:
    """Reference 3.3."""

    def test_sizes_follow_the_closed_formulas(self) -> None:
        path = alexnet(100)
        for height in SIZES:
            conv1 = (height + 189) // 4 + 1
            pool1 = ceil((conv1 - 3) / 2) + 1
            pool2 = ceil((pool1 - 3) / 2) + 1
            pool5 = ceil((pool2 - 3) / 2) + 1
            f = (height + 1) // 32 + 1
            assert sizes(path, height) == [conv1, pool1, pool1, pool2, pool2, pool2, pool2, pool5, f, f]
            assert pool5 - 5 == f
            assert 15 <= deconvolution(63, 32).output_size(f) - 18 - height <= 46

    @pytest.mark.parametrize(
        ("height", "expected"),
        [(500, (173, 86, 43, 21, 16, 543)), (227, (105, 52, 26, 13, 8, 287)), (1, (48, 24, 12, 6, 1, 63))],
    )
    def test_worked_sizes(self, height: int, expected: tuple[int, ...]) -> None:
        path = alexnet(100)
        ends = [*(path[:n] for n in (1, 2, 4, 8, 10)), [*path, deconvolution(63, 32)]]
        assert tuple(output_size(end, height) for end in ends) == expected

    def test_grid_of_the_papers_timing_example(self) -> None:
        assert [output_size(alexnet(0)[:n], 500) for n in (1, 2, 4, 8, 10)] == [123, 61, 30, 15, 10]

    def test_odd_kernel_and_offset(self) -> None:
        for pad in (99, 100, 120):
            assert upsampling(alexnet(pad), [], 32) == (deconvolution(63, 32), pad - 82)
            assert receptive_field(alexnet(pad)).centre == 113 - pad
        assert upsampling(alexnet(100), [], 32)[1] == 18
        with pytest.raises(GeometryError, match="crop offset is 37/2, not a whole number"):
            alignment([*alexnet(100), deconvolution(64, 32)], [])

    def test_smallest_legal_pad(self) -> None:
        for height in SIZES:
            f = output_size(alexnet(99), height)
            assert deconvolution(63, 32).output_size(f) - 17 >= height
        with pytest.raises(GeometryError, match="too small"):
            output_size(alexnet(98), 1)


class TestGoogLeNet:
    """Reference 2.5, 2.6 and 3.5."""

    @pytest.mark.parametrize("pad", [3, 18, 100])
    def test_offset(self, pad: int) -> None:
        assert upsampling(googlenet(pad), [], 32) == (deconvolution(63, 32), pad - 2)
        assert upsampling(googlenet(pad, SAME3, POOL2), [], 32) == (deconvolution(63, 32), pad + 6)
        assert receptive_field(googlenet(pad)).centre == 33 - pad

    def test_smallest_legal_size(self) -> None:
        def legal(pad: int, height: int) -> bool:
            try:
                return output_size([*googlenet(pad), deconvolution(63, 32)], height) - (pad - 2) >= height
            except GeometryError:
                return False

        assert [height for height in SIZES if not legal(3, height)] == list(range(1, 31))
        assert all(legal(18, height) for height in SIZES)
        assert not legal(17, 1)


def test_resnet_units_sit_on_every_32nd_pixel() -> None:
    """Reference 2.6: every stride-2 layer pads by half its odd kernel."""
    path = [Window(7, 2, 3), Window(3, 2, 1), *[SAME3] * 3, *[Window(3, 2, 1), SAME3, SAME3] * 3]
    assert receptive_field(path).centre == 0
    assert upsampling(path, [], 32) == (deconvolution(63, 32), 31)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (vgg16(100), [5, 6, 14, 16, 40, 44, 92, 100, 196, 212, 404]),
        (alexnet(100), [11, 19, 51, 67, 99, 131, 163, 195, 355]),
        (googlenet(3), [7, 11, 19, 27, 59, 91, 107, 171, 235, 299, 363, 427, 459, 587, 715]),
        ([*googlenet(3), Window(7)], [907]),
        (googlenet(3, SAME3), [395]),
        ([*googlenet(3, SAME3), Window(7)], [587]),
        (googlenet(3, SAME3, POOL2), [379]),
        ([*googlenet(3, SAME3, POOL2), Window(7)], [571]),
    ],
    ids=["vgg16", "alexnet", "googlenet", "googlenet + pool5", "3x3", "3x3 + pool5", "pool4 2x2", "pool4 2x2 + pool5"],
)
def test_receptive_fields_of_the_reference(path: list[Window], expected: list[int]) -> None:
    """The numbers of reference 3.5 come out, in its order; the last is the whole net's."""
    fields = [receptive_field(path[:n]).size for n in range(1, len(path) + 1)]
    remaining = iter(fields)
    assert all(size in remaining for size in expected), fields
    assert fields[-1] == expected[-1]


def test_reach_of_a_final_pixel() -> None:
    """Design, section 6: a field of 404 gives the pixels of 32s, 16s and 8s a reach of 436, 468 and 468."""
    path, twice = vgg16(100), deconvolution(4, 2)
    skip4, skip3 = [*path[: POOLS[16]], Crop(5)], [*path[: POOLS[8]], Crop(9)]
    nets = [
        (436, [path], deconvolution(64, 32)),
        (468, [[*path, twice], skip4], deconvolution(32, 16)),
        (468, [[*path, twice, twice], [*skip4, twice], skip3], deconvolution(16, 8)),
    ]
    for expected, streams, last in nets:
        ranges = [inputs_of_all([[*stream, last] for stream in streams], y, y + 1) for y in range(200, 264)]
        assert max(stop - start for start, stop in ranges) == expected


# ---------------------------------------------------------------------------------------------------------------
# torch as the second oracle


@pytest.mark.parametrize("height", [1, 2, 31, 32, 33, 53, 56, 97, 130, 255, 500, 1000])
def test_torch_gives_the_same_sizes(height: int) -> None:
    """The layers themselves, run on shapes alone."""

    def run(path: list[Window]) -> list[int]:
        x, found = torch.empty(1, 1, height, 1000, device="meta"), []
        for layer in path:
            if layer.ceil:
                x = F.max_pool2d(x, layer.kernel, layer.stride, ceil_mode=True)
            else:
                weight = torch.empty(1, 1, layer.kernel, layer.kernel, device="meta")
                x = F.conv2d(x, weight, stride=layer.stride, padding=layer.padding)
            found.append(x.shape[2])
        return found

    for path in (vgg16(100), alexnet(100), googlenet(100)):
        assert run(path) == sizes(path, height)


convolutions = st.builds(
    Window, st.integers(1, 5), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), ceil=st.booleans()
)
deconvolutions = st.builds(
    Window, st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2), transposed=st.just(True)
)
windows = convolutions | deconvolutions
layers = windows | st.builds(Crop, st.integers(0, 3))
paths = st.lists(layers, max_size=5)


@settings(deadline=None)
@given(windows, st.integers(1, 30))
def test_size_of_one_window_is_torchs(window: Window, size: int) -> None:
    x = torch.zeros(1, 1, size)
    weight = torch.zeros(1, 1, window.kernel)
    assume(not window.ceil or window.padding <= window.kernel // 2)  # torch pools no further out
    try:
        if window.transposed:
            y = F.conv_transpose1d(x, weight, None, window.stride, window.padding, dilation=window.dilation)
        elif window.ceil:
            y = F.max_pool1d(x, window.kernel, window.stride, window.padding, window.dilation, ceil_mode=True)
        else:
            y = F.conv1d(x, weight, None, window.stride, window.padding, window.dilation)
        expected = y.shape[2]
    except RuntimeError:
        expected = 0
    if expected < 1:
        with pytest.raises(GeometryError, match=f"size {size} is too small"):
            window.output_size(size)
    else:
        assert window.output_size(size) == expected


def apply(path: list[Layer], x: torch.Tensor) -> torch.Tensor:
    """The path on a map (1, 1, n), with weights of one: every tap counts and nothing cancels."""
    for layer in path:
        size = layer.output_size(x.shape[2])
        if isinstance(layer, Crop):
            x = x[:, :, layer.offset :]
        elif layer.transposed:
            weight = torch.ones(1, 1, layer.kernel)
            x = F.conv_transpose1d(x, weight, None, layer.stride, layer.padding, dilation=layer.dilation)
        else:  # a ceil window reaches beyond the end: as far as its size says
            beyond = (size - 1) * layer.stride + layer.extent - x.shape[2] - layer.padding
            padded = F.pad(x, (layer.padding, max(beyond, 0)))
            x = F.conv1d(padded, torch.ones(1, 1, layer.kernel), None, layer.stride, dilation=layer.dilation)
            x = x[:, :, :size]
        assert x.shape[2] == size
    return x


def seen(path: list[Layer], size: int, unit: int) -> list[int]:
    """The pixels that a unit really depends on: where its gradient is not zero."""
    x = torch.ones(1, 1, size, requires_grad=True)
    y = apply(path, x)[0, 0, unit]
    if not y.requires_grad:
        return []
    (gradient,) = torch.autograd.grad(y, x, allow_unused=True)
    return [] if gradient is None else gradient[0, 0].nonzero()[:, 0].tolist()


def length(path: list[Layer], size: int) -> int:
    """Units at the path's end; 0 where it does not fit."""
    try:
        return output_size(path, size)
    except GeometryError:
        return 0


@settings(deadline=None)
@given(paths, st.integers(1, 40), st.data())
def test_a_unit_depends_on_nothing_outside_its_inputs(path: list[Layer], size: int, data: st.DataObject) -> None:
    units = length(path, size)
    assume(units)
    unit = data.draw(st.integers(0, units - 1))
    first, last = inputs(path, unit, unit + 1)
    assert all(first <= pixel < last for pixel in seen(path, size, unit))


@settings(deadline=None)
@given(paths)
def test_inputs_are_exact_away_from_the_borders(path: list[Layer]) -> None:
    """Both ends of the interval are read, wherever no tap falls between the cells of a transposed window."""
    assume(not any(isinstance(w, Window) and w.transposed and (w.dilation > 1 or w.kernel < w.stride) for w in path))
    size = 400
    units = length(path, size)
    assume(units)  # strides of 3, four times, leave little of 400
    unit = units // 2
    ranges = list(accumulate(reversed(path), lambda r, layer: layer.inputs(*r), initial=(unit, unit + 1)))
    cells = list(accumulate(path, lambda n, layer: layer.output_size(n), initial=size))
    assume(all(first >= 0 and last <= n for (first, last), n in zip(reversed(ranges), cells, strict=True)))
    pixels = seen(path, size, unit)
    assert (pixels[0], pixels[-1] + 1) == inputs(path, unit, unit + 1)
    assert pixels[-1] + 1 - pixels[0] <= receptive_field(path).size


@given(st.lists(convolutions, max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_inputs_of_an_interval_join_those_of_its_units(path: list[Layer], start: int, more: int) -> None:
    each = [inputs(path, unit, unit + 1) for unit in range(start, start + more + 1)]
    assert inputs(path, start, start + more + 1) == (each[0][0], each[-1][1])


# ---------------------------------------------------------------------------------------------------------------
# laws


maps = st.builds(
    CoordinateMap,
    st.fractions(max_denominator=8).filter(lambda f: f > 0),
    st.fractions(min_value=-9, max_value=9, max_denominator=8),
)


@given(maps, maps, maps)
def test_coordinate_maps_form_a_group(a: CoordinateMap, b: CoordinateMap, c: CoordinateMap) -> None:
    identity = CoordinateMap()
    assert a.then(identity) == identity.then(a) == a
    assert a.then(b).then(c) == a.then(b.then(c))
    assert a.then(a.inverse()) == a.inverse().then(a) == identity
    assert a.then(b).inverse() == b.inverse().then(a.inverse())


@given(paths, paths)
def test_paths_compose(first: list[Layer], second: list[Layer]) -> None:
    whole = [*first, *second]
    assert coordinate_map(whole) == coordinate_map(first).then(coordinate_map(second))
    assert inputs(whole, 3, 7) == inputs(first, *inputs(second, 3, 7))
    if middle := length(first, 40):
        assert length(whole, 40) == length(second, middle)


@given(st.lists(convolutions, max_size=5), st.integers(0, 50))
def test_a_field_is_centred_where_the_coordinate_map_says(path: list[Layer], unit: int) -> None:
    first, last = inputs(path, unit, unit + 1)
    field = receptive_field(path)
    assert field.size == last - first
    assert field.centre + unit * field.stride == Fraction(first + last - 1, 2)


near = st.integers(-20, 20)
ENOUGH = range(-60, 60)
"""Units: of any window here, more than read anything of [-20, 50)."""


@given(convolutions, near, st.integers(1, 12))
def test_the_outputs_of_some_inputs_are_the_units_that_read_one(window: Window, start: int, length: int) -> None:
    reading = [
        unit for unit in ENOUGH for first, last in [window.inputs(unit, unit + 1)]
        if first < start + length and last > start
    ]  # fmt: skip
    assert list(range(*window.outputs_of(start, start + length))) == reading


@given(convolutions, near, st.integers(0, 30))
def test_the_outputs_within_some_inputs_are_the_units_that_read_nothing_else(
    window: Window, start: int, length: int
) -> None:
    within = [
        unit for unit in ENOUGH for first, last in [window.inputs(unit, unit + 1)]
        if start <= first and last <= start + length
    ]  # fmt: skip
    first, last = window.outputs_within(start, start + length)
    assert first <= last
    assert list(range(first, last)) == within


@given(windows)
def test_a_transposed_window_inverts_the_coordinates_of_its_convolution(window: Window) -> None:
    taps = {"kernel": window.kernel, "stride": window.stride, "padding": window.padding, "dilation": window.dilation}
    forward, backward = Window(**taps), Window(**taps, transposed=True)
    assert backward.coordinate_map() == forward.coordinate_map().inverse()


@given(convolutions, convolutions, st.integers(0, 60), st.integers(0, 9))
def test_a_composed_window_equals_the_path(first: Window, second: Window, size: int, unit: int) -> None:
    one, path = composed(first, second), [first, second]
    assert one.coordinate_map() == coordinate_map(path)
    assert one.inputs(unit, unit + 1) == inputs(path, unit, unit + 1)
    assert receptive_field([one]) == receptive_field(path)
    if units := length(path, size):
        assert one.output_size(size) == units


@given(convolutions, convolutions, convolutions)
def test_composition_is_associative(a: Window, b: Window, c: Window) -> None:
    assert composed(composed(a, b), c) == composed(a, composed(b, c))


@given(convolutions)
def test_the_single_tap_is_the_identity_of_composition(window: Window) -> None:
    for one in (composed(window, Window()), composed(Window(), window)):
        assert receptive_field([one]) == receptive_field([window])
        assert [length([one], n) for n in range(1, 30)] == [length([window], n) for n in range(1, 30)]


def test_the_trunk_of_the_paper_is_one_window_of_404() -> None:
    """Long et al. 2015, section 3: kernel k' + (k - 1) s', stride s s', here with floor pooling."""
    one = Window()
    for layer in vgg16(100, Window(2, 2)):
        one = compose(one, layer)
    assert (one.kernel, one.stride) == (404, 32)
    assert [one.output_size(n) for n in SIZES[31:]] == [output_size(vgg16(100, Window(2, 2)), n) for n in SIZES[31:]]


@given(st.lists(convolutions, max_size=4), st.integers(-6, 6))
def test_alignment_is_the_distance_of_two_grids(path: list[Layer], shift: int) -> None:
    assert alignment([*path, Crop(abs(shift))], path) == -abs(shift)
    assert alignment(path, [*path, Crop(abs(shift))]) == abs(shift)


@given(st.lists(convolutions.filter(lambda w: w.extent % 2 == 1), max_size=4))
def test_odd_extents_ask_for_the_odd_upsampling_kernel(path: list[Layer]) -> None:
    factor = int(receptive_field(path).stride)
    window, _ = upsampling(path, [], factor)
    assert window == deconvolution(2 * factor - 1, factor)


# ---------------------------------------------------------------------------------------------------------------
# refusals


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kernel": 0}, "expected kernel, stride and dilation >= 1 and padding >= 0"),
        ({"stride": 0}, "expected kernel, stride and dilation >= 1 and padding >= 0"),
        ({"dilation": 0}, "expected kernel, stride and dilation >= 1 and padding >= 0"),
        ({"padding": -1}, "expected kernel, stride and dilation >= 1 and padding >= 0"),
        ({"ceil": True, "transposed": True}, "a transposed window has no rounding; set ceil=False"),
    ],
)
def test_impossible_windows(bad: dict[str, int], message: str) -> None:
    with pytest.raises(GeometryError, match=re.escape(message)):
        Window(**bad)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(GeometryError, match="size 0; expected at least 1"):
        Window(3).output_size(0)
    with pytest.raises(GeometryError, match="size 4 is too small for a window of extent 5 with padding 0; use a larg"):
        Window(5).output_size(4)
    with pytest.raises(GeometryError, match="size 1 is too small for a window of extent 2 with padding 1"):
        Window(2, 2, padding=1, transposed=True).output_size(1)
    with pytest.raises(GeometryError, match="a crop of 19 leaves nothing of 19 cells; use a larger input"):
        Crop(19).output_size(19)
    with pytest.raises(GeometryError, match="a crop of -1 cells; expected at least 0"):
        Crop(-1)


def test_outputs_of_a_transposed_window() -> None:
    for function in (Window(4, 2, transposed=True).outputs_of, Window(4, 2, transposed=True).outputs_within):
        with pytest.raises(GeometryError, match="a transposed window; expected a plain one"):
            function(0, 1)


def test_windows_that_do_not_compose() -> None:
    with pytest.raises(GeometryError, match="transposed windows do not compose to one window; use a path"):
        compose(Window(4, 2, transposed=True), Window(3))
    with pytest.raises(GeometryError, match="different rounding do not compose to one window; use a path"):
        compose(Window(3, 2), Window(2, 2, ceil=True))
    with pytest.raises(GeometryError, match="rounding up, the last window may start in the padding; use a path"):
        compose(Window(3, padding=100), POOL2)


def test_grids_that_do_not_align() -> None:
    with pytest.raises(GeometryError, match="strides differ by a factor of 1/2; only maps of one stride can be crop"):
        alignment([Window(2, 2)], [])
    with pytest.raises(GeometryError, match="crop offset is -1/2, not a whole number; an upsampling kernel larger or"):
        alignment([Window(2)], [Window(1)])
    with pytest.raises(GeometryError, match="strides differ by a factor of 2"):
        upsampling([Window(2, 2)], [], 4)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 5))
def test_the_widest_branch_reads_what_any_other_reads(halves: list[int], stride: int, unit: int) -> None:
    branches = [[Window(2 * half + 1, stride, half)] for half in halves]
    best = widest(branches)
    assert inputs(best, unit, unit + 3) == inputs_of_all(branches, unit, unit + 3)
    assert best == [Window(2 * max(halves) + 1, stride, max(halves))]


def test_branches_of_which_none_is_the_widest() -> None:
    with pytest.raises(
        GeometryError, match="branches whose units do not lie on each other; pad each by half its kernel"
    ):
        widest([[Window(3)], [Window(1)]])
    with pytest.raises(GeometryError, match="a transposed window in a branch; its units read differently many pixels"):
        widest([[Window(2, 2, transposed=True)], [Window(1)]])
