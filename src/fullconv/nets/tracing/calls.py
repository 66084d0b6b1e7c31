"""One form for what a graph calls: a module, a function or a method, with its options by name.

``nn.MaxPool2d(2)``, ``F.max_pool2d(x, 2)`` and ``torch.max_pool2d(x, kernel_size=2)`` become the same `Call`.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.node import Node, map_arg

from fullconv.geometry import Window
from fullconv.nets.tracing.graph import VALUE

SIGNATURES = {
    "adaptive_avg_pool2d": "input output_size",
    "adaptive_max_pool2d": "input output_size return_indices",
    "amax": "input dim keepdim",
    "amin": "input dim keepdim",
    "argmax": "input dim keepdim",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "batch_norm": "input running_mean running_var weight bias training momentum eps cudnn_enabled",
    "cat": "input dim",
    "channel_shuffle": "input groups",
    "chunk": "input chunks dim",
    "conv2d": "input weight bias stride padding dilation groups",
    "conv_transpose2d": "input weight bias stride padding output_padding groups dilation",
    "cumsum": "input dim dtype",
    "dropout": "input p training inplace",
    "expand": "input *size implicit",
    "expand_as": "input other",
    "flatten": "input start_dim end_dim",
    "flip": "input *dim",
    "getitem": "input index",
    "glu": "input dim",
    "interpolate": "input size scale_factor mode align_corners recompute_scale_factor antialias",
    "layer_norm": "input normalized_shape weight bias eps cudnn_enable",
    "linear": "input weight bias",
    "local_response_norm": "input size alpha beta k",
    "log_softmax": "input dim _stacklevel dtype",
    "logsumexp": "input dim keepdim",
    "lp_pool2d": "input norm_type kernel_size stride ceil_mode",
    "max": "input dim keepdim",
    "max_pool2d": "input kernel_size stride padding dilation ceil_mode return_indices",
    "max_unpool2d": "input indices kernel_size stride padding output_size",
    "mean": "input dim keepdim dtype",
    "min": "input dim keepdim",
    "movedim": "input source destination",
    "narrow": "input dim start length",
    "norm": "input p dim keepdim dtype",
    "normalize": "input p dim eps",
    "pad": "input pad mode value",
    "permute": "input *dim",
    "pixel_shuffle": "input upscale_factor",
    "pixel_unshuffle": "input downscale_factor",
    "prelu": "input weight",
    "prod": "input dim keepdim dtype",
    "repeat": "input *repeats",
    "reshape": "input *shape",
    "rms_norm": "input normalized_shape weight eps",
    "roll": "input shifts dim",
    "select": "input dim index",
    "softmax": "input dim _stacklevel dtype",
    "softmin": "input dim _stacklevel dtype",
    "sort": "input dim descending stable",
    "split": "input size dim",
    "squeeze": "input *dim",
    "stack": "input dim",
    "std": "input dim unbiased keepdim correction",
    "sum": "input dim keepdim dtype",
    "tensor_split": "input parts dim",
    "topk": "input k dim largest sorted",
    "transpose": "input dim0 dim1",
    "unbind": "input dim",
    "unflatten": "input dim sizes",
    "unsqueeze": "input dim",
    "var": "input dim unbiased keepdim correction",
    "view": "input *shape",
}
"""Parameters of torch's functions and methods, in order; a star takes all that are left."""

RENAMED = {
    "concat": "cat", "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim",
    "upsample": "interpolate", "_threshold": "threshold", "max_pool2d_with_indices": "max_pool2d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
}  # fmt: skip
"""Other names of the same."""

PARAMETERS = {
    "axis": "dim", "dims": "dim", "axis0": "dim0", "axis1": "dim1", "keepdims": "keepdim", "tensors": "input",
    "split_size_or_sections": "size", "indices_or_sections": "parts",
}  # fmt: skip
"""Other names of parameters."""

UNREAD = "unread call of "
"""Before the name of a function that is called otherwise than `SIGNATURES` says: nothing is known of such a call."""

LAYERS: Mapping[type[nn.Module], tuple[str, str]] = {
    nn.Conv2d: ("conv2d", "kernel_size stride padding dilation padding_mode"),
    nn.ConvTranspose2d: ("conv_transpose2d", "kernel_size stride padding dilation"),
    nn.MaxPool2d: ("max_pool2d", "kernel_size stride padding dilation ceil_mode"),
    nn.AvgPool2d: ("avg_pool2d", "kernel_size stride padding ceil_mode count_include_pad divisor_override"),
    nn.LPPool2d: ("lp_pool2d", "norm_type kernel_size stride ceil_mode"),
    nn.MaxUnpool2d: ("max_unpool2d", "kernel_size stride padding"),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d", "output_size"),
    nn.AdaptiveMaxPool2d: ("adaptive_max_pool2d", "output_size return_indices"),
    nn.Upsample: ("interpolate", "size scale_factor mode align_corners recompute_scale_factor"),
    nn.PixelShuffle: ("pixel_shuffle", ""),
    nn.PixelUnshuffle: ("pixel_unshuffle", ""),
    nn.ZeroPad2d: ("pad", "padding"),
    nn.ConstantPad2d: ("pad", "padding"),
    nn.ReflectionPad2d: ("pad", "padding"),
    nn.ReplicationPad2d: ("pad", "padding"),
    nn.CircularPad2d: ("pad", "padding"),
    nn.Flatten: ("flatten", "start_dim end_dim"),
    nn.Unflatten: ("reshape", ""),
    nn.Linear: ("linear", ""),
    nn.LayerNorm: ("layer_norm", "normalized_shape"),
    nn.RMSNorm: ("rms_norm", "normalized_shape"),
    nn.Softmax: ("softmax", "dim"),
    nn.LogSoftmax: ("log_softmax", "dim"),
    nn.Softmin: ("softmin", "dim"),
    nn.Softmax2d: ("softmax2d", ""),
    nn.GLU: ("glu", "dim"),
    nn.PReLU: ("prelu", "weight"),
    nn.GroupNorm: ("group_norm", ""),
    nn.InstanceNorm1d: ("instance_norm", ""),
    nn.InstanceNorm2d: ("instance_norm", ""),
    nn.MultiheadAttention: ("multi_head_attention_forward", ""),
    nn.modules.batchnorm._BatchNorm: ("batch_norm", ""),
    nn.modules.dropout._DropoutNd: ("dropout", "p"),
    nn.Identity: ("identity", ""),
    nn.LocalResponseNorm: ("local_response_norm", ""),
    nn.ChannelShuffle: ("channel_shuffle", ""),
    **dict.fromkeys(
        (nn.ReLU, nn.ReLU6, nn.RReLU, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.SiLU, nn.Mish, nn.Hardswish,
         nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.Hardshrink, nn.LeakyReLU, nn.LogSigmoid, nn.Softplus, nn.Softshrink,
         nn.Softsign, nn.Tanhshrink, nn.Threshold),
        ("activation", ""),
    ),
}  # fmt: skip
"""Layer -> the function that it calls and the options that it holds."""

PADDING_MODES = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate", nn.CircularPad2d: "circular"}

WINDOWS = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "lp_pool2d", "max_unpool2d")
"""Calls that move a window of fixed size."""


@dataclass(frozen=True)
class Call:
    """What a node calls.

    Attributes:
        name: of the function, as in torch.nn.functional or torch; in-place variants without their underscore.
        options: by parameter name, as far as they are given; nodes of the graph by their values.
        layer: the module, where it is one.
    """

    name: str
    options: Mapping[str, Any]
    layer: nn.Module | None = None

    @property
    def title(self) -> str:
        """For a table: the layer's class or the function's name."""
        return self.name if self.layer is None else type(self.layer).__name__

    def windows(self) -> tuple[Window, Window]:
        """The (vertical, horizontal) windows of a call among `WINDOWS`.

        Padding that is unequal at the two ends counts as that at the start, which alone moves the fields.
        """
        kernel = self.options.get("kernel_size") or tuple(self.options["weight"].shape[2:])
        pooling = self.name not in ("conv2d", "conv_transpose2d")
        kernels = _pair(kernel)
        strides = _pair(self.options.get("stride") or (kernel if pooling else 1))
        dilations = _pair(self.options.get("dilation", 1))
        padding = self.options.get("padding", 0)
        if padding == "valid":
            padding = 0
        if padding == "same":
            padding = tuple(d * (k - 1) // 2 for d, k in zip(dilations, kernels, strict=True))
        paddings = _pair(padding)
        transposed = self.name in ("conv_transpose2d", "max_unpool2d")
        vertical, horizontal = (
            Window(kernels[i], strides[i], paddings[i], dilations[i], bool(self.options.get("ceil_mode")), transposed)
            for i in range(2)
        )
        return vertical, horizontal


def plain_name(target: str) -> str:
    """The name in `SIGNATURES` of a function or method, without the mark of a change in place.

    >>> plain_name("relu_"), plain_name("concat")
    ('relu', 'cat')
    """
    name = target.rstrip("_")
    return RENAMED.get(name, name)


def call_of(node: Node, root: nn.Module) -> Call:
    """The call of a node of operation call_module, call_function or call_method."""
    if node.op == "call_module":
        return call_of_layer(root.get_submodule(str(node.target)))
    name = plain_name(node.target if isinstance(node.target, str) else _name(node.target))
    options: dict[str, Any] = {PARAMETERS.get(key, key): _values(value) for key, value in node.kwargs.items()}
    if name not in SIGNATURES:
        return Call(name, options)
    parameters, values = SIGNATURES[name].split(), list(_values(node.args))
    known = {each.removeprefix("*") for each in parameters}
    for parameter in parameters:
        if values and parameter.startswith("*"):
            options[parameter[1:]] = values[0] if len(values) == 1 else tuple(values)
            values.clear()
        elif values:
            options[parameter] = values.pop(0)
    options.pop("out", None)
    return Call(f"{UNREAD}{name}" if values or not set(options) <= known else name, options)


def call_of_layer(layer: nn.Module) -> Call:
    """The call that a module stands for; its class's name where none is known."""
    for kind in type(layer).__mro__:
        if kind in LAYERS:
            name, attributes = LAYERS[kind]
            options = {attribute: getattr(layer, attribute) for attribute in attributes.split()}
            if kind in PADDING_MODES:
                options["mode"] = PADDING_MODES[kind]
            if name == "pad":
                options["pad"] = options.pop("padding")
            if name == "batch_norm":
                options["training"] = layer.training or getattr(layer, "running_mean", None) is None
            return Call(name, options, layer)
    return Call(type(layer).__name__, {}, layer)


SPACES = (torch, F, operator, torch._C._nn, builtins)
"""Where functions must come from to be known by their names."""


def _name(function: Callable[..., Any]) -> str:
    """A function's name; with its module's where it is not the one that is known by that name."""
    name = str(getattr(function, "__name__", function))
    if any(getattr(space, name, None) is function for space in SPACES):
        return name
    return f"{getattr(function, '__module__', None)}.{name}"


def _values(arguments: Any) -> Any:
    """Arguments, with the values of the graph's nodes."""
    return map_arg(arguments, lambda node: node.meta[VALUE])


def _pair(value: Any) -> tuple[int, int]:
    """A number for both axes, or one for each; torch takes lists and single-element tuples too."""
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


POINTWISE = frozenset(
    name
    for names in (
        "activation identity dropout local_response_norm channel_shuffle softmax2d dropout1d dropout2d feature_dropout",
        "alpha_dropout feature_alpha_dropout",
        "relu relu6 elu selu celu gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu",
        "prelu rrelu logsigmoid log_sigmoid softplus softsign tanhshrink hardshrink softshrink threshold logit",
        "abs absolute neg negative exp expm1 log log1p log2 log10 sqrt rsqrt square pow reciprocal sign clamp clip",
        "clamp_min clamp_max round floor ceil trunc frac sin cos erf nan_to_num isnan isfinite",
        "add iadd sub isub subtract rsub mul imul multiply div truediv itruediv divide floordiv true_divide mod",
        "ifloordiv floor_divide imod ipow iand ior ixor remainder fmod maximum minimum lerp addcmul addcdiv where",
        "masked_fill eq ne lt le gt ge",
        "logical_and logical_or logical_not and or xor invert bitwise_and bitwise_or",
        "float double half bfloat16 long int bool to type type_as contiguous clone detach requires_grad fill zero",
        "cpu cuda zeros_like ones_like full_like empty_like rand_like randn_like",
    )
    for name in names.split()
)
"""Functions and methods that work on every position by itself; several tensors are joined with broadcasting."""
