"""Images that annotation files name: looked up among the files there are, and their sizes."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath, PureWindowsPath

from fullconv.data.image import find_images
from fullconv.errors import DataError, OptionError, printable

FOLDERS = ("images", "jpegimages", "img", "imgs")
"""Names of folders, in lower case, whose files are taken where others of the same name lie elsewhere."""


class Images:
    """The images below the folder of an export, or below another that the user names.

    Names out of annotation files are only compared with what was found there; none is ever opened as a path.
    """

    def __init__(self, source: Path, images: Path | None = None) -> None:
        if images is not None and not images.is_dir():
            raise OptionError(f"--images {printable(images)}: no such folder; name the folder that holds the images")
        self.root = images or (source if source.is_dir() else source.parent)
        self.paths = list(find_images(self.root))
        if images is None and not self.paths and self.root.name == "annotations":
            self.root = self.root.parent  # COCO keeps images beside the folder of its JSON
            self.paths = list(find_images(self.root))
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._named: dict[Path, str] = {}
        for path in self.paths:
            self._by_name[_key(path.name)].append(path)
            self._by_stem[_key(path.stem)].append(path)

    def in_folder(self, folder: Path) -> list[Path]:
        """The images right in a folder, in the order of their names."""
        return [path for path in self.paths if path.parent == folder]

    def within(self, path: Path, folders: Collection[str]) -> bool:
        """Whether one of the folders between an image and the root has one of the names, given in lower case."""
        return any(part.lower() in folders for part in path.relative_to(self.root).parts[:-1])

    def find(
        self, name: str, where: str, near: Path | None = None, masks: Collection[str] | None = None
    ) -> Path | None:
        """The image of a name; None if there is none.

        The one at exactly this place relative to `near` comes first, then that which shares the most folders of the
        name, then one in a folder called images.

        Args:
            name: as an annotation file has it, with folders of any machine.
            where: the entry, for messages.
            near: a folder.
            masks: names of folders that hold masks, in lower case; the name is then one without suffix.

        Raises:
            DataError: several images may be meant, or one by two names.
        """
        parts = [_key(part) for part in path_parts(name)]
        candidates = (self._by_name if masks is None else self._by_stem).get(parts[-1], []) if parts else []
        if masks is not None:
            candidates = [path for path in candidates if not self.within(path, masks)]
        if not candidates:
            return None
        exact = [path for path in candidates if near is not None and _joined(near, parts) == _key(str(path))]
        best = exact or _best(candidates, parts)
        if len(best) > 1:
            raise DataError(
                f"{where}: image {printable(name)!r} may be {printable(best[0])} or {printable(best[1])}; "
                "name the folder that holds it with --images"
            )
        asked = "/".join(parts) if near is None else _joined(near, parts)
        if self._named.setdefault(best[0], asked) != asked:
            raise DataError(
                f"{where}: image {printable(name)!r} leads to {printable(best[0])}, as "
                f"{printable(self._named[best[0]])!r} does; keep the images' folders, or name theirs with --images"
            )
        return best[0]


def path_parts(name: str) -> list[str]:
    """The parts of a path of any machine, without drive and root.

    >>> path_parts("C:\\\\data\\\\a.png"), path_parts("./a/../b.png")
    (['data', 'a.png'], ['a', '..', 'b.png'])
    """
    path = PureWindowsPath(name) if "\\" in name else PurePosixPath(name)
    return list(path.parts[1:] if path.anchor else path.parts)


def _joined(near: Path, parts: list[str]) -> str:
    path = near
    for part in parts:
        path = path.parent if part == ".." else path / part
    return _key(str(path))


def _best(candidates: list[Path], parts: list[str]) -> list[Path]:
    def rank(path: Path) -> tuple[int, bool]:
        own = [*map(_key, path.parts[:-1]), parts[-1]]
        shared = 0
        while shared < min(len(own), len(parts)) and own[-1 - shared] == parts[-1 - shared]:
            shared += 1
        return shared, any(part.lower() in FOLDERS for part in path.parts[-2:-1])

    ranks = [rank(path) for path in candidates]
    return [path for path, each in zip(candidates, ranks, strict=True) if each == max(ranks)]


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", text)  # file systems store accents in two ways
