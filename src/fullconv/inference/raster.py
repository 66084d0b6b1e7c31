"""Rasters of any size labelled in constant memory: read, computed and written part by part, resumed after a kill.

What computes is given: this file reads, keeps what is done, and makes the finished file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

import fullconv
from fullconv.data.sample import Array, Values
from fullconv.data.windows import RasterReader, Span
from fullconv.errors import DataError, GeometryError, OptionError, one_line, printable
from fullconv.files import sync_folder
from fullconv.inference.batches import ahead
from fullconv.inference.chunks import Chunks
from fullconv.inference.cog import confidence_cog, labels_cog
from fullconv.inference.spool import CONFIDENCE, LABELS, Spool, folder_of
from fullconv.labels import VOID, LabelSet

WRITTEN_AHEAD = 2
"""Parts that wait for the disk."""

Read = Callable[[Span, Span], Values]
"""``read(rows, columns)``: (h, w, C) uint8, uint16 or float32, in the net's order of bands."""

Answer = tuple[Array, Array | None]
"""Labels (h, w) uint8 of a part, and confidences (K, h, w) uint8, round(probability x 255), or None."""

Compute = Callable[[Read, int], Iterator[Answer]]
"""``compute(read, first)``: the answers of ``parts[first:]``, in order; reads from one thread."""

Progress = Callable[[int, int], None]
"""Called with (pixels done, pixels in all)."""

Finished = Callable[[tuple[int, int], list[int]], None]
"""Called with (H, W) and the pixels of each class; void's are in none."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a raster.

    Attributes:
        rows, columns: half-open: (0, 2) are the first two.
    """

    rows: Span
    columns: Span

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def pixels(self) -> int:
        """h x w."""
        return self.size[0] * self.size[1]


def label_raster(
    reader: RasterReader,
    out: str | Path,
    parts: Sequence[Part],
    compute: Compute,
    label_set: LabelSet,
    *,
    classes: int,
    confidence: bool = False,
    identity: Mapping[str, str] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    finished: Finished | None = None,
    anew: Callable[[str], None] | None = None,
) -> None:
    """Label a raster: a COG of class numbers where the raster lies, 255 where it has no data.

    What is done is kept in a hidden folder beside the target, ``.NAME.partial``, until the finished file takes its
    name. The file does not depend on how often that was interrupted.

    Args:
        out: a path ending in .tif; confidences go to ``NAME_confidence.tif``, 0 where there is no data.
        parts: they tile the raster; best from top to bottom.
        classes: K of the confidences.
        confidence: whether the answers hold confidences.
        identity: what the answers depend on, besides parts and versions: model, options, the input's size and time.
        resume: go on with what an interrupted call of the same identity left, if there is any; else that is discarded.
        progress: called after every part; when all pixels are done, the finished file is still to be made.
        finished: called when the files are in place; what it would go on from is removed after that.
        anew: called with how it differs where what is to be resumed was of another identity, and all is labelled anew;
            default: that is an error.

    Raises:
        OptionError: the target is no .tif, a folder or the raster itself; what is to be resumed was of another
            identity, and `anew` is not given; or another process writes it.
        GeometryError: parts that do not tile the raster, or answers of another size.
        DataError: the raster is damaged, changed or gone, or the disk is full. What is done is kept, as it is when
            `compute` raises or at Ctrl-C.
    """
    target = Path(out)
    _require_target(target, reader, label_set, classes, confidence)
    _require_tiled(parts, reader.size)
    planes = classes if confidence else 0
    spool: Spool | None = None
    try:
        whole = _identity(identity or {}, parts, reader, label_set, planes)
        with Spool(
            folder_of(target), reader.size, planes, whole, len(parts), resume, classes=classes, anew=anew
        ) as spool:
            _label(spool, reader, parts, compute, planes, progress)
            _finish(spool, target, reader, label_set, finished)
    except DataError as error:
        raise DataError(f"{error}; {_kept(spool, len(parts))}") from error
    except OSError as error:
        raise DataError(
            f"{printable(target)}: cannot be written ({one_line(error)}); check the folder and free space on the "
            f"disk; {_kept(spool, len(parts))}"
        ) from error


def confidence_path(out: str | Path) -> Path:
    """Where the confidences of a raster go.

    >>> confidence_path("labels/scene.tif").name
    'scene_confidence.tif'
    """
    path = Path(out)
    return path.with_name(f"{path.stem}_confidence{path.suffix}")


def _label(
    spool: Spool,
    reader: RasterReader,
    parts: Sequence[Part],
    compute: Compute,
    planes: int,
    progress: Progress | None,
) -> None:
    """Spool the parts that are missing."""
    first, total = spool.done, reader.size[0] * reader.size[1]
    pixels = sum(part.pixels for part in parts[:first])
    if progress is not None:
        progress(pixels, total)
    missing = parts[first:]
    if not missing:
        return

    def write(answer: tuple[Part, Array, Array | None]) -> Part:
        part, labels, confidences = answer
        spool.write(part.rows, part.columns, labels, confidences)
        return part

    with Chunks(reader, [(part.rows, part.columns) for part in missing]) as chunks:

        def answers() -> Iterator[tuple[Part, Array, Array | None]]:
            given = compute(chunks.read, first)
            for part in missing:
                answer = next(given, None)
                if answer is None:
                    raise GeometryError(f"{printable(reader.path)}: fewer answers than parts, expected {len(parts)}")
                labels, confidences = _checked(part, answer, planes)
                void = chunks.void(part.rows, part.columns)
                if void.any():
                    labels = np.where(void, np.uint8(VOID), labels)
                    confidences = None if confidences is None else np.where(void, np.uint8(0), confidences)
                reader.require_unchanged()  # no part of mixed files may count
                yield part, labels, confidences

        try:
            with closing(ahead(write, answers(), threads=1, depth=WRITTEN_AHEAD)) as written:
                for part in written:
                    pixels += part.pixels
                    if progress is not None:
                        progress(pixels, total)
        except BaseException:
            _sync(spool)
            raise
    spool.sync()


def _sync(spool: Spool) -> None:
    """Count what is written, if the disk lets us: another error is on its way already."""
    try:
        spool.sync()
    except OSError:
        return


def _finish(spool: Spool, target: Path, reader: RasterReader, label_set: LabelSet, finished: Finished | None) -> None:
    """Make the files beside the spool, rename them to their targets, and remove the spool."""
    made = []
    if spool.planes:
        made.append((spool.folder / "confidence.tif", confidence_path(target)))
        confidence_cog(spool.folder / CONFIDENCE, made[0][0], reader.size, label_set, reader.georeference)
    made.append((spool.folder / "labels.tif", target))
    labels_cog(spool.folder / LABELS, made[-1][0], reader.size, label_set, reader.georeference)
    for temporary, final in made:
        temporary.replace(final)
    sync_folder(target.absolute().parent)
    if finished is not None:
        finished(reader.size, spool.counts)
    spool.remove()


def _checked(part: Part, answer: Answer, planes: int) -> Answer:
    labels, confidences = answer
    if labels.shape != part.size or labels.dtype != np.uint8:
        raise GeometryError(
            f"an answer holds labels {labels.dtype} of shape {labels.shape}, expected uint8 of {part.size}"
        )
    if planes == 0:
        return labels, None
    if confidences is None or confidences.shape != (planes, *part.size) or confidences.dtype != np.uint8:
        found = "none" if confidences is None else f"{confidences.dtype} of shape {confidences.shape}"
        raise GeometryError(f"an answer holds confidences {found}, expected uint8 of {(planes, *part.size)}")
    return labels, confidences


def _require_target(target: Path, reader: RasterReader, label_set: LabelSet, classes: int, confidence: bool) -> None:
    if target.suffix.lower() not in (".tif", ".tiff"):
        raise OptionError(f"{printable(target)}: a raster's labels are a GeoTIFF; end its name in .tif")
    if len(label_set) != classes:
        raise OptionError(f"{len(label_set)} class names for {classes} classes; give one name a class")
    for path in (target, confidence_path(target)):
        if path.resolve() in reader.files:
            raise OptionError(f"{printable(path)} would replace the raster that is labelled; choose another --out")
    for path in (target, confidence_path(target))[: 1 + confidence]:
        if path.is_dir():
            raise OptionError(f"{printable(path)} is a folder, expected a file's place; choose another --out")
    try:
        str(target.absolute()).encode()
    except UnicodeEncodeError as error:
        raise OptionError(f"{printable(target)} is no name in UTF-8, as GDAL needs; choose another --out") from error


def _require_tiled(parts: Sequence[Part], size: tuple[int, int]) -> None:
    for part in parts:
        for span, length in zip((part.rows, part.columns), size, strict=True):
            if not 0 <= span[0] < span[1] <= length:
                raise GeometryError(f"{part} is empty or not inside the raster of {size[0]} x {size[1]} pixels (H x W)")
    covered = sum(part.pixels for part in parts)
    if covered != size[0] * size[1]:
        raise GeometryError(
            f"the parts cover {covered} pixels, expected {size[0] * size[1]}: they must tile the raster"
        )


def _identity(
    given: Mapping[str, str], parts: Sequence[Part], reader: RasterReader, label_set: LabelSet, planes: int
) -> dict[str, str]:
    import rasterio

    digest = hashlib.sha256(repr([(part.rows, part.columns) for part in parts]).encode()).hexdigest()
    return {
        **given,
        "raster": f"{reader.size[0]} x {reader.size[1]} x {reader.count} {reader.dtype}",
        "files": hashlib.sha256(repr(reader.stamps).encode()).hexdigest()[:32],
        "parts": digest,
        "classes": repr(label_set.to_json()),
        "confidence": str(planes),
        "fullconv": fullconv.__version__,
        "torch": _version("torch"),
        "numpy": np.__version__,
        "rasterio": rasterio.__version__,
        "GDAL": rasterio.__gdal_version__,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _kept(spool: Spool | None, count: int) -> str:
    if spool is None or spool.done == 0:
        return "no part was done"
    return f"{spool.done} of {count} parts are kept, and --resume goes on with them"
