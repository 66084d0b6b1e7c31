"""What a model trained on generated wafers says of real ones: WM-811K maps by their published pattern.

    python benchmarks/wm811k.py runs/demo/best.safetensors ../shared/data/wafers/wm811k/val_data.npz --sheet wm811k.png

WM-811K has no pixel masks, so there is no IU. The table gives, for every published pattern, the share of maps in
which each class is the largest predicted defect (at least `--least` dies); the sheet shows maps beside predictions.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import fullconv
from fullconv.data.sample import IMAGE
from fullconv.data.wafer import render
from fullconv.data.wafermaps import wafer_maps
from fullconv.inference.batches import coarse_scores
from fullconv.report.pictures import colour

EXPECTED = {
    "Center": "circle", "Donut": "ring", "Edge-Ring": "ring", "Edge-Loc": "local zone", "Loc": "local zone",
    "Scratch": "scratch", "None": "nothing", "Near-full": "-", "Random": "-",
}  # fmt: skip
"""The class that corresponds to a published pattern; "-" where there is none."""

Map = NDArray[np.uint8]


def maps(path: Path, shortest: int) -> Iterator[tuple[str, Map]]:
    """(pattern, map) of every different map whose sides are at least `shortest` dies."""
    found = wafer_maps(path)
    seen: set[bytes] = set()
    for cells, labels in zip(found, found.labels, strict=True):
        digest = hashlib.sha1(cells.tobytes()).digest()
        if min(cells.shape) >= shortest and digest not in seen:
            seen.add(digest)
            yield labels[0], cells


def main() -> None:
    """Print the table, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("maps", type=Path)
    parser.add_argument("--per-pattern", type=int, default=200)
    parser.add_argument("--shown", type=int, default=6)
    parser.add_argument("--least", type=int, default=5, help="dies of the smallest defect that counts")
    parser.add_argument("--shortest", type=int, default=36, help="dies of the shortest side")
    parser.add_argument("--sheet", type=Path, default=Path("wm811k.png"))
    args = parser.parse_args()

    model = fullconv.load(args.model)
    labels = model.label_sets["semantic"]
    by_pattern: dict[str, list[Map]] = defaultdict(list)
    for pattern, cells in maps(args.maps, args.shortest):
        by_pattern[pattern].append(cells)
    rng = np.random.default_rng(0)
    print("| published | maps | " + " | ".join([*labels.names[1:], "nothing"]) + " | expected |")
    print("|---|---|" + "---|" * (len(labels) + 1))
    rows = []
    for pattern, expected in EXPECTED.items():
        every = by_pattern[pattern]
        chosen = [every[i] for i in rng.permutation(len(every))[: args.per_pattern]]
        largest: Counter[str] = Counter()
        row: list[tuple[Map, Map]] = []
        stream = ((cells, {IMAGE: render(cells)}) for cells in chosen)
        for cells, tasks in coarse_scores(model.engine(), stream):
            predicted = tasks["semantic"].labels()[0].numpy()
            predicted[cells == 0] = 0
            counts = np.bincount(predicted.ravel(), minlength=len(labels))[1:]
            largest[labels.names[1 + counts.argmax()] if counts.max() >= args.least else "nothing"] += 1
            if len(row) < args.shown:
                row.append((cells, predicted))
        rows.append((pattern, row))
        shares = [f"{100 * largest[name] / max(len(chosen), 1):.0f} %" for name in [*labels.names[1:], "nothing"]]
        print(f"| {pattern} | {len(chosen)} | " + " | ".join(shares) + f" | {expected} |")

    side, gap, left = 128, 8, 90
    sheet = Image.new("RGB", (left + args.shown * 2 * (side + gap), len(rows) * (side + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (pattern, row) in enumerate(rows):
        draw.text((6, y * (side + gap) + side // 2), pattern, fill="black")
        for x, (cells, predicted) in enumerate(row):
            for offset, picture in enumerate((render(cells), colour(predicted, labels))):
                scale = side / max(cells.shape)
                size = round(cells.shape[1] * scale), round(cells.shape[0] * scale)
                at = left + (2 * x + offset) * (side + gap), y * (side + gap)
                sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), at)
    sheet.save(args.sheet)


if __name__ == "__main__":
    main()
