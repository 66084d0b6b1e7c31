"""Tracer: torch.fx's, whose proxies know their values, with tensors on the meta device.

A shape can be asked for, compared and counted to while the graph keeps it symbolic; data cannot.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node, map_aggregate

from fullconv.errors import GeometryError

VALUE = "value"
"""Key in a node's meta: its value, with tensors on the meta device."""

ASSIGNMENTS = (
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow,
    operator.iand, operator.ior, operator.ixor,
)  # fmt: skip
"""What ``x += y`` and its like call. torch.fx by itself reads ``x = x + y``, which other names of x do not see."""


def tells_fields(module: nn.Module | None) -> bool:
    """Whether a module tells its own geometry, by a method `fields` (see `fullconv.nets.trace`)."""
    tell = getattr(module, "fields", None)
    return callable(tell) and not isinstance(tell, nn.Module)


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

    def __setitem__(self, index: Any, value: Any) -> None:
        raise GeometryError(f"a part of {self.node.name} is assigned to; put maps together by torch.cat or torch.where")

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.value, Mapping):
            return iter(self.value)
        return iter([self[i] for i in range(len(self.value))])  # type: ignore[index]  # operators are set at run time

    def keys(self) -> Any:
        return self.value.keys()


@contextmanager
def types_of_values() -> Iterator[None]:
    """``isinstance(x, Tensor)`` and ``isinstance(size, int)`` in forward methods answer as they do without tracing.

    Otherwise a net would silently take another way. It cannot be `__class__` that lies: torch's own code would believe
    it, and so it is not told here either. For objects of all other types nothing changes.
    """
    plain = builtins.isinstance

    def told(each: Any, kind: Any) -> bool:
        if type(each) is not _Valued or plain(each, kind):
            return plain(each, kind)
        caller = sys._getframe(1)
        inside = str(caller.f_globals.get("__name__")).partition(".")[0] == "torch"
        asked = not inside or caller.f_code is torch.is_tensor.__code__
        return asked and plain(vars(each).get("value"), kind)

    builtins.isinstance = told
    try:
        yield
    finally:
        builtins.isinstance = plain


def _assigning(operation: Callable[..., Any]) -> Callable[..., Any]:
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", operation, (proxy, other), {})


for _operation in ASSIGNMENTS:
    setattr(_Valued, f"__{_operation.__name__}__", _assigning(_operation))


class Tracer(fx.Tracer):
    """Records what happens to values that it also computes, on the meta device.

    Modules of torch and those that tell their own fields are single nodes.

    Args:
        values: of the arguments of the module's forward method, as the graph calls them.

    Attributes:
        ends: dotted name of a module that is traced through -> the node of its output.
    """

    proxy_buffer_attributes = True  # so that what is computed of them is seen to be

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = values
        self.ends: dict[str, Node] = {}
        self.inside = False  # a leaf, which computes its value and records nothing

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return tells_fields(m) or super().is_leaf_module(m, module_qualified_name)

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
            layer = self.root.get_submodule(target)
            _require_fit(target, layer, args)
            return layer.forward(*args, **kwargs)
        finally:
            self.inside = False


def _require_fit(name: str, layer: nn.Module, args: Any) -> None:
    """The commonest mistake of all gets a message of its own: a linear layer made for another size of the map."""
    if not isinstance(layer, nn.Linear) or not args or not isinstance(args[0], Tensor) or not args[0].ndim:
        return
    given = args[0].shape[-1]
    if given != layer.in_features:
        raise GeometryError(
            f"{name} (Linear) takes {layer.in_features} numbers and gets {given} at this size; correct the layer, or "
            "give the size that it was made for (convolutionalize makes a net for all sizes)"
        )


def _plain(arguments: Any) -> Any:
    return map_aggregate(arguments, lambda each: each.value if isinstance(each, _Valued) else each)
