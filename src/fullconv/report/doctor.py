"""The doctor's page: findings, classes, and a few scenes with their masks laid over them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.data.doctor.diagnosis import Diagnosis, Looked
from fullconv.data.doctor.mending import mended
from fullconv.data.mask import MaskReader, read_raw
from fullconv.data.sample import Values
from fullconv.errors import DataError, printable
from fullconv.files import atomic
from fullconv.report.html import Preview, figure, rendered
from fullconv.report.pictures import Picture, overlay

SCENES = 9
"""Pictures on the page."""

LARGEST = 720
"""Longest side of a picture: twice what the page's columns show."""


def write_doctor_page(path: str | Path, found: Diagnosis, command: str = "") -> None:
    """Write the page, whole or not at all; it holds everything it shows.

    Args:
        path: the HTML file; replaced where it exists.
        found: the whole examination.
        command: what the user typed.
    """
    listing = found.listing
    errors, warnings = ([f for f in found.findings if f.severity == severity] for severity in ("error", "warning"))
    sizes = Counter(found.sizes())
    page = rendered(
        "doctor.html.j2",
        title=printable(Path(listing.source).name or listing.source),
        command=command,
        headline=[
            ("errors", sum(f.count for f in errors), "training does not start, or learns wrong labels"),
            ("warnings", sum(f.count for f in warnings), "training gets worse, or its scores untrue"),
            ("scenes", f"{listing.count:,}", "images with masks"),
        ],
        facts={
            "layout": listing.layout,
            "splits": ", ".join(f"{split} {len(scenes):,}" for split, scenes in listing.scenes.items())
            + (" (val is held out of train)" if listing.held_out else ""),
            "sizes": ", ".join(f"{h} x {w} ({n})" for (h, w), n in sizes.most_common(3)) + (", ..." * (len(sizes) > 3)),
            "sides": f"{span(found.sides())} pixels",
            "width over height": span(found.aspects()),
            "images": found.usual_kind if found.looked else "none",
        },
        findings=found.findings,
        tasks=[_task(found, task) for task in found.codings],
        scenes=[figure(Preview(name, picture)) for name, picture in _scenes(found)],
    )
    with atomic(path, durable=False) as temporary:
        temporary.write_bytes(page.encode("utf-8", errors="replace"))


def class_rows(found: Diagnosis, task: str) -> list[dict[str, Any]]:
    """A row a class: name, colour, (share in percent, images) of each split, weight; as texts."""
    labels, counts, weights = found.labels(task), found.counts(task), found.weights(task)
    rows = []
    for number, (name, colour) in enumerate(zip(labels.names, labels.colours, strict=True)):
        shares = []
        for split in counts:
            own = counts[split][:, : len(labels)]
            total = int(own.sum())
            share = 100 * int(own[:, number].sum()) / total if total else 0.0
            shares.append((f"{share:.3g}", f"{int((own[:, number] > 0).sum()):,}"))
        weight = "\N{EN DASH}" if np.isnan(weights[number]) else f"{weights[number]:.3g}"
        rows.append({"name": printable(name), "colour": colour, "shares": shares, "weight": weight})
    return rows


def _task(found: Diagnosis, task: str) -> dict[str, Any]:
    return {"name": task, "splits": list(found.counts(task)), "rows": class_rows(found, task)}


def span(ends: tuple[float, float] | None) -> str:
    """Two ends as text: "3 to 4", "3" where they are equal, a dash where there are none."""
    if ends is None:
        return "\N{EN DASH}"
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low} to {high}"


def _scenes(found: Diagnosis) -> list[tuple[str, Picture]]:
    """A few scenes, evenly spread, as far as they can be read."""
    usable = [each for each in found.looked if each.images]
    chosen = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, SCENES).astype(int))] if usable else []
    pictures = []
    for each in chosen:
        try:
            pictures.append((printable(f"{each.split}/{each.scene.name}"), _drawn(found, each)))
        except DataError:  # it is among the findings
            continue
    return pictures


def _drawn(found: Diagnosis, each: Looked) -> Picture:
    name, task = next(iter(each.images)), next(iter(each.masks))
    source, given = found.listing.inputs[name], found.listing.tasks[each.split][task]
    coding = found.codings[task][each.split]
    path = each.scene.masks[task]
    if isinstance(given.reader, MaskReader):
        mask = mended(read_raw(path, allow_lossy=True), coding, each.split)
    else:
        mask = given.reader.read(path)
    image = _shown(source.reader.read(each.scene.images[name]), source.kind.bands, source.kind.preview)
    drawn = overlay(image, mask, coding.labels)
    step = -(-max(drawn.shape[:2]) // LARGEST)
    return drawn[::step, ::step]


def _shown(values: Values, bands: tuple[int, ...], preview: tuple[int, ...]) -> Picture:
    """(H, W, 3) or (H, W, 1) uint8; measured values stretched by their own deviation."""
    if values.dtype == np.uint8 and values.shape[2] in (1, 3):
        return values
    chosen = values[:, :, [bands.index(band) for band in preview] if preview else [0]].astype(np.float32)
    mean, std = chosen.mean((0, 1)), chosen.std((0, 1)) + 1e-6
    stretched: Picture = np.clip((chosen - mean) * (255 / 4 / std) + 127.5, 0, 255).astype(np.uint8)
    return stretched
