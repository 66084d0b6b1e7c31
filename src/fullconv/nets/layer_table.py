"""The layers that a file of ours may hold, with the options that make them, and what those may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from fullconv.errors import printable
from fullconv.nets.dilated_pool import DilatedAvgPool, DilatedMaxPool
from fullconv.nets.trunks.response_norm import ResponseNorm

MAX_WINDOW = 4096
"""Kernel, stride, padding and the like."""

MAX_FACTOR = 64
"""By which a map may be finer than the one it was made of: the fields of so many units are told apart."""

MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
"""Of interpolation."""

TEXTS = {
    *MODES, "constant", "reflect", "replicate", "circular", "zeros",
    "same", "valid", "none", "tanh", "floor", "trunc", "fro",
}  # fmt: skip
"""Arguments that are words: modes of interpolation, padding, GELU, division and norm."""


@dataclass(frozen=True)
class Rule:
    """What an option may be: for a message, and as a test."""

    text: str
    fits: Callable[[Any], bool]


def within(least: float, most: float, whole: bool = True) -> Rule:
    """A number, no truth value and no NaN, in [least, most]."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, int if whole else int | float)
            and not isinstance(value, bool)
            and bool(least <= value <= most)
        )

    return Rule(f"a {'whole ' * whole}number of {least:.10g} to {most:.10g}", fits)


def _some(rule: Rule) -> Rule:
    def fits(value: Any) -> bool:
        return rule.fits(value) or (isinstance(value, list) and 1 <= len(value) <= 4 and all(map(rule.fits, value)))

    return Rule(f"{rule.text}, or up to four", fits)


def _or_none(rule: Rule) -> Rule:
    return Rule(f"{rule.text}, or null", lambda value: value is None or rule.fits(value))


COUNT, WINDOW, NUMBER = within(1, 1 << 24), within(1, MAX_WINDOW), within(-1e300, 1e300, whole=False)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule(f"one of {', '.join(sorted(TEXTS))}", lambda value: isinstance(value, str) and value in TEXTS)
BORDER = _some(within(-MAX_WINDOW, MAX_WINDOW))

RULES = {
    option: rule
    for rule, options in (
        (COUNT, "in_channels out_channels num_features in_features out_features num_parameters groups"),
        (_some(COUNT), "normalized_shape"),
        (_some(WINDOW), "kernel_size dilation"),
        (_or_none(_some(WINDOW)), "stride size"),
        (Rule(f"{BORDER.text}, or a word", lambda v: BORDER.fits(v) or TEXT.fits(v)), "padding"),
        (BORDER, "output_padding"),
        (within(1, MAX_FACTOR), "upscale_factor downscale_factor"),
        (_or_none(_some(NUMBER)), "scale_factor"),
        (NUMBER, "alpha beta k lambd lower upper threshold value min_val max_val p negative_slope norm_type"),
        (_or_none(NUMBER), "eps momentum"),
        (_or_none(within(-(1 << 24), 1 << 24)), "divisor_override dim"),
        (FLAG, "bias affine elementwise_affine track_running_stats inplace ceil_mode return_indices count_include_pad"),
        (_or_none(FLAG), "align_corners recompute_scale_factor"),
        (TEXT, "padding_mode mode approximate"),
    )
    for option in options.split()
}
"""Of every option of a layer."""

CONVOLUTION = "in_channels out_channels kernel_size stride padding dilation groups bias padding_mode"

LAYERS: dict[type[nn.Module], str] = {
    nn.Conv2d: CONVOLUTION,
    nn.ConvTranspose2d: f"{CONVOLUTION} output_padding",
    nn.Linear: "in_features out_features bias",
    nn.BatchNorm2d: "num_features eps momentum affine track_running_stats bias",
    nn.LayerNorm: "normalized_shape eps elementwise_affine bias",
    nn.RMSNorm: "normalized_shape eps elementwise_affine",
    nn.LocalResponseNorm: "size alpha beta k",
    ResponseNorm: "",
    nn.MaxPool2d: "kernel_size stride padding dilation return_indices ceil_mode",
    nn.AvgPool2d: "kernel_size stride padding ceil_mode count_include_pad divisor_override",
    DilatedMaxPool: "kernel_size padding dilation",
    DilatedAvgPool: "kernel_size padding dilation count_include_pad divisor_override",
    nn.LPPool2d: "norm_type kernel_size stride ceil_mode",
    nn.Upsample: "size scale_factor mode align_corners recompute_scale_factor",
    nn.PixelShuffle: "upscale_factor",
    nn.PixelUnshuffle: "downscale_factor",
    nn.ChannelShuffle: "groups",
    nn.ConstantPad2d: "padding value",
    **dict.fromkeys((nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d), "padding"),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid), "inplace"),
    **dict.fromkeys((nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Tanhshrink, nn.Softsign, nn.Softmax2d, nn.Identity), ""),
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU), "dim"),
    **dict.fromkeys((nn.ELU, nn.CELU), "alpha inplace"),
    **dict.fromkeys((nn.Hardshrink, nn.Softshrink), "lambd"),
    **dict.fromkeys((nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout), "p inplace"),
    nn.LeakyReLU: "negative_slope inplace",
    nn.RReLU: "lower upper inplace",
    nn.PReLU: "num_parameters",
    nn.GELU: "approximate",
    nn.Hardtanh: "min_val max_val inplace",
    nn.Softplus: "beta threshold",
    nn.Threshold: "threshold value inplace",
}
"""Layers that a file may hold, with the options that make them."""

CLASSES = {layer.__name__: layer for layer in LAYERS}


def shown(value: Any) -> str:
    """A value from a file, for a message."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    return printable(repr(value)[:80])
