"""Wired nets against the modules that they were traced from, and against steps written by hand."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from fullconv.errors import GeometryError
from fullconv.nets.tracing.graph import Traced
from fullconv.nets.wired import Ref, Step, Wired, layer_name, wired

SHAPE = (2, 3, 7, 6)

Call = Callable[["Held", Tensor], Any]


class Held(nn.Module):
    """Some layers and constants, and what to do with them."""

    shift: Tensor
    order: Tensor

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.conv = nn.Conv2d(3, 4, 3)
        self.same = nn.Conv2d(4, 4, 1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.act = nn.LeakyReLU(0.5, inplace=True)
        self.flat = nn.Flatten()
        self.drop = nn.Dropout(0.5, inplace=True)
        self.scale_ = nn.Parameter(torch.randn(4, 1, 1))
        self.frozen = nn.Parameter(torch.randn(4, 1, 1), requires_grad=False)
        self.register_buffer("shift", torch.randn(4, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def made(module: nn.Module, shape: tuple[int, ...] = SHAPE) -> Wired:
    return wired(Traced.of(module, shape), module)


def held(call: Call) -> Held:
    torch.manual_seed(0)
    return Held(call).eval()


def image(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree(module: nn.Module, net: Wired, shape: tuple[int, ...] = SHAPE) -> None:
    """Bit by bit."""
    with torch.no_grad():
        ours, theirs = net(image(shape)), module(image(shape))
    assert ours.shape == theirs.shape
    assert torch.equal(ours, theirs)


# Steps.


class Noting(nn.Module):
    """Adds a number, and notes who was called and which of the tensors it was ever called with are still there."""

    def __init__(self, name: str, calls: list[str], seen: list[Any], alive: list[list[bool]]) -> None:
        super().__init__()
        self.name, self.calls, self.seen, self.alive = name, calls, seen, alive

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls.append(self.name)
        self.seen.append(weakref.ref(x))
        self.alive.append([ref() is not None for ref in self.seen])
        return x + 1 if y is None else x + y


def noting(uses: dict[str, list[str]], output: str) -> tuple[Wired, list[str], list[list[bool]]]:
    calls: list[str] = []
    seen: list[Any] = []
    alive: list[list[bool]] = []
    layers = {name: Noting(name, calls, seen, alive) for name in uses}
    steps = [Step(f"v{name}", "layer", name, tuple(Ref(each) for each in given)) for name, given in uses.items()]
    return Wired(layers, steps, ["x"], output), calls, alive


def test_steps_run_in_order_and_only_those_that_count() -> None:
    net, calls, _ = noting({"a": ["x"], "dead": ["va"], "b": ["va"], "c": ["vb", "va"]}, "vc")
    assert torch.equal(net(torch.zeros(2)), torch.full((2,), 3.0))
    assert calls == ["a", "b", "c"]


def test_values_are_dropped_after_their_last_use() -> None:
    net, _, alive = noting({"a": ["x"], "b": ["va"], "c": ["vb"], "d": ["vc"], "e": ["vd", "vb"]}, "ve")
    x = torch.zeros(2)
    net(x)
    assert alive[-1] == [True, False, True, False, True]  # x, va, vb, vc, vd: x is the caller's
    assert alive[2] == [True, False, True]


def test_what_was_changed_in_place_and_is_not_read_again_is_dropped() -> None:
    seen: list[Any] = []
    alive: list[list[bool]] = []
    layers = {name: Noting(name, [], seen, alive) for name in "abcd"}
    steps = [
        Step("a", "layer", "a", (Ref("x"),)),
        Step("b", "layer", "b", (Ref("a"),)),
        Step("changed", "method", "mul_", (Ref("b"), 2)),
        Step("c", "layer", "c", (Ref("b"),)),
        Step("d", "layer", "d", (Ref("c"),)),
    ]
    assert Wired(layers, steps, ["x"], "d")(torch.zeros(1)).tolist() == [6.0]  # ((0 + 1 + 1) * 2 + 1) + 1
    assert alive[-1] == [True, False, False, True]


def test_the_output_and_wanted_values_outlive_their_last_use() -> None:
    net, _, _ = noting({"a": ["x"], "b": ["va"], "c": ["vb"]}, "va")
    assert net(torch.zeros(1)).tolist() == [1]
    net, _, _ = noting({"a": ["x"], "b": ["va"], "c": ["vb"]}, "vc")
    found = net.run({"x": torch.zeros(1)}, ["x", "vb"])
    assert {name: value.item() for name, value in found.items()} == {"x": 0, "vb": 2, "vc": 3}


def test_it_runs_from_a_middle_value() -> None:
    net, calls, _ = noting({"a": ["x"], "b": ["va"], "c": ["vb"], "d": ["vc", "x"]}, "vd")
    found = net.run({"x": torch.ones(1), "vb": torch.full((1,), 10.0)}, ["vc"])
    assert calls == ["c", "d"]
    assert {name: value.item() for name, value in found.items()} == {"vc": 11, "vd": 12}


def test_what_is_given_is_changed_in_place_as_it_would_be() -> None:
    steps = [
        Step("early", "method", "add", (Ref("x"), 1)),
        Step("first", "method", "mul_", (Ref("early"), 3)),
        Step("middle", "method", "add", (Ref("early"), 1)),
        Step("changed", "method", "mul_", (Ref("middle"), 2)),
        Step("last", "method", "neg", (Ref("middle"),)),
    ]
    net = Wired({}, steps, ["x"], "last")
    assert net(torch.ones(1)).item() == -14  # ((1 + 1) 3 + 1) 2
    assert net.run({"middle": torch.ones(1)})["last"].item() == -2


def test_until() -> None:
    net, calls, _ = noting({"a": ["x"], "b": ["va"], "c": ["vb"]}, "vc")
    assert net.until("vb")(torch.zeros(1)).item() == 2
    assert calls == ["a", "b"]
    assert net.until("x")(torch.ones(1)).item() == 1
    assert net.until("va").layers["a"] is net.layers["a"]


def test_until_stops_before_the_value_is_changed() -> None:
    net = made(held(lambda net, x: net.act(net.conv(x))))
    start = net.steps[0].name
    x = image()
    torch.testing.assert_close(net.until(start)(x), net.layers["conv"](x), rtol=0, atol=0)


def test_pruned() -> None:
    layers = {"used": nn.Identity(), "unused": nn.Identity()}
    constants = {"kept": torch.ones(1), "left": torch.ones(1)}
    steps = [
        Step("c", "constant", "kept"),
        Step("dead", "constant", "left"),
        Step("a", "layer", "used", (Ref("x"),)),
        Step("b", "function", "operator.add", (Ref("a"), Ref("c"))),
    ]
    net = Wired(layers, steps, ["x"], "b", constants)
    assert set(net.pruned().layers) == {"used"}
    assert set(net.pruned().constants) == {"kept"}
    assert net.pruned().layers["used"] is layers["used"]
    assert net.pruned()(torch.ones(1)).item() == 2
    assert set(net.layers) == {"used", "unused"}


def test_references_in_steps() -> None:
    step = Step(
        "s", "function", "torch.cat", ([Ref("a"), (Ref("b"), 1)], slice(0, Ref("c"))), {"dim": {"at": Ref("d")}}
    )
    assert step.refs() == ["a", "b", "c", "d"]
    assert step.renamed({"b": "x", "d": "y"}).refs() == ["a", "x", "c", "y"]
    assert step.renamed({"a": "z"}).args == ([Ref("z"), (Ref("b"), 1)], slice(0, Ref("c")))
    assert step.refs() == ["a", "b", "c", "d"]


def test_several_inputs_come_by_name() -> None:
    steps = [Step("sum", "function", "operator.add", (Ref("a"), Ref("b")))]
    net = Wired({}, steps, ["a", "b"], "sum")
    assert net({"b": torch.ones(1), "a": torch.ones(1)}).item() == 2
    with pytest.raises(GeometryError, match="no value for the input 'b'; give one for each of a, b"):
        net(torch.ones(1))
    with pytest.raises(GeometryError, match="no value for the input 'a'"):
        net({"b": torch.ones(1)})


@pytest.mark.parametrize(
    ("steps", "output", "message"),
    [
        ([Step("a", "method", "neg", (Ref("y"),))], "a", "step 'a' uses 'y', which no earlier step gives"),
        ([Step("a", "method", "neg", ([Ref("a")],))], "a", "step 'a' uses 'a', which no earlier step gives"),
        ([Step("a", "layer", "none", (Ref("x"),))], "a", "step 'a' calls the layer 'none', which is not there"),
        ([Step("a", "constant", "none")], "a", "step 'a' calls the constant 'none', which is not there"),
        ([Step("a", "function", "os.system", (Ref("x"),))], "a", "calls the function 'os.system', which is not there"),
        ([Step("a", "function", "torch.relu_", (Ref("x"),))], "a", "calls the function 'torch.relu_', which is not"),
        ([Step("a", "method", "__class__", (Ref("x"),))], "a", "calls the method '__class__', which is not there"),
        ([Step("a", "method", "cuda", (Ref("x"),))], "a", "calls the method 'cuda', which is not there"),
        ([Step("a", "module", "layer", (Ref("x"),))], "a", "step 'a' calls the module 'layer', which is not there"),
        ([Step("a", "method", "neg", (Ref("x"),))], "b", "the output 'b' is given by no step"),
        ([], "b", "the output 'b' is given by no step"),
    ],
)
def test_steps_that_cannot_run_are_refused(steps: list[Step], output: str, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Wired({"layer": nn.Identity()}, steps, ["x"], output, {"constant": torch.ones(1)})


def test_a_wanted_value_that_nobody_gives_is_refused() -> None:
    net, _, _ = noting({"a": ["x"]}, "va")
    with pytest.raises(GeometryError, match="'vb' is wanted, which is no input and given by no step"):
        net.run({"x": torch.ones(1)}, ["vb"])


# Traced modules.

CALLS: dict[str, Call] = {
    "layers": lambda net, x: net.same(net.block(net.conv(x))),
    "one layer twice": lambda net, x: net.same(net.same(net.conv(x))),
    "functions and methods": lambda net, x: torch.cat([F.relu(net.conv(x)), net.conv(x).tanh()], dim=1),
    "shapes": lambda net, x: net.conv(x).view(x.size(0), -1, x.shape[2] - 2).reshape(x.shape[0], -1),
    "parts of maps": lambda net, x: net.conv(x)[:, 1:, : x.shape[2] // 2, -3:] + x[..., :1, :1, None][..., 0],
    "constants": lambda net, x: net.conv(x) * net.scale_ + net.shift - net.frozen,
    "numbers for an index": lambda net, x: x[:, net.order],
    "chunks": lambda net, x: torch.mul(*net.conv(x).chunk(2, dim=1)),
    "in place, result used": lambda net, x: torch.relu_(net.act(net.conv(x)).mul_(2)),
    "input in place": lambda net, x: net.conv(x.mul_(2)) + x[:, :1, 1:-1, 1:-1],
}


def layer_in_place(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    net.act(y)
    return net.same(y)


def function_in_place(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    F.relu(y, inplace=True)
    return net.same(y)


def method_in_place(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    y.mul_(net.scale_)
    y.clamp_(max=1)
    return y


def assigned(net: Held, x: Tensor) -> Any:
    y = z = net.conv(x)
    y += 1
    return net.same(z)


def part_in_place(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    y[:, :2].add_(1)
    y.flatten(1)[:, :3].neg_()
    return y


def whole_behind_a_view(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    flat = net.flat(y)
    y.mul_(2)
    return flat


def part_behind_layers(net: Held, x: Tensor) -> Any:
    y = net.conv(x)
    net.act(net.drop(y).permute(0, 2, 3, 1).chunk(2, dim=3)[0])
    return y


CALLS |= {
    each.__name__: each
    for each in (
        layer_in_place, function_in_place, method_in_place, assigned, part_in_place, whole_behind_a_view,
        part_behind_layers,
    )
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_steps_give_what_the_module_gives(name: str) -> None:
    module = held(CALLS[name])
    net = made(module)
    agree(module, net)
    agree(module, net, (1, 3, 10, 9))
    agree(module, net.pruned())
    agree(module, copy.deepcopy(net))


def test_a_change_that_nobody_sees_is_left_out() -> None:
    def call(net: Held, x: Tensor) -> Any:
        y = net.conv(x)
        net.act(net.same(y))
        return y

    net = made(held(call))
    assert [step.target for step in net.steps] == ["conv"]


def test_weights_are_copied() -> None:
    module = held(CALLS["constants"])
    net = made(module)
    before = module(image())
    pointers = {each.untyped_storage().data_ptr() for each in module.state_dict().values()}
    assert not pointers.intersection(each.untyped_storage().data_ptr() for each in net.state_dict().values())
    for each in net.parameters():
        each.data.zero_()
    assert torch.equal(module(image()), before)


def test_constants_are_learned_where_they_were() -> None:
    net = made(held(lambda net, x: (net.conv(x) * net.scale_ + net.shift - net.frozen)[:, net.order]))
    learned = {name: each.requires_grad for name, each in net.constants.items()}
    assert learned == {"scale_": True, "shift": False, "frozen": False, "order": False}
    assert net.constants["order"].dtype == torch.int64
    net(image()).sum().backward()
    assert net.constants["scale_"].grad is not None


def test_layers_that_are_called_twice_stay_one() -> None:
    net = made(held(CALLS["one layer twice"]))
    assert [step.target for step in net.steps] == ["conv", "same", "same"]
    assert len(list(net.parameters())) == 4


def test_weights_that_layers_share_stay_shared() -> None:
    def call(net: Held, x: Tensor) -> Any:
        return net.same(net.block(net.conv(x))) * net.scale_

    module = held(call)
    cast(nn.Conv2d, module.block[0]).weight = module.same.weight
    net = made(module)
    layers = {name: cast(nn.Conv2d, layer) for name, layer in net.layers.items()}
    assert layers["block_0"].weight is layers["same"].weight
    agree(module, net)


@pytest.mark.parametrize("training", [False, True])
def test_layers_keep_their_modes(training: bool) -> None:
    module = held(lambda net, x: net.drop(net.block(net.conv(x))))
    module.drop.train(training)
    net = made(module)
    assert net.layers["drop"].training is training
    assert not net.layers["conv"].training


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (F.dropout, nn.Dropout),
        (F.dropout1d, nn.Dropout1d),
        (F.dropout2d, nn.Dropout2d),
        (F.alpha_dropout, nn.AlphaDropout),
        (F.feature_alpha_dropout, nn.FeatureAlphaDropout),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_dropout_functions_follow_the_mode(
    function: Callable[..., Tensor], kind: type[nn.Module], training: bool
) -> None:
    def call(net: Held, x: Tensor) -> Any:
        return function(of(net.conv(x)), 0.25, net.training)

    def of(x: Tensor) -> Tensor:
        return x.flatten(2) if kind is nn.Dropout1d else x

    module = held(call).train(training)
    net = made(module)
    (layer,) = (each for each in net.layers.values() if type(each) is kind)
    assert layer.p == 0.25
    assert layer.training is training
    x = image()
    for mode in (True, False):
        module.train(mode)
        net.train(mode)
        torch.manual_seed(3)
        theirs = module(x)
        torch.manual_seed(3)
        assert torch.equal(net(x), theirs)
        assert torch.equal(theirs, of(net.layers["conv"](x))) is not mode


def test_dropout_that_always_drops_does_so_still() -> None:
    net = made(held(lambda net, x: F.dropout(net.conv(x), 0.5)))
    assert not torch.equal(net(image()), net(image()))


def test_any_number_of_arguments() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.scale = nn.Parameter(torch.randn(4, 1, 1))

        def forward(self, *inputs: Tensor) -> Tensor:
            return cast(Tensor, self.conv(inputs[0]) * self.scale)

    module = Several()
    net = made(module)
    assert set(net.constants) == {"scale"}
    agree(module, net)


def test_an_attribute_may_be_called_module() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.module(x) + self.module.shift)

    module = Wrapper(held(CALLS["constants"]))
    agree(module, made(module))


def test_inputs_by_name() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(1, 4, 1)

        def forward(self, images: dict[str, Tensor]) -> Tensor:
            return cast(Tensor, self.one(images["rgb"]) + self.other(images["depth"]))

    module = Late()
    shapes = {"rgb": (1, 3, 5, 5), "depth": (1, 1, 5, 5)}
    net = wired(Traced.of(module, shapes), module)
    given = {name: image(shape) for name, shape in shapes.items()}
    assert torch.equal(net(dict(zip(net.inputs, given.values(), strict=True))), module(given))


def test_pruned_weights_are_those_of_today() -> None:
    conv = nn.Conv2d(3, 4, 3)
    module = nn.Sequential(conv, nn.Conv2d(4, 4, 1))
    prune.l1_unstructured(conv, "weight", 0.5)  # type: ignore[no-untyped-call]  # torch declares no types here
    conv.get_parameter("weight_orig").data.mul_(2)  # the weight itself is computed at the next pass
    net = made(module)
    expected = conv.get_parameter("weight_orig") * conv.get_buffer("weight_mask")
    assert torch.equal(cast(nn.Conv2d, net.layers["0"]).weight, expected)
    agree(module, net)


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("features.0.conv", [], "features_0_conv"),
        ("a.b", ["a_b"], "a_b_2"),
        ("a", ["a", "a_2"], "a_3"),
        ("type", [], "type_2"),
        ("copy", [], "copy_2"),  # of ParameterDict
        ("training", [], "training_2"),  # of the instances, not the class
    ],
)
def test_names_without_dots(name: str, taken: list[str], expected: str) -> None:
    assert layer_name(name, dict.fromkeys(taken)) == expected
    nn.ModuleDict({expected: nn.Identity()})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: (net.conv(x), x), "Held returns several values; wrap it so that it returns one"),
        (lambda net, x: {"out": net.conv(x)}, "Held returns several values; wrap it so that it returns one"),
        (
            lambda net, x: net.conv(x) + torch.ones(4, 1, 1),
            "Held makes a tensor in its forward method; make it a buffer",
        ),
        (lambda net, x: net.conv(x.to(net.shift.device)), "to calls to with a device; leave it to the net's user"),
        (lambda net, x: torch.einsum("nchw->nhwc", x), "einsum calls einsum, which no net of steps may; put it into a"),
        (lambda net, x: x.mT, "calls getattr, which no net of steps may"),
    ],
)
def test_what_cannot_be_steps_is_refused(call: Call, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        made(held(call))


def test_a_function_of_the_user_is_not_taken_for_that_of_torch() -> None:
    def relu(x: Tensor) -> Tensor:
        return x * 0

    def call(net: Held, x: Tensor) -> Any:
        return cast(Tensor, net.conv(x))

    module = held(call)
    traced = Traced.of(module, SHAPE)
    node = next(node for node in traced.graph.nodes if node.op == "call_module")
    with traced.graph.inserting_after(node):
        other = traced.graph.call_function(relu, (node,))
    node.replace_all_uses_with(other, lambda user: user is not other)
    with pytest.raises(GeometryError, match="calls relu, which no net of steps may"):
        wired(traced, module)
