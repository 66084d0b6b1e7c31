"""NetOptions: JSON round trips, bounds, and no trust in what files say."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import OptionError
from fullconv.nets.options import FUSIONS, PADDINGS, UPSAMPLINGS, InputOptions, NetOptions

words = st.from_regex(r"[a-z][a-z0-9]{0,6}_", fullmatch=True)
channels = st.integers(1, 5)


@st.composite
def input_options(draw: st.DrawFn) -> InputOptions:
    count = draw(channels)
    mean = draw(st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count))
    std = draw(st.lists(st.floats(1e-6, 1e6), min_size=count, max_size=count))
    order = draw(st.sampled_from(["rgb", "bgr"])) if count == 3 else "rgb"
    bands = draw(st.none() | st.lists(st.integers(1, 65535), min_size=count, max_size=count)) or []
    preview = draw(st.just([]) | st.permutations(bands).map(lambda b: b[: 3 if count >= 3 else 1]))
    return InputOptions(tuple(mean), tuple(std), order, draw(st.booleans()), tuple(bands), tuple(preview))


net_options = st.builds(
    NetOptions,
    trunk=st.sampled_from(["vgg16", "slim"]),
    stride=st.sampled_from([32, 16, 8]),
    classes=st.dictionaries(words, st.integers(1, 255), min_size=1, max_size=4),
    inputs=st.dictionaries(words, input_options(), min_size=1, max_size=4),
    fusion=st.sampled_from(FUSIONS),
    padding=st.sampled_from(PADDINGS),
    upsampling=st.sampled_from(UPSAMPLINGS),
    dropout=st.floats(0, 1, exclude_max=True),
    width=st.floats(0, 4, exclude_min=True),
    scales=st.dictionaries(st.sampled_from([16, 8]), st.floats(1e-12, 1e12), max_size=2),
)


def options(**changes: Any) -> NetOptions:
    plain = {"trunk": "slim", "stride": 8, "classes": {"semantic": 3}, "inputs": {"image": InputOptions((0,), (1,))}}
    return NetOptions(**{**plain, **changes})


@given(net_options)
def test_json_round_trip(net: NetOptions) -> None:
    assert NetOptions.from_json(json.loads(json.dumps(net.to_json(), allow_nan=False))) == net


def test_defaults_may_be_left_out_of_the_json() -> None:
    value = options().to_json()
    for key in ("fusion", "padding", "upsampling", "dropout", "width", "scales"):
        del value[key]
    for key in ("order", "log"):
        del value["inputs"]["image"][key]
    assert set(value["inputs"]["image"]) == {"mean", "std"}  # bands and preview are there where there are any
    assert NetOptions.from_json(value) == options()


def test_channels() -> None:
    assert InputOptions((1, 2), (3, 4)).channels == 2


HUGE = 10**400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": "sane"}, "unknown padding 'sane'; did you mean 'same'? Choices: paper, same"),
        (
            {"upsampling": "zzz"},
            "unknown upsampling 'zzz'. Choices: bilinear, interpolation, learned, learned-all, stacked, unpooling",
        ),
        ({"fusion": "middle"}, "unknown fusion 'middle'. Choices: early, late"),
        ({"classes": {}}, "0 tasks; expected 1 to 16"),
        ({"inputs": {}}, "0 inputs; expected 1 to 16"),
        ({"classes": {f"t{i}": 2 for i in range(17)}}, "17 tasks; expected 1 to 16"),
        ({"classes": {"a b": 2}}, "task name 'a b' is reserved or no plain word; choose one such as 'depth'"),
        ({"classes": {"a.b": 2}}, "task name 'a.b' is reserved or no plain word"),
        ({"classes": {"": 2}}, "task name '' is reserved or no plain word"),
        ({"classes": {3: 2}}, "task name 3 is reserved or no plain word"),
        ({"classes": {"fused": 2}}, "task name 'fused' is reserved"),
        ({"classes": {"keys": 2}}, "task name 'keys' is reserved"),
        ({"classes": {"training": 2}}, "task name 'training' is reserved"),
        ({"inputs": {"type": InputOptions((0,), (1,))}}, "input name 'type' is reserved"),
        ({"classes": {"semantic": 0}}, "task 'semantic' has 0 classes; expected 1 to 255"),
        ({"classes": {"semantic": 256}}, "task 'semantic' has 256 classes; expected 1 to 255"),
        ({"classes": {"semantic": True}}, "task 'semantic' has True classes"),
        ({"classes": {"semantic": "21"}}, "task 'semantic' has '21' classes"),
        ({"classes": {"semantic": 21.0}}, "task 'semantic' has 21.0 classes"),
        ({"stride": 8.0}, "stride 8.0; expected a whole number such as 8"),
        ({"stride": "8"}, "stride '8'; expected a whole number"),
        ({"stride": True}, "stride True; expected a whole number"),
        ({"dropout": 1}, "dropout 1; expected a number 0 <= rate < 1"),
        ({"dropout": -0.1}, "dropout -0.1; expected a number"),
        ({"dropout": math.nan}, "dropout nan; expected a number"),
        ({"dropout": False}, "dropout False; expected a number"),
        ({"dropout": "0.5"}, "dropout '0.5'; expected a number"),
        ({"width": 0}, "width 0; expected a number above 0 and at most 4"),
        ({"width": 4.01}, "width 4.01; expected a number"),
        ({"width": math.inf}, "width inf; expected a number"),
        ({"width": HUGE}, "expected a number above 0 and at most 4"),
        ({"width": "1"}, "width '1'; expected a number"),
        ({"width": None}, "width None; expected a number"),
        ({"scales": {0: 0.1}}, "a scale for stride 0; expected a stride of the net, such as 16"),
        ({"scales": {2048: 0.1}}, "a scale for stride 2048; expected a stride of the net"),
        ({"scales": {16: 0}}, "scale 0 at stride 16; expected a number of 1e-12 to 1e12"),
        ({"scales": {16: math.nan}}, "scale nan at stride 16; expected a number"),
        ({"scales": {16: "0.01"}}, "scale '0.01' at stride 16; expected a number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_net_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        options(**changes)
    if "inputs" not in changes and 3 not in changes.get("classes", {}):  # JSON has no such keys
        with pytest.raises(OptionError, match=re.escape(message)):
            NetOptions.from_json({**options().to_json(), **changes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), ()), "0 means and 0 deviations; expected one of each a channel, 1 to 1024"),
        (((1, 2), (1,)), "2 means and 1 deviations; expected one of each"),
        (((0,) * 1025, (1,) * 1025), "1025 means and 1025 deviations; expected one of each a channel, 1 to 1024"),
        (((math.nan,), (1,)), "means must be numbers up to 1e6 and its deviations numbers of 1e-6 to 1e6"),
        (((-math.inf,), (1,)), "means must be numbers up to 1e6"),
        (((HUGE,), (1,)), "means must be numbers up to 1e6"),
        ((("1",), (1,)), "means must be numbers up to 1e6"),
        (("1", "1"), "means must be numbers up to 1e6"),
        (((True,), (1,)), "means must be numbers up to 1e6"),
        (((0,), (0,)), "deviations numbers of 1e-6 to 1e6"),
        (((0,), (-1,)), "deviations numbers of 1e-6 to 1e6"),
        (((0,), (math.inf,)), "deviations numbers of 1e-6 to 1e6"),
        (((0,), (1,), "brg"), "unknown channel order 'brg'; did you mean"),
        (((0,), (1,), "bgr"), "order 'bgr' needs 3 channels, not 1; use 'rgb'"),
        (((0,), (1,), "rgb", 1), "an input's log is 1; expected true or false"),
        (((0,), (1,), "rgb", False, (0,)), "an input's bands are (0,); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, (65536,)), "an input's bands are (65536,); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, (True,)), "an input's bands are (True,); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, (1.0,)), "an input's bands are (1.0,); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, "1"), "an input's bands are ('1',); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, (1,), (0,)), "an input's preview are (0,); expected numbers from 1 on"),
        (((0,), (1,), "rgb", False, (1, 2)), "an input has 2 bands and 1 means; expected as many"),
        (((0,), (1,), "rgb", False, (), (1,)), "an input's preview is (1,); expected one or three of its bands"),
        (((0, 0), (1, 1), "rgb", False, (1, 2), (3,)), "an input's preview is (3,); expected one or three of its"),
        (((0, 0), (1, 1), "rgb", False, (1, 2), (1, 2)), "an input's preview is (1, 2); expected one or three of"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_input_refusals(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        InputOptions(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("classes"), "the net's options are incomplete or of a wrong type ('classes')"),
        (lambda v: v.pop("trunk"), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(dropuot=0.1), "unknown net option 'dropuot'; did you mean 'dropout'?"),
        (lambda v: v.update(inputs=[1]), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(inputs={"image": 3}), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(inputs={"image": {"mean": 3, "std": 3}}), "the net's options are incomplete"),
        (lambda v: v.update(inputs={"image": {"mean": [3]}}), "the net's options are incomplete"),
        (lambda v: v["inputs"]["image"].update(bands=7), "the net's options are incomplete or of a wrong type"),
        (lambda v: v["inputs"]["image"].update(bands=None), "the net's options are incomplete or of a wrong type"),
        (lambda v: v["inputs"]["image"].update(preview=[[1]]), "an input's preview are ([1],); expected numbers"),
        (lambda v: v.update(classes=21), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(scales=[16]), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(scales={"x": 1}), "the net's options are incomplete or of a wrong type"),
        (lambda v: v.update(classes="ab"), "the net's options are incomplete or of a wrong type"),
    ],
)  # fmt: skip
def test_json_refusals(change: Any, message: str) -> None:
    value = options().to_json()
    change(value)
    with pytest.raises(OptionError, match=re.escape(message)):
        NetOptions.from_json(value)
