"""Table 1 beside ours: against the numbers of reference 1.3, 3.5 and 8.1, typed by hand."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from fullconv import paper
from fullconv.nets import FCN
from fullconv.nets.trunks import TRUNKS
from fullconv.paper import Column, Count, Published, Table1, table_1

SIZE = (24, 40)

SECONDS = {
    "voc-fcn-alexnet": (8.0, 0.75, 0.125, 0.25),
    "voc-fcn32s": (8.0, 0.375, 2.0, 0.5),
    "voc-fcn-googlenet": (8.0, 0.0625, 0.125, 0.75),
}
"""What a clock of ours says of each net's passes; the first warms up. Medians: 0.25, 0.5 and 0.125."""


@dataclass(frozen=True)
class Seen:
    """The table, and the passes that were timed for it: parameters of the net, shape of the input."""

    table: Table1
    passes: list[tuple[int, tuple[int, ...]]]


@pytest.fixture(scope="module")
def seen() -> Seen:
    """At full width, so once; three of its six nets have 134 million parameters."""
    durations = chain.from_iterable(zip([0.0] * 12, chain.from_iterable(SECONDS.values()), strict=True))
    ticks = accumulate(durations)  # start and end of a pass in turn, no time between passes
    passes = []

    def forward(net: FCN, x: torch.Tensor) -> object:
        assert not net.training
        assert not torch.is_grad_enabled()
        passes.append((sum(p.numel() for p in net.parameters()), tuple(x.shape)))
        return original(net, x)

    original = FCN.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FCN, "forward", forward)
        patch.setattr(paper, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
        table = table_1(SIZE)
    assert next(ticks, None) is None
    return Seen(table, passes)


def lines(table: Table1, width: int) -> list[str]:
    shown = io.StringIO()
    Console(width=width, file=shown).print(*table.tables(), sep="\n")
    return shown.getvalue().splitlines()


def test_the_papers_columns_beside_ours(seen: Seen) -> None:
    """Reference 8.1; ours of 3.5 and 1.3."""
    alexnet, vgg, googlenet = seen.table.columns
    assert alexnet == Column(
        net="voc-fcn-alexnet",
        published=Published("FCN-AlexNet", 8, "57M", 355, 32, 0.050),
        convolutions=8,
        parameters=56_954_261,
        field=355,
        classifier_field=355,
        pool=0,
        stride=32,
        seconds=0.25,
    )
    assert vgg == Column(
        net="voc-fcn32s",
        published=Published("FCN-VGG16", 16, "134M", 404, 32, 0.210),
        convolutions=16,
        parameters=134_346_581,
        field=404,
        classifier_field=404,
        pool=0,
        stride=32,
        seconds=0.5,
    )
    assert googlenet == Column(
        net="voc-fcn-googlenet",
        published=Published("FCN-GoogLeNet", 22, "6M", 907, 32, 0.059),
        convolutions=22,
        parameters=5_995_077,
        field=715,
        classifier_field=907,
        pool=7,
        stride=32,
        seconds=0.125,
    )
    assert seen.table.size == SIZE


def test_each_net_ran_once_to_warm_up_and_three_times(seen: Seen) -> None:
    assert seen.passes == [
        (parameters, (1, 3, 24, 40)) for parameters in (56_954_261, 134_346_581, 5_995_077) for _ in range(4)
    ]


def test_parameter_counts(seen: Seen) -> None:
    """Reference 1.3; of FCN-GoogLeNet no Caffe model was published: 21 x 21 x 63 x 63 more than it learns."""
    assert seen.table.counts == [
        Count("voc-fcn32s", 134_346_581, 134_346_581, 136_152_917, 136_152_917),
        Count("voc-fcn16s", 134_357_354, 134_357_354, 134_815_994, 134_815_994),
        Count("voc-fcn8s", 134_362_751, 134_362_751, 134_489_759, 134_489_759),
        Count("voc-fcn8s-atonce", 134_362_751, 134_362_751, 134_490_527, 134_490_527),
        Count("voc-fcn-alexnet", 56_954_261, 56_954_261, 58_704_590, 58_704_590),
        Count("voc-fcn-googlenet", 5_995_077, 5_995_077, None, 5_995_077 + 21 * 21 * 63 * 63),
    ]


@pytest.mark.parametrize("width", [100, 120])
def test_all_numbers_are_legible(width: int, seen: Seen) -> None:
    shown = lines(seen.table, width)
    assert max(map(len, shown)) <= width
    assert not any("…" in line for line in shown)
    assert [line.split() for line in shown[:9]] == [
        ["Long", "et", "al.", "2015,", "table", "1"],
        ["FCN-AlexNet", "FCN-VGG16", "FCN-GoogLeNet"],
        ["paper", "ours", "paper", "ours", "paper", "ours"],
        ["convolution", "layers", "8", "8", "16", "16", "22", "22"],
        ["parameters", "57M", "57M", "134M", "134M", "6M", "6M"],
        ["receptive", "field", "355", "355", "404", "404", "907", "715"],
        ["with", "the", "classifier's", "pooling", "907"],
        ["stride", "32", "32", "32", "32", "32", "32"],
        ["forward", "time,", "ms", "50", "250", "210", "500", "59", "125"],
    ]
    rows = {words[0]: words[1:] for line in shown if len(words := line.split()) > 1}
    assert rows["voc-fcn32s"] == ["134,346,581"] * 2 + ["136,152,917"] * 2
    assert rows["voc-fcn16s"] == ["134,357,354"] * 2 + ["134,815,994"] * 2
    assert rows["voc-fcn8s"] == ["134,362,751"] * 2 + ["134,489,759"] * 2
    assert rows["voc-fcn8s-atonce"] == ["134,362,751"] * 2 + ["134,490,527"] * 2
    assert rows["voc-fcn-alexnet"] == ["56,954,261"] * 2 + ["58,704,590"] * 2
    assert rows["voc-fcn-googlenet"] == ["5,995,077", "5,995,077", "7,745,406"]
    text = " ".join(" ".join(shown).split())
    assert "ours at 24 x 40 on this processor" in text
    assert f"({torch.get_num_threads()} threads, float32, median of 3)" in text
    assert (
        "FCN-GoogLeNet: 907 is the field of the classifier with its last 7x7 average pooling. The FCN drops that "
        "pooling, so its own field is 907 - 6 * 32 = 715."
    ) in text
    assert text.count("drops that pooling") == 1


def test_the_remark_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier with another pooling would have another field: 715 + (5 - 1) 32."""
    monkeypatch.setitem(TRUNKS, "googlenet", replace(TRUNKS["googlenet"], pool=5))
    monkeypatch.setattr(paper, "TABLE_1", {"voc-fcn-googlenet": paper.TABLE_1["voc-fcn-googlenet"]})
    monkeypatch.setattr(paper, "COUNTS", {})
    table = table_1((8, 8))
    assert table.columns[0].classifier_field == 843
    assert table.columns[0].seconds > 0
    text = " ".join(" ".join(lines(table, 100)).split())
    assert "843 is the field of the classifier with its last 5x5 average pooling." in text
    assert "843 - 4 * 32 = 715." in text
    monkeypatch.setitem(TRUNKS, "googlenet", replace(TRUNKS["googlenet"], pool=0))
    table = table_1((8, 8))
    assert table.columns[0].classifier_field == 715
    assert "average pooling" not in "".join(lines(table, 100))


def test_json_holds_it_all(seen: Seen) -> None:
    value = json.loads(json.dumps(seen.table.to_json()))
    columns = [Column(**{**column, "published": Published(**column["published"])}) for column in value["columns"]]
    counts = [Count(**count) for count in value["counts"]]
    height, width = value["size"]
    assert Table1((height, width), columns, counts) == seen.table
