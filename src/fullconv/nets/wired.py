"""Wired: a net as data, layers and the list of steps that calls them.

What torch.fx traces becomes one, rewriting a net is rewriting its steps, and a model file can hold it: its steps are
plain JSON that may call nothing but listed layers and functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.node import Node

from fullconv.errors import GeometryError
from fullconv.nets.functions import ASSIGNING, DROPOUTS, FUNCTIONS, METHODS, NAMES, SHARING, known_name
from fullconv.nets.tracing.calls import call_of_layer
from fullconv.nets.tracing.graph import CONSTANT, Traced

RESERVED = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
"""No names of layers or constants: the containers' own."""


@dataclass(frozen=True)
class Ref:
    """The value of an earlier step."""

    name: str


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        name: of its value.
        kind: "layer", "function", "method" or "constant".
        target: key of `Wired.layers`, of `FUNCTIONS`, a name of `METHODS`, or a key of `Wired.constants`.
        args, options: numbers, strings, slices, lists of them and `Ref`s.
    """

    name: str
    kind: str
    target: str
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def refs(self) -> list[str]:
        """Names of the values it uses."""
        return [ref.name for ref in _refs([self.args, dict(self.options)])]

    def renamed(self, names: Mapping[str, str]) -> Step:
        """The same call of other values."""
        args, options = (
            _mapped(each, lambda ref: Ref(names.get(ref.name, ref.name))) for each in (self.args, dict(self.options))
        )
        return Step(self.name, self.kind, self.target, args, options)


class Wired(nn.Module):
    """Runs its steps in order; a value is dropped after its last use.

    Args:
        layers: by a name without dots.
        steps: in order.
        inputs: names of the values that `forward` takes.
        output: name of the value that it gives.
        constants: parameters and buffers that steps use directly.

    Raises:
        GeometryError: a step that uses what no earlier one gives, or calls what is not there.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        steps: Sequence[Step],
        inputs: Sequence[str],
        output: str,
        constants: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.constants = nn.ParameterDict()
        for name, value in (constants or {}).items():
            self.constants[name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, False)
        self.inputs, self.output = list(inputs), output
        self.steps = self._needed(steps, [output])
        known = set(inputs)
        tables: dict[str, Container[str]] = {
            "layer": set(self.layers), "constant": set(self.constants), "function": FUNCTIONS, "method": METHODS
        }  # fmt: skip
        for step in self.steps:
            for name in step.refs():
                if name not in known:
                    raise GeometryError(f"step {step.name!r} uses {name!r}, which no earlier step gives")
            target = step.target.rstrip("_") if step.kind == "method" else step.target
            if target not in tables.get(step.kind, ()):
                raise GeometryError(f"step {step.name!r} calls the {step.kind} {step.target!r}, which is not there")
            known.add(step.name)
        if output not in known:
            raise GeometryError(f"the output {output!r} is given by no step")
        self._last = self._last_uses()

    def forward(self, x: Tensor | Mapping[str, Tensor]) -> Any:
        """The output for the input, or for several by name.

        Raises:
            GeometryError: an input that is not given.
        """
        values = dict(x) if isinstance(x, Mapping) else {self.inputs[0]: x}
        missing = [name for name in self.inputs if name not in values]
        if missing:
            raise GeometryError(f"no value for the input {missing[0]!r}; give one for each of {', '.join(self.inputs)}")
        return self.run(values)[self.output]

    def run(self, values: dict[str, Any], wanted: Sequence[str] = ()) -> dict[str, Any]:
        """From given values of inputs or steps to the output and the wanted others; `values` is used up.

        What steps change in place is given as it is in the end.

        Raises:
            GeometryError: a wanted value that is neither given nor that of a step.
        """
        keep = {self.output, *wanted}
        found = {name: value for name, value in values.items() if name in keep}
        todo = self.steps if set(values) == set(self.inputs) else self._needed(self.steps, [*keep], set(values))
        for step in todo:
            value = self._call(step, values)
            values[step.name] = value
            if step.name in keep:
                found[step.name] = value
            for name in self._last.get(step.name, ()):
                values.pop(name, None)
        if len(found) < len(keep):
            raise GeometryError(f"{min(keep - set(found))!r} is wanted, which is no input and given by no step")
        return found

    def until(self, name: str) -> Wired:
        """The steps up to one, whose value is the output."""
        end = next((i + 1 for i, step in enumerate(self.steps) if step.name == name), 0)
        return Wired(dict(self.layers.items()), self.steps[:end], self.inputs, name, dict(self.constants.items()))

    def pruned(self) -> Wired:
        """The same without layers and constants that no step uses."""
        used = {(step.kind, step.target) for step in self.steps}
        layers = {name: layer for name, layer in self.layers.items() if ("layer", name) in used}
        constants = {name: value for name, value in self.constants.items() if ("constant", name) in used}
        return Wired(layers, self.steps, self.inputs, self.output, constants)

    def _call(self, step: Step, values: Mapping[str, Any]) -> Any:
        if step.kind == "constant":
            return self.constants[step.target]
        args = _mapped(step.args, lambda ref: values[ref.name])
        options = {key: _mapped(value, lambda ref: values[ref.name]) for key, value in step.options.items()}
        if step.kind == "layer":
            return self.layers[step.target](*args, **options)
        if step.kind == "function":
            return FUNCTIONS[step.target](*args, **options)
        return args[0].shape if step.target == "shape" else getattr(args[0], step.target)(*args[1:], **options)

    def _last_uses(self) -> dict[str, list[str]]:
        """Step -> the values that nobody reads after it."""
        last = {step.name: step.name for step in self.steps}  # nobody may read what was changed in place
        last |= {name: step.name for step in self.steps for name in step.refs()}
        ends: dict[str, list[str]] = {}
        for name, step in last.items():
            ends.setdefault(step, []).append(name)
        return ends

    def _needed(self, steps: Sequence[Step], wanted: Sequence[str], given: Container[str] = ()) -> list[Step]:
        """The steps on which wanted values depend, beyond those that are given; what changes such a value stays."""
        memory: dict[str, str] = {}  # value -> the first one whose memory it may be
        for step in steps:
            refs = step.refs()
            shares = refs and (self._changes(step) or self._called(step) in SHARING)
            memory[step.name] = memory.get(refs[0], refs[0]) if shares else step.name
        names, kept = set(wanted), []
        for step in reversed(steps):
            changes = self._changes(step) and memory[step.name] in {memory.get(name, name) for name in names}
            if (step.name in names or changes) and step.name not in given:
                kept.append(step)
                names.update(step.refs())
            names.discard(step.name)
        return kept[::-1]

    def _called(self, step: Step) -> str:
        if step.kind != "layer":
            return known_name(step.target)
        return call_of_layer(self.layers[step.target]).name if step.target in self.layers else ""

    def _changes(self, step: Step) -> bool:
        """Whether a step works in place."""
        if step.kind == "layer":
            return step.target in self.layers and bool(getattr(self.layers[step.target], "inplace", False))
        named = step.target.endswith("_") or step.target in ASSIGNING or step.options.get("inplace") is True
        return step.kind != "constant" and named


def wired(traced: Traced, module: nn.Module) -> Wired:
    """A traced module as steps, with copies of its layers; names of values are those of the graph's nodes.

    Raises:
        GeometryError: a call of a function or method that is not among those listed, a tensor or a device that
            the forward method makes up, or several outputs.
    """
    layers: dict[str, nn.Module] = {}
    constants: dict[str, Tensor] = {}
    steps: list[Step] = []
    # Layers that share weights share them after the copy; weights that hooks compute are not copied by themselves.
    held = [each for part in module.modules() for each in vars(part).values() if isinstance(each, Tensor)]
    copies: dict[int, Any] = {id(each): each.detach().clone() for each in held if not each.is_leaf}
    targets: dict[str, str] = {}
    inputs = [node.name for node in traced.inputs.values()]
    prefix = "" if type(traced.root) is type(module) else "module."  # it may be held, to be given its inputs in order
    output = ""
    for node in traced.graph.nodes:
        if node.name in inputs:
            continue
        if node.op == "call_module":
            name = targets.setdefault(str(node.target), layer_name(traced.title(node), layers))
            if name not in layers:
                layers[name] = copy.deepcopy(module.get_submodule(traced.title(node)), copies)
                with torch.no_grad():
                    for hook in layers[name]._forward_pre_hooks.values():  # they compute weights (see `Traced.of`)
                        hook(layers[name], ())
            steps.append(step_of(node, "layer", name))
        elif node.op == "get_attr":
            name = layer_name(str(node.target).removeprefix(prefix), constants)
            constants[name] = copy.deepcopy(_attribute(module, str(node.target).removeprefix(prefix)), copies)
            steps.append(Step(node.name, "constant", name))
        elif node.op == "call_method":
            steps.append(step_of(node, "method", str(node.target)))
        elif node.target in DROPOUTS and node.kwargs["training"] in (False, module.training):
            name = layer_name(traced.title(node), layers)
            layers[name] = DROPOUTS[node.target](node.kwargs["p"]).train(node.kwargs["training"])
            steps.append(Step(node.name, "layer", name, (_plain(node.args[0]),)))
        elif node.op == "call_function":
            steps.append(_function(node))
        elif node.op == "output":
            if not isinstance(node.args[0], Node):
                raise GeometryError(f"{type(module).__name__} returns several values; wrap it so that it returns one")
            output = node.args[0].name
    return Wired(layers, steps, inputs, output, constants)


def step_of(node: Node, kind: str, target: str) -> Step:
    """A node's call with its arguments, as a step."""
    devices: list[torch.device] = []
    _mapped([node.args, node.kwargs], devices.append, torch.device)
    if devices:  # that of the trace, which has no data
        raise GeometryError(f"{node.name} calls {target} with a device; leave it to the net's user to move things")
    return Step(node.name, kind, target, _plain(node.args), {key: _plain(value) for key, value in node.kwargs.items()})


def layer_name(name: str, taken: Mapping[str, object]) -> str:
    """A dotted name without its dots, and not taken yet."""
    plain = base = name.replace(".", "_")
    number = 2
    while plain in taken or plain in RESERVED:
        plain, number = f"{base}_{number}", number + 1
    return plain


def _function(node: Node) -> Step:
    if node.target is getattr and node.args[1] == "shape":
        return Step(node.name, "method", "shape", (_plain(node.args[0]),))
    name = NAMES.get(id(node.target))
    if name is None:
        called = str(getattr(node.target, "__name__", node.target))
        if getattr(torch, called, None) is node.target and called.removesuffix("_") in METHODS & {*dir(Tensor)}:
            return step_of(node, "method", called)  # torch.relu_
        raise GeometryError(
            f"{node.name} calls {called}, which no net of steps may; put it into a module with a method `fields`"
        )
    return step_of(node, "function", name)


def _attribute(module: nn.Module, name: str) -> Tensor:
    if name.startswith(CONSTANT):
        raise GeometryError(f"{type(module).__name__} makes a tensor in its forward method; make it a buffer")
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found


def _plain(value: Any) -> Any:
    """Nodes -> references."""
    return _mapped(value, lambda node: Ref(node.name), Node)


def _mapped(value: Any, function: Callable[[Any], Any], kind: type = Ref) -> Any:
    """`function` of everything of a kind in nested tuples, lists and slices."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, slice):
        return slice(*(_mapped(each, function, kind) for each in (value.start, value.stop, value.step)))
    if isinstance(value, list | tuple):  # torch.fx has list types of its own
        items = [_mapped(each, function, kind) for each in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return {key: _mapped(each, function, kind) for key, each in value.items()}
    return value


def _refs(value: Any) -> Iterator[Ref]:
    found: list[Ref] = []
    _mapped(value, found.append)
    return iter(found)
