"""Wiring: every classifier of the zoo through JSON and back, and no JSON that does more than be refused."""

from __future__ import annotations

import copy
import json
import math
import resource
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from classifiers import CLASSIFIERS, images
from fullconv.errors import GeometryError, OptionError
from fullconv.nets.dense_classifier import convolutionalize
from fullconv.nets.dilated_pool import DilatedAvgPool, DilatedMaxPool
from fullconv.nets.functions import FUNCTIONS, LONGEST, METHODS
from fullconv.nets.layer_table import LAYERS, RULES
from fullconv.nets.trace import trace
from fullconv.nets.trunks.response_norm import ResponseNorm
from fullconv.nets.wired import Ref, Step, Wired
from fullconv.nets.wiring import MAX_STEPS, MAX_VALUES, from_json, to_json

X = {"ref": "x"}


def step(name: str, target: str, *args: Any, kind: str = "function", **options: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "target": target, "args": list(args), "options": options}


def layer(kind: str, frozen: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    return {"class": kind, "options": options, "frozen": list(frozen)}


def wiring(*steps: Any, layers: Any = None, constants: Any = None) -> dict[str, Any]:
    return {
        "inputs": ["x"], "output": steps[-1]["name"], "steps": list(steps), "layers": layers or {},
        "constants": constants or {},
    }  # fmt: skip


def one(made: nn.Module) -> Wired:
    """A net of one layer."""
    return Wired({"one": made}, [Step("y", "layer", "one", (Ref("x"),))], ["x"], "y").eval()


def refusal(value: Any) -> str:
    """The one line with which it is refused."""
    with pytest.raises((OptionError, GeometryError)) as caught, torch.device("meta"):
        from_json(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000
    return str(caught.value)


def again(net: Wired) -> Wired:
    """Through text and back, with the weights of the first."""
    made = from_json(json.loads(json.dumps(to_json(net), allow_nan=False)))
    made.load_state_dict(net.state_dict())
    return made.eval()


@pytest.fixture(scope="module")
def zoo() -> dict[str, dict[str, Any]]:
    """Wirings of a few classifiers with many kinds of steps."""
    names = ("convnext", "googlenet", "densenet", "reshape, functional dropout, log_softmax")
    found = {}
    for name in names:
        specimen = CLASSIFIERS[name]
        found[name] = to_json(convolutionalize(specimen.build(), specimen.size, channels=specimen.channels).net)
    return found


class TestRoundTrip:
    @pytest.mark.parametrize("name", CLASSIFIERS)
    def test_every_classifier(self, name: str) -> None:
        specimen = CLASSIFIERS[name]
        net = convolutionalize(specimen.build(), specimen.size, channels=specimen.channels).net
        made = again(net)
        assert made.steps == net.steps
        assert to_json(made) == to_json(net)
        # By hand, because a copy of weights that were laid out otherwise may sum in another order.
        x = images(2, specimen.channels, (specimen.size[0] + 9, specimen.size[1] + 14))
        with torch.no_grad():
            torch.testing.assert_close(made(x), net(x), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        "made",
        [
            nn.Conv2d(4, 6, (3, 5), (2, 1), (1, 2), (1, 2), 2, bias=False), nn.Conv2d(4, 4, 3, padding="same"),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(4, 2, 4, 2, 1, bias=False),
            nn.ConvTranspose2d(4, 2, 3, 2, 1, output_padding=1), nn.Linear(9, 5, bias=False),
            nn.BatchNorm2d(4, 1e-3, None), nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, bias=False),
            nn.LayerNorm(9, 1e-6, bias=False), nn.LayerNorm((7, 9), elementwise_affine=False), nn.RMSNorm(9),
            nn.LocalResponseNorm(3, 1e-3, 0.5, 2.0), ResponseNorm(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.AvgPool2d((2, 3), 1, count_include_pad=False, divisor_override=5), nn.LPPool2d(2, 3),
            DilatedMaxPool((2, 3), (1, 2), (2, 1)), DilatedAvgPool((2, 1), (1, 0), (3, 1), False, 5),
            nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=(3, 2), mode="bilinear", align_corners=False),
            nn.PixelShuffle(2), nn.ChannelShuffle(2), nn.ConstantPad2d((1, 2, 0, -1), 0.5), nn.ZeroPad2d(2),
            nn.ReflectionPad2d((1, 2, 3, 4)), nn.ReplicationPad2d(1), nn.CircularPad2d(1), nn.ReLU(inplace=True),
            nn.ReLU6(), nn.SELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(),
            nn.LogSigmoid(), nn.Tanh(), nn.Tanhshrink(), nn.Softsign(), nn.Softmax2d(), nn.Identity(), nn.Softmax(1),
            nn.LogSoftmax(-3), nn.Softmin(1), nn.GLU(1), nn.ELU(0.5, True), nn.CELU(0.5), nn.Hardshrink(0.3),
            nn.Softshrink(0.3), nn.Dropout(0.2, True), nn.Dropout2d(0.2), nn.AlphaDropout(0.2),
            nn.FeatureAlphaDropout(0.2), nn.LeakyReLU(0.2, True), nn.RReLU(0.1, 0.2), nn.PReLU(4),
            nn.GELU("tanh"), nn.Hardtanh(-0.5, 2), nn.Softplus(2, 10), nn.Threshold(0.1, 20),
        ],
        ids=repr,
    )  # fmt: skip
    def test_every_layer(self, made: nn.Module) -> None:
        """The same class, the same options (by torch's own description), the same numbers."""
        net = one(made)
        copied = again(net)
        assert repr(copied) == repr(net)
        x = images(2, 4, (7, 9))
        with torch.no_grad():
            assert torch.equal(copied(x.clone()), net(x.clone()))

    def test_the_table_is_tested_whole(self) -> None:
        marks = TestRoundTrip.test_every_layer.pytestmark  # type: ignore[attr-defined]
        tested = {type(made) for mark in marks for made in mark.args[1]} | {nn.PixelUnshuffle}
        assert tested == set(LAYERS)
        assert {option for options in LAYERS.values() for option in options.split()} == set(RULES)

    def test_pixels_to_channels(self) -> None:
        x = torch.rand(1, 2, 6, 4)
        assert torch.equal(again(one(nn.PixelUnshuffle(2)))(x), nn.functional.pixel_unshuffle(x, 2))

    def test_every_argument(self) -> None:
        """Texts, types, slices, nothing, the rest; tuples stay tuples and lists lists."""
        steps = [
            Step("a", "function", "operator.getitem", (Ref("x"), (slice(None), None, Ellipsis, slice(1, -1, 2)))),
            Step("b", "method", "to", (Ref("a"), torch.float64)),
            Step("c", "method", "contiguous", (Ref("b"),), {"memory_format": torch.preserve_format}),
            Step("d", "method", "squeeze", (Ref("c"), 1)),
            Step("e", "function", "functional.interpolate", (Ref("d"),), {"scale_factor": 2.0, "mode": "bilinear"}),
            Step("f", "method", "sum", (Ref("e"),), {"dim": [1], "keepdim": True}),
            Step("w", "constant", "weight"),
            Step("g", "function", "torch.mul", (Ref("f"), Ref("w"))),
            Step("n", "method", "size", (Ref("g"), -1)),
            Step("m", "function", "operator.floordiv", (Ref("n"), 2)),
            Step("y", "function", "operator.getitem", (Ref("g"), (Ellipsis, slice(None, Ref("m"))))),
        ]
        net = Wired({}, steps, ["x"], "y", {"weight": nn.Parameter(torch.tensor([2.0]).double())})
        copied = again(net)
        assert copied.steps == net.steps
        assert [type(each.args[1]) for each in copied.steps if each.name in "ay"] == [tuple, tuple]
        x = torch.rand(1, 3, 4, 12)
        assert torch.equal(copied(x), net(x))
        assert net(x).shape == (1, 1, 8, 5)

    def test_what_is_learned_stays_so(self) -> None:
        net = one(nn.Conv2d(1, 1, 1))
        net.layers["one"].weight.requires_grad_(False)
        net = Wired(
            net.layers, [*net.steps, Step("c", "constant", "scale"), Step("d", "constant", "count"),
                         Step("z", "function", "torch.addcmul", (Ref("y"), Ref("c"), Ref("d")))],
            ["x"], "z", {"scale": nn.Parameter(torch.ones(1)), "count": torch.ones(1, dtype=torch.int64)},
        )  # fmt: skip
        found = {name: (weight.requires_grad, weight.dtype) for name, weight in again(net).named_parameters()}
        assert found == {
            "layers.one.weight": (False, torch.float32), "layers.one.bias": (True, torch.float32),
            "constants.scale": (True, torch.float32), "constants.count": (False, torch.int64),
        }  # fmt: skip

    def test_nothing_is_allocated_on_meta(self, zoo: dict[str, Any]) -> None:
        with torch.device("meta"):
            assert all(weight.is_meta for weight in from_json(zoo["convnext"]).state_dict().values())


class Doubling(nn.Conv2d):
    """A known class, another forward."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's own name)
        return 2 * super().forward(input)


def reshaped() -> nn.Module:
    made = nn.Conv2d(3, 4, 1)
    made.weight = nn.Parameter(torch.zeros(5, 3, 1, 1))
    return made


def hooked() -> nn.Module:
    made = nn.ReLU()
    made.register_forward_hook(lambda *_: None)
    return made


def patched() -> nn.Module:
    made = nn.ReLU()
    made.forward = torch.neg  # type: ignore[method-assign,assignment]
    return made


PLAIN = "a file holds plain Conv2d, ConvTranspose2d, Linear and others of its table"
BARE = "remove its hooks and parametrizations (torch.nn.utils.parametrize.remove_parametrizations)"


class TestWriting:
    @pytest.mark.parametrize(
        ("made", "message"),
        [
            (
                Doubling(3, 3, 1),
                f"layer 'one' is a Doubling; {PLAIN}: wrap it so that it is traced through, or use a layer of torch",
            ),
            (nn.GroupNorm(1, 3), "layer 'one' is a GroupNorm; a file holds"),
            (nn.SyncBatchNorm(3), "layer 'one' is a SyncBatchNorm; a file holds"),
            (hooked(), f"layer 'one' is a hooked ReLU; {PLAIN}: {BARE}"),
            (patched(), "layer 'one' is a hooked ReLU; a file holds"),
            (
                parametrizations.weight_norm(nn.Conv2d(3, 3, 1)),
                f"layer 'one' is a ParametrizedConv2d; {PLAIN}: {BARE}",
            ),
            (reshaped(), "layers.one.weight is 5x3x1x1; its layer's options make it 4x3x1x1: build the layer anew"),
            (
                nn.ConstantPad2d(1, -math.inf),
                "layer 'one': value is -inf; a file holds a number of -1e+300 to 1e+300: choose one of those",
            ),
            (
                nn.MaxPool2d(5000),
                "layer 'one': kernel_size is 5000; a file holds a whole number of 1 to 4096, or up to four: choose",
            ),
            (
                nn.Upsample((9, 9)),
                "step 'y' resizes otherwise than by a factor of 0.001 to 64, corners not aligned; give scale_",
            ),
        ],
    )
    def test_what_no_file_holds(self, made: nn.Module, message: str) -> None:
        with pytest.raises((OptionError, GeometryError)) as caught:
            to_json(one(made))
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    def test_arguments_that_no_file_holds(self) -> None:
        net = Wired({}, [Step("y", "method", "to", (Ref("x"), torch.device("cpu")))], ["x"], "y")
        with pytest.raises(OptionError) as caught:
            to_json(net)
        assert str(caught.value) == (
            "step 'y' is given a device; a file holds numbers, words, slices and lists of them"
        )
        net = Wired({}, [Step("y", "method", "clamp", (Ref("x"), -math.inf))], ["x"], "y")
        with pytest.raises(
            OptionError, match="-inf among the arguments; expected finite numbers, whole ones of 64 bits"
        ):
            to_json(net)
        net = Wired({}, [Step("y", "method", "to", (Ref("x"), "cuda"))], ["x"], "y")
        with pytest.raises(OptionError, match="unknown word among the arguments 'cuda'"):
            to_json(net)


RELU = step("y", "torch.relu", X)
CONV = {
    "in_channels": 3, "out_channels": 4, "kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0],
    "dilation": [1, 1], "groups": 1, "bias": True, "padding_mode": "zeros",
}  # fmt: skip


def conv(**options: Any) -> dict[str, Any]:
    return wiring(step("y", "c", X, kind="layer"), layers={"c": layer("Conv2d", **{**CONV, **options})})


def constant(**parts: Any) -> dict[str, Any]:
    return wiring(
        step("w", "w", kind="constant"),
        step("y", "torch.mul", X, {"ref": "w"}),
        constants={"w": {"shape": [3], "type": "float32", "learned": False, **parts}},
    )


def deep(levels: int, end: Any = None) -> Any:
    value = end
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    # Shapes of the whole.
    (None, "the wiring has the keys 'NoneType'; expected constants, inputs, layers, output, steps"),
    ({}, "the wiring has the keys 'none'; expected"),
    ({**wiring(RELU), "code": ""}, "the wiring has the keys 'inputs, output, steps, layers, constants, code'; exp"),
    ({**wiring(RELU), "steps": None}, "the wiring is incomplete or of a wrong type (TypeError: "),
    ({**wiring(RELU), "steps": {"a": 1}}, "a step has the keys 'str'; expected args, kind, name, options, target"),
    ({**wiring(RELU), "layers": []}, "the wiring is incomplete or of a wrong type (AttributeError: "),
    ({**wiring(RELU), "steps": [RELU] * (MAX_STEPS + 1)}, f"4097 steps; expected up to {MAX_STEPS}: split the net"),
    ({**wiring(RELU), "inputs": []}, "0 inputs; expected 1 to 16"),
    ({**wiring(RELU), "inputs": [f"x{i}" for i in range(17)]}, "17 inputs; expected 1 to 16"),
    ({**wiring(RELU), "inputs": ["y"]}, "two steps or inputs have the same name; give each its own"),
    (wiring(RELU, RELU), "two steps or inputs have the same name; give each its own"),
    ({**wiring(RELU), "output": "z"}, "the output 'z' is given by no step"),
    # Names.
    ({**wiring(RELU), "output": 3}, "name 3; expected up to 256 printable characters without dots"),
    (wiring(step("y" * 257, "torch.relu", X)), "name 'yyyy"),
    (wiring(step("a\nb", "torch.relu", X)), "name 'a\\nb'; expected"),
    (wiring(step("a.b", "torch.relu", X)), "name 'a.b'; expected"),
    (wiring(step("__class__", "torch.relu", X)), "name '__class__' is reserved; rename it"),
    (wiring(RELU, layers={"_modules": layer("ReLU", inplace=False)}), "name '_modules' is reserved; rename it"),
    (wiring(RELU, layers={"forward": layer("ReLU", inplace=False)}), "name 'forward' is reserved; rename it"),
    (wiring(RELU, constants={"__init__": {}}), "name '__init__' is reserved; rename it"),
    (wiring(RELU, constants={"_keys": {}}), "name '_keys' is reserved; rename it"),
    (wiring(step("y", "torch.relu", X, __class__=1)), "name '__class__' is reserved; rename it"),
    # Layers.
    (wiring(RELU, layers={"c": 3}), "layer 'c' has the keys 'int'; expected class, frozen, options"),
    (wiring(RELU, layers={"c": layer("Module")}), "unknown class of layer 'c' 'Module'"),
    (wiring(RELU, layers={"c": layer("LSTM", input_size=1)}), "unknown class of layer 'c' 'LSTM'"),
    (wiring(RELU, layers={"c": layer("__import__")}), "unknown class of layer 'c' '__import__'"),
    (wiring(RELU, layers={"c": {**layer("ReLU"), "class": []}}), "the wiring is incomplete or of a wrong type (Type"),
    (wiring(RELU, layers={"c": layer("ReLU")}), "layer 'c' has the keys 'none'; expected inplace"),
    (
        wiring(RELU, layers={"c": layer("DilatedMaxPool", kernel_size=[2, 2], padding=[-1, 0], dilation=[1, 1])}),
        "Window(kernel=2, stride=1, padding=-1, dilation=1, ceil=False, transposed=False): expected kernel, stride",
    ),
    (
        wiring(RELU, layers={"c": layer("DilatedMaxPool", kernel_size=2, padding=[1, 0], dilation=[1, 1])}),
        "the wiring is incomplete or of a wrong type (Type",
    ),
    (
        wiring(RELU, layers={"c": layer("DilatedMaxPool", kernel_size=[2, 2], padding="same", dilation=[1, 1])}),
        "the wiring is incomplete or of a wrong type (Type",
    ),
    (wiring(RELU, layers={"c": layer("Tanh", x=1)}), "layer 'c' has the keys 'x'; expected none"),
    (conv(out_channels=10**9), "layer 'c': out_channels is 1000000000; a file holds a whole number of 1 to 16777216"),
    (conv(out_channels=10**400), "layer 'c': out_channels is a number of 1329 bits; a file holds a whole number"),
    (conv(out_channels=True), "layer 'c': out_channels is True; a file holds a whole number"),
    (conv(out_channels=4.0), "layer 'c': out_channels is 4.0; a file holds a whole number"),
    (conv(groups=0), "layer 'c': groups is 0; a file holds a whole number of 1"),
    (conv(groups=2), "the wiring is incomplete or of a wrong type (ValueError: in_channels must be"),
    (conv(kernel_size=[1] * 5), "layer 'c': kernel_size is [1, 1, 1, 1, 1]; a file holds a whole number"),
    (conv(bias=1), "layer 'c': bias is 1; a file holds true or false: choose one of those"),
    (conv(padding_mode="x\n"), "layer 'c': padding_mode is 'x\\n'; a file holds one of bicubic, bilinear, circular"),
    (conv(padding=[{}]), "layer 'c': padding is [{}]; a file holds a whole number of -4096 to 4096, or up"),
    (
        wiring(RELU, layers={"c": layer("ELU", alpha=math.nan, inplace=False)}),
        "layer 'c': alpha is nan; a file holds a",
    ),
    (
        wiring(RELU, layers={"c": layer("ReLU", ("weight",), inplace=False)}),
        "layer 'c': frozen is ['weight']; expected",
    ),
    (wiring(RELU, layers={"c": layer("PReLU", ("x",), num_parameters=1)}), "the wiring is incomplete or of a wrong ty"),
    # Constants.
    (constant(shape=3), "constant 'w' has shape 3; expected up to 8 sizes, each a whole number of 0 to 2147483648"),
    (constant(shape=[1] * 9), "constant 'w' has shape [1, 1, 1, 1, 1, 1, 1, 1, 1]; expected"),
    (constant(shape=[-1]), "constant 'w' has shape [-1]; expected"),
    (constant(shape=[1 << 31] * 8), "the wiring is incomplete or of a wrong type (RuntimeError: "),
    (constant(type="complex64"), "unknown type of constant 'w' 'complex64'. Choices: bfloat16, bool, float16"),
    (constant(type="channels_last"), "unknown type of constant 'w' 'channels_last'"),
    (constant(learned=1), "constant 'w': learned is 1; expected false, or true of floats"),
    (constant(learned=True, type="int64"), "constant 'w': learned is True; expected false, or true of floats"),
    # Steps.
    (wiring({**RELU, "args": {}}), "step 'y': expected a target, a list of arguments and an object of options"),
    (wiring({**RELU, "options": []}), "step 'y': expected a target, a list"),
    (wiring({**RELU, "target": ["torch.relu"]}), "step 'y': expected a target, a list"),
    (wiring({**RELU, "kind": "module"}), "unknown kind of step 'y' 'module'"),
    (wiring({**RELU, "target": "a" * 257}), "step 'y' calls 'aaaaaaa"),
    (wiring({**RELU, "kind": []}), "unknown kind of step 'y' '[]'. Choices: constant, function, layer, method"),
    (wiring(step("y", "torch.relu", {"ref": "z"})), "step 'y' uses 'z', which no earlier step gives"),
    (wiring(step("y", "torch.relu", {"ref": "y"})), "step 'y' uses 'y', which no earlier step gives"),
    (
        wiring(step("a", "torch.relu", {"ref": "b"}), step("b", "torch.relu", {"ref": "a"})),
        "step 'a' uses 'b', which no",
    ),
    (wiring(step("y", "relu", 3, kind="method")), "step 'y' calls 'relu' of no value; expected an earlier step's"),
    (wiring(step("y", "relu__", X, kind="method")), "step 'y' calls 'relu__' of no value"),
    (
        wiring(step("y", "functional.adaptive_avg_pool2d", X, 1)),
        "step 'y' calls functional.adaptive_avg_pool2d, which no file may; put a layer or a split there",
    ),
    # Arguments.
    (
        wiring(step("y", "torch.relu", X, deep(10))),
        f"step 'y' has arguments nested or listed too far; expected {MAX_VALUES} values, 8 deep",
    ),
    (wiring(step("y", "torch.relu", X, deep(50_000))), "step 'y' has arguments nested or listed too far"),
    (wiring(step("y", "torch.cat", [X] * 300)), "step 'y' has arguments nested or listed too far"),
    (wiring(step("y", "torch.add", X, 1 << 63)), "9223372036854775808 among the arguments; expected finite numbers"),
    (wiring(step("y", "torch.add", X, 10**400)), "a number of 1329 bits among the arguments; expected finite"),
    (wiring(step("y", "torch.add", X, math.inf)), "inf among the arguments; expected finite numbers, whole ones"),
    (wiring(step("y", "to", X, "cuda", kind="method")), "unknown word among the arguments 'cuda'"),
    (wiring(step("y", "type", X, "os.system", kind="method")), "unknown word among the arguments 'os.system'"),
    (
        wiring(step("y", "to", X, {"torch": "load"}, kind="method")),
        "the wiring is incomplete or of a wrong type (KeyErr",
    ),
    (wiring(step("y", "to", X, {"torch": []}, kind="method")), "the wiring is incomplete or of a wrong type (TypeErr"),
    (wiring(step("y", "torch.add", X, {"slice": [1]})), "{'slice': [1]} among the arguments; expected a ref, tuple,"),
    (wiring(step("y", "torch.add", X, {"tuple": 1})), "{'tuple': 1} among the arguments; expected a ref, tuple, slice"),
    (wiring(step("y", "torch.add", X, {"__reduce__": 1})), "{'__reduce__': 1} among the arguments; expected a ref"),
    (wiring(step("y", "torch.add", X, {})), "the wiring is incomplete or of a wrong type (ValueError: "),
    (wiring(step("y", "torch.add", X, {"ref": "x", "of": 1})), "the wiring is incomplete or of a wrong type (Value"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refused(value: Any, message: str) -> None:
    assert refusal(value).startswith(message)


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.save", "torch.hub", "torch.empty_like", "torch.from_file", "torch.ops.load_library",
     "operator.attrgetter", "operator.methodcaller", "operator.call", "operator.__import__", "operator.setitem",
     "functional.os", "functional.__builtins__", "builtins.eval", "eval", "os.system", "", "torch.", ".relu"],
)  # fmt: skip
def test_functions_that_are_not_listed(target: str) -> None:
    assert refusal(wiring(step("y", target, X))) == f"step 'y' calls the function {target!r}, which is not there"
    assert target not in FUNCTIONS


@pytest.mark.parametrize(
    "target",
    ["__class__", "__init__", "__reduce__", "_modules", "apply_", "map_", "numpy", "tolist", "item", "storage", "set_",
     "data_ptr", "register_hook", "share_memory_", "backward", "resize_", "cuda", "cpu", "empty_like", "format", "data",
     "grad_fn", "new_empty", "is_shared", "__", "_", ""],
)  # fmt: skip
def test_methods_that_are_not_listed(target: str) -> None:
    message = refusal(wiring(step("y", target, X, kind="method")))
    assert message.startswith(
        (f"step 'y' calls the method {target!r}, which is not there", f"step 'y' calls {target!r} of")
    )
    assert target.rstrip("_") not in METHODS


def resized(**options: Any) -> dict[str, Any]:
    return wiring(step("y", "functional.interpolate", X, **options))


def pooled(times: int, **options: Any) -> dict[str, Any]:
    names = ["x", *(f"p{i}" for i in range(times))]
    pool = layer(
        "MaxPool2d", kernel_size=4096, stride=4096, padding=2048, dilation=1, return_indices=False, ceil_mode=False
    )
    steps = [step(b, "p", {"ref": a}, kind="layer") for a, b in pairwise(names)]
    return wiring(*steps, layers={"p": pool})


SHUFFLE = "functional.pixel_shuffle"
TOO_FAR = "resizes too far; expected maps up to 64 times finer, and 2^256 times coarser, than what they are made of"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (resized(size=[9, 9]), "step 'y' resizes otherwise than by a factor of 0.001 to 64, corners not aligned; give"),
        (resized(scale_factor=1e9), "step 'y' resizes otherwise"),
        (resized(scale_factor=1e-9), "step 'y' resizes otherwise"),
        (resized(scale_factor=2, mode="bilinear", align_corners=True), "step 'y' resizes otherwise"),
        (resized(scale_factor=2, recompute_scale_factor=True), "step 'y' resizes otherwise"),
        (resized(scale_factor=[X, 2]), "step 'y' resizes otherwise"),
        (resized(scale_factor=1.2345), f"step 'y' {TOO_FAR}: leave layers out"),
        (wiring(step("a", SHUFFLE, X, 8), step("b", SHUFFLE, {"ref": "a"}, 9)), f"step 'b' {TOO_FAR}"),
        (
            wiring(step("y", SHUFFLE, X, 1 << 40)),
            "step 'y' resizes by 1099511627776; expected a whole number of 1 to 4096, written out",
        ),
        (
            wiring(step("y", "functional.pixel_unshuffle", X, X)),
            "step 'y' resizes by Ref(name='x'); expected a whole number",
        ),
        (
            wiring(step("y", "operator.getitem", X, {"tuple": ["...", {"slice": [None, None, 1 << 40]}]})),
            "step 'y' resizes by 1099511627776; expected",
        ),
        (wiring(step("y", "functional.max_pool2d", X, 2, {"ref": "x"})), "the wiring is incomplete or of a wrong type"),
        (
            wiring(
                step("y", "c", X, kind="layer"),
                layers={"c": layer("ConvTranspose2d", **{**CONV, "kernel_size": 100, "stride": 41}, output_padding=0)},
            ),
            "step 'y' is a transposed convolution too large; expected 4096 taps",
        ),
        (pooled(22), f"step 'p21' {TOO_FAR}"),
    ],
    ids=range(14),
)
def test_resized_too_far(value: Any, message: str) -> None:
    assert refusal(value).startswith(message)


def test_nets_that_go_down_and_up_again_and_again_are_taken() -> None:
    """As HRNet's do: what counts is how fine a map is, not how often it was resized."""
    steps, at = [], X
    for i in range(300):
        steps += [
            step(f"d{i}", "functional.max_pool2d", at, 2),
            step(f"u{i}", "functional.interpolate", {"ref": f"d{i}"}, scale_factor=2),
        ]
        at = {"ref": f"u{i}"}
    assert from_json(wiring(*steps))(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    assert refusal(pooled(22))
    assert len(from_json(pooled(21)).steps) == 21


class TestOperators:
    """Python's own, bounded: what they would do otherwise is fill the memory."""

    @pytest.mark.parametrize(
        ("target", "operands"),
        [
            ("mul", ([1], 10**9)), ("mul", ("x", 10**9)), ("imul", ([1], 10**9)), ("mul", ((1,), 10**9)),
            ("mod", ("%1000000000d", 5)), ("mod", (b"%1000000000d", 5)),
            ("pow", (10, 10**9)), ("pow", (2, LONGEST + 1)), ("ipow", (10, 10**9)),
            ("mul", (1 << 63, 1 << 63)), ("add", ([1] * (LONGEST + 1), [1])), ("concat", ("a", "b")),
        ],
    )  # fmt: skip
    def test_bounds(self, target: str, operands: tuple[Any, Any]) -> None:
        with pytest.raises(GeometryError, match=r"of a \w+; expected tensors, shapes or numbers of 64 bits"):
            FUNCTIONS[f"operator.{target}"](*operands)

    def test_what_nets_do_is_left(self) -> None:
        def called(target: str, *operands: Any) -> Any:
            return FUNCTIONS[f"operator.{target}"](*operands)

        x = torch.arange(4.0)
        assert called("mul", 3, 5) == 15
        assert called("floordiv", 7, 2) == 3
        assert called("pow", 2, 10) == 1024
        assert called("add", torch.Size((2, 3)), (4,)) == (2, 3, 4)
        assert torch.equal(called("pow", x, 100), x**100)
        assert torch.equal(called("add", x, [1.0] * 0 or 1), x + 1)
        assert called("getitem", "text", 0) == "t"

    def test_within_a_trace(self) -> None:
        """The stand-ins of torch.fx are looked through."""
        squares = [Step("n", "method", "size", (Ref("x"), 2))]
        squares += [Step(f"n{i}", "function", "operator.mul", (Ref(f"n{i - 1}" if i else "n"),) * 2) for i in range(9)]
        net = Wired({}, [*squares, Step("y", "function", "torch.mul", (Ref("x"), Ref("n8")))], ["x"], "y")
        with pytest.raises(GeometryError, match="mul of a int; expected tensors, shapes or numbers of 64 bits"):
            trace(net, (1, 1, 9, 9))


POOL: list[Any] = [
    None, True, False, -1, 0, 1, 2, 64, 4096, 10**6, 10**9, 1 << 62, 1 << 63, 10**400, -(10**400), 0.5, -1e308, 1e308,
    math.nan, math.inf, -math.inf, "", "x", "y", "relu", "torch.relu", "conv2d", "__class__", "__init__", "_modules",
    "layer", "method", "function", "constant", "shape", "expand", "view", "a" * 3000, "\n\x00\ud800",
    [], {}, [[]], [X], {"ref": "y"}, {"ref": "__class__"}, {"ref": []}, {"slice": [None, None, -1]},
    {"slice": [X, X, X]},
    {"tuple": [X, 1]}, {"torch": "float16"}, {"torch": "channels_last"}, {"a": 1, "b": 2}, deep(9, X), deep(200),
    ["a"] * 600, [10**9] * 4,
]  # fmt: skip
"""What a damaged file may hold anywhere."""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*at, key)
        yield from places(each, (*at, key))


def damaged(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any], times: int) -> Any:
    """A copy with a few parts replaced, dropped, doubled, renamed or exchanged."""
    value = copy.deepcopy(value)
    for _ in range(times):
        paths = list(places(value))
        if not paths:
            return value
        path = draw(st.sampled_from(paths))
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        kind, last = draw(st.sampled_from(["put", "put", "drop", "swap", "rename"])), path[-1]
        if kind == "put":
            holder[last] = copy.deepcopy(draw(st.sampled_from(POOL)))
        elif kind == "drop":
            del holder[last]
        elif kind == "swap":
            other = value
            for key in draw(st.sampled_from(paths)):
                other = other[key] if isinstance(other, dict | list) else other
            holder[last] = copy.deepcopy(other)
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from(["__class__", "x", "", "weight", "layer", "a.b"]))] = holder.pop(last)
        else:
            holder.insert(last, copy.deepcopy(holder[last]))
    return value


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck])
@given(data=st.data())
def test_damaged_wirings(zoo: dict[str, dict[str, Any]], data: st.DataObject) -> None:
    """A net or one of our errors; nothing else, quickly and in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = damaged(zoo[data.draw(st.sampled_from(list(zoo)))], data.draw, data.draw(st.integers(1, 4)))
    try:
        with torch.device("meta"):
            made = from_json(value)
    except (OptionError, GeometryError):
        refusal(value)
    else:
        assert isinstance(made, Wired)
        assert all(weight.is_meta for weight in made.state_dict().values())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@settings(max_examples=200, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
def test_any_json(value: Any) -> None:
    refusal(value)
    refusal({**wiring(RELU), "layers": {"c": value}})
    refusal({**wiring(RELU), "steps": [value]})


def test_a_file_of_many_layers_costs_no_more_than_its_length() -> None:
    """4096 convolutions of 2**24 channels, which would be 2**60 numbers."""
    layers = {
        f"c{i}": layer("Conv2d", **{**CONV, "in_channels": 1 << 24, "out_channels": 1 << 24}) for i in range(MAX_STEPS)
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.device("meta"):
        from_json(wiring(RELU, layers=layers))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


COSTLY = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "conv_transpose2d", "max_unpool2d", "tensor_split")


@pytest.mark.parametrize(
    "name", sorted(name for name in {*FUNCTIONS, *METHODS} if name.rpartition(".")[2].startswith(COSTLY))
)
def test_what_costs_without_bound_is_refused_under_every_name(name: str) -> None:
    kind = "function" if "." in name else "method"
    one = {"name": "a", "kind": kind, "target": name, "args": [{"ref": "x"}, 50], "options": {}}
    with pytest.raises(OptionError, match="which no file may"):
        from_json({"inputs": ["x"], "output": "a", "layers": {}, "constants": {}, "steps": [one]})
