"""What is local and what is not: two tables, each entry proved by running the net."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fullconv.nets.trace import trace

C = 4
N = 24
"""Rows and columns of the input."""

SHIFT, MORE, MARGIN = (4, 8), 8, 7
"""Pixels by which an image is moved, by which it is made larger, and farther than any local entry here sees."""

Forward = Callable[..., Tensor]


class Net(nn.Module):
    """One expression, with the modules that it uses."""

    def __init__(self, forward: Forward, **modules: nn.Module) -> None:
        super().__init__()
        self.expression = forward
        for name, module in modules.items():
            self.add_module(name, module)
        self.register_buffer("row", torch.rand(1, C, N, 1))
        self.register_buffer("gain", torch.rand(1, C, 1, 1))
        self.register_buffer("matrix", torch.rand(C, C))
        self.register_buffer("column", torch.rand(N))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        with torch.no_grad():
            for module in modules.values():  # slopes that differ, where they could
                for weight in module.parameters():
                    weight.add_(torch.rand(weight.shape) / 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.expression(self, x)


def net(forward: Forward, **modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Net(forward, **modules).eval()


def of(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers).eval()


def step(expression: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return net(lambda _, x: expression(x))


def headed(flat: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    """A classifier: flattened as `flat` does it, and one fully connected layer."""
    return net(lambda self, x: self.fc(flat(x)), fc=nn.Linear(C * N * N, 3))


# ---------------------------------------------------------------------------------------------------------------
# proofs


def evidence(module: nn.Module) -> set[str]:
    """Why a net is not a filter that slides: it reaches across the map, acts otherwise elsewhere, or follows its size.

    Each word is a fact about outputs or gradients; a net of local layers gives none of them.
    """
    module, found = module.double(), set()
    generator = torch.Generator().manual_seed(0)
    large = torch.rand(2, C, N + MORE, N + MORE, dtype=torch.float64, generator=generator)
    plain = large[:, :, :N, :N].clone()
    if reaches(module, plain):
        found.add("reaches")
    with torch.no_grad():
        here, moved = module(plain), module(large[:, :, SHIFT[0] :, SHIFT[1] :][:, :, :N, :N].clone())
        if here.ndim == 4 and elsewhere(here, moved):
            found.add("is elsewhere otherwise")
        try:
            larger = module(large.clone())
        except RuntimeError:
            return found | {"takes one size"}
    corner = tuple(slice(n // 4 + 1) for n in here.shape[2:])  # three quarters from where the sizes differ
    near, same = (y[:, :, *corner] if y.ndim == 4 else y[:, :0] for y in (here, larger))
    if near.shape != same.shape or not torch.allclose(near, same, rtol=1e-9, atol=1e-9):
        found.add("follows the size")
    return found


def reaches(module: nn.Module, x: Tensor) -> bool:
    """Whether some output reads a pixel far from its place, or all of the rows or columns."""
    y = module(x.requires_grad_())
    if not y.requires_grad:  # numbers of places
        return False
    for place in (0.0, 0.5, 1.0):
        index = tuple(int(place * (n - 1)) for n in y.shape)
        gradient = torch.autograd.grad(y[index], x, retain_graph=True)[0]
        for dim in (2, 3):
            lines = gradient.abs().sum([d for d in range(4) if d != dim]).nonzero().flatten()
            if len(lines) == 0:
                continue
            first, last = int(lines[0]), int(lines[-1])
            at = place * (N - 1)
            if (first, last) == (0, N - 1) or (y.ndim == 4 and max(at - first, last - at) > N / 2):
                return True
    return False


def elsewhere(here: Tensor, moved: Tensor) -> bool:
    """Whether cells differ that see the same pixels, away from all borders, once the image is moved."""
    ours, theirs = [slice(None)] * 2, [slice(None)] * 2
    for cells, shift in zip(here.shape[2:], SHIFT, strict=True):
        by = shift * max(round(cells / N), 1) // max(round(N / cells), 1)  # maps are whole times finer or coarser
        margin = math.ceil(MARGIN * cells / N)
        ours.append(slice(margin + by, cells - margin))
        theirs.append(slice(margin, cells - margin - by))
    one, other = here[tuple(ours)], moved[tuple(theirs)]
    return one.numel() > 0 and not torch.allclose(one, other, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------------------------------------------------
# what is not local


class Attention(nn.Module):
    """As people write it by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(C, 2, 1), nn.Conv2d(C, 2, 1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.q(x).view(n, -1, h * w), self.k(x).view(n, -1, h * w), self.v(x).view(n, -1, h * w)
        weights = torch.softmax(torch.bmm(q.permute(0, 2, 1), k), dim=-1)
        return x + torch.bmm(v, weights.permute(0, 2, 1)).view(n, c, h, w)


class Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.roll(1, 2) + x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].roll(-1, 2) + gradients[0]


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(self.pool(x)))


def in_train(layer: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(layer).train()


def sequence(self: Any, x: Tensor) -> Tensor:
    tokens, _ = self.attention(*[x.flatten(2).transpose(1, 2)] * 3)
    return cast(Tensor, tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def rows_in_turn(self: Any, x: Tensor) -> Tensor:
    y, _ = self.lstm(x.mean(1))
    return cast(Tensor, y[:, None])


def changed_rows(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :, ::3].mul_(2)
    return y


def changed_above(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :, : N // 2].mul_(2)
    return y


def changed_beside(_: Any, x: Tensor) -> Tensor:
    y = x * 1
    here, below = y[:, :, :-1], y[:, :, 1:]
    here += F.avg_pool2d(here, 3, 1, 1)
    return below


def dropped_rows(_: Any, x: Tensor) -> Tensor:
    y = x * 1
    F.dropout(y[:, :, ::3], 0.5, True, True)
    return y


def cut_off_rows(_: Any, x: Tensor) -> Tensor:
    y = x - 0.5
    F.relu(y[:, :, ::3], True)
    return y


def passed_on(x: Tensor) -> Tensor:
    y = x * 1
    return F.dropout(y[:, :, 1:], training=False).float() + y[:, :, :-1]


def changed_and_left(x: Tensor) -> Tensor:
    y = x * 1
    part = y[:, :, 1:]
    part.mul_(2)
    return part


def changed_by_a_layer(self: Any, x: Tensor) -> Tensor:
    y = x - 0.5
    self.relu(y[:, :, ::3])
    return y


def deeper(x: Tensor) -> Tensor:
    return x.flip(2) if x.shape[2] > N else x * 1


def numbered(x: Tensor) -> Tensor:
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return y + places


def unpooled(x: Tensor) -> Tensor:
    """To a wider map, in which the numbers are of other places."""
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, places, [3, 3], [2, 2])


def unpooled_beyond(x: Tensor) -> Tensor:
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, places, [2, 2], output_size=[x.shape[2], x.shape[3] + 1])


def remembered(self: Any, x: Tensor) -> Tensor:
    self.gain.mul_(x[:1, :, :1, :1])
    return x * self.gain


def coordinates(x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    return torch.cat([x, torch.linspace(-1, 1, w).to(x).expand(n, 1, h, w)], 1)


def dynamic(x: Tensor) -> Tensor:
    return F.conv2d(x[:1], x[:, :, :3, :3])


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        name: of the obstacle; of several, the first.
        words: of its reason.
    """

    build: Callable[[], nn.Module]
    name: str
    words: str


WHOLE, MIX, FLAT = "pools over the whole map", "mixes all positions of the map", "takes the map apart into a row"
STATISTICS, ATTENDS, UNKNOWN = "statistics of the whole map", "weighs all positions", "is not known to be local"
SIZE, BESIDE, PLACES = "depends on the size of the map", "puts maps side by side", "gives places in the map as numbers"

OBSTACLES: dict[str, Case] = {
    "global average pooling": Case(of(nn.Conv2d(C, C, 3), nn.AdaptiveAvgPool2d(1)), "1", WHOLE),
    "global maximum": Case(of(nn.AdaptiveMaxPool2d((1, 1))), "0", WHOLE),
    "global pooling by a function": Case(step(lambda x: F.adaptive_avg_pool2d(x, 1)), "adaptive_avg_pool2d", WHOLE),
    "mean": Case(step(lambda x: x.mean((2, 3))), "mean", MIX),
    "mean of one axis": Case(step(lambda x: x.mean(-1, keepdim=True)), "mean", MIX),
    "mean in two steps": Case(step(lambda x: x.mean(-1).mean(-1)), "mean", MIX),
    "mean, numpy's words": Case(step(lambda x: x.mean(axis=[2, 3], keepdims=True)), "mean", MIX),
    "difference from the mean": Case(step(lambda x: x - x.mean()), "mean", MIX),
    "columns weighed": Case(net(lambda self, x: (x @ self.column)[..., None] * 2), "matmul", MIX),
    "sum over no dimension": Case(step(lambda x: x / x.sum(())), "sum", MIX),
    "sum of all": Case(step(lambda x: x / x.sum()), "sum", MIX),
    "largest of all": Case(step(lambda x: x / x.max()), "max", MIX),
    "largest along rows": Case(step(lambda x: x.max(2, keepdim=True)[0] + x), "max", MIX),
    "deviation, unbiased or not": Case(step(lambda x: x / x.std(False)), "std", MIX),
    "norm": Case(step(lambda x: x / torch.norm(x)), "norm", MIX),
    "normalised along rows": Case(step(lambda x: F.normalize(x, dim=2)), "normalize", MIX),
    "window as large as the map": Case(step(lambda x: F.avg_pool2d(x, x.shape[2:])), "avg_pool2d", SIZE),
    "pooling to 6": Case(of(nn.AdaptiveAvgPool2d(6)), "0", "has windows that grow with the map"),
    "pooling to 7, unequal": Case(of(nn.AdaptiveMaxPool2d((7, None))), "0", "has windows that grow with the map"),
    "nn.Flatten": Case(lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * N * N, 3)), "0", FLAT),
    "torch.flatten": Case(headed(lambda x: torch.flatten(x, 1)), "flatten", FLAT),
    "flatten": Case(headed(lambda x: x.flatten(start_dim=1)), "flatten", FLAT),
    "view": Case(headed(lambda x: x.view(x.size(0), -1)), "view", FLAT),
    "view of a written size": Case(headed(lambda x: x.view(-1, C * N * N)), "view", FLAT),
    "reshape": Case(headed(lambda x: torch.reshape(x, (x.shape[0], -1))), "reshape", FLAT),
    "unpacked": Case(headed(lambda x: x.reshape(len(x), x.shape[1] * x.shape[2] * x.shape[3])), "reshape", FLAT),
    "channels last": Case(headed(lambda x: x.permute(0, 2, 3, 1).flatten(1)), "flatten", FLAT),
    "rows before channels": Case(step(lambda x: x.reshape(2, N, C, N)), "reshape", FLAT),
    "two rows in one": Case(step(lambda x: x.reshape(2, C, N // 2, 2 * N)), "reshape", FLAT),
    "rows among the channels": Case(step(lambda x: x.reshape(2, C * 2, N // 2, N)), "reshape", FLAT),
    "multi-head attention": Case(
        net(sequence, attention=nn.MultiheadAttention(C, 2, batch_first=True)), "flatten", FLAT
    ),
    "attention by hand": Case(lambda: Attention().eval(), "view", FLAT),
    "attention along rows": Case(
        step(lambda x: torch.softmax(x @ x.transpose(2, 3), -1) @ x), "matmul", ATTENDS
    ),
    "einsum": Case(step(lambda x: torch.einsum("nchw,ncvw->nchv", x, x)), "einsum", ATTENDS),
    "scaled dot product": Case(
        step(lambda x: F.scaled_dot_product_attention(x, x, x)), "scaled_dot_product_attention", ATTENDS
    ),
    "batch norm in training": Case(in_train(nn.BatchNorm2d(C)), "0", "statistics of the batch in training mode"),
    "batch norm without memory": Case(of(nn.BatchNorm2d(C, track_running_stats=False)), "0", "always; give it tr"),
    "batch norm by a function": Case(
        step(lambda x: F.batch_norm(x, None, None, training=True)), "batch_norm", "statistics of the batch"
    ),
    "instance norm": Case(of(nn.InstanceNorm2d(C)), "0", STATISTICS),
    "group norm": Case(of(nn.GroupNorm(2, C)), "0", STATISTICS),
    "layer norm over maps": Case(of(nn.LayerNorm([C, N, N])), "0", MIX),
    "layer norm of columns": Case(
        net(lambda self, x: self.norm(x.movedim(1, -1)).movedim(-1, 1), norm=nn.LayerNorm([N, C])), "norm", MIX
    ),
    "squeeze and excitation": Case(lambda: Gate().eval(), "pool", WHOLE),
    "circular convolution": Case(of(nn.Conv2d(C, C, 3, padding=1, padding_mode="circular")), "0", "opposite side"),
    "circular padding": Case(step(lambda x: F.pad(x, (0, 0, 2, 0), mode="circular")), "pad", "opposite side"),
    "position embedding": Case(net(lambda self, x: x + self.row), "add", "a constant of its size"),
    "coordinates as a channel": Case(step(coordinates), "cat", "a constant of its size"),
    "position by numbers": Case(
        step(lambda x: x * torch.arange(x.shape[3])), "mul", "a constant of its size"
    ),
    "linear over the width": Case(of(nn.Linear(N, N)), "0", MIX),
    "softmax over positions": Case(step(lambda x: x * torch.softmax(x, 3)), "softmax", MIX),
    "spatial softmax": Case(of(nn.Softmax(dim=-1)), "0", MIX),
    "channels of a turned map": Case(
        net(lambda self, x: self.norm(x.transpose(1, 2)).transpose(1, 2), norm=nn.BatchNorm2d(N)), "norm",
        "scales every position otherwise",
    ),
    "slopes of rows": Case(
        net(lambda self, x: self.slope(x.transpose(1, 2) - 0.5).transpose(1, 2), slope=nn.PReLU(N)), "slope",
        "scales every position otherwise",
    ),
    "convolution over rows as channels": Case(
        net(lambda self, x: self.conv(x.transpose(1, 2)).transpose(1, 2), conv=nn.Conv2d(N, N, 1)), "conv", MIX
    ),
    "response norm over rows": Case(
        net(lambda self, x: self.norm(x.transpose(1, 2)).transpose(1, 2), norm=nn.LocalResponseNorm(39, alpha=9)),
        "norm", MIX,
    ),
    "gated rows": Case(of(nn.GLU(dim=2)), "0", MIX),
    "gated rows by a function": Case(step(lambda x: F.glu(x, 2)), "glu", MIX),
    "flip": Case(step(lambda x: x + x.flip(2)), "flip", "turns the map round"),
    "rotation": Case(step(lambda x: torch.rot90(x, 1, [2, 3])), "rot90", UNKNOWN),
    "transposition": Case(step(lambda x: x + x.transpose(2, 3)), "add", "lie along different dimensions"),
    "transposition by an attribute": Case(step(lambda x: x.mT + x), "getattr", UNKNOWN),
    "roll": Case(step(lambda x: torch.roll(x, 1, dims=3)), "roll", "moves positions from one end"),
    "running sum": Case(step(lambda x: x.cumsum(2)), "cumsum", "adds up along the map"),
    "sorted": Case(step(lambda x: x.sort(3)[0]), "sort", MIX),
    "lstm over rows": Case(net(rows_in_turn, lstm=nn.LSTM(N, 5, batch_first=True)), "lstm", UNKNOWN),
    "fourier transform": Case(step(lambda x: torch.fft.fft2(x).real), "fft_fft2", UNKNOWN),
    "custom function": Case(step(Rows.apply), "roll", "moves positions from one end"),
    "to a fixed size, no multiple": Case(
        step(lambda x: F.interpolate(x, size=(36, 36), mode="bilinear")), "interpolate", "a ratio that depends on"
    ),
    "by a factor, rounded": Case(
        step(lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=True)),
        "interpolate", "a ratio that depends on",
    ),
    "areas by a factor, rounded": Case(
        step(lambda x: F.interpolate(x, scale_factor=0.7, mode="area")), "interpolate", "a ratio that depends on"
    ),
    "to a fixed size, a multiple": Case(of(nn.Upsample(size=(2 * N, 2 * N))), "0", SIZE),
    "aligned corners": Case(
        of(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)), "0", "aligns the corners"
    ),
    "one above the other": Case(step(lambda x: torch.cat([x, x], 2)), "cat", BESIDE),
    "half beside half": Case(
        step(lambda x: torch.concatenate([x[..., ::2], x[..., 1::2]], axis=3)), "concatenate", BESIDE
    ),
    "repeated": Case(step(lambda x: x.repeat(1, 1, 2, 1)), "repeat", "spreads one value over the whole map"),
    "one row for all": Case(step(lambda x: x + x[:, :, :1]), "add", "spreads one value over the whole map"),
    "one row for all, expanded": Case(step(lambda x: x[:, :, :1].expand_as(x)), "expand_as", "spreads one value"),
    "one position": Case(step(lambda x: x * x[:, :, 0, 0][:, :, None, None]), "getitem", "picks single positions"),
    "rows by number": Case(step(lambda x: x[:, :, list(range(N - 1, -1, -1))]), "getitem", "by their numbers"),
    "chunks of rows": Case(step(lambda x: x.chunk(2, 2)[1] + x.chunk(2, 2)[0]), "chunk", "cuts the map into parts"),
    "rows one by one": Case(step(lambda x: torch.stack(x.unbind(2)[::-1], 2)), "unbind", "takes the map apart into"),
    "the last rows": Case(step(lambda x: x[:, :, -20:]), "getitem", SIZE),
    "some of the last rows": Case(step(lambda x: x.narrow(2, -20, 18)), "narrow", SIZE),
    "the lower half": Case(step(lambda x: x[:, :, x.shape[2] // 4 :]), "getitem", SIZE),
    "channels by the height": Case(step(lambda x: x[:, : x.shape[2] // 8]), "getitem", SIZE),
    "a gain by the width": Case(step(lambda x: x * x.shape[3]), "mul", SIZE),
    "a gain by the width, as a number": Case(step(lambda x: x / math.sqrt(x.shape[3])), "truediv", SIZE),
    "a gain by the width, as a tensor": Case(
        step(lambda x: x * torch.full((1,), float(x.shape[3]))), "mul", "tensor that its forward method makes"
    ),
    "a held gain by the width": Case(net(lambda self, x: x * (self.gain / x.shape[3])), "truediv", SIZE),
    "another net for large maps": Case(step(deeper), "mul", "is not called at all sizes"),
    "one size only": Case(step(lambda x: x.view(2, C, N, N) * 2), "forward", "takes no larger input"),
    "numbers of places": Case(step(numbered), "getitem", PLACES),
    "unpooled to another width": Case(step(unpooled), "max_unpool2d", UNKNOWN),
    "unpooled beyond the map": Case(step(unpooled_beyond), "max_unpool2d", UNKNOWN),
    "filters from the map": Case(step(dynamic), "conv2d", "takes its own numbers from the map"),
    "the map as a filter of itself": Case(
        step(lambda x: F.conv2d(x, x[:, :, :5, :5])), "conv2d", "takes its own numbers from the map"
    ),
    "every third row changed": Case(step(changed_rows), "mul_", "changes in place a part of the map"),
    "the upper half changed": Case(step(changed_above), "mul_", "changes in place a part of the map"),
    "every third row changed by a layer": Case(
        net(changed_by_a_layer, relu=nn.ReLU(inplace=True)), "relu", "changes in place a part of the map"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OBSTACLES)
def test_obstacles(case: str) -> None:
    expected = OBSTACLES[case]
    torch.manual_seed(0)
    module = expected.build()
    traced = trace(module, (2, C, N, N))
    assert traced.obstacles
    found = traced.obstacles[0]
    assert re.fullmatch(rf"{re.escape(expected.name)}(_\d+)?", found.name)
    assert expected.words in found.reason
    assert str(found) == f"{found.name} ({found.kind}) {found.reason}"
    assert evidence(module), "it is local after all"


def test_joined_maps_that_lie_otherwise_have_no_fields() -> None:
    both = Net(lambda self, x: torch.cat([x, x.transpose(2, 3)], 1))
    assert not trace(both, (2, C, N, N)).output.local


UNFOLLOWED: dict[str, tuple[Forward, str]] = {
    "a table of numbers": (lambda self, x: x[:, self.order.view(2, 2)].flatten(1, 2), UNKNOWN),
    "lists in a list": (lambda self, x: x[:, [[0, 1], [2, 3]]].flatten(1, 2), UNKNOWN),
    "two lists": (lambda self, x: x[:, [0, 1], :, [2, 3]], UNKNOWN),
    "a list and a number": (lambda self, x: x[0, :, [0, 1]], UNKNOWN),
    "the map changed under its neighbours": (changed_beside, "changes in place a part of the map"),
    "every third row cut off": (cut_off_rows, "changes in place a part of the map"),
    "every third row dropped": (dropped_rows, "changes in place a part of the map"),
    "words of a call that are not known": (lambda self, x: torch.max(x, other=x * 2), UNKNOWN),
    "a corner that is remembered": (remembered, "changes in place a part of the map"),
    "a map as weights": (lambda self, x: F.conv2d(self.row.expand(1, C, N, N), x[:, :, :3, :3]), UNKNOWN),
    "tuples joined": (lambda self, x: torch.cat(operator.add(x.chunk(2, 1), (x.relu(),)), 1), UNKNOWN),
    "a diagonal": (lambda self, x: x.diagonal(dim1=2, dim2=3) * 2, UNKNOWN),
    "unpooled in other windows": (
        lambda self, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [4, 4], [2, 2], [1, 1]), UNKNOWN
    ),
    "a small factor": (lambda self, x: F.interpolate(x.repeat(1, 1, 9, 9), scale_factor=0.0049), "spreads one value"),
    "a factor of large numbers": (lambda self, x: F.interpolate(x, scale_factor=1.2345), "no ratio of small numbers"),
    "a list beside a tensor": (lambda self, x: x[[0, 1], self.order[:2]], UNKNOWN),
    "pixels from rows": (lambda self, x: F.pixel_shuffle(x.transpose(1, 2), 2).transpose(1, 2), MIX),
    "2x2 cells as channels": (lambda self, x: x.view(2, C, N // 2, 2, N // 2, 2).mean((3, 5)), FLAT),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFOLLOWED)
def test_what_is_not_followed_is_an_obstacle(case: str) -> None:
    """Some of it would be local."""
    forward, words = UNFOLLOWED[case]
    assert words in trace(Net(forward), (2, C, N, N)).obstacles[0].reason


# ---------------------------------------------------------------------------------------------------------------
# what is local


def parts(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    c, d = torch.split(x, [1, 3], dim=1)
    return torch.cat((a * b, c + d[:, :1], torch.tensor_split(d, 3, 1)[2]), dim=1)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)


def added_in_place(x: Tensor) -> Tensor:
    y = x * 1
    first, second = y[:, :2], y.narrow(1, 2, 2).clone()
    first.add_(F.avg_pool2d(second, 3, 1, 1))
    return y


def renamed(x: Tensor) -> Tensor:
    y = x * 1
    z = y
    y += F.pad(x, (2, 0, 1, 0))[:, :, :-1, :-2]
    return z


def cropped(x: Tensor) -> Tensor:
    """U-Net's: the skip is cut to the middle, by half of what the sizes differ."""
    y = F.interpolate(F.max_pool2d(F.avg_pool2d(x, 3, 1), 2), scale_factor=2)
    start = [(a - b) // 2 for a, b in zip(x.shape[2:], y.shape[2:], strict=True)]
    return torch.cat([x[:, :, start[0] : start[0] + y.shape[2], start[1] : start[1] + y.shape[3]], y], 1)


def padded(x: Tensor) -> Tensor:
    h, w = x.shape[-2:]
    y = F.pad(x, (0, (-w) % 4, 0, -h % 4))
    return F.interpolate(F.max_pool2d(y, 4), scale_factor=4)[..., :h, :w]


def windowed(x: Tensor) -> Tensor:
    y, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, places, [2, 2])


LOCAL: dict[str, Callable[[], nn.Module]] = {
    "batch norm": of(nn.BatchNorm2d(C)),
    "batch norm by a function": net(lambda self, x: F.batch_norm(x, self.gain.flatten(), self.gain.flatten())),
    "dropout": of(nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout(), nn.FeatureAlphaDropout()),
    "response norm": of(nn.LocalResponseNorm(3)),
    "activations": of(nn.GELU(), nn.SiLU(), nn.Softplus(), nn.PReLU(), nn.PReLU(C), nn.Hardswish(), nn.Tanh()),
    "functions": step(lambda x: F.gelu(torch.exp(x).clamp(max=2)).sigmoid_() + F.leaky_relu(x - 0.5).abs().sqrt()),
    "channel shuffle": step(shuffled),
    "channel shuffle, the layer": of(nn.ChannelShuffle(2)),
    "groups as a dimension": step(lambda x: x.unflatten(1, (2, 2)).mean(2).repeat(1, 2, 1, 1).reshape(x.shape)),
    "attention over channels": net(lambda self, x: x * torch.softmax(self.q(x), dim=1), q=nn.Conv2d(C, C, 1)),
    "softmax over channels": of(nn.Softmax(dim=1), nn.LogSoftmax(1), nn.Softmax2d()),
    "normalised over channels": step(lambda x: F.normalize(x, dim=1) + F.normalize(x)),
    "pooled to its own size": of(nn.AdaptiveAvgPool2d((None, None))),
    "squeezed of nothing": step(lambda x: x.squeeze(2).squeeze()),
    "images one by one": step(lambda x: torch.stack(x.unbind()) + torch.stack(list(x))),
    "channels by held numbers": net(lambda self, x: x[:, self.order]),
    "layer norm of channels": net(
        lambda self, x: self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(C)
    ),
    "layer norm by hand": step(
        lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    ),
    "linear over channels": net(lambda self, x: (x.movedim(1, -1) @ self.matrix).movedim(-1, 1)),
    "gated channels": of(nn.Conv2d(C, 2 * C, 3), nn.GLU(dim=1)),
    "chunk and split": step(parts),
    "largest channel": step(lambda x: torch.max(x, dim=1, keepdim=True)[0] + x.max(1).values[:, None]),
    "largest of two": step(lambda x: torch.max(x, x.roll(1, 1)) + torch.minimum(x, x.flip(1))),
    "late fusion": net(
        lambda self, x: torch.stack([self.a(x), self.b(x)]).mean(0),
        a=nn.Conv2d(C, 3, 1), b=nn.Conv2d(C, 3, 3, padding=1),
    ),
    "choice": step(lambda x: torch.where(x > 0.5, x, x.neg()).masked_fill(x < 0.1, 0.0)),
    "held gain by the channels": net(lambda self, x: x * (self.gain / x.shape[1])),
    "held gain": net(lambda self, x: x * self.gain + self.gain.sum()),
    "reordered channels": step(lambda x: x[:, [2, 1, 0, 3]] - x.unbind(1)[0][:, None]),
    "first image": step(lambda x: x + x[0] + x.select(0, 1)),
    "shapes": step(lambda x: x * x.shape[1] / len(x)),
    "to a map's own size": step(lambda x: F.interpolate(F.avg_pool2d(x, 2), size=x.shape[2:], mode="bilinear")),
    "in place on half the channels": step(added_in_place),
    "in place under another name": step(renamed),
    "a part passed on": step(passed_on),
    "in place where the rest is left": step(changed_and_left),
    "cut to the middle": step(cropped),
    "padded to a multiple": step(padded),
    "padded to a width": step(lambda x: F.pad(x, (0, 30 - x.shape[3]))),
    "unpooled": step(windowed),
    "circular along nothing": step(lambda x: F.pad(x, (0, 0, 0, 0), mode="circular") + x),
    "gaussian noise": step(lambda x: x + 0 * torch.randn_like(x)),
    "no alignment to do": step(lambda x: F.interpolate(x, size=x.shape[2:], mode="bilinear", align_corners=True)),
}  # fmt: skip


@pytest.mark.parametrize("case", LOCAL)
def test_local(case: str) -> None:
    torch.manual_seed(0)
    module = LOCAL[case]()
    traced = trace(module, (2, C, N, N))
    assert not traced.obstacles
    assert traced.output.local
    assert evidence(module) == set()
    x = torch.rand(2, C, N, N, dtype=torch.float64, requires_grad=True)
    y = module(x)
    unit = [n // 2 for n in y.shape[2:]]
    weighed = y[0, :, unit[0], unit[1]] @ torch.arange(1.0, y.shape[1] + 1).double()
    gradient = torch.autograd.grad(weighed, x)[0].abs()
    for axis, fields in enumerate(traced.output.fields()):
        assert fields.size <= 12
        lines = gradient.sum([0, 1, 3 - axis]).nonzero().flatten()
        if len(lines) == 0:  # what is unpooled there is zero
            continue
        start, stop = fields.inputs(unit[axis], unit[axis] + 1)
        assert start <= int(lines[0])
        assert int(lines[-1]) < stop
