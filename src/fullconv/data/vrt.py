"""GDAL's virtual rasters (VRT), checked and rewritten before GDAL sees them: local pictures of their own folder only.

Source: GDAL's manual, "VRT -- GDAL Virtual Format". Of its elements those are kept that `gdalbuildvrt` and
``gdal_translate -of VRT`` write; those that could run code, warp, or read files in another way are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import nan, prod
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

MAX_REDUCED = 16
"""Pixels of a source that are averaged, or resampled otherwise, to one: GDAL holds all that a window needs at once."""

LOOKED = 4096
"""First bytes of a source in which no other format may announce itself; GDAL looks at 1024."""

_HEAD = re.compile(rb"^(\xef\xbb\xbf)?\s*(<\?xml[^>]*\?>)?\s*(<!--((?!-->).)*-->\s*)*<VRTDataset[\s>]", re.DOTALL)
_LISTS = re.compile(rb"<(VRTDataset|GDALTileIndexDataset|Table_of_Contents)")
"""What files hold that name other files. GDAL goes by that, whatever stands before it, so that the first bytes of a
picture do not make it one."""

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
_ATTRIBUTES = {name.lower(): name for name in ("subClass", "relativeToVRT", "shared", "resampling", "xSize", "ySize")}
"""Those that are looked at; GDAL knows them in any case."""

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,2})?")

_CLASSES = {"VRTDataset": "VRTDataset", "VRTRasterBand": "VRTSourcedRasterBand"}


@dataclass(frozen=True)
class Vrt:
    """A VRT that has been checked.

    Attributes:
        text: its XML, all sources by absolute path, or by the name that `checked_vrt` was given for a nested VRT.
        files: all it reads, itself included.
        pictures: those of them that are no VRTs, and their formats. Whether they are whole is not looked at.
    """

    text: bytes
    files: tuple[Path, ...]
    pictures: Mapping[Path, str]


def is_vrt(head: bytes) -> bool:
    """Whether a file that begins so (its first kilobyte) is a VRT."""
    return _HEAD.match(head) is not None


def checked_vrt(path: Path, keep: Callable[[bytes], str]) -> Vrt:
    """The VRT at `path`, fit to be given to GDAL.

    Args:
        keep: puts the XML of a nested VRT where GDAL can open it, and returns its name there.

    Raises:
        DataError: XML that is damaged, too large or of a kind that is not read; a source that is missing, is not
            below the VRT's own folder, is no TIFF, PNG, JPEG or VRT, or is made much smaller; one line.
    """
    checker = _Checker(keep)
    done = checker.check(path, 1)
    return Vrt(done.text, tuple(dict.fromkeys(done.files)), checker.pictures)


@dataclass(frozen=True)
class _Done:
    text: bytes
    files: tuple[Path, ...]
    sources: int


@dataclass
class _Checker:
    keep: Callable[[bytes], str]
    kept: dict[Path, tuple[str, _Done]] = field(default_factory=dict)
    pictures: dict[Path, str] = field(default_factory=dict)
    """Sources found to be pictures, and their formats: VRTs name the same file once a band."""

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
            if element.tag in _SOURCES:
                _require_cheap(name, element, depth)
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
            str(found).encode()
        except (OSError, ValueError, RuntimeError) as error:  # a null byte; links in a circle; no UTF-8, as XML is
            raise DataError(f"{shown} is no file's path ({one_line(error)}); {_FIX}") from error
        if folder not in found.parents:
            raise DataError(f"{shown} is not below the VRT's own folder; move it there, or {_FIX}")
        if found in self.kept:
            name, done = self.kept[found]
        elif found in self.pictures:
            name, done = str(found), _Done(b"", (), 1)
        elif (kind := _format(found)) is None:
            done = self.check(found, depth + 1)
            name = self.keep(done.text)
            self.kept[found] = name, done
        else:
            self.pictures[found] = kind
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
    for attribute in element.attrib:
        if attribute != _ATTRIBUTES.get(attribute.lower(), attribute):
            expected = _ATTRIBUTES[attribute.lower()]
            raise DataError(f"{name}: <{tag}> has {printable(attribute)}, expected {expected}; make the VRT again")
    kind = element.attrib.get("subClass", _CLASSES.get(element.tag, ""))
    if kind != _CLASSES.get(element.tag, ""):
        raise DataError(f"{name}: <{tag}> is of the kind {printable(kind)[:40]}, which is not read; {_FIX}")


def _require_cheap(name: str, source: Element, depth: int) -> None:
    """Raise DataError for a source of which GDAL would hold much more than it gives."""
    how = source.attrib.get("resampling", "nearest")
    if how == "nearest":
        return
    if depth > 1:  # the VRT that names it may make it smaller still
        raise DataError(f"{name}: is a VRT inside another and resamples a source ({printable(how)[:40]}); {_FIX}")
    given, made = (_area(source.find(tag)) for tag in ("SrcRect", "DstRect"))
    if not 0 < given <= MAX_REDUCED * made:
        raise DataError(
            f"{name}: resamples ({printable(how)[:40]}) {given:.0f} pixels of a source to {made:.0f}, expected at most "
            f"{MAX_REDUCED} to one; {_FIX}"
        )


def _area(rectangle: Element | None) -> float:
    """Pixels of a <SrcRect> or <DstRect>; not a number where there is none."""
    sides = [] if rectangle is None else [rectangle.attrib.get(side, "") for side in ("xSize", "ySize")]
    # Of what Python reads and GDAL does not, such as "1_000", GDAL takes what comes before it.
    return prod(map(float, sides)) if sides and all(map(_NUMBER.fullmatch, sides)) else nan


def _format(path: Path) -> str | None:
    """That of a source, None for a VRT; DataError if it is neither a picture nor a VRT."""
    with opened(path) as (stream, head):
        kind = format_of(head)
        stream.seek(0)
        start = stream.read(LOOKED)
    if kind in FORMATS:
        if found := _LISTS.search(start):
            raise DataError(
                f"{printable(path)}: is a {kind} that holds {found[0].decode()}, as no picture does; {_FIX}"
            )
        return kind
    if is_vrt(start[:1024]):
        return None
    raise DataError(f"{printable(path)}: is no TIFF, PNG, JPEG or VRT, expected one as a VRT's source; convert it")
