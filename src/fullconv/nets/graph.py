"""Any module -> a torch.fx graph whose nodes know the shapes that they had at one input size.

Symbolic tracing alone fails where a forward method looks at a shape. Here every value also has a tensor on the meta
device: a shape and a type without data. Shapes can then be asked for, compared and counted to; they stay symbolic in
the graph, so that it runs at other sizes too. What depends on the data itself is refused.
"""

from __future__ import annotations

import builtins
import copy
import inspect
import operator
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node, map_aggregate

from fullconv.errors import GeometryError, one_line, shape_text

Shape = tuple[int, ...]

CONSTANT = "_tensor_constant"
"""How torch.fx begins the names of tensors that a forward method makes, rather than computes or finds in its module."""

ASSIGNMENTS = (
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow,
    operator.iand, operator.ior, operator.ixor,
)  # fmt: skip
"""What ``x += y`` and its like call. torch.fx by itself reads ``x = x + y``, which other names of x do not see."""

_ONE_AT_A_TIME = threading.RLock()

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
            GeometryError: a forward method that depends on data, or that fails at these shapes.
        """
        for name, part in module.named_modules():
            hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
            # Those of weight normalisation and pruning only make weights.
            if any(not type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks):
                title = f"{name} ({type(part).__name__})" if name else type(part).__name__
                raise GeometryError(f"{title} has a forward hook, which may change what it gives; remove it to trace")
        try:
            with torch.device("meta"), torch.no_grad(), warnings.catch_warnings():
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
        kind = next((p.dtype for p in root.parameters() if p.dtype.is_floating_point), None)
        parameters = inspect.signature(root.forward).parameters
        named = shapes if isinstance(shapes, Mapping) else {next(iter(parameters), "input"): shapes}
        mapping = not set(named) <= set(parameters)
        if mapping or any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters.values()):
            root = _Held(root, list(named), mapping)
        tensors = {name: torch.empty(shape, dtype=kind) for name, shape in named.items()}
        values = {"*inputs": tuple(tensors.values())} if isinstance(root, _Held) else tensors
        optional = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
        fixed = {} if isinstance(root, _Held) else {name: v for name, v in optional.items() if name not in values}
        tracer = _Tracer(values)
        with _types_of_values():
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

    def __round__(self, *digits: int) -> Any:
        return round(self._known(), *digits)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, Mapping):
            return iter(self.value)
        return iter([self[i] for i in range(len(self.value))])  # type: ignore[index]  # operators are set at run time

    def keys(self) -> Any:
        return self.value.keys()


@contextmanager
def _types_of_values() -> Iterator[None]:
    """``isinstance(x, Tensor)`` and ``isinstance(size, int)`` in forward methods answer as they do without tracing.

    Otherwise a net would silently take another way. It cannot be `__class__` that lies: torch's own code would believe
    it, and so it is not told here either. For objects of all other types nothing changes.
    """
    with _ONE_AT_A_TIME:
        plain = builtins.isinstance

        def told(each: Any, kind: Any) -> bool:
            if plain(each, kind) or type(each) is not _Valued:
                return plain(each, kind)
            caller = str(sys._getframe(1).f_globals.get("__name__"))
            return caller.partition(".")[0] != "torch" and plain(vars(each).get("value"), kind)

        builtins.isinstance = told
        try:
            yield
        finally:
            builtins.isinstance = plain


def _assigning(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", operation, (proxy, other), {})


for _operation in ASSIGNMENTS:
    setattr(_Valued, f"__{_operation.__name__}__", _assigning(_operation))


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

    def create_node(self, kind: str, target: Any, *more: Any, **named: Any) -> Node:
        node = super().create_node(kind, target, *more, **named)
        if kind == "get_attr":  # also where a tensor is met as an argument
            node.meta[VALUE] = self._compute(kind, target, (), {})
        return node

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
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "output":
            return args[0]
        self.inside = True
        try:
            if kind == "get_attr":
                path, _, name = target.rpartition(".")
                return getattr(self.root.get_submodule(path), name)
            return self.root.get_submodule(target).forward(*args, **kwargs)
        finally:
            self.inside = False


def _plain(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda each: each.value if isinstance(each, _Valued) else each)
