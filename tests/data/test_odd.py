"""The collection of odd and broken files, as images, as masks and as data sets: each ends as a picture or as one line.

They are read in a process of their own, whose memory is bounded: a file that asks for more fails there, by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 2**30
"""Bytes of resident memory for everything together."""

READ = """
import json, resource, sys, time
from pathlib import Path
from fullconv.data.bands import BandsReader, bands_header, is_raster
from fullconv.data.doctor.facts import image_facts, mask_facts
from fullconv.data.image import picture_header, read_image
from fullconv.data.mask import MaskReader, read_raw
from fullconv.data.scenes import Input, Task
from fullconv.errors import DataError
from fullconv.labels import LabelSet

labels = LabelSet.numbered(255)
task = Task(labels, MaskReader(255))
WAYS = {
    "image": read_image,
    "header": picture_header,
    "mask": task.reader.read,
    "raw mask": lambda path: read_raw(path, allow_lossy=True),
    "colours": MaskReader(2, colors={(0, 0, 0): 0, (255, 255, 255): 1}).read,
    "raster": is_raster,
    "bands header": bands_header,
    "bands": BandsReader((1,)).read,
    "image facts": lambda path: image_facts(path, Input()),
    "mask facts": lambda path: mask_facts(path, task),
}
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

found = []
for name in json.load(sys.stdin):
    for way, read in WAYS.items():
        start, text = time.monotonic(), None
        try:
            result = read(Path(name))
            text = getattr(result, "problem", None)
        except DataError as error:
            text = str(error)
        found.append([name, way, text, time.monotonic() - start, peak()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes(shared_data: Path) -> list[tuple[Path, str, str | None, float, int]]:
    """(file, way of reading, message, seconds, peak memory so far) for every file and way."""
    files = sorted(str(path) for path in (shared_data / "odd").rglob("*") if path.is_file())
    assert len(files) > 650
    done = subprocess.run(
        [sys.executable, "-c", READ], input=json.dumps(files), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 10 * len(files)
    return [(Path(name), way, text, seconds, peak) for name, way, text, seconds, peak in found]


def test_every_file_ends_as_a_picture_or_as_one_line(outcomes: list[tuple[Path, str, str | None, float, int]]) -> None:
    for path, way, text, seconds, _ in outcomes:
        assert text is None or ("\n" not in text and str(path) in text), (path, way, text)
        assert seconds < 20, (path, way, seconds)  # a hang, on however busy a machine
    pictures = {way: sum(text is None for _, w, text, _, _ in outcomes if w == way) for way in ("image", "mask")}
    assert pictures["image"] > 400
    assert 150 < pictures["mask"] < pictures["image"]


def test_memory_stays_bounded(outcomes: list[tuple[Path, str, str | None, float, int]]) -> None:
    over = next(((path, way, peak) for path, way, _, _, peak in outcomes if peak > LIMIT), None)
    assert over is None
