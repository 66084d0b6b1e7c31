"""The machine's peak: that what is counted is what is computed."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fullconv.inference.ceiling import Ceiling


def test_operations_are_torchs_own_count() -> None:
    small = Ceiling(["float32"], ["torch"], layers=3, channels=8, side=12)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = small.stage(torch.randn(small.shape))
    assert small.operations == counter.get_total_flops()
    assert 0.1 < y.std() < 10


def test_every_precision_has_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    small = Ceiling(["bfloat16", "float32", "int8"], layers=1, channels=8, side=12)
    assert set(small.start()["rates"]) == {"float32", "bfloat16"}
    rates = small.turn(1)["rates"]
    assert all(rate > 0 for rate in rates.values())
