"""The collection of odd and broken files, by every reader and as a data set: each ends as a picture or as one line.

They are read in a process of their own, whose memory is bounded: a file that asks for more fails there, by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fullconv.data.image import SUFFIXES

LIMIT = 2**30
"""Bytes of resident memory for everything together."""

ADDRESSES = 2**31
"""Bytes of address space: imports take 0.2 GiB of it, everything together between 1 and 1.5 GiB."""

TIMEOUT = 600
"""Seconds, of which a few are needed: a hang fails here too."""

READ = """
import json, resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
from fullconv.data.annotations import cvat
from fullconv.data.annotations.entry import read_json
from fullconv.data.annotations.formats import recognise
from fullconv.data.annotations.images import Images
from fullconv.data.bands import BandsReader, bands_header, is_raster
from fullconv.data.doctor import examine
from fullconv.data.doctor.facts import image_facts, mask_facts
from fullconv.data.image import picture_header, read_image
from fullconv.data.mask import MaskReader, read_raw
from fullconv.data.matfile import MatReader
from fullconv.data.scenes import Input, Task
from fullconv.data.wafermaps import wafer_maps
from fullconv.data.yamlfile import describe
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
    ".mat": MatReader.from_one("S", 3).read,
    "wafer maps": lambda path: list(wafer_maps(path)),
    "YAML": describe,
    "annotations": recognise,
    "JSON": read_json,
    "XML": lambda path: cvat.read([path], Images(path.parent, None)),
}
def peak():
    # Not ru_maxrss, which begins with what the process that started this one held.
    try:
        lines = open("/proc/self/status", encoding="ascii").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except OSError:
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
whole = examine(sys.argv[2], threads=2)
facts = [(next(iter(each.images.values())).problem, next(iter(each.masks.values())).problem) for each in whole.looked]
print(json.dumps([found, facts, peak()]))
"""

Outcomes = tuple[list[tuple[Path, str, str | None, float, int]], list[tuple[str | None, str | None]], int]


@pytest.fixture(scope="module")
def outcomes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """(file, way of reading, message, seconds, peak memory so far) for every file and way; the problems of each as an
    image and as a mask of one data set; the peak memory of all."""
    files = sorted(str(path) for path in (shared_data / "odd").rglob("*") if path.is_file())
    assert len(files) > 650
    root = tmp_path_factory.mktemp("odd")
    for kind in ("images", "masks"):
        (root / kind).mkdir()
        for number, name in enumerate(files):
            suffix = Path(name).suffix if Path(name).suffix.lower() in SUFFIXES else ".png"
            (root / kind / f"{number:04}{suffix}").symlink_to(name)
    (root / "data.yaml").write_text(f"{{train: images, names: [{', '.join(f'c{k}' for k in range(255))}]}}")
    words = [sys.executable, "-c", READ, str(ADDRESSES), str(root / "data.yaml")]
    done = subprocess.run(words, input=json.dumps(files), capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-2000:]
    found, facts, peak = json.loads(done.stdout)
    assert len(found) == 16 * len(files)
    assert len(facts) == len(files)
    return [(Path(name), *others) for name, *others in found], [(image, mask) for image, mask in facts], peak


def test_every_file_ends_as_a_picture_or_as_one_line(outcomes: Outcomes) -> None:
    for path, way, text, seconds, _ in outcomes[0]:
        assert text is None or ("\n" not in text and str(path) in text), (path, way, text)
        assert seconds < 20, (path, way, seconds)  # a hang, on however busy a machine
    pictures = {way: sum(text is None for _, w, text, _, _ in outcomes[0] if w == way) for way in ("image", "mask")}
    assert pictures["image"] > 400
    assert 150 < pictures["mask"] < pictures["image"]


def test_they_are_a_data_set_too(outcomes: Outcomes) -> None:
    alone = {way: [text for _, w, text, _, _ in outcomes[0] if w == way] for way in ("image facts", "mask facts")}
    # In the data set, the files of train come before those of the tenth that is held out as val.
    for way, problems in zip(alone, zip(*outcomes[1], strict=True), strict=True):
        assert sum(text is None for text in problems) == sum(text is None for text in alone[way])
        assert all("\n" not in text for text in problems if text is not None)


def test_memory_stays_bounded(outcomes: Outcomes) -> None:
    over = next(((path, way, peak) for path, way, _, _, peak in outcomes[0] if peak > LIMIT), None)
    assert over is None
    assert outcomes[2] < LIMIT
