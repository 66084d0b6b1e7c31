"""Wiring: a net of steps as plain JSON and back, for files that may come from anyone.

Reading builds layers of one literal table, and steps that call what `fullconv.nets.functions` lists. Every number,
name and count is bounded: a hostile net may fail or give nonsense, but to read and to trace it costs no more than its
length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fullconv.errors import GeometryError, OptionError, one_line, shape_text, unknown_name
from fullconv.nets.functions import known_name
from fullconv.nets.layer_table import CLASSES, LAYERS, NUMBER, RULES, TEXTS, shown, within
from fullconv.nets.resizing import check_resizing
from fullconv.nets.wired import RESERVED, Ref, Step, Wired

MAX_STEPS = 4096
"""Steps, and layers; DenseNet-264 has 1,200."""

MAX_VALUES, MAX_DEPTH = 512, 8
"""Of the arguments of one step."""

MAX_NAME = 256
"""Characters."""

REFUSED = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "conv_transpose2d", "max_unpool2d", "tensor_split"}
"""Functions that no file may call: convolutionalizing replaces the first two, and the others cost without bound."""

TYPES = {
    name: getattr(torch, name)
    for name in (
        "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    )
}  # fmt: skip

TORCH = {
    **TYPES,
    **{name: getattr(torch, name) for name in ("contiguous_format", "channels_last", "preserve_format")},
}
"""Types and memory formats that are arguments."""

STEPS = ("layer", "function", "method", "constant")

KEYS = {"layer": "class options frozen", "constant": "shape type learned", "step": "name kind target args options"}
WIRING = "inputs output steps layers constants"


def to_json(net: Wired) -> dict[str, Any]:
    """A JSON object that `from_json` inverts, but for the weights.

    Raises:
        OptionError: a layer or an argument that no file can hold, with what to do.
        GeometryError: a net that is resized by more than `from_json` allows.
    """
    value = {
        "inputs": list(net.inputs),
        "output": net.output,
        "steps": [
            {
                "name": step.name, "kind": step.kind, "target": step.target,
                "args": [_encoded(each, step) for each in step.args],
                "options": {key: _encoded(each, step) for key, each in step.options.items()},
            }
            for step in net.steps
        ],
        "layers": {name: _described(name, layer) for name, layer in net.layers.items()},
        "constants": {
            name: {
                "shape": list(each.shape),
                "type": str(each.dtype).removeprefix("torch."),
                "learned": each.requires_grad,
            }
            for name, each in net.constants.items()
        },
    }  # fmt: skip
    with torch.device("meta"):
        again = from_json(value)
    held, made = ({key: tensor.shape for key, tensor in each.state_dict().items()} for each in (net, again))
    for key in {**held, **made}:
        if held.get(key) != made.get(key):
            there, here = ("missing" if each is None else shape_text(each) for each in (made.get(key), held.get(key)))
            raise OptionError(f"{key} is {here}; its layer's options make it {there}: build the layer anew")
    return value


def from_json(value: Any) -> Wired:
    """The net, with fresh weights on the default device; for objects from untrusted files.

    Raises:
        OptionError: unknown, missing or repeated parts, values of a wrong type or out of range.
        GeometryError: a step that uses what no earlier one gives, or maps resized by too much.
    """
    try:
        parts = _fields(value, WIRING, "the wiring")
        for part in ("steps", "layers", "constants"):
            if len(parts[part]) > MAX_STEPS:
                raise OptionError(f"{len(parts[part])} {part}; expected up to {MAX_STEPS}: split the net")
        layers = {_name(name, RESERVED): _layer(name, each) for name, each in parts["layers"].items()}
        constants = {_name(name, RESERVED): _constant(name, each) for name, each in parts["constants"].items()}
        steps = [_step(each) for each in parts["steps"]]
        inputs = [_name(each) for each in parts["inputs"]]
        names = [*inputs, *(step.name for step in steps)]
        if not 1 <= len(inputs) <= 16:
            raise OptionError(f"{len(inputs)} inputs; expected 1 to 16")
        if len(set(names)) < len(names):
            raise OptionError("two steps or inputs have the same name; give each its own")
        net = Wired(layers, steps, inputs, _name(parts["output"]), constants)
        check_resizing(net)
    except (GeometryError, OptionError):
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise OptionError(
            f"the wiring is incomplete or of a wrong type ({one_line(error)}); write the file again"
        ) from error
    return net


def _described(name: str, layer: nn.Module) -> dict[str, Any]:
    kind = type(layer)
    hooked = "forward" in vars(layer) or layer._forward_hooks or layer._forward_pre_hooks
    if kind not in LAYERS or hooked:
        fix = "wrap it so that it is traced through, or use a layer of torch"
        if hasattr(layer, "parametrizations") or hooked:
            fix = "remove its hooks and parametrizations (torch.nn.utils.parametrize.remove_parametrizations)"
        raise OptionError(
            f"layer {name!r} is a{' hooked' if hooked else ''} {kind.__name__}; a file holds plain "
            f"{', '.join(list(CLASSES)[:3])} and others of its table: {fix}"
        )
    options = {}
    for option in LAYERS[kind].split():
        given = getattr(layer, option)
        if option == "bias":
            given = given is not None
        options[option] = list(given) if isinstance(given, tuple) else given
    frozen = [key for key, weight in layer.named_parameters() if not weight.requires_grad]
    return {"class": kind.__name__, "options": options, "frozen": frozen}


def _layer(name: str, value: Any) -> nn.Module:
    parts = _fields(value, KEYS["layer"], f"layer {name!r}")
    kind = CLASSES.get(parts["class"])
    if kind is None:
        raise unknown_name(f"class of layer {name!r}", parts["class"], CLASSES)
    options = _fields(parts["options"], LAYERS[kind], f"layer {name!r}")
    for option, given in options.items():
        if not RULES[option].fits(given):
            raise OptionError(
                f"layer {name!r}: {option} is {shown(given)}; a file holds {RULES[option].text}: choose one of those"
            )
    layer = kind(**{key: tuple(each) if isinstance(each, list) else each for key, each in options.items()})
    weights = dict(layer.named_parameters())
    if not isinstance(parts["frozen"], list) or len(parts["frozen"]) > len(weights):
        raise OptionError(f"layer {name!r}: frozen is {shown(parts['frozen'])}; expected names of its weights")
    for key in parts["frozen"]:
        weights[key].requires_grad_(False)
    return layer


def _constant(name: str, value: Any) -> Tensor:
    parts = _fields(value, KEYS["constant"], f"constant {name!r}")
    shape, dtype, size = parts["shape"], TYPES.get(parts["type"]), within(0, 1 << 31)
    if not isinstance(shape, list) or len(shape) > 8 or not all(map(size.fits, shape)):
        raise OptionError(f"constant {name!r} has shape {shown(shape)}; expected up to 8 sizes, each {size.text}")
    if dtype is None:
        raise unknown_name(f"type of constant {name!r}", parts["type"], TYPES)
    if not isinstance(parts["learned"], bool) or (parts["learned"] and not dtype.is_floating_point):
        raise OptionError(f"constant {name!r}: learned is {shown(parts['learned'])}; expected false, or true of floats")
    return nn.Parameter(torch.empty(shape, dtype=dtype), parts["learned"])


def _step(value: Any) -> Step:
    parts = _fields(value, KEYS["step"], "a step")
    name = _name(parts["name"])
    kind, target, args, options = (parts[key] for key in ("kind", "target", "args", "options"))
    if kind not in STEPS:
        raise unknown_name(f"kind of step {name!r}", kind, STEPS)
    if not isinstance(args, list) or not isinstance(options, dict) or not isinstance(target, str):
        raise OptionError(f"step {name!r}: expected a target, a list of arguments and an object of options")
    if len(target) > MAX_NAME:
        raise OptionError(f"step {name!r} calls {shown(target)}; expected up to {MAX_NAME} characters")
    if kind in ("function", "method") and known_name(target) in REFUSED:
        raise OptionError(f"step {name!r} calls {target}, which no file may; put a layer or a split there")
    _check_values(name, [args, options])
    step = Step(
        name, kind, target, tuple(_decoded(each) for each in args), {_name(k): _decoded(v) for k, v in options.items()}
    )
    if kind == "method" and not (step.args and isinstance(step.args[0], Ref) and not target.endswith("__")):
        raise OptionError(f"step {name!r} calls {shown(target)} of no value; expected an earlier step's")
    return step


def _check_values(name: str, value: Any) -> None:
    """Bounds before anything recurses."""
    todo, count = [(value, 0)], 0
    while todo:
        each, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH + 1 or count > MAX_VALUES:
            raise OptionError(
                f"step {name!r} has arguments nested or listed too far; expected {MAX_VALUES} values, {MAX_DEPTH} deep"
            )
        inner = each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        todo += [(part, depth + 1) for part in inner]


def _encoded(value: Any, step: Step) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.name}
    if isinstance(value, slice):
        return {"slice": [_encoded(each, step) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(each, step) for each in value]}
    if isinstance(value, list):
        return [_encoded(each, step) for each in value]
    if value is Ellipsis:
        return "..."
    if isinstance(value, torch.dtype | torch.memory_format):
        return {"torch": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise OptionError(
        f"step {step.name!r} is given a {type(value).__name__}; a file holds numbers, words, slices and lists of them"
    )


def _decoded(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        fits = -(1 << 63) <= value < 1 << 63 if isinstance(value, int) else NUMBER.fits(value)
        if not fits:
            raise OptionError(f"{shown(value)} among the arguments; expected finite numbers, whole ones of 64 bits")
        return value
    if isinstance(value, str):
        if value != "..." and value not in TEXTS:
            raise unknown_name("word among the arguments", value, TEXTS)
        return Ellipsis if value == "..." else value
    if isinstance(value, list):
        return [_decoded(each) for each in value]
    ((kind, held),) = value.items()
    if kind == "ref":
        return Ref(_name(held))
    if kind == "tuple" and isinstance(held, list):
        return tuple(_decoded(each) for each in held)
    if kind == "slice" and isinstance(held, list) and len(held) == 3:
        return slice(*(_decoded(each) for each in held))
    if kind == "torch":
        return TORCH[held]
    raise OptionError(f"{shown(value)} among the arguments; expected a ref, tuple, slice or torch type")


def _fields(value: Any, names: str, what: str) -> dict[str, Any]:
    """An object with exactly those keys."""
    expected = set(names.split())
    if not isinstance(value, dict) or set(value) != expected:
        found = ", ".join(map(str, value)) or "none" if isinstance(value, dict) else type(value).__name__
        raise OptionError(f"{what} has the keys {shown(found)}; expected {', '.join(sorted(expected)) or 'none'}")
    return value


def _name(value: Any, reserved: set[str] | None = None) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= MAX_NAME or "." in value:
        raise OptionError(f"name {shown(value)}; expected up to {MAX_NAME} printable characters without dots")
    if value in (reserved or ()) or value.startswith("__"):
        raise OptionError(f"name {value!r} is reserved; rename it")
    return value
