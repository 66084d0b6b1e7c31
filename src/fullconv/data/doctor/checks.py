"""From the facts of all files to findings."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from fullconv.data.doctor import coding as code
from fullconv.data.doctor.coding import Coding, class_counts, verdict
from fullconv.data.doctor.colours import far_areas
from fullconv.data.doctor.diagnosis import Diagnosis, Looked
from fullconv.data.doctor.facts import ImageFacts, MaskFacts
from fullconv.data.doctor.findings import Finding, by_severity
from fullconv.data.doctor.listing import Listing, Place
from fullconv.data.doctor.similar import COPY, resemblances
from fullconv.data.doctor.yamltext import in_yaml, quoted
from fullconv.data.mask import unpacked
from fullconv.errors import printable
from fullconv.labels import VOID

ALMOST_EMPTY = 1e-4
"""Share of all counted pixels below which a class is almost empty."""

MOSTLY_VOID = 0.98


def all_findings(found: Diagnosis) -> list[Finding]:
    """What is wrong with an examined data set, errors first."""
    return by_severity([*_of_files(found), *_of_masks(found), *_of_classes(found), *_of_images(found)])


def fix_command(source: str) -> str:
    """What repairs a data set, for a shell."""
    shown = f"./{source}" if source.startswith("-") else source
    return f"fullconv doctor {shlex.quote(printable(shown))} --fix FIXED"


def _name(split: str, name: str) -> str:
    return f"{split}/{name}"


def _names(places: Sequence[Place]) -> tuple[str, ...]:
    return tuple(_name(place.split, place.path.name) for place in places)


def _alone(listing: Listing) -> bool:
    """Whether val would be held out of the one image of train."""
    cut = listing.description is not None and listing.description.tile
    return not cut and "val" not in listing.scenes and len(listing.scenes.get("train", ())) == 1


def _of_files(found: Diagnosis) -> Iterator[Finding]:
    """What the listing and the readers say."""
    listing, fix = found.listing, {"fix": fix_command(found.listing.source)}
    for kind, places in (
        ("image without mask", listing.lonely_images),
        ("mask without image", listing.lonely_masks),
        ("one name twice", listing.doubles),
        ("not read", listing.ignored),
    ):
        if places:
            yield Finding(kind, _names(places), fix)
    if listing.unusable:
        yield Finding("cannot be listed", tuple(listing.unusable))
    elif listing.folders and not (listing.count or listing.lonely_images):
        yield Finding("no image", (printable(listing.source),))
    if _alone(listing):
        yield Finding("one image alone", tuple(_name("train", scene.name) for scene in listing.scenes["train"]))
    unreadable = [
        (_name(each.split, each.scene.name), facts.problem)
        for each in found.looked
        for facts in each.images.values()
        if facts.problem is not None
    ]
    if unreadable:
        yield Finding("unreadable image", tuple(n for n, _ in unreadable), fix, tuple(p for _, p in unreadable))
    other: list[tuple[str, str]] = []
    swapped: list[tuple[str, str]] = []
    for each in found.looked:
        image = next(iter(each.images.values()), None)
        for facts in each.masks.values():
            if image is None or image.problem is not None or facts.problem is not None or facts.size == image.size:
                continue
            text = f"{facts.size[0]} x {facts.size[1]}, its image {image.size[0]} x {image.size[1]} (H x W)"
            (swapped if facts.size == image.size[::-1] else other).append((_name(each.split, each.scene.name), text))
    for kind, wrong in (("other size", other), ("sides swapped", swapped)):
        if wrong:
            yield Finding(kind, tuple(n for n, _ in wrong), fix, tuple(f"{n}: {text}" for n, text in wrong))


def _of_masks(found: Diagnosis) -> Iterator[Finding]:
    """What the masks' values say."""
    for task, codings in found.codings.items():
        suffix = "" if len(found.codings) == 1 else f" ({task})"
        for coding in {id(each): each for each in codings.values()}.values():
            looked = [each for each in found.looked if codings[each.split] is coding]
            groups: dict[str, list[Looked]] = {}
            for each in looked:
                groups.setdefault(verdict(each.masks[task], coding, each.split), []).append(each)
            groups.pop(code.OK, None)
            if code.BINARY in groups and coding.threshold:  # those without an edge are of one kind with those that have
                groups.setdefault(code.SOFT, []).extend(groups.pop(code.BINARY))
            for kind, scenes in groups.items():
                names = tuple(_name(each.split, each.scene.name) + suffix for each in scenes)
                facts = [each.masks[task] for each in scenes]
                details = tuple(_detail(name, f, kind, coding) for name, f in zip(names[:10], facts, strict=False))
                every = all(each.split in coding.from_one for each in looked)
                yield Finding(kind, names, _facts_of(kind, facts, coding, found.listing, every), details)
        if disagree := _palettes_that_disagree(found, task):
            yield Finding(code.PALETTES, disagree)


def _detail(name: str, facts: MaskFacts, kind: str, coding: Coding) -> str:
    if facts.problem is not None:
        return facts.problem
    if kind == code.OUTSIDE and facts.coloured:
        colours = [list(unpacked(c)) for c in far_areas(facts, coding.reader, coding.colours)]
        return f"{name}: has areas of {', '.join(map(str, colours[:4]))}{', ...' * (len(colours) > 4)}, of no class"
    if kind in (code.OUTSIDE, code.FROM_ONE):
        values = ", ".join(map(str, facts.values[:12].tolist())) + (", ..." if len(facts.values) > 12 else "")
        return f"{name}: holds {values}; classes are 0..{len(coding.labels) - 1} and {VOID} = void"
    if kind == code.SOFT:
        return f"{name}: {_strange_share([facts], coding)} of its pixels"
    return ""


def _facts_of(kind: str, masks: Sequence[MaskFacts], coding: Coding, listing: Listing, every: bool) -> dict[str, str]:
    """What the kind's texts leave open; `every`: all masks of the data set count from 1."""
    facts = {"fix": fix_command(listing.source), "yaml": ""}
    names = coding.labels.names
    if kind == code.SOFT:
        facts["share"] = _strange_share(masks, coding)
    if kind == code.OUTSIDE:
        text = in_yaml(listing, names, _void_text(masks, coding))
        facts["yaml"] = f", {text}; or" if text else ":"
    elif kind == code.COLOURED and (text := in_yaml(listing, names, _colours_text(masks, coding))):
        facts["yaml"] = f"{text} (each class with its right name); or "
    elif kind == code.BINARY and (text := in_yaml(listing, names, "label_mapping: {0: 0, 255: 1}")):
        facts["yaml"] = f"{text}; or "
    elif kind == code.SOFT and coding.threshold and (text := in_yaml(listing, names, code.threshold_text())):
        facts["yaml"] = f"{text}; "
    elif kind == code.FROM_ONE and every:  # it would shift the classes of splits that count from 0
        pairs = ", ".join(f"{number + 1}: {number}" for number in range(len(coding.labels)))
        text = in_yaml(listing, names, f"label_mapping: {{0: 255, {pairs}}}")
        facts["yaml"] = f"{text}; or " if text else ""
    return facts


def _void_text(masks: Sequence[MaskFacts], coding: Coding) -> str:
    """The YAML that makes all values, or colours, of no class void."""
    areas = {colour for each in masks for colour in far_areas(each, coding.reader, coding.colours) if each.coloured}
    void = [f"void: {[list(unpacked(colour)) for colour in sorted(areas)]} in its colors"] if areas else []
    numbers = [each for each in masks if not each.coloured]
    strange = sorted({v for each in numbers for v in each.values[~code.known(each, coding)].tolist()})
    # Runs of consecutive values, which our YAML files write as ranges.
    starts = [v for v, before in zip(strange, [-2, *strange], strict=False) if v != before + 1]
    ends = [v for v, after in zip(strange, [*strange[1:], -2], strict=False) if after != v + 1]
    runs = [f"{first}" if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)]
    mapping = [f"label_mapping: {{{', '.join(f'{run}: {VOID}' for run in runs)}}}"] if runs else []
    return " and ".join(mapping + void)


def _colours_text(masks: Sequence[MaskFacts], coding: Coding) -> str:
    """The YAML that gives each class its colour: that found in the masks, else its own."""
    colours: dict[int, list[int]] = {}
    for colour, number in coding.colours.items():
        if _occurs(colour, masks):
            colours.setdefault(number, []).append(colour)
    texts = []
    for number, name in enumerate(coding.labels.names):
        own = [list(unpacked(colour)) for colour in colours.get(number, [])] or [list(coding.labels.colours[number])]
        texts.append(f"{quoted(name)}: {own[0] if len(own) == 1 else own}")
    if void := [list(unpacked(colour)) for colour in sorted(colours.get(VOID, []))]:
        texts.append(f"void: {void[0] if len(void) == 1 else void}")
    return f"colors: {{{', '.join(texts)}}}"


def _occurs(colour: int, masks: Sequence[MaskFacts]) -> bool:
    return any(colour in facts.values for facts in masks)


def _strange_share(masks: Sequence[MaskFacts], coding: Coding) -> str:
    """The share of pixels that hold the number or colour of no class."""
    strange = sum(facts.pixels - int(facts.counts[code.known(facts, coding)].sum()) for facts in masks)
    return f"{100 * strange / max(sum(facts.pixels for facts in masks), 1):.2g} %"


def _palettes_that_disagree(found: Diagnosis, task: str) -> tuple[str, ...]:
    """Palette masks in which a number that they hold has another colour than in the first ones."""
    colours: dict[int, tuple[int, ...]] = {}
    wrong = []
    for each in found.looked:
        facts = each.masks[task]
        if facts.palette is None:
            continue
        own = {int(v): tuple(c) for v, c in zip(facts.values, facts.palette.tolist(), strict=True)}
        if any(colours.setdefault(value, colour) != colour for value, colour in own.items()):
            wrong.append(_name(each.split, each.scene.name))
    return tuple(wrong)


def _of_classes(found: Diagnosis) -> Iterator[Finding]:
    """What the classes' pixels say."""
    for task, codings in found.codings.items():
        counts = found.counts(task)
        names, every = found.labels(task).names, len(found.labels(task))
        pixels = {split: rows.sum(0)[:every] for split, rows in counts.items() if len(rows)}
        if not pixels or found.fast:
            continue
        total = np.sum(list(pixels.values()), axis=0)
        if every == 1 or (total > 0).sum() == 1:
            yield Finding("one class only", (names[int(total.argmax())],))
            continue
        absent = {split: [names[k] for k in np.flatnonzero(own == 0)] for split, own in pixels.items()}
        if any(absent.values()):
            yield Finding(
                "class missing",
                tuple(f"{split}: {name}" for split, missing in absent.items() for name in missing),
            )
        rare = np.flatnonzero((total > 0) & (total < ALMOST_EMPTY * total.sum()))
        if len(rare):
            weights = found.weights(task)
            text = ", ".join(f"{quoted(names[k])} {weights[k]:.3g}" for k in rare if not np.isnan(weights[k]))
            yield Finding("class almost empty", tuple(names[k] for k in rare), {"weights": text or "see the table"})
        void = [
            _name(each.split, each.scene.name)
            for each in found.looked
            if _void_share(each.masks[task], codings[each.split], each.split) > MOSTLY_VOID
        ]
        if void:
            yield Finding("mostly void", tuple(void))


def _void_share(facts: MaskFacts, coding: Coding, split: str) -> float:
    if facts.problem is not None or verdict(facts, coding, split) != code.OK:
        return 0.0
    return float(class_counts(facts, coding, split)[VOID]) / facts.pixels


def _of_images(found: Diagnosis) -> Iterator[Finding]:
    """What the images say, each and beside each other."""
    first = next(iter(found.listing.inputs), None)
    seen = [each for each in found.looked if first in each.images and each.images[first].problem is None]
    facts = [each.images[first] for each in seen if first is not None]
    if not facts:
        return
    fix = {"fix": fix_command(found.listing.source)}
    kinds = Counter(each.kind for each in facts)
    most = kinds.most_common(1)[0][0]
    others = [(each, own) for each, own in zip(seen, facts, strict=True) if own.kind != most]
    if others:
        names = tuple(_name(each.split, each.scene.name) for each, _ in others)
        details = tuple(f"{name}: {own.kind}" for name, (_, own) in zip(names, others, strict=True))
        yield Finding("kinds differ", names, {**fix, "most": most}, details)
    constant = tuple(_name(e.split, e.scene.name) for e, own in zip(seen, facts, strict=True) if own.constant)
    if constant:
        yield Finding("constant image", constant)
    yield from _of_copies(found, seen, facts, fix)


def _of_copies(
    found: Diagnosis, seen: Sequence[Looked], facts: Sequence[ImageFacts], fix: dict[str, str]
) -> Iterator[Finding]:
    """Equal and similar images; a finding names the one in the split that comes first."""
    task = next(iter(found.codings))
    where: dict[bytes, list[int]] = {}
    for index, own in enumerate(facts):
        where.setdefault(own.digest, []).append(index)
    names = [_name(each.split, each.scene.name) for each in seen]
    copies = [(group[0], index) for group in where.values() for index in group[1:]]
    contradict = [(a, b) for a, b in copies if not _same_mask(seen[a], seen[b], found, task)]
    # Each with the first one in a later split: all of them are to be left out of theirs.
    later = [
        (i, next((j for j in group if j > i and seen[j].split != seen[i].split), None))
        for group in where.values()
        for i in group
    ]
    equal = [(a, b) for a, b in later if b is not None]
    if equal:
        yield _pairs("same image across splits", equal, names, fix)
    if contradict:
        yield _pairs("same image, other mask", contradict, names, {})
    similar = {(a, b): how for a, b, how in _alike(found, seen, facts) if facts[a].digest != facts[b].digest}
    if near := [pair for pair, how in similar.items() if how == COPY]:
        yield _pairs("similar image across splits", near, names, fix)
    if turned := [pair for pair, how in similar.items() if how != COPY]:
        yield _pairs("augmented copy across splits", turned, names, fix, similar)


def _alike(found: Diagnosis, seen: Sequence[Looked], facts: Sequence[ImageFacts]) -> Iterator[tuple[int, int, str]]:
    """Images of two splits that look alike, and how."""
    for one, other in combinations(found.listing.scenes, 2):
        ours = [i for i, each in enumerate(seen) if each.split == one and not facts[i].constant]
        theirs = [i for i, each in enumerate(seen) if each.split == other and not facts[i].constant]
        for same in resemblances([facts[i].look for i in ours], [facts[i].look for i in theirs]):
            yield ours[same.first], theirs[same.second], same.how


def _same_mask(a: Looked, b: Looked, found: Diagnosis, task: str) -> bool:
    """Whether two masks are one, as far as can be told; where they are coded differently, by their classes' pixels."""
    one, other = a.masks[task], b.masks[task]
    first, second = found.codings[task][a.split], found.codings[task][b.split]
    kinds = verdict(one, first, a.split), verdict(other, second, b.split)
    if kinds[0] == kinds[1] != code.UNREADABLE and first is second:
        return one.digest == other.digest
    if {code.UNREADABLE, code.LOSSY, code.SOFT} & set(kinds):
        return True
    return np.array_equal(class_counts(one, first, a.split), class_counts(other, second, b.split))


def _pairs(
    kind: str,
    pairs: Sequence[tuple[int, int]],
    names: Sequence[str],
    facts: dict[str, str],
    hows: Mapping[tuple[int, int], str] | None = None,
) -> Finding:
    details = [f"{names[a]} and {names[b]}" + (f" ({hows[a, b]})" if hows else "") for a, b in pairs]
    return Finding(kind, tuple(dict.fromkeys(names[a] for a, _ in pairs)), facts, tuple(details))
