"""Which tensors of a graph share their memory, so that what changes one in place changes the others."""

from __future__ import annotations

from torch import Tensor
from torch.fx.node import Node

from fullconv.nets.calls import POINTWISE, Call
from fullconv.nets.graph import VALUE, tensors_of, written

PASSING = {
    "identity", "dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout", "feature_alpha_dropout",
    "contiguous", "detach", "cpu", "cuda", "to", "type", "float", "double", "half", "bfloat16", "long", "int", "bool",
    "requires_grad",
}  # fmt: skip
"""Elementwise calls that may give back the very tensor that they got, unchanged."""


class Aliases:
    """The tensors of a graph up to some node."""

    def __init__(self) -> None:
        self.nodes: dict[Node, set[int]] = {}

    def add(self, node: Node) -> None:
        """The next one."""
        self.nodes[node] = {tensor.untyped_storage()._cdata for tensor in tensors_of(node.meta[VALUE])}

    def of(self, node: Node) -> list[Node]:
        """Those so far that share memory with one, and itself."""
        return [each for each, storages in self.nodes.items() if storages & self.nodes[node]]

    def used_after(self, node: Node, now: Node) -> bool:
        """Whether anything reads a tensor that comes after the one that is read now."""
        return any(user is not now and user not in self.nodes for user in node.users)


def changed(node: Node, call: Call) -> Node | None:
    """The tensor that a call changes in place."""
    target = written(node)
    if target is None and node.args and isinstance(node.args[0], Node) and call.name in POINTWISE:
        told = getattr(call.layer, "inplace", False) or call.options.get("inplace")
        if told or (call.name not in PASSING and same_view(node, node.args[0])):
            target = node.args[0]
    return target if target is not None and isinstance(target.meta[VALUE], Tensor) else None


def same_view(one: Node, other: Node) -> bool:
    """Whether two tensors are the same numbers in the same order in memory."""
    first, second = one.meta[VALUE], other.meta[VALUE]
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return False
    layouts = [(t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride()) for t in (first, second)]
    return layouts[0] == layouts[1]
