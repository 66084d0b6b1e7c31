"""Fields against explicit sets of taps, the laws of an algebra, and the windows of `fullconv.geometry`."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullconv.errors import GeometryError
from fullconv.fields import LONGEST_PERIOD, Fields
from fullconv.geometry import Crop, Layer, Window, receptive_field
from windows import composed

convolutions = st.builds(
    Window, st.integers(1, 4), st.integers(1, 3), st.integers(0, 4), st.integers(1, 3), ceil=st.booleans()
)
deconvolutions = st.builds(
    Window, st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 3), transposed=st.just(True)
)
whole = deconvolutions.filter(lambda window: window.kernel >= window.stride and window.dilation == 1)
"""Transposed windows that leave no unit without inputs."""

crops = st.builds(Crop, st.integers(0, 3))
layers = convolutions | deconvolutions | crops
dense_layers = convolutions | whole | crops
units = st.integers(-9, 9)


@st.composite
def patterns(draw: st.DrawFn) -> Fields:
    """Any fields at all: gaps, units without inputs, starts that fall."""
    ends = draw(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=1, max_size=4))
    return Fields(tuple(a for a, _ in ends), tuple(a + n for a, n in ends), draw(st.integers(1, 6)))


dense = st.lists(dense_layers, max_size=3).map(Fields.along)
"""Fields whose starts and stops rise, as those of all common layers."""


def taps(layer: Layer, unit: int) -> set[int]:
    """The inputs that one unit reads, by the definition of the layer."""
    if isinstance(layer, Crop):
        return {unit + layer.offset}
    offsets = [layer.dilation * tap for tap in range(layer.kernel)]
    if not layer.transposed:
        return {layer.stride * unit - layer.padding + offset for offset in offsets}
    # Input i is spread over the outputs stride i - padding + offset.
    around = range(unit // layer.stride - 20, unit // layer.stride + 21)
    return {i for i in around if any(layer.stride * i - layer.padding + offset == unit for offset in offsets)}


def read(path: list[Layer], unit: int, hulls: bool = False) -> set[int]:
    """The inputs at the path's start, walked back layer by layer; `hulls`: gaps filled after each."""
    found = {unit}
    for layer in reversed(path):
        found = set().union(*(taps(layer, each) for each in found))
        if hulls and found:
            found = set(range(min(found), max(found) + 1))
    return found


def seen(fields: Fields, unit: int) -> set[int]:
    return set(range(*fields.inputs(unit, unit + 1)))


# ---------------------------------------------------------------------------------------------------------------
# sets of taps


@given(st.lists(layers, max_size=3), units)
def test_a_field_holds_the_walk_and_at_most_its_gaps(path: list[Layer], unit: int) -> None:
    found = seen(Fields.along(path), unit)
    assert read(path, unit) <= found
    # Among the units that fill a gap may be some that read more than those around it, where others read nothing.
    assert found <= read(path, unit, hulls=True)


@given(st.lists(dense_layers, max_size=4), units)
def test_a_field_is_the_smallest_interval_that_holds_the_taps(path: list[Layer], unit: int) -> None:
    found = read(path, unit)
    assert Fields.along(path).inputs(unit, unit + 1) == (min(found), max(found) + 1)


@given(layers, units)
def test_one_layer(layer: Layer, unit: int) -> None:
    found = read([layer], unit)
    start, stop = Fields.of(layer).inputs(unit, unit + 1)
    assert (start, stop) == (min(found), max(found) + 1) if found else start == stop


@given(patterns(), units, st.integers(-1, 12))
def test_inputs_of_several_units(fields: Fields, start: int, count: int) -> None:
    found = set().union(*(seen(fields, unit) for unit in range(start, start + count)))
    first, stop = fields.inputs(start, start + count)
    assert (first, stop) == (min(found), max(found) + 1) if found else first == stop


@given(patterns(), patterns(), units)
def test_then_reads_what_the_units_read(first: Fields, after: Fields, unit: int) -> None:
    middle = seen(after, unit)
    found = set().union(*(seen(first, each) for each in middle))
    start, stop = first.then(after).inputs(unit, unit + 1)
    assert (start, stop) == (min(found), max(found) + 1) if found else start == stop


# ---------------------------------------------------------------------------------------------------------------
# laws


@given(dense, dense, dense)
def test_then_is_associative(a: Fields, b: Fields, c: Fields) -> None:
    assert a.then(b).then(c) == a.then(b.then(c))


@given(patterns())
def test_identity(fields: Fields) -> None:
    assert fields.then(Fields()) == Fields().then(fields) == fields == Fields.along([]).then(fields)


@given(patterns(), st.integers(1, 4))
def test_equal_fields_are_equal_objects(fields: Fields, turns: int) -> None:
    ends = [(fields.step * turn + a, fields.step * turn + b) for turn in range(turns) for a, b in _ends(fields)]
    repeated = Fields(tuple(a for a, _ in ends), tuple(b for _, b in ends), fields.step * turns)
    assert repeated == fields
    assert hash(repeated) == hash(fields)
    elsewhere = [(a + 7, b + 7) if a == b else (a, b) for a, b in _ends(fields)]  # of units that read nothing
    assert Fields(tuple(a for a, _ in elsewhere), tuple(b for _, b in elsewhere), fields.step) == fields


def _ends(fields: Fields) -> list[tuple[int, int]]:
    return list(zip(fields.starts, fields.stops, strict=True))


@st.composite
def together(draw: st.DrawFn, count: int) -> list[Fields]:
    """Fields of one stride, with patterns of different length."""
    step, found = draw(st.integers(1, 3)), []
    for _ in range(count):
        turns = draw(st.integers(1, 3))
        ends = draw(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=turns, max_size=turns))
        found.append(Fields(tuple(a for a, _ in ends), tuple(a + n for a, n in ends), step * turns))
    return found


@given(together(2), units)
def test_union_reads_what_both_read(branches: list[Fields], unit: int) -> None:
    one, other = branches
    found = seen(one, unit) | seen(other, unit)
    start, stop = (one | other).inputs(unit, unit + 1)
    assert (start, stop) == (min(found), max(found) + 1) if found else start == stop


@given(together(3))
def test_union_is_that_of_sets(fields: list[Fields]) -> None:
    a, b, c = fields
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a


@given(dense, together(2))
def test_then_distributes_over_union(first: Fields, branches: list[Fields]) -> None:
    a, b = branches
    assert first.then(a | b) == first.then(a) | first.then(b)


@given(together(2), dense)
def test_union_before_a_layer(branches: list[Fields], after: Fields) -> None:
    a, b = branches
    assert (a | b).then(after) == a.then(after) | b.then(after)


# ---------------------------------------------------------------------------------------------------------------
# geometry's windows


@given(convolutions, convolutions)
def test_composed_windows(a: Window, b: Window) -> None:
    """Long et al. 2015, section 3: fields compose as windows do."""
    assert Fields.of(composed(a, b)) == Fields.of(a).then(Fields.of(b))


@given(convolutions, convolutions, convolutions)
def test_composition_of_windows_is_associative(a: Window, b: Window, c: Window) -> None:
    one, other = composed(composed(a, b), c), composed(a, composed(b, c))
    assert one == other
    assert Fields.of(one) == Fields.along([a, b, c])


@given(convolutions)
def test_the_single_tap_is_the_identity_of_windows(window: Window) -> None:
    assert Fields.of(composed(window, Window())) == Fields.of(composed(Window(), window)) == Fields.of(window)


@given(st.lists(convolutions | crops, max_size=5))
def test_receptive_field_of_convolutions(path: list[Layer]) -> None:
    assert Fields.along(path).field == receptive_field(path)


@given(st.lists(dense_layers, max_size=4))
def test_receptive_field_with_transposed_windows(path: list[Layer]) -> None:
    """The centre is that of the coordinates where no stride picks some of the units of a transposed window."""
    fields, expected = Fields.along(path), receptive_field(path)
    assert (fields.size, fields.stride) == (expected.size, expected.stride)
    spread = False
    for layer in path:
        if isinstance(layer, Window) and layer.stride > 1:
            if spread and not layer.transposed:
                return
            spread = spread or layer.transposed
    assert fields.centre == expected.centre


@given(deconvolutions)
def test_centre_of_a_transposed_window(window: Window) -> None:
    """Units without inputs do not count, whatever the taps leave out."""
    assert Fields.of(window).centre == window.coordinate_map().inverse().offset


def test_the_published_field() -> None:
    """Reference 3.5: 404 pixels for VGG-16, 44 and 100 for its skips; at 32 i + 225/2 - 100 (3.4)."""
    same, pool = Window(3, padding=1), Window(2, 2, ceil=True)
    path = [Window(3, padding=100), same, pool, same, same, pool, *[same] * 3, pool, *[same] * 3, pool]
    path += [*[same] * 3, pool, Window(7), Window(1)]
    sizes = [Fields.along(path[:count]).size for count in (10, 14, 18, 20)]
    assert sizes == [44, 100, 212, 404]
    fields = Fields.along(path)
    assert (fields.stride, fields.centre, fields.start) == (Fraction(32), Fraction(25, 2), -189)
    assert fields == Fields((-189,), (215,), 32)


def test_numbers() -> None:
    twice = Fields.of(Window(4, 2, 1, transposed=True))  # unit 2 q reads q - 1 and q, unit 2 q + 1 reads q and q + 1
    assert (twice.period, twice.size, twice.stride, twice.start) == (2, 2, Fraction(1, 2), -1)
    assert twice.centre == Fraction(-1, 4)  # pixel centres: output 0 lies a quarter of an input left of input 0
    assert twice.inputs(3, 3) == (1, 1)
    assert Fields.of(Window(1, 2, transposed=True)).then(Fields.of(Crop(1))).then(Fields.of(Window(1, 2))).size == 0


# ---------------------------------------------------------------------------------------------------------------
# refusals


@pytest.mark.parametrize(
    "bad",
    [((), (), 1), ((0,), (1, 2), 1), ((0,), (1,), 0), ((2,), (1,), 1)],
    ids=["no unit", "starts and stops", "step", "stop before start"],
)
def test_impossible_patterns(bad: tuple[tuple[int, ...], tuple[int, ...], int]) -> None:
    message = f"fields from {bad[0]} to {bad[1]} in steps of {bad[2]}; expected as many stops as starts, none before"
    with pytest.raises(GeometryError, match=re.escape(message)):
        Fields(*bad)


def test_strides_that_differ() -> None:
    with pytest.raises(GeometryError, match="joins maps of strides 2 and 1; resize one to the other"):
        Fields.of(Window(2, 2)) | Fields()


def test_patterns_that_are_too_long() -> None:
    by = [Fields(tuple(range(n)), tuple(range(1, n + 1)), n + 2) for n in (251, 263)]
    with pytest.raises(GeometryError, match=f"fields repeat only after {251 * 263} units; resize by ratios of smaller"):
        by[0].then(by[1])
    assert LONGEST_PERIOD < 251 * 263
    one, other = (Fields((0,) * n, (1,) + (2,) * (n - 1), n) for n in (257, 263))
    with pytest.raises(GeometryError, match="fields repeat only after 67591 units"):
        one | other
