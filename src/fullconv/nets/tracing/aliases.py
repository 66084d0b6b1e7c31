"""Which tensors of a graph share their memory, so that what changes one in place changes the others."""

from __future__ import annotations

from torch import Tensor
from torch.fx.node import Node

from fullconv.nets.tracing.calls import Call
from fullconv.nets.tracing.graph import VALUE, tensors_of, written


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
    if getattr(call.layer, "inplace", False) or call.options.get("inplace"):
        target = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    return target if target is not None and isinstance(target.meta[VALUE], Tensor) else None
