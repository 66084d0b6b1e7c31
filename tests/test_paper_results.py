"""The published tables: what of them can be computed is, and data sets are known by their classes."""

from __future__ import annotations

import json

import pytest

from fullconv.classes import NYUD, PASCAL_CONTEXT, SIFTFLOW, SIFTFLOW_GEOMETRY, VOC
from fullconv.data.camvid import CAMVID_LABELS
from fullconv.errors import OptionError
from fullconv.paper_results import TABLES, Row, published

ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]


def rows(data: str, net: str = "", split: str = "", source: str = "") -> list[Row]:
    return [row for row in TABLES[data].rows if row.net.startswith(net) and split in row.split and source in row.source]


def test_every_data_set_is_known_by_its_classes() -> None:
    known = {
        "VOC": VOC,
        "NYUDv2": NYUD,
        "SIFT Flow": SIFTFLOW,
        "Pascal-Context": PASCAL_CONTEXT,
        "CamVid": CAMVID_LABELS.names,
    }
    assert {name: published(list(classes)) for name, classes in known.items()} == {name: name for name in known}


@pytest.mark.parametrize("classes", [("ground", "road", "car"), VOC[:-1], VOC[::-1], SIFTFLOW_GEOMETRY, ()])
def test_others_are_told_which_there_are(classes: tuple[str, ...]) -> None:
    with pytest.raises(OptionError) as caught:
        published(classes)
    assert str(caught.value).startswith(
        f"no published results for these {len(classes)} classes ({', '.join(classes[:3])}"
    )
    assert "there are some for VOC, NYUDv2, SIFT Flow, Pascal-Context, CamVid, whose classes must" in str(caught.value)


@pytest.mark.parametrize(("data", "row"), ROWS)
def test_numbers_are_percent_in_their_order(data: str, row: Row) -> None:
    numbers = (row.pixel, row.mean_accuracy, row.mean_iu, row.fw_iu, row.geometric, *row.iu.values())
    given = [number for number in numbers if number is not None]
    assert given
    assert all(5 < number < 100 for number in given)
    if row.mean_accuracy is not None and row.mean_iu is not None:
        assert row.mean_iu < row.mean_accuracy, "a class's IU is at most its accuracy"
    if row.fw_iu is not None and row.pixel is not None:
        assert row.fw_iu < row.pixel, "pixel accuracy is the frequency-weighted accuracy"
    assert set(row.iu) <= set(TABLES[data].classes)
    assert row.split
    assert row.source


def test_no_row_is_given_twice() -> None:
    keys = [(data, row.net, row.split, row.source, row.note) for data, row in ROWS]
    assert len(set(keys)) == len(keys)


def test_relative_gains_are_as_printed() -> None:
    (sds,) = rows("VOC", "SDS", "2012")
    (cvpr,) = rows("VOC", "FCN-8s", "2012", "CVPR")
    (journal,) = rows("VOC", "FCN-8s", "2012", "journal")
    assert round(100 * (cvpr.mean_iu / sds.mean_iu - 1), -1) == 20
    assert round(100 * (journal.mean_iu / sds.mean_iu - 1), -1) == 30
    (cfm,) = rows("Pascal-Context", "CFM", "59")
    (later,) = rows("Pascal-Context", "FCN-8s", "59", "later")
    assert round(100 * (later.mean_iu / cfm.mean_iu - 1)) == 20


def test_rounded_reproductions_are_the_released_models_numbers() -> None:
    for released in rows("VOC", source="journal, released model"):
        name = released.net.removesuffix(" staged")
        (again,) = rows("VOC", f"{name} original", source="Chainer")
        numbers = ("pixel", "mean_accuracy", "mean_iu", "fw_iu")
        assert [round(getattr(again, n), 1) for n in numbers] == [getattr(released, n) for n in numbers]
        (port,) = rows("VOC", f"{name} original", source="PyTorch")
        assert port.mean_iu == pytest.approx(again.mean_iu, abs=0.0051)


def test_camvids_mean_is_that_of_its_classes() -> None:
    (fcn,) = rows("CamVid", "FCN-8")
    assert set(fcn.iu) == set(CAMVID_LABELS.names)
    assert round(sum(fcn.iu.values()) / len(fcn.iu), 1) == fcn.mean_iu == 57.0


def test_counts_of_rows_and_marks() -> None:
    assert {name: len(table.rows) for name, table in TABLES.items()} == {
        "VOC": 44,
        "NYUDv2": 10,
        "SIFT Flow": 9,
        "Pascal-Context": 14,
        "CamVid": 5,
    }
    assert len([row for _, row in ROWS if row.source.endswith("(unconfirmed)")]) == 13


def test_json_holds_what_is_published() -> None:
    (liu,) = rows("SIFT Flow", "Liu")
    assert json.loads(json.dumps(liu.to_json(), allow_nan=False)) == {
        "net": "Liu et al.",
        "split": "test",
        "source": "CVPR table 5",
        "pixel": 76.7,
    }
