"""Any classifier with fully connected layers -> the steps of a fully convolutional net.

A fully connected layer on a C x h x w map is a convolution whose kernel covers the map (Long et al. 2015, section 3.1);
pooling over the whole map is pooling with a window of its size. The rewritten net slides both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import NoReturn, cast

from torch import Tensor, nn
from torch.fx.node import Node

from fullconv.errors import GeometryError
from fullconv.nets.equal_layers import convolution, equal_windows, pooling, pooling_like, unequal_average
from fullconv.nets.modules import first_weight
from fullconv.nets.trace import Trace, TracedLayer
from fullconv.nets.tracing.calls import POINTWISE, Call, call_of
from fullconv.nets.tracing.graph import VALUE
from fullconv.nets.wired import Ref, Step, Wired, layer_name, wired

SHAPES = ("shape", "size", "dim", "numel")
"""Methods whose values hold no data."""

LAYOUTS = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "select"}
"""Calls that lay the same numbers out anew, in the same order, where they keep all."""


@dataclass(frozen=True)
class Form:
    """How the new net holds a value of the old one; numbers are those at the classifier's input size.

    Attributes:
        kind: "map": with the same dimensions. All others are maps (N, C, h', w') in the new net: "flat" for
            (N, C h w), "line" for (N, C, h w), "cell" for (N, c, h, w) with all positions among the C = c h w channels.
        channels, size: C and (h, w) of the map that it is, or was laid out from.
        order: in which "flat" has the dimensions of that map.
        axes: of a "map", its dimensions of (rows, columns).
    """

    kind: str
    channels: int
    size: tuple[int, int] = (1, 1)
    order: str = "chw"
    axes: tuple[int, int] = (2, 3)

    @property
    def vector(self) -> bool:
        """Whether it is (N, C)."""
        return self.kind == "flat" and self.size == (1, 1)


class Rewriter:
    """Walks a traced classifier and writes the steps of its dense form.

    Args:
        trace: of the classifier in evaluation mode, at its input size and a batch of two.
        module: the classifier.

    Attributes:
        plain: the classifier itself as steps.
        entries: the values of `plain` that rewritten steps read as maps: there the tail begins.
    """

    def __init__(self, trace: Trace, module: nn.Module) -> None:
        self.trace = trace
        self.plain = wired(trace.traced, module)
        self.entries: list[str] = []
        self.layers: dict[str, nn.Module] = dict(self.plain.layers.items())
        self.steps: list[Step] = []
        self.forms: dict[Node, Form] = {}
        self.alias: dict[str, str] = {}
        self.shared: dict[tuple[int, int, Form], str] = {}  # layers that are called several times stay one
        self.node: Node
        self.call: Call
        self.step: Step

    def dense(self) -> Wired:
        """The fully convolutional net.

        Raises:
            GeometryError: a layer that has no convolutional form, with its name and the reason.
        """
        traced, steps = self.trace.traced, {step.name: step for step in self.plain.steps}
        layers = {layer.node: layer for layer in self.trace.layers}
        for node in traced.inputs.values():
            self.forms[node] = _map_form(tuple(node.meta[VALUE].shape), (2, 3))
        for node in traced.graph.nodes:
            if node.name not in steps:
                continue
            self.node, self.step = node, steps[node.name]
            if node not in layers:  # shapes and constants
                self._keep()
                continue
            self.call = call_of(node, traced.root)
            if "dropout" in self.call.name and self.call.options.get("training"):
                self._refuse("drops in evaluation mode too; give it training=self.training")
            sources = [each for each in node.all_input_nodes if each in self.forms]
            maps = all(self.forms[each].kind == "map" for each in sources)
            self.forms[node] = self._on_maps(layers[node], sources) if maps else self._on_tail(layers[node], sources)
        end = self.trace.output
        form = self.forms[end.node]
        if not form.vector and (form.kind != "map" or form.axes != (2, 3)):
            raise GeometryError(
                f"cannot convolutionalize: the output {end.name} has the shape {end.shape}, neither logits (N, K) "
                "nor a map of them; wrap the classifier so that it returns its logits"
            )
        if form.size != (1, 1):
            raise GeometryError(
                f"cannot convolutionalize: the output {end.name} has {form.size[0]}x{form.size[1]} cells; give the "
                "size at which it has one"
            )
        output = self.alias.get(end.node.name, end.node.name)
        return (
            Wired(self.layers, self.steps, self.plain.inputs, output, dict(self.plain.constants.items()))
            .pruned()
            .eval()
        )

    def cut(self) -> str:
        """The last value of the plain net through which everything goes that the tail reads; the input, if no other."""
        steps = {step.name: step for step in self.plain.steps}

        def around(name: str) -> bool:
            """Whether data gets from the input to the tail beside a value."""
            seen, todo = {name}, list(self.entries)
            while todo:
                at = todo.pop()
                if at in self.plain.inputs and at not in seen:
                    return True
                if at not in seen and steps[at].target not in SHAPES:
                    todo += steps[at].refs()
                seen.add(at)
            return False

        names = [*self.plain.inputs, *steps]
        earliest = min(names.index(name) for name in self.entries) if self.entries else 0
        return next(name for name in reversed(names[: earliest + 1]) if not around(name))

    # Writing steps.

    def _name(self, node: Node) -> str:
        return self.alias.get(node.name, node.name)

    def _keep(self) -> None:
        """The old call, of the new values."""
        self.steps.append(self.step.renamed(self.alias))

    def _same(self, source: Node) -> None:
        self.alias[self.node.name] = self._name(source)

    def _layer(self, layer: nn.Module, source: str) -> None:
        """A new layer in place of the old call."""
        if not isinstance(self.node.meta[VALUE], Tensor):
            self._refuse("gives indices too, which the dense form has not; set return_indices=False")
        key = layer_name(self.trace.traced.title(self.node), self.layers)
        self.layers[key] = layer.eval()
        self.steps.append(Step(self.node.name, "layer", key, (Ref(source),)))

    def _permuted(self, source: str, order: Sequence[int]) -> str:
        name = f"{self.node.name}_{len(self.steps)}"
        self.steps.append(Step(name, "method", "permute", (Ref(source), *order)))
        return name

    def _entry(self, source: Node) -> str:
        """A map that the tail begins with, as (N, C, h, w)."""
        form = self.forms[source]
        if source.meta[VALUE].ndim != 4:
            self._refuse(f"reads a map of shape {tuple(source.meta[VALUE].shape)}; expected one of (N, C, H, W)")
        self.entries.append(source.name)
        rows, columns = form.axes
        order = [0, 6 - rows - columns, rows, columns]
        return self._name(source) if order == [0, 1, 2, 3] else self._permuted(self._name(source), order)

    def _refuse(self, reason: str) -> NoReturn:
        title = self.trace.traced.title(self.node)
        raise GeometryError(f"cannot convolutionalize: {title} ({self.call.title}) {reason}")

    # Calls on maps.

    def _on_maps(self, layer: TracedLayer, sources: list[Node]) -> Form:
        source, name = sources[0], self.call.name
        form = self.forms[source]
        shape = layer.shape
        if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
            return self._adaptive(shape, source)
        if name in ("mean", "sum", "amax") and self._dims(source).intersection(form.axes):
            return self._reduced(shape, source)
        if None in layer.axes and self._lays_out(shape, source):
            return self._flattened(shape, source)
        obstacle = next((each for each in self.trace.obstacles if each.name == layer.name), None)
        if obstacle is not None:
            self._refuse(obstacle.reason)
        rows, columns = layer.axes
        if rows is None or columns is None:
            self._refuse("takes the map apart otherwise than by flattening or pooling it")
        if len({self.forms[each].size for each in sources}) > 1:
            self._refuse(
                "joins a map with a value for the whole map (squeeze-and-excitation and the like need all of it)"
            )
        covers = [(w.kernel, w.padding) for w in layer.windows or ()] == [(n, 0) for n in form.size]
        if name in ("avg_pool2d", "max_pool2d") and covers and not self.call.options.get("divisor_override"):
            self.entries.append(source.name)
            self._layer(pooling(name == "avg_pool2d", form.size, (1, 1)), self._name(source))
        elif name == "lp_pool2d" and covers:
            self.entries.append(source.name)
            self._layer(nn.LPPool2d(self.call.options["norm_type"], form.size, 1), self._name(source))
        else:
            self._keep()
        return _map_form(shape, (rows, columns))

    def _lays_out(self, shape: Sequence[int], source: Node) -> bool:
        """Whether the call does nothing to the numbers but lay them out anew."""
        index = self.call.options.get("index")
        picks = any(isinstance(each, list | Tensor) for each in (index if isinstance(index, tuple) else [index]))
        whole = prod(shape) == cast(Tensor, source.meta[VALUE]).numel()
        return whole and self.call.name in LAYOUTS and not picks

    def _dims(self, source: Node) -> set[int]:
        """The dimensions that a reduction goes over."""
        rank = source.meta[VALUE].ndim
        given = self.call.options.get("dim")
        return {dim % rank for dim in (range(rank) if given is None else [given] if isinstance(given, int) else given)}

    def _adaptive(self, shape: Sequence[int], source: Node) -> Form:
        size, cells = self.forms[source].size, (shape[2], shape[3])
        average = self.call.name == "adaptive_avg_pool2d"
        if size == cells:
            self._same(source)
            return _map_form(shape, (2, 3))
        windows = [equal_windows(n, m) for n, m in zip(size, cells, strict=True)]
        if all(windows):
            kernel, stride = zip(*windows, strict=True)
            self._layer(pooling(average, kernel, stride), self._entry(source))
            return _map_form(shape, (2, 3))
        if not average:
            sizes = f"{size[0]}x{size[1]} map to {cells[0]}x{cells[1]}"
            self._refuse(f"pools a {sizes} cells by windows of unequal size; choose an input size that divides evenly")
        like = first_weight(self.plain)
        self._layer(unequal_average(shape[1], size, cells).to(like.device, like.dtype), self._entry(source))
        return Form("cell", prod(shape[1:]))

    def _reduced(self, shape: Sequence[int], source: Node) -> Form:
        """Pooling over whole rows, columns or both."""
        form, dims = self.forms[source], self._dims(source)
        if not dims <= set(form.axes):
            self._refuse("mixes channels and positions of the map")
        if self.call.options.get("dtype") is not None:
            self._refuse("gives numbers of another type; convert them in a step of its own")
        kernel = tuple(n if axis in dims else 1 for n, axis in zip(form.size, form.axes, strict=True))
        left = tuple(1 if axis in dims else n for n, axis in zip(form.size, form.axes, strict=True))
        if form.axes != (2, 3) and (len(shape) == 4 or left != (1, 1)):
            self._refuse("keeps dimensions of a map that is not (N, C, H, W); permute it before")
        self._layer(pooling_like(self.call.name, (kernel[0], kernel[1])), self._entry(source))
        if len(shape) == 4:
            return _map_form(shape, form.axes)
        return Form("flat" if left == (1, 1) else "line", form.channels, (left[0], left[1]))

    def _flattened(self, shape: Sequence[int], source: Node) -> Form:
        """The map as a row of numbers."""
        form = self.forms[source]
        batch = source.meta[VALUE].shape[0]
        names = dict(zip((6 - sum(form.axes), *form.axes), "chw", strict=True))
        order = "".join(names[dim] for dim in (1, 2, 3)) if source.meta[VALUE].ndim == 4 else ""
        made = Form("flat", form.channels, form.size, order)
        if len(shape) == 3 and shape[:2] == (batch, form.channels) and order == "chw":
            made = replace(made, kind="line")
        elif tuple(shape) != (batch, form.channels * prod(form.size)):
            self._refuse(f"makes {tuple(shape)} of a map; expected (N, C H W)")
        entry = self._entry(source)
        self.alias[self.node.name] = entry
        return made

    # Calls on what the new net holds otherwise than the old.

    def _on_tail(self, layer: TracedLayer, sources: list[Node]) -> Form:
        source, name, shape = sources[0], self.call.name, layer.shape
        form = self.forms[source]
        if len({self.forms[each] for each in sources}) > 1 and not (
            name == "cat" and all(self.forms[each].vector for each in sources)
        ):
            self._refuse("joins values that were laid out differently")
        rule = TAIL.get(name)
        if rule is not None:
            return rule(self, shape, source)
        if self._lays_out(shape, source):
            return self._relaid(shape, source)
        if name not in POINTWISE or len(shape) != source.meta[VALUE].ndim:
            if form.kind == "line":
                self._refuse("takes the positions of the map for a sequence, which is as long as the input is large")
            self._refuse(
                "is not known in the tail of a classifier, which may flatten, pool, connect, normalise and drop"
            )
        self._with_constants(form)
        return form

    def _with_constants(self, form: Form) -> None:
        """An elementwise call; vectors among its constants become (K, 1, 1)."""
        step = self.step.renamed(self.alias)
        layer = self.call.layer
        held = [] if layer is None else [(None, each) for each in layer.parameters()]  # slopes of a PReLU
        for each, value in [*held, *((each, each.meta[VALUE]) for each in self.node.all_input_nodes)]:
            if each not in self.forms and isinstance(value, Tensor) and value.numel() > 1:
                if not form.vector or value.numel() != value.shape[-1]:
                    self._refuse("joins the flattened map and a constant")
                if each is None or self.call.name == "prelu":
                    continue
                shaped = f"{self.node.name}_{each.name}"
                self.steps.append(Step(shaped, "method", "reshape", (Ref(each.name), -1, 1, 1)))
                step = step.renamed({each.name: shaped})
        self.steps.append(step)

    def _linear(self, shape: Sequence[int], source: Node) -> Form:
        form, layer = self.forms[source], self.call.layer
        if form.kind != "flat" or len(shape) != 2:
            self._refuse(f"reads {tuple(source.meta[VALUE].shape)}; expected a flattened map (N, C H W)")
        weight: Tensor
        bias: Tensor | None
        if isinstance(layer, nn.Linear):
            held = cast(nn.Linear, self.layers[self.step.target])
            weight, bias = held.weight, held.bias
            if not isinstance(weight, nn.Parameter):  # weight normalisation or pruning has computed it
                learned = any(each.requires_grad for each in held.parameters() if each is not bias)
                weight = weight.detach().requires_grad_(learned)
        else:
            constants = {s.name: self.plain.constants[s.target] for s in self.plain.steps if s.kind == "constant"}
            given = dict(zip(("input", "weight", "bias"), self.step.args, strict=False)) | dict(self.step.options)
            names = [each.name for key in ("weight", "bias") if isinstance(each := given.get(key), Ref)]
            if not constants.keys() >= set(names):
                self._refuse("takes weights that are computed; compute them once, and hold them as a parameter")
            weight, bias = constants[names[0]], constants[names[1]] if len(names) > 1 else None
        key = (id(weight), id(bias), form)
        if key in self.shared:
            self.steps.append(Step(self.node.name, "layer", self.shared[key], (Ref(self._name(source)),)))
        else:
            self._layer(convolution(weight, bias, form.channels, form.size, form.order), self._name(source))
            self.shared[key] = self.steps[-1].target
        return Form("flat", shape[1])

    def _batch_norm(self, _: Sequence[int], source: Node) -> Form:
        form = self._vector(source, "normalises every position of the flattened map by itself")
        layer = self.call.layer
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            held = self.layers[self.step.target]
            flat = nn.BatchNorm2d(
                layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
            )
            flat.__dict__.update({key: held.__dict__[key] for key in ("_parameters", "_buffers")})
            self._layer(flat, self._name(source))
        else:
            self._keep()
        return form

    def _layer_norm(self, _: Sequence[int], source: Node) -> Form:
        form = self._vector(source, "normalises over the flattened map")
        last = self._permuted(self._name(source), (0, 2, 3, 1))
        step = self.step.renamed({source.name: last})
        inner = f"{self.node.name}_{len(self.steps)}"
        self.steps.append(replace(step, name=inner))
        self.steps.append(Step(self.node.name, "method", "permute", (Ref(inner), 0, 3, 1, 2)))
        return form

    def _along_classes(self, _: Sequence[int], source: Node) -> Form:
        """Softmax and the like."""
        form = self._vector(source, "mixes all positions of the flattened map")
        if self.call.options.get("dim", 1) not in (1, -1, None):
            self._refuse("works across the images of a batch")
        if isinstance(self.call.layer, nn.Module):
            self._layer(type(self.call.layer)(dim=1), self._name(source))
        else:
            step = self.step.renamed(self.alias)
            options = {key: value for key, value in self.call.options.items() if key in ("p", "eps", "dtype")}
            self.steps.append(replace(step, args=(Ref(self._name(source)),), options={**options, "dim": 1}))
        return form

    def _reduced_line(self, shape: Sequence[int], source: Node) -> Form:
        form = self.forms[source]
        if form.kind != "line" or self._dims(source) != {2} or len(shape) != 2:
            self._refuse("mixes the channels of a vector")
        self._layer(pooling_like(self.call.name, form.size), self._name(source))
        return Form("flat", form.channels)

    def _concatenated(self, shape: Sequence[int], source: Node) -> Form:
        self._vector(source, "joins flattened maps")
        if self.call.options.get("dim", 0) not in (1, -1):
            self._refuse("works across the images of a batch")
        step = self.step.renamed(self.alias)
        tensors = step.args[0] if step.args else step.options["tensors"]
        self.steps.append(replace(step, args=(tensors,), options={"dim": 1}))
        return Form("flat", shape[1])

    def _relaid(self, shape: Sequence[int], source: Node) -> Form:
        """Reshaped again: to a row, or back to a map."""
        form, batch = self.forms[source], source.meta[VALUE].shape[0]
        made = None
        if tuple(shape) == tuple(source.meta[VALUE].shape):
            made = form
        elif tuple(shape) == (batch, prod(shape[1:])):
            made = replace(form, kind="flat")
        elif tuple(shape) == (batch, form.channels, *form.size) and form.order == "chw":
            made = _map_form(shape, (2, 3))
        if made is None:
            self._refuse(f"makes {tuple(shape)} of {tuple(source.meta[VALUE].shape)}; expected (N, C H W)")
        self._same(source)
        return made

    def _vector(self, source: Node, what: str) -> Form:
        form = self.forms[source]
        if not form.vector:
            self._refuse(f"{what}; only vectors (N, C) can be")
        return form


TAIL: dict[str, Callable[[Rewriter, Sequence[int], Node], Form]] = {
    "linear": Rewriter._linear,
    "batch_norm": Rewriter._batch_norm,
    **dict.fromkeys(("layer_norm", "rms_norm"), Rewriter._layer_norm),
    "cat": Rewriter._concatenated,
    **dict.fromkeys(("softmax", "log_softmax", "softmin", "normalize"), Rewriter._along_classes),
    **dict.fromkeys(("mean", "sum", "amax"), Rewriter._reduced_line),
}
"""What a tail may hold besides elementwise calls and reshaping."""


def _map_form(shape: Sequence[int], axes: tuple[int, int]) -> Form:
    channels = shape[6 - sum(axes)] if len(shape) == 4 else 0
    return Form("map", channels, (shape[axes[0]], shape[axes[1]]), axes=axes)
