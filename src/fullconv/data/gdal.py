"""The options of GDAL under which rasters are read and written."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rasterio import Env

CACHE = 64
"""MiB of blocks that GDAL keeps. GDAL takes this when it first reads a block in a process."""

_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no file beside it is looked at
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",  # a cut JPEG is grey from there on, and libjpeg only warns
    "GDAL_CACHEMAX": CACHE,
    "CPL_LOG_ERRORS": "OFF",
    "CPL_LOG": os.devnull,  # what it finds when it closes a file goes nowhere else, and is told by us
}


def environment() -> Env:
    """A context in which GDAL has these options; each thread needs its own. Rasters that lie nowhere are no warning."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    # A filter as in `fullconv.data.image`: threads read.
    if ("ignore", None, NotGeoreferencedWarning, None, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    return rasterio.Env(**_OPTIONS)


def cause(error: BaseException) -> BaseException:
    """GDAL's own error, where rasterio's only points to it."""
    return error.__cause__ or error
