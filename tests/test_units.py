"""Units and their fields, against the net's own gradients and the geometry of its paths."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fullconv.errors import GeometryError, OptionError
from fullconv.fields import Fields
from fullconv.inspect import inspect_net, output_fields
from fullconv.nets import build
from fullconv.receptive import receptive_field
from fullconv.units import OUTPUT, units_of_net, units_of_trace


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.Flatten(),
        nn.Linear(4 * 5 * 7, 2),
    )  # fmt: skip


def test_the_units_of_a_trace_by_hand() -> None:
    units = units_of_trace(receptive_field(small(), (32, 40)))
    # 3 at stride 1; 4 at 2 (start -1); 8 (start -1); 10 at 4 (start -1); 18 (start -1). Maps 32, 16, 14, 7, 5 high.
    assert [each.name for each in units.first] == ["3.0", "5"]
    found = units.chosen(["0:0,1", "2:1,0", "3:1,2", "4:1,1", "5:4,6", "5:0,0"])
    assert [(each.name, each.unit, each.rows, each.columns) for each in found] == [
        ("0", (0, 1), (-1, 2), (0, 3)),
        ("2", (1, 0), (1, 5), (-1, 3)),
        ("3.1", (1, 2), (1, 9), (3, 11)),  # the block's last map
        ("4", (1, 1), (3, 13), (3, 13)),
        ("5", (4, 6), (15, 33), (23, 41)),
        ("5", (0, 0), (-1, 17), (-1, 17)),
    ]
    assert [each.unit for each in units.chosen()] == [(7, 9), (2, 3)]


def test_the_units_of_a_net_are_those_of_its_paths() -> None:
    net = build("fcn8s-vgg16", 3, padding="paper", width=0.02)
    units = units_of_net(net, (100, 120))
    assert [each.name for each in units.first] == ["pool1", "pool2", "pool3", "pool4", "pool5", OUTPUT]
    report = inspect_net(net, (100, 120))
    for layer in report.layers:
        found = units.maps[layer.name]
        assert found.size == layer.size[1:]
        assert found.rows == found.columns
        assert (found.rows.size, float(found.rows.stride), float(found.rows.centre)) == (
            layer.field, layer.stride, layer.centre,
        )  # fmt: skip
    assert units.maps["fc6"].field(0, 0).rows == units.maps["fc6"].field(0, 0).columns
    assert units.maps[OUTPUT].rows.size == report.reach == 468


def test_the_output_of_fcn32s_by_hand() -> None:
    # Unit 0 of fc6 begins at -(100 + 1 + 2 * 2 + 3 * 4 + 3 * 8 + 3 * 16) = -189 and reads 404 pixels, unit i 32 i on.
    # Pixel p is cell p + 19 of the upsampled map (reference 3.4); unit i reaches its 64 cells from 32 i on.
    fields = output_fields(build("fcn32s-vgg16", 3, padding="paper", width=0.02))
    assert fields.inputs(13, 14) == (-189, 32 - 189 + 404)  # cell 32: units 0 and 1
    assert fields.inputs(12, 13) == (-32 - 189, -189 + 404)  # cell 31: units -1 and 0


@pytest.mark.parametrize("name", ["fcn8s-slim", "fcn1s-slim"])
def test_a_pixels_field_holds_its_gradients(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, 2, width=0.2).double().eval()
    for key, parameter in net.named_parameters():
        if "score" in key:
            nn.init.normal_(parameter)
    image = (255 * torch.rand(1, 3, 560, 24, dtype=torch.float64)).requires_grad_()
    scores = net(image)
    field = output_fields(net)
    assert isinstance(field, Fields)
    tight = 0
    for row in range(276, 284):
        (gradient,) = torch.autograd.grad(scores[0, :, row, 12].sum(), image, retain_graph=True)
        used = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        start, stop = field.inputs(row, row + 1)
        assert start <= used.min()
        assert used.max() < stop
        tight = max(tight, int(used.max() - used.min()) + 1)
    assert tight > field.size / 2, "the field is not far too large"


def test_what_cannot_be_pointed_at() -> None:
    units = units_of_trace(receptive_field(small(), (32, 40)))
    for text in ("5", "5:1", "5:1,2,3", "5:-1,0", "5:1,²", ":1,2", "5:1, 2"):
        with pytest.raises(OptionError, match=r"unit '.*'; expected LAYER:ROW,COLUMN, such as 3.0:0,0"):
            units.chosen([text])
    with pytest.raises(OptionError, match=r"unit 5:5,0: 5 is 5 x 7 here, counted from 0"):
        units.chosen(["5:5,0"])
    with pytest.raises(OptionError, match=r"unit 5:0,7: 5 is 5 x 7 here"):
        units.chosen(["5:0,7"])
    with pytest.raises(OptionError, match=r"unknown layer '3.2'; did you mean '3.\d'\? Choices: .*3.0"):
        units.chosen(["3.2:0,0"])
    with pytest.raises(OptionError, match="unknown layer '7'"):  # it is no map
        units.chosen(["7:0,0"])
    with pytest.raises(GeometryError, match="no layer has limited fields, so none can be drawn"):
        units_of_trace(receptive_field(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), 2, 3))
