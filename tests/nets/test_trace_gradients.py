"""Fields of random nets against the gradients of the nets themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import ceil
from typing import Literal, cast

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.fields import Fields
from fullconv.nets.trace import trace
from fullconv.nets.tracing.resampling import LARGEST_EXACT

C = 4
"""Channels of every map."""

FEW = settings(max_examples=60, deadline=None)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


class Step(nn.Module):
    """One expression."""

    def __init__(self, function: Callable[[Tensor], Tensor], title: str) -> None:
        super().__init__()
        self.function, self.title = function, title

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.title


class ChannelsLast(nn.Module):
    """As in ConvNeXt: normalised and connected with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.norm(x.permute(0, 2, 3, 1)))
        return y.transpose(1, 3).transpose(2, 3)


class Turned(nn.Module):
    """Columns first: windows meet a map whose rows are its last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(C, C, (3, 2), (1, 2), (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convolution(x.transpose(2, 3))
        return y.transpose(2, 3)


class Fork(nn.Module):
    """Branches of the same stride, cut to the smallest of their sizes and joined."""

    def __init__(self, branches: list[nn.Module], join: str) -> None:
        super().__init__()
        self.branches, self.join = nn.ModuleList(branches), join
        self.after = nn.Conv2d(C * len(branches) if join == "cat" else C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        height, width = (min(y.shape[dim] for y in outputs) for dim in (2, 3))
        outputs = [y[:, :, :height, :width] for y in outputs]
        if self.join == "cat":
            joined = torch.cat(outputs, 1)
        elif self.join == "stack":
            joined = torch.stack(outputs).mean(0)
        elif self.join == "in place":
            joined = outputs[0] * 1
            part = joined.narrow(1, 0, C)
            for y in outputs[1:]:
                part += y
        else:
            joined = outputs[0]
            for y in outputs[1:]:
                joined = torch.add(joined, y)
        return cast(Tensor, self.after(joined))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
small = st.tuples(st.integers(0, 2), st.integers(0, 2))
dilations = st.tuples(st.integers(1, 2), st.integers(1, 2))


def below(bounds: tuple[int, int]) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, bounds[0] - 1), st.integers(0, bounds[1] - 1))


def steps(**functions: Callable[[Tensor], Tensor]) -> st.SearchStrategy[nn.Module]:
    return st.sampled_from(sorted(functions)).map(lambda name: Step(functions[name], name))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    groups = draw(st.sampled_from([1, 2, C]))
    if draw(st.booleans()):
        return nn.Conv2d(C, C, draw(pairs), padding="same", dilation=draw(dilations), groups=groups)
    return nn.Conv2d(C, C, draw(pairs), draw(pairs), draw(small), draw(dilations), groups)


@st.composite
def deconvolutions(draw: st.DrawFn) -> nn.Module:
    stride = draw(pairs)
    beyond = draw(small)
    kernel = stride[0] + beyond[0], stride[1] + beyond[1]  # at least the stride: every unit reads something
    padding, more = draw(below(((kernel[0] + 1) // 2, (kernel[1] + 1) // 2))), draw(below(stride))
    return nn.ConvTranspose2d(C, C, kernel, stride, padding, more, draw(st.sampled_from([1, 2])))


@st.composite
def poolings(draw: st.DrawFn) -> nn.Module:
    kernel, stride, ceil_mode = draw(pairs), draw(pairs), draw(st.booleans())
    padding = draw(below((kernel[0] // 2 + 1, kernel[1] // 2 + 1)))
    if draw(st.booleans()):
        return nn.AvgPool2d(kernel, stride, padding, ceil_mode, draw(st.booleans()))
    dilation = draw(dilations)
    return nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode and dilation == (1, 1))


def resize(factor: float | tuple[float, float], mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: F.interpolate(x, scale_factor=factor, mode=mode)


def even(x: Tensor) -> Tensor:
    return x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]


RESIZINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest 2": resize(2, "nearest"),
    "nearest 3 by 2": resize((3, 2), "nearest"),
    "nearest 1/2": resize(0.5, "nearest"),
    "nearest-exact 2": resize(2, "nearest-exact"),
    "nearest-exact 1/3": resize(1 / 3, "nearest-exact"),
    "bilinear 2": resize(2, "bilinear"),
    "bilinear 2 by 3": resize((2, 3), "bilinear"),
    "bilinear 1/2": resize(0.5, "bilinear"),
    "bilinear 1.5": resize(1.5, "bilinear"),
    "bicubic 2": resize(2, "bicubic"),
    "bicubic 3 by 2": resize((3, 2), "bicubic"),
    "area 2": lambda x: F.interpolate(x, size=(x.shape[2] * 2, x.shape[3]), mode="area"),
    "area 1/2": lambda x: F.interpolate(even(x), scale_factor=(0.5, 1), mode="area"),
    "to a size": lambda x: F.interpolate(x, size=[n * 2 for n in x.shape[2:]], mode="bilinear"),
    "shuffle": lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2),
    "unshuffle": lambda x: F.pixel_unshuffle(even(x), 2).unflatten(1, (C, 4)).mean(2),
}

resizings = st.sampled_from(sorted(RESIZINGS)).map(lambda name: Step(RESIZINGS[name], name))

movings = steps(
    slices=lambda x: x[..., 1:, ::2],
    rows=lambda x: x[:, :, 2:-1],
    narrow=lambda x: x.narrow(3, 1, x.shape[3] - 3),
    single=lambda x: x[:1, None, :, 1:][:, 0],
    pad=lambda x: F.pad(x, (1, 2, -1, 1)),
    crop=lambda x: F.pad(x, [-2, -1]),
    channels=lambda x: x[:, [2, 0, 1, 3]] + x.flip(1),
    reshaped=lambda x: x.view(x.size(0), 2, C // 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    split=lambda x: torch.cat([part * 2 for part in x.chunk(C, dim=1)], 1),
    squeezed=lambda x: x.unsqueeze(2).squeeze(2).movedim(1, -1).movedim(-1, 1),
)

MAKERS: list[Callable[[], nn.Module]] = [
    nn.Softplus, nn.Tanh, lambda: nn.BatchNorm2d(C), nn.Dropout, nn.Identity, ChannelsLast,
]  # fmt: skip
pointwise = st.sampled_from(MAKERS).map(lambda make: make())

locals_ = convolutions() | poolings() | deconvolutions() | resizings | movings | pointwise | st.builds(Turned)


@st.composite
def forks(draw: st.DrawFn) -> nn.Module:
    branch = st.lists(
        st.builds(lambda k, d: nn.Conv2d(C, C, k, padding="same", dilation=d), pairs, dilations)
        | st.builds(lambda k: nn.MaxPool2d(k, 1, k // 2), st.integers(1, 3))
        | st.builds(lambda k: nn.Conv2d(C, C, k), pairs)
        | steps(shift=lambda x: x[:, :, 1:], pad=lambda x: F.pad(x, (2, 0)), itself=lambda x: x)
        | pointwise,
        max_size=2,
    )
    branches: list[nn.Module] = [nn.Sequential(*layers) for layers in draw(st.lists(branch, min_size=2, max_size=3))]
    shared = nn.Conv2d(C, C, 3, padding=1)
    if draw(st.booleans()):
        branches = [nn.Sequential(*branches[:1], shared), nn.Sequential(shared, shared, *branches[1:2])]
    return Fork(branches, draw(st.sampled_from(["add", "cat", "stack", "in place"])))


nets = st.lists(locals_ | forks(), min_size=1, max_size=4).map(lambda layers: nn.Sequential(*layers))


def smooth(net: nn.Module) -> nn.Module:
    """The same windows without anything that could hide a pixel: means for maxima, positive weights, float64."""
    net = copy.deepcopy(net).double()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool2d):
                size = (child.kernel_size, child.stride, child.padding)
                parent._modules[name] = nn.AvgPool2d(*size, ceil_mode=child.ceil_mode)
                if child.dilation not in (1, (1, 1)):
                    spread = nn.Conv2d(C, C, *size, child.dilation, groups=C, bias=False)
                    parent._modules[name] = spread.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5 / parameter[0].numel(), 1 / parameter[0].numel(), generator=generator)
    return net


Interval = tuple[int, int]


def seen(y: Tensor, x: Tensor, row: int, column: int) -> Tensor:
    """(H, W) bool: the pixels of the first image on which a unit depends, but for rounding."""
    (gradient,) = torch.autograd.grad(y[0, :, row, column].sum(), x, retain_graph=True)
    found = gradient.abs().sum((0, 1))
    return found > 1e-9 * found.max()


def hull(found: Tensor, dim: int) -> Interval:
    lines = found.any(1 - dim).nonzero()
    return int(lines[0]), int(lines[-1]) + 1


def sized_for(net: nn.Module) -> tuple[int, int]:
    """Of an image in whose middle a unit sees no border, of any of the maps between."""
    traced = trace(net, (1, C, 288, 288))  # large enough for all that is drawn here
    assert not traced.obstacles
    sides = []
    for axis in (0, 1):
        # No layer here pads or crops more than 4 cells of its own, on either side.
        margin = sum(ceil(4 * layer.fields()[axis].stride) for layer in traced.layers)
        sides.append(traced.output.fields()[axis].size + 2 * margin + 16)
    assume(max(sides) < 400)
    return sides[0], sides[1]


def middle(fields: Fields, size: int, cells: int) -> int:
    return min(max(round((size / 2 - fields.centre) / fields.stride), 0), cells - 1)


def inside(found: Interval, field: Interval, size: int) -> bool:
    return max(field[0], 0) <= found[0] and found[1] <= min(field[1], size)


@FEW
@given(nets, st.data())
def test_fields_are_those_of_the_gradients(net: nn.Module, data: st.DataObject) -> None:
    net = net.eval()
    size = sized_for(net)
    traced = trace(net, (1, C, *size))
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, C, *size, dtype=torch.float64, generator=generator).requires_grad_()
    y = smooth(net)(x)
    assert traced.output.shape == tuple(y.shape)
    fields, cells = traced.output.fields(), y.shape[2:]
    unit = [middle(fields[a], size[a], cells[a]) for a in (0, 1)]
    found = seen(y, x, *unit)
    for axis in (0, 1):
        assert hull(found, axis) == fields[axis].inputs(unit[axis], unit[axis] + 1)
    border = [data.draw(st.sampled_from([0, 1, n // 3, n - 2, n - 1])) % n for n in cells]
    found = seen(y, x, *border)
    assume(found.any())
    for axis in (0, 1):
        field = fields[axis].inputs(border[axis], border[axis] + 1)
        assert inside(hull(found, axis), field, size[axis])


dense = (
    st.builds(lambda k, s: nn.Conv2d(C, C, k, (min(k[0], s[0]), min(k[1], s[1]))), pairs, pairs)
    | st.builds(lambda k: nn.MaxPool2d(k, k, ceil_mode=True), st.integers(1, 3))
    | st.builds(lambda k: nn.Conv2d(C, C, k, padding="same"), pairs)
    | deconvolutions()
    | pointwise
)


@FEW
@given(st.lists(dense, min_size=1, max_size=4))
def test_without_gaps_the_field_is_the_very_set(layers: list[nn.Module]) -> None:
    net = nn.Sequential(*layers).eval()
    size = sized_for(net)
    fields = trace(net, (1, C, *size)).output.fields()
    x = torch.rand(1, C, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = smooth(net)(x)
    unit = [middle(fields[a], size[a], y.shape[2 + a]) for a in (0, 1)]
    expected = torch.zeros(size, dtype=torch.bool)
    rows, columns = (slice(*fields[a].inputs(unit[a], unit[a] + 1)) for a in (0, 1))
    expected[rows, columns] = True
    assert torch.equal(seen(y, x, *unit), expected)


class Late(nn.Module):
    """Two inputs of different size, and a vector that scales their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(C, C, 5, 2, 2), nn.Conv2d(1, C, (1, 3), padding=(0, 1))
        self.up = nn.ConvTranspose2d(C, C, 4, 2, 1)

    def forward(self, image: Tensor, depth: Tensor, gain: Tensor) -> Tensor:
        y: Tensor = self.up(self.fine(image) + self.coarse(depth))
        return y * gain[:, :, None, None]


def test_several_inputs() -> None:
    net = Late()
    traced = trace(net, {"image": (1, C, 32, 32), "depth": (1, 1, 16, 16), "gain": (1, C)})
    assert not traced.obstacles
    image = torch.rand(1, C, 32, 32, dtype=torch.float64, requires_grad=True)
    depth = torch.rand(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    y = smooth(net)(image, depth, torch.ones(1, C, dtype=torch.float64))
    for name, x in (("image", image), ("depth", depth)):
        fields = traced.output.fields(name)
        for unit in range(13, 17):
            found = seen(y, x, unit, unit)
            assert [hull(found, axis) for axis in (0, 1)] == [fields[axis].inputs(unit, unit + 1) for axis in (0, 1)]
    assert traced.output.reads["gain"] == (None, None)
    assert not traced.output.local  # of the vector it reads all
    assert traced["up"].local


class Unpools(nn.Module):
    """A pooling and its undoing, with a convolution between."""

    def __init__(self, kernel: int, padding: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(kernel, 2, padding, return_indices=True)
        self.between = nn.Conv2d(C, C, 3, padding=1)
        self.unpool = nn.MaxUnpool2d(kernel, 2, padding)

    def forward(self, x: Tensor) -> Tensor:
        y, indices = self.pool(x)
        return cast(Tensor, self.unpool(self.between(y), indices, output_size=x.shape[2:]))


@pytest.mark.parametrize(("kernel", "padding"), [(2, 0), (3, 1)])
def test_unpooling(kernel: int, padding: int) -> None:
    """Over many images, whose maxima lie elsewhere each time; only which place is taken hides the pooling's window."""
    net = smooth_but_pooling(Unpools(kernel, padding))
    traced = trace(net, (1, C, 25, 25))
    assert not traced.obstacles
    rows, _ = traced.output.fields()
    for unit in (11, 12):
        found: set[int] = set()
        for seed in range(40):
            x = torch.rand(1, C, 25, 25, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            y = net(x.requires_grad_())
            if y[0, :, unit, unit].abs().sum() > 0:
                found |= {int(row) for row in seen(y, x, unit, unit).any(1).nonzero()}
        assert (min(found), max(found) + 1) == rows.inputs(unit, unit + 1)


def test_places_are_read_too() -> None:
    def forward(x: Tensor) -> Tensor:
        _, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(x[..., ::2, ::2], places, [2, 2])

    traced = trace(Step(forward, "unpooled"), (1, C, 24, 24))
    assert not traced.obstacles
    assert traced.output.fields() == (Fields((0, 0), (2, 2), 2),) * 2  # the value alone is that of one pixel in two


def smooth_but_pooling(net: nn.Module) -> nn.Module:
    net = net.double()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1)
    return net


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
@pytest.mark.parametrize("style", ["function", "layer", "convolution", "same"])
def test_padding_from_the_map(mode: Literal["reflect", "replicate"], style: str) -> None:
    """Units at either border read back into the map, and the one field of all units holds that."""
    layers = {
        "function": Step(lambda x: F.pad(x, (1, 3, 2, 0), mode), mode),
        "layer": (nn.ReflectionPad2d if mode == "reflect" else nn.ReplicationPad2d)((1, 3, 2, 0)),
        "convolution": nn.Conv2d(C, C, (5, 1), padding=(2, 3), padding_mode=mode),
        "same": nn.Conv2d(C, C, (2, 5), padding="same", padding_mode=mode),
    }
    net = nn.Sequential(layers[style], nn.Conv2d(C, C, 1))
    size = (14, 15)
    traced = trace(net, (1, C, *size))
    assert not traced.obstacles
    x = torch.rand(1, C, *size, dtype=torch.float64).requires_grad_()
    y = smooth(net)(x)
    for unit in range(min(y.shape[2:])):
        found = seen(y, x, unit, unit)
        for axis in (0, 1):
            assert inside(hull(found, axis), traced.output.fields()[axis].inputs(unit, unit + 1), size[axis])


@pytest.mark.parametrize("name", RESIZINGS)
def test_resizing(name: str) -> None:
    """Every unit of the pattern, where the random nets look at one."""
    net = Step(RESIZINGS[name], name)
    size = (24, 30)
    fields = trace(net, (1, C, *size)).output.fields()
    x = torch.rand(1, C, *size, dtype=torch.float64).requires_grad_()
    y = net(x)
    for unit in range(5):
        at = [int(n * 0.4) + unit for n in y.shape[2:]]
        found = seen(y, x, *at)
        assert [hull(found, axis) for axis in (0, 1)] == [
            fields[axis].inputs(at[axis], at[axis] + 1) for axis in (0, 1)
        ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_up_to_which_factor_nearest_is_exact(dtype: torch.dtype) -> None:
    def exact(factor: int) -> bool:
        cells = torch.arange(2**14 // factor, dtype=dtype)[None, None]
        return torch.equal(F.interpolate(cells, scale_factor=factor), cells.repeat_interleave(factor, 2))

    assert all(exact(factor) for factor in range(1, LARGEST_EXACT + 1))
    if dtype == torch.float32:
        assert not exact(LARGEST_EXACT + 1)
    resized = Step(lambda x: F.interpolate(x, scale_factor=41), "41")
    assert trace(resized, (1, 1, 4, 4)).output.fields()[0].inputs(41, 42) == (0, 2)  # cell 1, or by rounding cell 0
    assert trace(resized, (1, 1, 4, 4)).output.fields()[0].inputs(42, 43) == (1, 2)
