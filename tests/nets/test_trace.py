"""Tracing: our trunks against their paths, forward methods of all kinds, and a module that stays as it was."""

from __future__ import annotations

import copy
import gc
import random
import re
import tracemalloc
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from fullconv.errors import GeometryError
from fullconv.fields import Fields
from fullconv.geometry import Window, receptive_field
from fullconv.nets import build
from fullconv.nets.trace import Trace, trace
from fullconv.nets.trunks import TRUNKS

SHAPE = (2, 4, 24, 24)


class Net(nn.Module):
    """One expression, with the modules that it uses."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.expression = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.expression(self, x)


def conv(kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, 4, kernel, **options)


def size(traced: Trace) -> int:
    """Of the field, which is square in these tests."""
    rows, columns = traced.output.fields()
    assert rows == columns
    return rows.size


# ---------------------------------------------------------------------------------------------------------------
# our own nets


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("name", TRUNKS)
def test_trunks_have_the_fields_of_their_paths(name: str, padding: str) -> None:
    """The paths are those of the gradients (test_trunks.py)."""
    trunk = TRUNKS[name].build(3, None if padding == "same" else 100, 0.5, 1 / 64).eval()
    traced = trace(trunk, (1, 3, 300, 270))
    assert not traced.obstacles
    for stride, layer in trunk.taps.items():
        paths = trunk.paths(stride)
        assert traced[layer].fields() == tuple(map(Fields.along, paths))
        assert [fields.field for fields in traced[layer].fields()] == [receptive_field(path) for path in paths]
        assert traced[layer].local


@pytest.mark.parametrize("name", ["fcn8s-vgg16", "fcn16s-alexnet", "fcn8s-slim"])
def test_a_net_is_traced_to_its_scores(name: str) -> None:
    """The score layers read what the paths of the net say."""
    net = build(name, 3, width=1 / 16).eval()
    traced = trace(net, (1, 3, 200, 180))
    trunk = net.trunks["image"]
    for stride in net.heads["semantic"].strides:
        layer = traced[f"heads.semantic.score.image.{stride}"]
        assert layer.fields() == tuple(map(Fields.along, trunk.paths(stride)))
        assert (layer.kind, layer.parameters) == (
            "Conv2d",
            sum(p.numel() for p in net.get_submodule(layer.name).parameters()),
        )


def test_layers() -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 5), (1, 2), padding=(1, 0), bias=False), nn.ReLU(), nn.MaxPool2d(2))
    traced = trace(net, SHAPE)
    assert [(layer.name, layer.kind, layer.shape, layer.parameters) for layer in traced.layers] == [
        ("0", "Conv2d", (2, 6, 24, 10), 6 * 4 * 15),
        ("1", "ReLU", (2, 6, 24, 10), 0),
        ("2", "MaxPool2d", (2, 6, 12, 5), 0),
    ]  # fmt: skip
    assert traced.layers[0].windows == (Window(3, 1, 1), Window(5, 2))
    assert traced.layers[1].windows is None
    rows, columns = traced.output.fields("input")
    assert (rows.size, rows.stride, rows.start, rows.centre) == (4, 2, -1, Fraction(1, 2))
    assert (columns.size, columns.stride, columns.start, columns.centre) == (7, 4, 0, 3)
    assert traced.shapes == {"input": SHAPE}
    assert traced.output is traced.layers[-1] is traced["2"]
    assert repr(traced) == "Trace(3 layers, 0 obstacles)"


def test_blocks_and_repeated_calls() -> None:
    shared = conv()
    net = Net(
        lambda self, x: self.block(self.shared(self.shared(x))), shared=shared, block=nn.Sequential(conv(), conv(1))
    )
    traced = trace(net, SHAPE)
    assert [layer.name for layer in traced.layers] == ["shared", "shared", "block.0", "block.1"]
    assert [traced[name].fields()[0].size for name in ("shared", "block.0", "block")] == [5, 7, 7]
    assert traced["block"] is traced.output


# ---------------------------------------------------------------------------------------------------------------
# forward methods


def looks_at_shapes(self: Any, x: Tensor) -> Tensor:
    _, c, h, w = x.shape
    if h > 10 and x.size(1) == 4 and isinstance(w, int):
        x = self.conv(x)
    for i in range(c // 4):
        x = self.conv(x) + i
    assert x.dim() == 4
    assert not x.is_cuda
    y = F.max_pool2d(x, 2)
    height = x.size()[2:][0]
    return F.interpolate(y, size=(height, round(x.shape[3] / 1)))


def takes_lists_too(self: Any, x: Tensor) -> Tensor:
    """As DenseNet: a tensor that passed for a list would be taken apart."""
    features = [x] if isinstance(x, Tensor) else list(x)
    for _ in range(2):
        features.append(self.conv(features[-1]))
    return features[-1] if torch.is_tensor(x) else features[0]


def adds_without_result(self: Any, x: Tensor) -> Tensor:
    y = self.conv(x)
    y.add_(F.pad(x, (1, -3, 1, -3)))
    F.relu_(y)
    y.mul_(2)
    return y


def assigns(self: Any, x: Tensor) -> Tensor:
    y = x * 1
    z = y
    y += self.conv(x)
    y -= self.conv(y)
    y *= 2
    return z


def both(self: Any, x: Tensor) -> Tensor:
    """`operator.and_` ends like a call in place, and is none."""
    here = x > 0
    there = F.avg_pool2d(x, 3, 1, 1) > 0
    _ = here & there
    return here.float()


def warns(self: Any, x: Tensor) -> Tensor:
    warnings.warn("old", stacklevel=1)
    return self.conv(x)


def writes_out(self: Any, x: Tensor) -> Tensor:
    y = x * 1
    torch.add(x, self.conv(x), out=y)
    return y


class Own(nn.Conv2d):
    """A layer whose forward method is not torch's: it is traced through."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2)


FORWARDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "shapes": (lambda: Net(looks_at_shapes, conv=conv(padding=1)), 6),
    "types": (lambda: Net(takes_lists_too, conv=conv(padding=1)), 5),
    "in place, no result": (lambda: Net(adds_without_result, conv=conv()), 4),
    "assignments, under another name": (lambda: Net(assigns, conv=conv(padding=1)), 5),
    "and": (lambda: Net(both), 1),
    "a warning": (lambda: Net(warns, conv=conv()), 3),
    "out": (lambda: Net(writes_out, conv=conv(padding=1)), 3),
    "a tuple": (lambda: Net(lambda self, x: (self.a(x), self.b(x)), a=conv(5), b=conv()), 5),
    "a tuple, the other first": (lambda: Net(lambda self, x: (self.b(self.a(x)), self.a(x)), a=conv(5), b=conv()), 7),
    "a mapping": (lambda: Net(lambda self, x: {"out": self.a(x), "aux": self.b(x)}, a=conv(5), b=conv()), 5),
    "a block that gives a tuple": (
        lambda: Net(lambda self, x: self.block(x)[1], block=Net(lambda self, x: (x, self.a(x)), a=conv(5))), 5
    ),
    "weight norm": (lambda: nn.Sequential(parametrizations.weight_norm(conv())), 3),
    "spectral norm": (lambda: nn.Sequential(parametrizations.spectral_norm(conv())), 3),
    "spectral norm of old": (lambda: nn.Sequential(spectral_norm(conv())), 3),
    "pruned": (lambda: nn.Sequential(prune.l1_unstructured(conv(), "weight", 0.5)), 3),
    "subclass": (lambda: Own(4, 4, 3), 3),
    "double": (lambda: conv().double(), 3),
    "bfloat16": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(4)).bfloat16().eval(), 3),
}  # fmt: skip


@pytest.mark.parametrize("case", FORWARDS)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated")
def test_forward_methods(case: str) -> None:
    make, expected = FORWARDS[case]
    traced = trace(make(), SHAPE)
    assert not traced.obstacles
    assert size(traced) == expected


def test_the_graph_runs_at_other_sizes() -> None:
    """Shapes stay symbolic in it."""

    def forward(self: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.conv(x).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return F.interpolate(y, size=(h * 2, w)) * self.scale

    net = Net(forward, conv=conv(padding=1))
    net.register_buffer("scale", torch.rand(1))
    module = torch.fx.GraphModule(net, trace(net, SHAPE).traced.graph)
    x = torch.rand(3, 4, 31, 17)
    torch.testing.assert_close(module(x), net(x), rtol=0, atol=0)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, twice: bool = True) -> Tensor:
        x = self.conv(x) * scale
        if mask is not None:
            x = x * mask[:, :, 1:-1, 1:-1]
        return self.conv(x) if twice else x


class Variadic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, *args: Tensor, **options: Any) -> Tensor:
        first, *more = args
        return self.conv(first) if options.get("plain", True) else first + len(more)


class Mapped(nn.Module):
    """Takes and gives mappings by name, as nets of several inputs do."""

    def __init__(self) -> None:
        super().__init__()
        self.color, self.depth = conv(5), nn.Conv2d(1, 4, 3)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        ends = {name: getattr(self, name)(x) for name, x in inputs.items()}
        return {"sum": ends["color"] + ends["depth"][:, :, 1:-1, 1:-1], **ends}


def test_optional_arguments() -> None:
    assert size(trace(Optional(), SHAPE)) == 5
    traced = trace(Optional(), {"x": SHAPE, "mask": (2, 1, 24, 24)})
    assert [traced.output.fields(name)[0] for name in ("x", "mask")] == [Fields((0,), (5,)), Fields((1,), (4,))]
    assert size(trace(Variadic(), SHAPE)) == 3


def test_mappings() -> None:
    traced = trace(Mapped(), {"color": SHAPE, "depth": (2, 1, 24, 24)})
    rows, columns = traced.output.fields("depth")
    assert rows == columns == Fields((1,), (4,))
    assert traced.output.fields("color") == traced.output.fields() == (Fields((0,), (5,)),) * 2
    assert (traced["depth"].kind, traced["color"].name) == ("Conv2d", "color")
    assert traced.shapes == {"color": SHAPE, "depth": (2, 1, 24, 24)}


class Along(nn.Module):
    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return x * gain


def test_a_vector_along_the_map() -> None:
    """One gain a column is no map, whatever its shape says."""
    assert not trace(Along(), {"x": SHAPE, "gain": (1, 1)}).obstacles
    assert trace(Along(), {"x": SHAPE, "gain": (24,)}).obstacles[0].reason == "adds to the map a constant of its size"


def test_images_without_a_batch() -> None:
    net = nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(2), nn.Upsample(scale_factor=2)).eval()
    assert trace(nn.Sequential(*net[:3]), (4, 24, 24)).output.fields()[0] == Fields((0,), (4,), 2)
    with pytest.raises(GeometryError, match="cannot be traced at 24x24 "):
        trace(net, (24, 24))
    # Interpolation takes three dimensions for (N, C, L).
    assert trace(nn.Upsample(scale_factor=2), (4, 24, 24)).output.fields()[0] == Fields()
    assert trace(nn.BatchNorm1d(24).eval(), (4, 24, 24)).obstacles[0].reason == "scales every position otherwise"


def test_vectors_have_no_fields() -> None:
    traced = trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (2, 4))
    assert not traced.obstacles
    assert (traced.output.axes, traced.output.local) == ((None, None), False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv1d(4, 4, 3), (2, 4, 24)), (nn.Conv3d(4, 4, 3), (2, 4, 8, 24, 24)), (nn.AvgPool1d(2), (2, 4, 24))],
    ids=["conv1d", "conv3d", "pool1d"],
)
def test_other_dimensions_are_obstacles(layer: nn.Module, shape: tuple[int, ...]) -> None:
    traced = trace(layer, shape)
    assert "is not known to be local" in traced.obstacles[0].reason
    assert not traced.output.local


class Told(nn.Module):
    """Tells its own geometry; what it computes is not looked at."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self.told = told

    def fields(self, x: Tensor, *more: Any) -> Any:
        assert x.is_meta
        return self.told

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        return torch.fft.fft2(x).real


def test_modules_that_tell() -> None:
    told = Told((Fields((-1,), (2,)), Fields((0,), (2,), 2)))
    traced = trace(nn.Sequential(told, nn.Conv2d(4, 4, 3)), SHAPE)
    assert not traced.obstacles
    assert traced.output.fields() == (Fields((-1,), (4,)), Fields((0,), (6,), 2))
    other = Net(lambda self, x: self.told(x, F.relu(x)), told=told)
    assert "takes its own numbers from the map" in str(trace(other, SHAPE).obstacles[0])
    both = Told((Fields(), Fields()))
    both.forward = lambda x: (x, x.mean((2, 3)))  # type: ignore[method-assign]
    assert trace(Net(lambda self, x: self.both(x)[0], both=both), SHAPE).output.fields() == (Fields(), Fields())
    assert (
        "is not known to be local" in trace(Net(lambda self, x: self.both(x)[1], both=both), SHAPE).obstacles[0].reason
    )
    turned = Net(lambda self, x: self.told(x.transpose(2, 3)), told=told)
    assert "is not known to be local" in str(trace(turned, SHAPE).obstacles[0])


def test_other_things_called_fields() -> None:
    class Owner(nn.Module):
        def __init__(self, fields: Any) -> None:
            super().__init__()
            self.fields, self.conv = fields, conv()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.fields(x) if isinstance(self.fields, nn.Module) else x)

    assert size(trace(nn.Sequential(Owner([1, 2])), SHAPE)) == 3
    assert size(trace(nn.Sequential(Owner(conv())), SHAPE)) == 5
    with pytest.raises(GeometryError, match=r"0 \(Owner\) has a method `fields` that gives TypeError\("):
        trace(nn.Sequential(Owner(lambda: 3)), SHAPE)


@pytest.mark.parametrize("told", [None, Fields(), (Fields(), None), (Fields(), Fields(), Fields())])
def test_modules_that_tell_something_else(told: Any) -> None:
    message = (
        f"0 (Told) has a method `fields` that gives {told!r}; expected a pair of fullconv.fields.Fields, of rows and"
    )
    with pytest.raises(GeometryError, match=re.escape(message)):
        trace(nn.Sequential(Told(told)), SHAPE)


def relu(x: Tensor) -> Tensor:
    """No relu, whatever its name says."""
    return torch.fft.fft2(x).real


torch.fx.wrap("relu")


def test_functions_are_known_by_more_than_their_names() -> None:
    traced = trace(Net(lambda self, x: relu(x)), SHAPE)
    assert traced.obstacles[0].kind.endswith("test_trace.relu")
    assert "is not known to be local" in traced.obstacles[0].reason
    named = Net(lambda self, x: F.interpolate(x, scale_factor=2, mode="bilinear", antialias=True))
    assert "is not known to be local" in trace(named, SHAPE).obstacles[0].reason
    unread = trace(Net(lambda self, x: x.mean(1, True, dtype=torch.float64)), SHAPE)
    assert not unread.obstacles


def test_every_obstacle_is_named() -> None:
    layers = [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)]
    layers += [nn.BatchNorm2d(4), nn.GELU(), nn.InstanceNorm2d(4)]
    traced = trace(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), SHAPE)
    assert [obstacle.name for obstacle in traced.obstacles] == ["0", "1", "3", "5", "6"]


# ---------------------------------------------------------------------------------------------------------------
# the module stays as it was


class Large(nn.Module):
    """100 MB in a parameter, a buffer and an attribute; a forward method that leaves things behind."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("buffer", torch.zeros(2, 4, 1_000_000))
        self.linear = nn.Conv2d(4, 2_000_000, 1, bias=False)
        self.plain = [torch.zeros(9_000_000)]
        self.norm, self.drop = nn.BatchNorm2d(4), nn.Dropout()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        self.last = self.norm(x)
        return self.drop(self.linear(self.last)[:, :4]) + self.buffer.sum() + self.plain[0].sum()


@pytest.mark.parametrize("training", [False, True])
def test_the_module_stays_as_it_was(training: bool) -> None:
    net = Large().train(training)
    before, names, mode = copy.deepcopy(net.state_dict()), set(vars(net)), torch.get_default_device()
    states = torch.get_rng_state(), random.getstate()
    alive = {id(each) for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter)}
    tracemalloc.start()
    traced = trace(net, (1, 4, 8, 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    new = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and id(each) not in alive]
    assert all(each.is_meta for each in new)
    assert len(traced.layers) > 3
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert (set(vars(net)), net.seen, net.training) == (names, [], training)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert torch.get_default_device() == mode
    assert torch.is_grad_enabled()
    assert isinstance(3, int)
    assert isinstance.__module__ == "builtins"


def test_a_failed_trace_leaves_nothing_behind() -> None:
    call = nn.Module.__call__
    with pytest.raises(GeometryError, match="cannot be traced"):
        trace(conv(), (2, 3, 24, 24))
    assert nn.Module.__call__ is call
    assert isinstance.__module__ == "builtins"
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------------------------------------------------------
# refusals


DATA = "control flow depends on the data of"


def assigned(self: Any, x: Tensor) -> Tensor:
    y = x * 1
    y[:, :, 0] = 0
    return y


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "if": (lambda self, x: x if x.sum() > 0 else -x, f"{DATA} gt; let it depend on shapes only"),
    "while": (lambda self, x: [x for _ in range(int(x.max()))], f"{DATA} max_1; let it depend on shapes only"),
    "float": (lambda self, x: x * float(x.mean()), f"{DATA} mean; let it depend on shapes only"),
    "item": (
        lambda self, x: x if x.mean().item() > 0 else -x,
        "Net cannot be traced at 2x4x24x24 (RuntimeError: Tensor.item() cannot be called on meta tensors); give the ",
    ),
    "mask": (lambda self, x: x[x > 0], "Net cannot be traced at 2x4x24x24 (NotImplementedError: "),
    "assigned": (assigned, "a part of mul is assigned to; put maps together by torch.cat or torch.where"),
    "own error": (
        lambda self, x: x.reshape(7, -1), "Net cannot be traced at 2x4x24x24 (RuntimeError: shape '[7, -1]' is invalid"
    ),
    "no tensor": (lambda self, x: 3, "Net returns no tensor that it computes from its input"),
    "the input itself": (lambda self, x: x, "Net returns no tensor that it computes from its input"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    forward, message = REFUSED[case]
    with pytest.raises(GeometryError, match=re.escape(message)) as caught:
        trace(Net(forward), SHAPE)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_copied() -> None:
    net = conv()
    net.generator = (i for i in range(3))  # type: ignore[assignment]
    with pytest.raises(GeometryError, match=r"Conv2d cannot be traced at 2x4x24x24 \(TypeError: .*generator"):
        trace(net, SHAPE)
    with pytest.raises(GeometryError, match="Mapped cannot be traced at 2x4x24x24, 1x1 "):
        trace(Mapped(), {"color": SHAPE, "depth": (1, 1)})
    with pytest.raises(
        GeometryError, match=re.escape("0 (LazyConv2d) has no weights yet; run the net once, on an image")
    ):
        trace(nn.Sequential(nn.LazyConv2d(3, 3)), SHAPE)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks(register: str) -> None:
    net = nn.Sequential(conv(), nn.ReLU())
    seen: list[Any] = []
    handle = getattr(net[0], register)(lambda *arguments: seen.append(arguments))
    with pytest.raises(
        GeometryError, match=re.escape("0 (Conv2d) has a forward hook, which may change what it gives; rem")
    ):
        trace(net, SHAPE)
    handle.remove()
    handle = getattr(net, register)(lambda *arguments: seen.append(arguments))
    with pytest.raises(
        GeometryError, match="Sequential has a forward hook, which may change what it gives; remove it to"
    ):
        trace(net, SHAPE)
    handle.remove()
    assert size(trace(net, SHAPE)) == 3
    assert not seen


def test_questions_without_an_answer() -> None:
    traced = trace(
        Net(lambda self, x: self.fc(self.pool(x).flatten(1)), pool=nn.AdaptiveAvgPool2d(1), fc=nn.Linear(4, 3)), SHAPE
    )
    with pytest.raises(GeometryError, match="fc reads all of the image; only units of maps have limited fields"):
        traced.output.fields()
    with pytest.raises(GeometryError, match="fc does not depend on the input depth"):
        traced.output.fields("depth")
    with pytest.raises(GeometryError, match="no layer 'fc7' among the 3 of the net; the nearest are fc, flatten, pool"):
        traced["fc7"]
    message = r"^tiles needs a net of local layers: pool \(AdaptiveAvgPool2d\) pools over the whole map$"
    with pytest.raises(GeometryError, match=message):
        traced.require_local("tiles")
    two = trace(nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)), SHAPE)
    with pytest.raises(GeometryError, match=r"statistics of the whole map \(and 1 more\)$"):
        two.require_local("tiles")
    trace(conv(), SHAPE).require_local("tiles")


def test_windows_given_as_lists() -> None:
    net = Net(lambda self, x: F.avg_pool2d(x, [2]) + F.max_pool2d(x, 2, 2, [0], [1]))
    assert size(trace(net, SHAPE)) == 2
