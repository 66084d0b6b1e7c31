"""Images and masks in colours, in folders of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fullconv.data.annotations.images import Images
from fullconv.data.annotations.painted import Painted, check_colours
from fullconv.data.annotations.scene import AnnotatedImage, split_of_path
from fullconv.data.image import find_images
from fullconv.errors import DataError, printable
from fullconv.labels import Colour

FOLDERS = ("masks", "masks_human", "segmentationclass")
"""Names of folders of masks, in lower case."""

_OTHERS = ("masks_machine", "masks_instances", "segmentationobject")


def painted_images(
    source: Path,
    images: Images,
    colours: Mapping[str, Colour],
    listed_in: Path,
    splits: Mapping[str, str] | None = None,
) -> list[AnnotatedImage]:
    """The images of all masks below a folder, then those without a mask.

    Args:
        source: the folder.
        images: where images lie; a mask's has its name without suffix, and its folders as far as there are any.
        colours: by label.
        listed_in: the file that lists the colours, for messages.
        splits: by the masks' names without suffix; default: what their folders' names say.

    Raises:
        DataError: no masks, or a colour that is given twice.
    """
    check_colours(colours, listed_in)
    found: list[AnnotatedImage] = []
    for mask in find_images(source):
        parts = mask.relative_to(source).with_suffix("").parts
        place = next((i for i, part in enumerate(parts[:-1]) if part.lower() in FOLDERS), None)
        if place is None:
            continue
        name = "/".join((*parts[:place], "images", *parts[place + 1 :]))
        own = "/".join(parts[place + 1 :])
        split = split_of_path(mask, source) if splits is None else splits.get(own)
        path = images.find(name, printable(mask), masks=(*FOLDERS, *_OTHERS))
        found.append(AnnotatedImage(name, path, (), str(mask), split, painted=Painted(mask, colours, listed_in)))
    if not found:
        raise DataError(f"{printable(source)}: has no masks in folders called {', '.join(FOLDERS)}; export it again")
    taken = {image.path for image in found}
    for path in images.paths:
        if path not in taken and not images.within(path, (*FOLDERS, *_OTHERS)):
            found.append(AnnotatedImage(path.name, path, (), str(path), split_of_path(path, images.root)))
    return found
