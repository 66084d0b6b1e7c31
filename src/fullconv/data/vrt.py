"""GDAL's virtual rasters (VRT), checked and rewritten before GDAL sees them: local pictures of their own folder only.

Source: GDAL's manual, "VRT -- GDAL Virtual Format". Of its elements those are kept that `gdalbuildvrt` and
``gdal_translate -of VRT`` write; those that could run code, warp, or read files in another way are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fullconv.data.image import format_of, opened
from fullconv.data.text import read_text
from fullconv.errors import DataError, one_line, printable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 2**25
"""Of the largest VRT that is read; ten thousand sources take a third of it."""

MAX_DEPTH = 4
"""VRTs inside each other."""

MAX_SOURCES = 2**16
"""Of a VRT, those of its nested VRTs counted as often as they are named: of these GDAL reads each again."""

FORMATS = ("TIFF", "PNG", "JPEG")
"""Of sources, besides VRT."""

_HEAD = re.compile(rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*\?>)?\s*(<!--((?!-->).)*-->\s*)*<VRTDataset[\s>]", re.DOTALL)

_SOURCES = ("SimpleSource", "ComplexSource")
_KEPT = (
    "VRTDataset", "SRS", "GeoTransform", "GCPList", "GCP", "VRTRasterBand", "ColorInterp", "ColorTable", "Entry",
    "NoDataValue", "HideNoDataValue", "Description", "Scale", "Offset", "MaskBand", *_SOURCES, "SourceFilename",
    "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA", "ScaleOffset", "ScaleRatio", "LUT", "Exponent",
    "SrcMin", "SrcMax", "DstMin", "DstMax", "Clamp", "UseMaskBand", "ColorTableComponent",
)  # fmt: skip
_DROPPED = (  # they change no pixel
    "Metadata", "Histograms", "OverviewList", "Overview", "UnitType", "CategoryNames", "GDALRasterAttributeTable",
    "BlockXSize", "BlockYSize",
)  # fmt: skip
_CLASSES = {"VRTDataset": "VRTDataset", "VRTRasterBand": "VRTSourcedRasterBand"}


@dataclass(frozen=True)
class Vrt:
    """A VRT that has been checked.

    Attributes:
        text: its XML, all sources by absolute path, or by the name that `checked_vrt` was given for a nested VRT.
        files: all it reads, itself included.
    """

    text: bytes
    files: tuple[Path, ...]


def is_vrt(head: bytes) -> bool:
    """Whether a file that begins so (its first kilobyte) is a VRT."""
    return _HEAD.match(head) is not None


def checked_vrt(path: Path, keep: Callable[[bytes], str]) -> Vrt:
    """The VRT at `path`, fit to be given to GDAL.

    Args:
        keep: puts the XML of a nested VRT where GDAL can open it, and returns its name there.

    Raises:
        DataError: XML that is damaged, too large or of a kind that is not read; a source that is missing, is not
            below the VRT's own folder, or is no TIFF, PNG, JPEG or VRT; one line.
    """
    done = _Checker(keep).check(path, 1)
    return Vrt(done.text, tuple(dict.fromkeys(done.files)))


@dataclass(frozen=True)
class _Done:
    text: bytes
    files: tuple[Path, ...]
    sources: int


@dataclass
class _Checker:
    keep: Callable[[bytes], str]
    kept: dict[Path, tuple[str, _Done]] = field(default_factory=dict)
    plain: set[Path] = field(default_factory=set)
    """Sources found to be pictures: VRTs name the same file once a band."""

    def check(self, path: Path, depth: int) -> _Done:
        from defusedxml.ElementTree import fromstring, tostring

        name = printable(path)
        if depth > MAX_DEPTH:
            raise DataError(f"{name}: is a VRT inside {MAX_DEPTH} others, at most {MAX_DEPTH} are followed; {_FIX}")
        try:
            root: Element = fromstring(read_text(path, MAX_BYTES), forbid_dtd=True)
        except (SyntaxError, ValueError, RecursionError) as error:  # ParseError is a SyntaxError
            if isinstance(error, DataError):
                raise
            raise DataError(f"{name}: is not valid XML ({one_line(error)}); make the VRT again") from error
        if root.tag != "VRTDataset":
            raise DataError(f"{name}: begins with <{printable(root.tag)[:40]}>, expected <VRTDataset>")
        files, count, folder = [path.resolve()], 0, path.resolve().parent
        stack = [root]  # no recursion: XML may nest deeper than Python's stack
        while stack:
            element = stack.pop()
            _require_known(name, element)
            for child in [child for child in element if child.tag in _DROPPED]:
                element.remove(child)
            if element.tag in _SOURCES and len(element.findall("SourceFilename")) != 1:
                raise DataError(f"{name}: <{element.tag}> names no file, or several, expected one; make the VRT again")
            if element.tag == "SourceFilename":
                sources, found = self._source(path, element, folder, depth)
                files += found
                count += sources
                if count > MAX_SOURCES:
                    raise DataError(f"{name}: reads more than {MAX_SOURCES} sources; {_FIX}")
            stack += element
        return _Done(tostring(root), tuple(files), count)

    def _source(self, path: Path, element: Element, folder: Path, depth: int) -> tuple[int, tuple[Path, ...]]:
        """Point the element to the file that it names; how many sources that makes, and their files."""
        given = element.text or ""
        shown = f"{printable(path)}: source {printable(given)[:200]!r}"
        relative = element.attrib.get("relativeToVRT", "0") == "1"
        if not relative and not Path(given).is_absolute():
            raise DataError(f"{shown} is no path relative to the VRT (relativeToVRT) nor an absolute one; {_FIX}")
        try:
            found = (folder / given).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a null byte; links in a circle
            raise DataError(f"{shown} is no file's path ({one_line(error)}); {_FIX}") from error
        if folder not in found.parents:
            raise DataError(f"{shown} is not below the VRT's own folder; move it there, or {_FIX}")
        if found in self.kept:
            name, done = self.kept[found]
        elif found in self.plain:
            name, done = str(found), _Done(b"", (), 1)
        elif _is_nested(found):
            done = self.check(found, depth + 1)
            name = self.keep(done.text)
            self.kept[found] = name, done
        else:
            self.plain.add(found)
            name, done = str(found), _Done(b"", (found,), 1)
        element.text = name
        element.attrib.update({"relativeToVRT": "0", "shared": "0"})
        return done.sources, done.files


_FIX = "make a GeoTIFF of it: gdal_translate -of COG IN OUT"


def _require_known(name: str, element: Element) -> None:
    """Raise DataError for an element that is not kept."""
    tag = printable(element.tag)[:40]
    if element.tag not in _KEPT:
        raise DataError(f"{name}: holds <{tag}>, which is not read (expected a plain mosaic); {_FIX}")
    kind = element.attrib.get("subClass", _CLASSES.get(element.tag, ""))
    if kind != _CLASSES.get(element.tag, ""):
        raise DataError(f"{name}: <{tag}> is of the kind {printable(kind)[:40]}, which is not read; {_FIX}")


def _is_nested(path: Path) -> bool:
    """Whether a source is a VRT rather than a picture; DataError if it is neither."""
    with opened(path) as (stream, head):
        if format_of(head) in FORMATS:
            return False
        stream.seek(0)
        if is_vrt(stream.read(1024)):
            return True
    raise DataError(f"{printable(path)}: is no TIFF, PNG, JPEG or VRT, expected one as a VRT's source; convert it")
