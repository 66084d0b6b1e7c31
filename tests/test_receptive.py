"""Tables of receptive fields, against fields worked out by hand and read off gradients."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, nn

import fullconv
from fullconv.errors import GeometryError, OptionError
from fullconv.geometry import Window
from fullconv.receptive import receptive_field, shown_layers, text, to_json, window_text


def stem() -> nn.Sequential:
    """As ResNet begins."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Dropout(0.1)
    )


class Two(nn.Module):
    """Two inputs, whose maps are added."""

    def __init__(self) -> None:
        super().__init__()
        self.color, self.depth = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(1, 4, 5, padding=2)

    def forward(self, color: Tensor, depth: Tensor) -> Tensor:
        return cast(Tensor, torch.relu(self.color(color) + self.depth(depth)))


def test_the_stem_of_resnet_by_hand() -> None:
    trace = receptive_field(stem())
    # 7; then 7 + (3 - 1) 2 = 11 at stride 4; starts -3 and -3 - 2; both centred on pixel 0.
    assert [layer.name for layer in shown_layers(trace)] == ["0", "1", "3", "4"]
    value = to_json(trace)
    assert value["inputs"] == {"input": [3, 224, 224]}
    assert value["parameters"] == 8 * 3 * 49 + 16
    assert value["obstacles"] == []
    conv, norm, pool, output = value["layers"]
    assert conv == {
        "name": "0",
        "kind": "Conv2d",
        "shape": [8, 112, 112],
        "parameters": 8 * 3 * 49,
        "window": {
            "kernel": [7, 7], "stride": [2, 2], "padding": [3, 3], "dilation": [1, 1], "ceil": False,
            "transposed": False,
        },
        "fields": {"input": {"field": [7, 7], "stride": [2.0, 2.0], "start": [-3, -3], "centre": [0.0, 0.0]}},
    }  # fmt: skip
    assert (norm["parameters"], norm["window"], norm["fields"]) == (16, None, conv["fields"])
    assert pool["shape"] == output["shape"] == [8, 56, 56]
    assert (
        pool["fields"]
        == output["fields"]
        == {"input": {"field": [11, 11], "stride": [4.0, 4.0], "start": [-5, -5], "centre": [0.0, 0.0]}}
    )


def test_the_table_as_it_is_printed() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), (1, 2), (0, 2)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert str(fullconv.receptive_field(net, (20, 24))) == "\n".join(
        [
            "input 1 x 20 x 24, 74 parameters",
            "layer  kind               shape        parameters  window         field  stride   start  centre",
            "0      Conv2d             4 x 18 x 12          64  3x5 s1x2 p0x2  3 x 5   1 x 2  0 x -2   1 x 0",
            "2      AdaptiveAvgPool2d  4 x 1 x 1                                 all       -       -       -",
            "3      Flatten            4                                         all       -       -       -",
            "4      Linear             2                    10                   all       -       -       -",
            "",
            "not local:",
            "  2 (AdaptiveAvgPool2d) pools over the whole map",
        ]
    )
    assert repr(receptive_field(net)) == "Trace(5 layers, 1 obstacles)"


def test_fields_are_what_gradients_say() -> None:
    """The middle unit of every map has gradients on just the pixels of its field."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, (3, 5), (1, 2), (1, 0)), nn.Conv2d(2, 2, 3, dilation=(2, 1)), nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(2, 1, (2, 4), (3, 1)),
    ).double()  # fmt: skip
    image = torch.rand(1, 1, 60, 70, dtype=torch.float64, requires_grad=True)
    out = image
    for layer, facts in zip(net, to_json(receptive_field(net, (60, 70)))["layers"], strict=True):
        out = layer(out)
        assert list(out.shape[1:]) == facts["shape"]
        (fields,) = facts["fields"].values()
        at = out.shape[2] // 2, out.shape[3] // 2
        (gradient,) = torch.autograd.grad(out[0, :, at[0], at[1]].sum(), image, retain_graph=True)
        for axis in (0, 1):
            used = gradient.abs().sum((0, 1, 3 - axis)).nonzero().flatten()
            first, last = int(used.min()), int(used.max())
            assert last + 1 - first == fields["field"][axis]
            assert first == fields["start"][axis] + fields["stride"][axis] * at[axis]
            assert (first + last) / 2 == fields["centre"][axis] + fields["stride"][axis] * at[axis]


def test_several_inputs_have_a_line_each() -> None:
    trace = receptive_field(Two(), (12, 14), {"color": 3, "depth": 1})
    fields = to_json(trace)["layers"][-1]["fields"]
    assert {name: each["field"] for name, each in fields.items()} == {"color": [3, 3], "depth": [5, 5]}
    lines = text(trace).splitlines()
    assert lines[0] == f"input color 3 x 12 x 14, depth 1 x 12 x 14, {3 * 9 * 4 + 4 + 25 * 4 + 4} parameters"
    assert lines[1].split() == [
        "layer", "kind", "shape", "parameters", "window", "reads", "field", "stride", "start", "centre",
    ]  # fmt: skip
    assert [line.split()[-5:] for line in lines[-3:-1]] == [
        ["color", "3", "1", "-1", "0"],
        ["depth", "5", "1", "-2", "0"],
    ]


def test_the_module_stays_as_it_was() -> None:
    net = stem().train()
    trace = receptive_field(net)
    assert trace.obstacles == ()  # batch norm in training mode would be one
    assert all(part.training for part in net.modules())
    assert not any(p.is_meta for p in net.parameters())


def test_markup_in_names_is_no_markup() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("[red]conv", nn.Conv2d(3, 2, 1))

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.get_submodule("[red]conv")(x))

    assert "[red]conv" in text(receptive_field(Odd()))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (None, ""),
        ((Window(1), Window(1)), "1x1"),
        ((Window(3, 2, 1, 4), Window(3, 2, 1, 4)), "3x3 s2 p1 d4"),
        ((Window(3, dilation=2), Window(1)), "3x1 d2x1"),
        ((Window(2, 2, ceil=True), Window(2, 2, ceil=True)), "2x2 s2 ceil"),
        ((Window(4, 2, 1, transposed=True),) * 2, "4x4 s2 p1 transposed"),
    ],
)
def test_windows_in_short(windows: tuple[Window, Window] | None, expected: str) -> None:
    assert window_text(windows) == expected


def test_what_cannot_be_traced() -> None:
    with pytest.raises(OptionError, match="an input of 3 channels and 0 x 5 pixels; expected at least 1 of each"):
        receptive_field(stem(), (0, 5))
    with pytest.raises(OptionError, match="no convolution tells the channels"):
        receptive_field(nn.ReLU())
    assert receptive_field(nn.ReLU(), 5, 2).output.shape == (1, 2, 5, 5)
    with pytest.raises(GeometryError, match=r"\(Linear\) takes 7 numbers and gets 25 at this size"):
        receptive_field(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(7, 1)), 5)
