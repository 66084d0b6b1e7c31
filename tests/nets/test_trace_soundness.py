"""Whatever a forward method does: where no obstacle is named, the net is a filter that slides, with its fields."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.nets.trace import Trace, trace

SIZE = (20, 26)

Expression = Callable[["Net", Tensor, int, int], Tensor]


class Net(nn.Module):
    """Expressions in a row, each with two numbers that may be dimensions."""

    def __init__(self, calls: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.calls = calls
        self.register_buffer("kernel", 0.1 + torch.rand(6, 6, 3, 3, dtype=torch.float64))
        self.register_buffer("row", 0.1 + torch.rand(26, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        for name, d, e in self.calls:
            rank = max(x.ndim, 1)  # calls of a number fail or not by themselves
            x = EXPRESSIONS[name](self, x, d % rank, e % rank)
        return x

    def extra_repr(self) -> str:
        return str(self.calls)


def changed(x: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
    """A part of it in place."""
    y = x * 1
    part(y).mul_(2)
    return y


def moved_into(x: Tensor, d: int) -> Tensor:
    y = x * 1
    y.narrow(d, 0, x.shape[d] - 1).add_(x.narrow(d, 1, x.shape[d] - 1))
    return y


EXPRESSIONS: dict[str, Expression] = {
    "transpose": lambda _, x, d, e: x.transpose(d, e),
    "movedim": lambda _, x, d, e: x.movedim(d, e),
    "flip": lambda _, x, d, e: x.flip(d),
    "roll": lambda _, x, d, e: x.roll(1, d),
    "cumsum": lambda _, x, d, e: x.cumsum(d),
    "softmax": lambda _, x, d, e: x * x.softmax(d),
    "mean": lambda _, x, d, e: x.mean(d, keepdim=e % 2 == 0),
    "max": lambda _, x, d, e: x.max(d)[0],
    "normalize": lambda _, x, d, e: F.normalize(x, dim=d),
    "glu": lambda _, x, d, e: F.glu(x, d),
    "narrow": lambda _, x, d, e: x.narrow(d, 1, 3),
    "from the end": lambda _, x, d, e: x[(slice(None),) * d + (slice(-5, None),)],
    "thinned": lambda _, x, d, e: x[(slice(None),) * d + (slice(1, None, 2),)],
    "cut": lambda _, x, d, e: x[(..., slice(1, -1), *(slice(None),) * d)],
    "select": lambda _, x, d, e: x.select(d, 1),
    "list": lambda _, x, d, e: x[(slice(None),) * d + ([1, 0],)],
    "unsqueeze": lambda _, x, d, e: x.unsqueeze(d),
    "squeeze": lambda _, x, d, e: x.squeeze(d),
    "flatten": lambda _, x, d, e: x.flatten(min(d, e), max(d, e)),
    "unflatten": lambda _, x, d, e: x.unflatten(d, (2, -1)),
    "reshape": lambda _, x, d, e: x.reshape(x.shape[0], -1, *x.shape[2:]),
    "chunk": lambda _, x, d, e: x.chunk(2, d)[e % 2] + 1,
    "cat": lambda _, x, d, e: torch.cat([x, x * 2], d),
    "stack": lambda _, x, d, e: torch.stack([x, x.relu()], d),
    "unbind": lambda _, x, d, e: torch.stack(x.unbind(d), e),
    "expand": lambda _, x, d, e: x + x.narrow(d, 0, 1).expand_as(x),
    "repeat": lambda _, x, d, e: x.repeat(*[2 if dim == d else 1 for dim in range(x.ndim)]),
    "pad": lambda _, x, d, e: F.pad(x, (d, e, -1, 1)),
    "reflect": lambda _, x, d, e: F.pad(x, (1, 1, 2, 0), "reflect"),
    "conv": lambda self, x, d, e: F.conv2d(x, self.kernel[:4, :4, : 1 + d % 3, : 1 + e % 3], padding=d % 2),
    "dilated": lambda self, x, d, e: F.conv2d(x, self.kernel[:4, :4], padding=2, dilation=2),
    "transposed": lambda self, x, d, e: F.conv_transpose2d(x, self.kernel[:4, :4], stride=2, padding=e % 2),
    "pool": lambda _, x, d, e: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "larger": lambda _, x, d, e: F.interpolate(x, scale_factor=(2, 1), mode="bilinear"),
    "smaller": lambda _, x, d, e: F.interpolate(x, scale_factor=0.5),
    "shuffle": lambda _, x, d, e: F.pixel_shuffle(x, 2),
    "unshuffle": lambda _, x, d, e: F.pixel_unshuffle(x, 2),
    "adaptive": lambda _, x, d, e: F.adaptive_avg_pool2d(x, (None, 4)),
    "batch norm": lambda self, x, d, e: F.batch_norm(x, self.row[: x.shape[1]], self.row[: x.shape[1]]),
    "layer norm": lambda _, x, d, e: F.layer_norm(x, x.shape[d:]),
    "instance norm": lambda _, x, d, e: F.instance_norm(x),
    "response norm": lambda _, x, d, e: F.local_response_norm(x, 3),
    "prelu": lambda self, x, d, e: F.prelu(x - 0.5, self.row[: x.shape[1]]),
    "linear": lambda self, x, d, e: F.linear(x, self.row[:3, None].expand(3, x.shape[-1])),
    "row": lambda self, x, d, e: x * self.row[: x.shape[-1]],
    "size": lambda _, x, d, e: x * x.shape[d],
    "turned": lambda _, x, d, e: x + x.transpose(d, e),
    "mixed": lambda _, x, d, e: x @ x.transpose(-1, -2),
    "where": lambda _, x, d, e: torch.where(x > 0.5, x, x * 2),
    "part in place": lambda _, x, d, e: changed(x, lambda y: y[(slice(None),) * d + (slice(1, None, 2),)]),
    "neighbours in place": lambda _, x, d, e: moved_into(x, d),
    "windows": lambda _, x, d, e: x.unfold(d, 2, 1).mean(-1),
}
"""On dimensions that are sometimes those of the map, and sometimes not."""

LIKELY = [
    "transpose",
    "movedim",
    "thinned",
    "cut",
    "conv",
    "dilated",
    "transposed",
    "pool",
    "larger",
    "batch norm",
    "stack",
]

call = st.tuples(st.sampled_from([*EXPRESSIONS, *LIKELY * 3]), st.integers(0, 5), st.integers(0, 5))


def seen(y: Tensor, x: Tensor, unit: list[int], dim: int) -> Tensor:
    (gradient,) = torch.autograd.grad(y[tuple(unit)], x, retain_graph=True)
    lines = gradient.abs().sum([each for each in range(4) if each != dim])
    return (lines > 1e-10 * lines.max()).nonzero().flatten()


@settings(max_examples=120, deadline=None)
@given(st.lists(call, min_size=1, max_size=5), st.data())
def test_no_obstacle_no_wrong_pixel(calls: list[tuple[str, int, int]], data: st.DataObject) -> None:
    net = Net(calls)
    shape = (2, 4, *SIZE)
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    try:
        y = net(x)
    except (RuntimeError, IndexError, ValueError):  # calls that do not fit each other
        assume(False)
        return
    assume(0 < y.numel() < 300_000)
    traced = trace(net, shape)
    assert traced.output.shape == tuple(y.shape)
    event("obstacles" if traced.obstacles else "local")
    if traced.obstacles:
        return
    assert traced.output.local
    unit = [data.draw(st.integers(0, n - 1)) for n in y.shape]
    for axis, fields in enumerate(traced.output.fields()):
        lines = seen(y, x, unit, 2 + axis)
        at = unit[traced.output.axes[axis] or 0]
        start, stop = fields.inputs(at, at + 1)
        assert len(lines) == 0 or start <= int(lines[0]) <= int(lines[-1]) < stop
    moves_along(net, traced)


def moves_along(net: nn.Module, traced: Trace) -> None:
    """An image moved by one period of the fields moves what comes out, away from all borders."""
    fields = traced.output.fields()
    height, width = SIZE
    down, across = (each.step for each in fields)
    image = torch.rand(2, 4, height + down, width + across, dtype=torch.float64)
    one, other = net(image[:, :, :height, :width].clone()), net(image[:, :, down:, across:].clone())
    for axis, own in enumerate(fields):
        margin = sum(ceil(3 * layer.fields()[axis].stride) for layer in traced.layers if layer.local)
        dim = traced.output.axes[axis]
        assert dim is not None
        units = [
            unit
            for unit in range(one.shape[dim] - own.period)
            if own.inputs(unit, unit + 1)[0] >= margin
            and own.inputs(unit + own.period, unit + own.period + 1)[1] <= SIZE[axis] - margin
        ]
        one = one.index_select(dim, torch.tensor([unit + own.period for unit in units], dtype=torch.long))
        other = other.index_select(dim, torch.tensor(units, dtype=torch.long))
    torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
