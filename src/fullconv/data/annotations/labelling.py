"""Which class each of a tool's labels becomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fullconv.data.annotations.entry import plain
from fullconv.data.annotations.scene import Export, Shape
from fullconv.data.pairs import listed
from fullconv.errors import DataError, OptionError, printable, unknown_name
from fullconv.labels import VOID, Colour, LabelSet, voc_colour

BACKGROUND = "background"
OTHERS = ("error", "background", "void")


@dataclass(frozen=True)
class Labelling:
    """Classes, and the value of every label.

    Attributes:
        labels: the classes.
        values: by label, the class or 255.
        uncovered: the value of pixels that nothing covers.
        notes: one line each.
    """

    labels: LabelSet
    values: Mapping[str, int]
    uncovered: int
    notes: tuple[str, ...] = ()


def is_background(label: str) -> bool:
    """Whether a label means what nothing covers: ``background``, ``_background_``."""
    return label.strip("_").lower() == BACKGROUND


def is_void(label: str) -> bool:
    """Whether a label means what counts for no class: ``void``, ``ignored``, ``__ignore__``."""
    return label.strip("_").lower() in ("void", "ignore", "ignored")


def label_values(
    export: Export,
    seen: Mapping[str, int],
    shapes: Iterable[Shape],
    bare: bool,
    classes: Sequence[str] | None,
    others: str,
    background: str,
) -> Labelling:
    """Choose the classes.

    Args:
        export: its labels are the classes, in its order, unless `classes` says otherwise.
        seen: by label, how often it occurs.
        shapes: all there are.
        bare: there are pixels that nothing covers.
        classes: order and subset.
        others: what becomes of labels outside of the classes: ``"error"``, ``"background"``, ``"void"``.
        background: what pixels that nothing covers become: ``"background"``, class 0, or ``"void"``.

    Raises:
        OptionError: an unknown choice, or classes that make no `LabelSet`.
        DataError: labels outside of the classes; more than 255 classes, or none.
    """
    if others not in OTHERS:
        raise unknown_name("choice for other labels", others, OTHERS)
    if background not in OTHERS[1:]:
        raise unknown_name("choice for the background", background, OTHERS[1:])
    wanted = list(export.labels) if classes is None else [name.strip() for name in classes]
    strange = next((name for name in wanted if not plain(name)), None)
    if strange is not None:
        raise OptionError(f"class name {printable(strange)[:60]!r} is not one line of plain text; correct it")
    names = [name for name in dict.fromkeys(wanted) if name and not is_void(name) and not is_background(name)]
    outside = [label for label in seen if label not in names and not is_void(label) and not is_background(label)]
    if outside and others == "error":
        raise _outside(outside, seen, names)
    drawn = any(is_background(shape.label) for shape in shapes)
    placed = classes is not None and any(is_background(name) for name in wanted)
    if placed:  # the user says where
        names = list(dict.fromkeys(BACKGROUND if is_background(n) else n for n in wanted if n and not is_void(n)))
    elif (
        (background == BACKGROUND and (bare or any(is_background(label) for label in export.labels)))
        or drawn
        or (outside and others == BACKGROUND)
    ):
        names = [BACKGROUND, *names]
    own = {(BACKGROUND if is_background(label) else label): colour for label, colour in export.labels.items()}
    colours: list[Colour] = [own.get(name) or voc_colour(place) for place, name in enumerate(names)]
    try:
        labels = LabelSet(tuple(names), tuple(colours))
    except OptionError as error:
        raise (DataError if classes is None else OptionError)(
            f"classes: {error}; choose them with --classes"
        ) from error
    number = {name: place for place, name in enumerate(names)}
    uncovered = number.get(BACKGROUND, VOID) if background == BACKGROUND else VOID
    values: dict[str, int] = {}
    for label in {**export.labels, **seen}:
        if is_void(label):
            values[label] = VOID
        elif is_background(label):
            values[label] = number.get(BACKGROUND, VOID)
        else:
            values[label] = number.get(label, number[BACKGROUND] if others == BACKGROUND and label in seen else VOID)
    notes = [f"label {printable(label)!r} becomes void (255)" for label in seen if is_void(label)]
    if outside:
        notes.append(f"labels outside of the classes become {others}: {_counted(outside, seen)}")
    return Labelling(labels, values, uncovered, tuple(notes))


def _outside(outside: Sequence[str], seen: Mapping[str, int], names: Sequence[str]) -> DataError:
    return DataError(
        f"{len(outside)} labels are outside of the classes ({listed(names) or 'none'}): {_counted(outside, seen)}; "
        "add them with --classes, or choose --others background or --others void"
    )


def _counted(outside: Sequence[str], seen: Mapping[str, int]) -> str:
    often = sorted(outside, key=lambda label: (-seen[label], label))
    return listed(f"{label!r} ({seen[label]})" for label in often)
