"""Scenes: rasters too large or too precious for a picture, labelled part by part where they lie on earth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fullconv.data.gdal import CACHE
from fullconv.data.georeference import Georeference
from fullconv.data.image import MAX_PIXELS, format_of, opened, picture_header
from fullconv.data.vrt import checked_vrt, is_vrt
from fullconv.data.windows import RasterReader
from fullconv.errors import DataError, OptionError, printable
from fullconv.inference.chunks import held
from fullconv.inference.engines import Engine
from fullconv.inference.maps import Images
from fullconv.inference.raster import WRITTEN_AHEAD, Answer, Finished, Part, Progress, Read, label_raster
from fullconv.inference.spool import folder_of
from fullconv.inference.strips import Strips
from fullconv.inference.tiles import COPIES, PIXEL, Beside, scores_pixel
from fullconv.inference.verify import Verification, verify
from fullconv.labels import LabelSet
from fullconv.nets.rectangles import Interval, Size

LARGE = 1 << 20
"""Bytes of a picture's file below which it cannot be too large to be decoded whole, unless it is a trap."""

ROWS, SCORES = 64, 1 << 24
"""Of a part, whose scores are held at once for confidences, and their bytes at most, about: those of a whole part would
be as large as the image's."""

HELD = 4
"""Copies of these scores that are held on the way to confidences."""

CELL = 8
"""Rows that scores are at least taken of: fewer read the same coarse cells again."""

WAITING = WRITTEN_AHEAD + 3
"""Parts whose confidences are held: two on the way to void's being taken out, those that wait, and one in writing."""

RASTERIO = 30 << 20
"""Bytes of rasterio and GDAL, but for the blocks that are kept."""


@dataclass(frozen=True)
class Scene:
    """How one raster is labelled.

    Attributes:
        engine: whose net has one input.
        labels: its classes.
        confidence: also write every class's probability.
        resume: go on with what a call that stopped has left.
        identity: of what labels, for `resume`.
        note: called with a line: the plan, before anything is computed, and why what was begun is not gone on with.
        restart: what was begun by another identity is begun again; default: that is an error.
    """

    engine: Engine
    labels: LabelSet
    confidence: bool = False
    resume: bool = False
    identity: Mapping[str, str] | None = None
    note: Callable[[str], None] | None = None
    restart: bool = False

    def require_room(self, paths: Iterable[Path]) -> None:
        """Raise OptionError where none of the rasters can be labelled, before anything is written: the bound of memory
        is too small, or the net takes other inputs. Of some of them that is their failure."""
        wrong = []
        for path in paths:
            try:
                with RasterReader(path, self._bands()) as reader:
                    self.runner(reader).plan(reader.size)
            except DataError:
                return  # which labelling it tells
            except OptionError as error:
                wrong.append(error)
            else:
                return
        if wrong:
            raise wrong[0]

    def label(self, path: Path, out: Path, progress: Progress | None = None, finished: Finished | None = None) -> None:
        """Label a raster; see `label_raster`.

        Raises:
            DataError, OptionError: see `RasterReader` and `label_raster`; a bound of memory that is too small.
        """
        with RasterReader(path, self._bands()) as reader:
            way = self.runner(reader).plan(reader.size)
            self._tell(f"{printable(path.name)}: {way}")
            if not self.resume and folder_of(out).exists():
                self._tell(f"{printable(out)}: what an earlier call began is dropped; --resume would go on with it")
            parts = [Part(rows, columns) for rows, columns in way.parts]

            def compute(read: Read, first: int) -> Iterator[Answer]:
                for columns, band in groupby(parts[first:], key=lambda part: part.columns):
                    strips = way.strips(_images(read, self.engine), columns, tasks=(self._task,))
                    for part in band:
                        yield self._answer(strips, part.rows)

            label_raster(
                reader, out, parts, compute, self.labels, classes=len(self.labels), confidence=self.confidence,
                identity=self.identity, resume=self.resume, progress=progress, finished=finished,
                anew=partial(self._begun_again, path) if self.restart else None,
            )  # fmt: skip

    def verify(self, path: Path) -> Verification:
        """How far the answer is from the plain net's."""
        with RasterReader(path, self._bands()) as reader:
            return verify(self.runner(reader), reader.size, _images(reader.read, self.engine))

    def runner(self, reader: RasterReader) -> Engine:
        """The engine, whose plans count what is held beside the net while this raster is read and written."""
        planes = len(self.labels) if self.confidence else 0
        pixel = PIXEL + COPIES * scores_pixel(self.engine.cut) + WAITING * planes

        def more(part: Size) -> int:
            scores = HELD * 4 * planes * part[1] * self._rows(part[1])
            return RASTERIO + (CACHE << 20) + held(reader, part) + scores

        return replace(self.engine, beside=Beside(pixel, more=more))

    @property
    def _task(self) -> str:
        """Whose labels are written."""
        return next(iter(self.engine.net.heads))

    def _rows(self, width: int) -> int:
        """Of a part, whose scores are held at once."""
        return max(CELL, min(ROWS, SCORES // (4 * len(self.labels) * width)) // CELL * CELL)

    def _tell(self, text: str) -> None:
        if self.note is not None:
            self.note(text)

    def _begun_again(self, path: Path, why: str) -> None:
        self._tell(f"{printable(path.name)} is labelled anew: it was begun with {why}")

    def _bands(self) -> tuple[int, ...]:
        (options,) = self.engine.net.options.inputs.values()
        if not options.bands and options.channels != 3:
            raise OptionError(
                f"the net takes {options.channels} channels and names no bands; rasters are read as RGB, or by the "
                "bands that it was trained on"
            )
        return options.bands

    def _answer(self, strips: Strips, rows: Interval) -> Answer:
        task = self._task
        if not self.confidence:
            return strips.labels(task, rows)[0].cpu().numpy(), None
        (left, right), (top, bottom) = strips.columns, rows
        labels = np.empty((bottom - top, right - left), np.uint8)
        shares = np.empty((len(self.labels), *labels.shape), np.uint8)
        step = self._rows(right - left)
        for first in range(top, bottom, step):
            last = min(first + step, bottom)
            scores = strips.scores(task, (first, last))[0]
            labels[first - top : last - top] = scores.max(0).indices.to(torch.uint8).cpu().numpy()
            found = scores.softmax(0).mul_(255).round_().to(torch.uint8)
            shares[:, first - top : last - top] = found.cpu().numpy()
        return labels, shares


def is_scene(path: Path, bands: Sequence[int] = ()) -> bool:
    """Whether a file is labelled as a raster: a VRT, a TIFF that lies somewhere on earth, or a picture that is too
    large to be decoded whole. Never where rasterio is not installed.

    Args:
        bands: that the net takes; where it takes colours, a TIFF of none that a raster is read by is a picture.
    """
    try:
        if find_spec("rasterio") is None:
            return False
        with opened(path) as (stream, head):
            kind = format_of(head)
            if kind is None:
                return path.suffix.lower() == ".vrt" and is_vrt(head + stream.read(1024))
        if kind == "TIFF":
            with RasterReader(path, (1,)) as reader:
                if reader.size[0] * reader.size[1] > MAX_PIXELS:
                    return True
                if reader.georeference == Georeference():
                    return False
            if not bands:
                RasterReader(path).close()  # a DataError, where it shows no colours
            return True
        return kind in ("PNG", "JPEG") and path.stat().st_size > LARGE and _is_large(path)
    except (DataError, OSError):
        return False


def sources(path: Path) -> tuple[Path, ...]:
    """All files that a VRT is read from; none of another file, which is read by itself.

    Raises:
        DataError: it cannot be read, or one of them.
    """
    with opened(path) as (stream, head):
        if not is_vrt(head + stream.read(1024)):
            return ()
    return checked_vrt(path, lambda _: "nested").files


def _is_large(path: Path) -> bool:
    try:
        height, width = picture_header(path).size
    except DataError:
        return True
    return height * width > MAX_PIXELS


def _images(read: Read, engine: Engine) -> Images:
    (name,) = engine.net.options.inputs
    device = next(engine.net.parameters()).device

    def images(rows: Interval, columns: Interval) -> Mapping[str, Tensor]:
        return {name: torch.from_numpy(read(rows, columns)).permute(2, 0, 1)[None].to(device)}

    return images
