"""Any module -> a torch.fx graph whose nodes know the shapes that they had at one input size.

Symbolic tracing alone fails where a forward method looks at a shape. Here every value also has a tensor on the meta
device: a shape and a type without data. Shapes can then be asked for, compared and counted to; they stay symbolic in
the graph, so that it runs at other sizes too. What depends on the data itself is refused.
"""

from __future__ import annotations

import copy
import inspect
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from fullconv.errors import GeometryError, one_line, shape_text
from fullconv.nets.tracing.tracer import ASSIGNMENTS, VALUE, Tracer, types_of_values

__all__ = ["ASSIGNMENTS", "CONSTANT", "VALUE", "Shape", "Traced", "in_place", "tensors_of", "without_data", "written"]

Shape = tuple[int, ...]

CONSTANT = "_tensor_constant"
"""How torch.fx begins the names of tensors that a forward method makes, rather than computes or finds in its module."""

_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Traced:
    """One forward pass.

    Attributes:
        graph: its operations, each node with its `VALUE`.
        root: a copy of the module without data, in which the graph's targets are found.
        inputs: name of the input -> its node.
        ends: dotted name of a module that is traced through -> the node of its output.
    """

    graph: fx.Graph
    root: nn.Module
    inputs: Mapping[str, Node]
    ends: Mapping[str, Node]

    def title(self, node: Node) -> str:
        """A node's name: that of its module, or of the operation in the graph, behind that of the module it is in."""
        name = str(node.target)
        if node.op != "call_module":
            stack = node.meta.get("nn_module_stack") or {"": ("", None)}
            path, _ = list(stack.values())[-1]
            name = f"{path}.{node.name}".removeprefix(".")
        return name.removeprefix(_prefix(self.root))

    @classmethod
    def of(cls, module: nn.Module, shapes: Shape | Mapping[str, Shape]) -> Traced:
        """Run the module on shapes alone; it stays as it was, and its mode counts.

        Modules of torch and those that tell their own fields (see `fullconv.nets.trace`) are single nodes, all others
        are traced through.

        Args:
            module: its forward method takes a tensor, several, or one mapping of tensors by name.
            shapes: (N, C, H, W) of its input, or of several by name.

        Raises:
            GeometryError: a forward method that depends on data, or that fails at these shapes; a module with hooks, or
                without weights yet.
        """
        for name, part in module.named_modules():
            title = f"{name} ({type(part).__name__})" if name else type(part).__name__
            if any(map(nn.parameter.is_lazy, part.parameters(recurse=False))):
                raise GeometryError(f"{title} has no weights yet; run the net once, on an image")
            hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
            # Those of weight normalisation and pruning only make weights.
            if any(not type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks):
                raise GeometryError(f"{title} has a forward hook, which may change what it gives; remove it to trace")
        try:
            # torch.fx, warnings and the tracer change for a moment what all threads see.
            with _ONE_AT_A_TIME, torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is computed when the module itself runs
                return cls._of(module, shapes)
        except GeometryError:
            raise
        except Exception as error:  # whatever a forward method raises
            sizes = ", ".join(map(shape_text, shapes.values() if isinstance(shapes, Mapping) else [shapes]))
            raise GeometryError(
                f"{type(module).__name__} cannot be traced at {sizes} ({one_line(error)}); give the size that it "
                "takes, and let its control flow depend on shapes only"
            ) from error

    @classmethod
    def _of(cls, module: nn.Module, shapes: Shape | Mapping[str, Shape]) -> Traced:
        root = without_data(module)
        held = (*root.parameters(), *root.buffers())
        kind = next((tensor.dtype for tensor in held if tensor.is_floating_point()), None)
        parameters = inspect.signature(root.forward).parameters
        named = shapes if isinstance(shapes, Mapping) else {next(iter(parameters), "input"): shapes}
        mapping = not set(named) <= set(parameters)
        if mapping or any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters.values()):
            root = _Held(root, list(named), mapping)
        tensors = {name: torch.empty(shape, dtype=kind) for name, shape in named.items()}
        values = {"*inputs": tuple(tensors.values())} if isinstance(root, _Held) else tensors
        optional = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
        fixed = {} if isinstance(root, _Held) else {name: v for name, v in optional.items() if name not in values}
        tracer = Tracer(values)
        with types_of_values():
            graph = tracer.trace(root, fixed or None)
        graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or _acts(node, root))
        starts = {node.target: node for node in graph.nodes if node.op == "placeholder" and node.target in values}
        if isinstance(root, _Held):
            picks = {node.args[1]: node for node in starts["*inputs"].users}
            starts = {name: picks[i] for i, name in enumerate(named) if i in picks}
        ends = {name.removeprefix(_prefix(root)): node for name, node in tracer.ends.items() if node in graph.nodes}
        return cls(graph, root, starts, ends)


def written(node: Node) -> Node | None:
    """What a call changes in place: its first argument, as torch's names with a final underscore say, or `out`."""
    if node.op not in ("call_function", "call_method"):
        return None
    if isinstance(node.kwargs.get("out"), Node):
        return cast(Node, node.kwargs["out"])
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    plain = getattr(node.target, "__module__", None) == "_operator"  # `operator.and_` is no such name
    assigns = node.target in ASSIGNMENTS or (name.endswith("_") and not name.startswith("_") and not plain)
    first = node.args[0] if node.args else node.kwargs.get("input")
    return first if assigns and isinstance(first, Node) else None


def in_place(node: Node) -> bool:
    """Whether a call changes one of its arguments."""
    return written(node) is not None


def _acts(node: Node, root: nn.Module) -> bool:
    """Whether a call does more than give a value, so that it counts where nobody uses that."""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    return in_place(node) or bool(node.kwargs.get("inplace"))


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of a value: itself, or those of a tuple, list or mapping."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [each for part in value for each in tensors_of(part)] if isinstance(value, list | tuple) else []


def without_data(module: nn.Module) -> nn.Module:
    """A copy whose tensors are on the meta device: parameters, buffers and others that are held as attributes."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
    for part in module.modules():
        for tensor in tensors_of(vars(part)):
            memo.setdefault(id(tensor), tensor.detach().to("meta"))
    return copy.deepcopy(module, memo)


class _Held(nn.Module):
    """A module that takes one mapping, or any number of arguments, as one that takes its values in order."""

    def __init__(self, module: nn.Module, names: list[str], mapping: bool) -> None:
        super().__init__()
        self.module, self.names, self.mapping = module, names, mapping

    def forward(self, *inputs: Tensor) -> Any:
        values = {name: inputs[i] for i, name in enumerate(self.names)}
        return self.module(values) if self.mapping else self.module(*values.values())


def _prefix(root: nn.Module) -> str:
    return "module." if isinstance(root, _Held) else ""
