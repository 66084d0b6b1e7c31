"""SBD, the Semantic Boundaries Data set: ``benchmark_RELEASE/dataset/{img,cls,train.txt,val.txt}`` (reference 7.2).

More images of PASCAL VOC, with masks as MATLAB structs, without void. Where a VOCdevkit lies in the same folder, the
two are combined as in the paper (reference 5.6): SBD's `train`, 8,498 images, and as `val` what VOC2011's val holds
beyond them, 736 images with VOC's own masks. Likewise of VOC2012: `trainaug`, 10,582 images, and `val2012`, which have
none in common; where both data sets have a mask, `trainaug` takes SBD's, as is usual. Other pairs of splits overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fullconv.data import voc
from fullconv.data.matfile import MatReader
from fullconv.data.pairs import require_split
from fullconv.data.sample import SEMANTIC, Array
from fullconv.data.scenes import FileDataset, Scene, Task
from fullconv.data.voc import VOC_LABELS, VOC_READER, read_ids, require_files, scenes_of
from fullconv.errors import DataError, printable

_SUFFIX = ".mat"
_MATLAB = MatReader("GTcls.Segmentation", tuple(range(len(VOC_LABELS))))


@dataclass(frozen=True)
class SBDReader:
    """Reads SBD's structs and, by their suffix, VOC's pictures."""

    def read(self, path: Path) -> Array:
        """(H, W) uint8: 0..20, and in VOC's masks 255 = void; DataError of one line."""
        return (_MATLAB if path.suffix == _SUFFIX else VOC_READER).read(path)


def recognise(path: Path) -> bool:
    """Whether a folder holds benchmark_RELEASE, is it, or is its ``dataset``."""
    return _find(path) is not None


def splits(path: Path) -> tuple[str, ...]:
    """Train and val; beside VOC2011 seg11valid too, which val then is; beside VOC2012 trainaug and val2012 too."""
    return tuple(_scenes(_dataset(path)))


def open_split(source: str, path: Path, split: str) -> FileDataset:
    """One split.

    Raises:
        DataError: no such split, a list that cannot be read, images or masks that are missing.
    """
    scenes = _scenes(_dataset(path))
    require_split(source, split, tuple(scenes))
    require_files(source, split, scenes[split])
    return FileDataset(source, split, scenes[split], {SEMANTIC: Task(VOC_LABELS, SBDReader())})


def _find(path: Path) -> Path | None:
    for folder in (path / "benchmark_RELEASE" / "dataset", path / "dataset", path):
        if all((folder / name).is_dir() for name in ("img", "cls")) and _lists(folder):
            return folder
    return None


def _dataset(path: Path) -> Path:
    found = _find(path)
    if found is None:
        raise DataError(f"{printable(path)}: no dataset/{{img,cls,train.txt}}; name the folder benchmark_RELEASE")
    return found


def _lists(dataset: Path) -> dict[str, Path]:
    found = {split: dataset / f"{split}.txt" for split in ("train", "val")}
    return {split: file for split, file in found.items() if file.is_file()}


def _scenes(dataset: Path) -> dict[str, list[Scene]]:
    """By split, in the order in which they are named to users."""
    own = {split: read_ids(file) for split, file in _lists(dataset).items()}

    def ours(names: list[str]) -> list[Scene]:
        return [Scene.of(n, dataset / "img" / f"{n}.jpg", dataset / "cls" / f"{n}{_SUFFIX}") for n in names]

    found = {split: ours(names) for split, names in own.items()}
    release = dataset.absolute().parent
    beside = voc.years(release.parent if release.name == "benchmark_RELEASE" else release)
    if "VOC2011" in beside and "train" in own:
        valid = _listed(beside["VOC2011"], "val")
        trained = set(own["train"])
        found["val"] = found["seg11valid"] = scenes_of(beside["VOC2011"], [n for n in valid if n not in trained])
    if "VOC2012" in beside:
        train, val = (_listed(beside["VOC2012"], split) for split in ("train", "val"))
        mine = dict.fromkeys(name for names in own.values() for name in names)
        kept = set(val)
        found["trainaug"] = ours([n for n in mine if n not in kept])
        found["trainaug"] += scenes_of(beside["VOC2012"], [n for n in train if n not in mine])
        found["val2012"] = scenes_of(beside["VOC2012"], val)
    return found


def _listed(year: Path, split: str) -> list[str]:
    return read_ids(year / "ImageSets" / "Segmentation" / f"{split}.txt")
