"""Any module -> a torch.fx graph whose nodes know the shapes that they had at one input size.

Symbolic tracing alone fails where a forward method looks at a shape. Here every value also has a tensor on the meta
device: a shape and a type without data. Shapes can then be asked for, compared and counted to; they stay symbolic in
the graph, so that it runs at other sizes too. What depends on the data itself is refused.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node, map_aggregate

from fullconv.errors import GeometryError, one_line, shape_text

Shape = tuple[int, ...]

VALUE = "value"
"""Key in a node's meta: its value, with tensors on the meta device."""


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
        """A node's name: the dotted one of its module, or that of the operation in the graph."""
        if node.op != "call_module":
            return node.name
        return str(node.target).removeprefix(_prefix(self.root))

    @classmethod
    def of(cls, module: nn.Module, shapes: Shape | Mapping[str, Shape]) -> Traced:
        """Run the module on shapes alone; it stays as it was, and its mode counts.

        Modules of torch and those that tell their own fields (see `fullconv.nets.trace`) are single nodes, all others
        are traced through.

        Args:
            module: its forward method takes a tensor, several, or one mapping of tensors by name.
            shapes: (N, C, H, W) of its input, or of several by name.

        Raises:
            GeometryError: a forward method that depends on data, or that fails at these shapes.
        """
        with torch.device("meta"), torch.no_grad():
            root = without_data(module)
            parameters = inspect.signature(root.forward).parameters
            if not isinstance(shapes, Mapping):
                shapes = {next(iter(parameters), ""): shapes}
            elif not set(shapes) <= set(parameters):
                root = _ByName(root, list(shapes))
                parameters = inspect.signature(root.forward).parameters
            tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
            values = {"*inputs": tuple(tensors.values())} if isinstance(root, _ByName) else tensors
            fixed = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
            fixed = {name: value for name, value in fixed.items() if name not in values}
            tracer = _Tracer(values)
            try:
                graph = tracer.trace(root, fixed or None)
            except GeometryError:
                raise
            except Exception as error:  # whatever a forward method raises
                sizes = ", ".join(shape_text(shape) for shape in shapes.values())
                raise GeometryError(
                    f"{type(module).__name__} cannot be traced at {sizes} ({one_line(error)}); give the size that it "
                    "takes, and let its control flow depend on shapes only"
                ) from error
        graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output") or in_place(node))
        starts = {node.target: node for node in graph.nodes if node.op == "placeholder" and node.target in values}
        if isinstance(root, _ByName):
            picks = {node.args[1]: node for node in starts["*inputs"].users}
            starts = {name: picks[i] for i, name in enumerate(shapes) if i in picks}
        ends = {name.removeprefix(_prefix(root)): node for name, node in tracer.ends.items() if node in graph.nodes}
        return cls(graph, root, starts, ends)


def in_place(node: Node) -> bool:
    """Whether a call changes its first argument, as torch's names with a final underscore say."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and name.endswith("_") and not name.startswith("_")


def without_data(module: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers are on the meta device."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, memo)


class _ByName(nn.Module):
    """A module that takes one mapping, as one that takes its values."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> Any:
        return self.module({name: inputs[i] for i, name in enumerate(self.names)})


def _prefix(root: nn.Module) -> str:
    return "module." if isinstance(root, _ByName) else ""


class _Valued(fx.Proxy):
    """A proxy that knows its value: shapes answer at once, data never."""

    value: Any

    def __getattr__(self, name: str) -> Any:
        if name in ("value", "node", "tracer"):  # not set yet
            raise AttributeError(name)
        found = getattr(self.value, name)
        if callable(found):
            return fx.proxy.Attribute(self, name)
        if isinstance(found, Tensor | torch.Size):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return found

    def _known(self) -> Any:
        if isinstance(self.value, Tensor):
            raise GeometryError(f"control flow depends on the data of {self.node.name}; let it depend on shapes only")
        return self.value

    def __bool__(self) -> bool:
        return bool(self._known())

    def __int__(self) -> int:
        return int(self._known())

    def __float__(self) -> float:
        return float(self._known())

    def __index__(self) -> int:
        return int(self._known())

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, Mapping):
            return iter(self.value)
        return iter([self[i] for i in range(len(self.value))])  # type: ignore[index]  # operators are set at run time

    def keys(self) -> Any:
        return self.value.keys()


class _Tracer(fx.Tracer):
    """Records what happens to values that it also computes, on the meta device."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values
        self.ends: dict[str, Node] = {}
        self.inside = False  # a leaf, which computes its value and records nothing

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return hasattr(m, "fields") or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: Node) -> fx.Proxy:
        return _Valued(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        result: Any = super().create_proxy(kind, target, args, kwargs, *more, **named)
        result.value = result.node.meta[VALUE] = self._compute(kind, target, _plain(args), _plain(kwargs))
        return result

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.inside:
            return forward(*args, **kwargs)
        result = super().call_module(m, forward, args, kwargs)
        if isinstance(result, fx.Proxy) and not self.is_leaf_module(m, ""):
            self.ends[self.path_of_module(m)] = result.node
        return result

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.inside else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _compute(self, kind: str, target: Any, args: Any, kwargs: Any) -> Any:
        if kind == "placeholder":
            return self.values.get(target, args[0] if args else None)
        if kind == "get_attr":
            found: Any = self.root
            for name in target.split("."):
                found = getattr(found, name)
            return found
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "output":
            return args[0]
        self.inside = True
        try:
            return self.root.get_submodule(target).forward(*args, **kwargs)
        finally:
            self.inside = False


def _plain(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda each: each.value if isinstance(each, _Valued) else each)
