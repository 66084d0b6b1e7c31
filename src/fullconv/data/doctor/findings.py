"""What can be wrong with a data set: one literal table of what each thing is, does to training, and is mended by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fullconv.data.pairs import LISTED
from fullconv.errors import printable

ERROR, WARNING = "error", "warning"
SEVERITIES = (ERROR, WARNING)


class Kind(NamedTuple):
    """A kind of finding.

    Attributes:
        severity: an error keeps training from starting, or makes it learn wrong labels; a warning makes it worse, or
            its scores untrue.
        title: what it is, of several.
        consequence: what it would do to training.
        remedy: how it is mended; ``{fix}`` is the command that does it, ``{yaml}`` the YAML that does.
    """

    severity: str
    title: str
    consequence: str
    remedy: str


_FIX = "{fix}"

KINDS: dict[str, Kind] = {
    "cannot be listed": Kind(
        ERROR, "splits that cannot be opened", "they cannot be trained or scored on", "see the message"
    ),
    "no image": Kind(
        ERROR, "data without any image", "there is nothing to learn from",
        "put images and masks there, or name another folder",
    ),
    "one image alone": Kind(
        ERROR, "one image, and no val", "val is held out of train, where nothing would be left",
        "add images or a val split; or cut it, in a YAML file: tile: 128",
    ),
    "image without mask": Kind(
        ERROR, "images without mask", "training does not start: whether they are empty or forgotten cannot be told",
        f"add the masks, or leave the images out: {_FIX}",
    ),
    "mask without image": Kind(
        ERROR, "masks without image", "training does not start", f"add the images, or leave the masks out: {_FIX}"
    ),
    "one name twice": Kind(
        ERROR, "pictures that share their name with another", "which one the mask belongs to cannot be told",
        "rename or remove them",
    ),
    "unreadable image": Kind(
        ERROR, "images that cannot be read", "training does not start",
        f"copy or export them again, or leave them out: {_FIX}",
    ),
    "unreadable mask": Kind(
        ERROR, "masks that cannot be read", "training does not start",
        f"copy or export them again, or leave them out: {_FIX}",
    ),
    "other size": Kind(
        ERROR, "masks of another size than their image", "the labels would lie beside what they label",
        f"export them at the image's size; those of its shape are scaled by: {_FIX}",
    ),
    "sides swapped": Kind(
        ERROR, "masks whose sides are swapped", "image and mask are rotated against each other: one follows EXIF, "
        "the other does not", f"turn them with their image: {_FIX}",
    ),
    "value of no class": Kind(
        ERROR, "masks with values that are no class", "training does not start; elsewhere it ends in a crash on the "
        "device", f"name the class; or make what has none void{{yaml}} {_FIX}",
    ),
    "0 and 255": Kind(
        ERROR, "two-class masks of 0 and 255", "255 is void: the class vanishes, and all that is left is background",
        f"{{yaml}}{_FIX}",
    ),
    "colours": Kind(
        ERROR, "colour-coded masks without a colour table", "colours are no class numbers: training does not start",
        f"{{yaml}}{_FIX}",
    ),
    "grey as RGB": Kind(
        ERROR, "class numbers saved as grey RGB", "three equal channels are no class numbers: training does not start",
        f"save one channel: {_FIX}",
    ),
    "lossy mask": Kind(
        ERROR, "masks in a lossy format", "compression changes class numbers, most of all along edges",
        f"export them as PNG; what can be told is restored by: {_FIX}",
    ),
    "soft edges": Kind(
        ERROR, "masks with soft edges ({share} of their pixels are of no class)",
        "antialiased or scaled edges hold numbers and colours of no class, or of a wrong one",
        f"scale masks by nearest pixel; {{yaml}}edges take the nearest pixel's class: {_FIX}",
    ),
    "classes from 1": Kind(
        ERROR, "masks that count classes from 1", "every class is taken for the next one, and class 0 has no pixel",
        f"{{yaml}}counted from 0: {_FIX}",
    ),
    "palettes disagree": Kind(
        WARNING, "palette masks in which one number has different colours",
        "a program may have renumbered the colours of each file: the same number is then another class in each",
        "save class numbers as 8-bit grey, or colours as RGB",
    ),
    "class missing": Kind(
        WARNING, "classes without a pixel in a split", "what is not in train is not learned, what is not in val is not "
        "scored", "move images between the splits, or merge the class",
    ),
    "class almost empty": Kind(
        WARNING, "classes with next to no pixels", "they are hardly learned, and their IU is a matter of luck",
        "add images of them, merge them, or give them weight: {weights}",
    ),
    "mostly void": Kind(
        WARNING, "masks that are void or nearly", "nothing can be learned from them", "check that void is meant there",
    ),
    "same image across splits": Kind(
        WARNING, "images that are in two splits", "val scores what was learned by heart: its numbers are too good",
        f"leave them out of the earlier split: {_FIX}",
    ),
    "similar image across splits": Kind(
        WARNING, "images nearly equal to one in another split", "val is no independent test: its numbers are too good",
        f"split by scene, not by image; or leave them out of the earlier split: {_FIX}",
    ),
    "augmented copy across splits": Kind(
        WARNING, "mirrored or turned copies of images in another split", "augmented before it was split: val scores "
        "what was learned by heart",
        f"split first, augment in training; or leave them out of the earlier split: {_FIX}",
    ),
    "same image, other mask": Kind(
        WARNING, "equal images with different masks", "the labels contradict each other", "keep the right one of each",
    ),
    "constant image": Kind(
        WARNING, "images of one colour", "nothing can be seen in them", "check the export",
    ),
    "kinds differ": Kind(
        WARNING, "images of another kind than most ({most})", "they are converted to 8-bit RGB and look different to "
        "the net", f"convert the originals alike; or {_FIX}",
    ),
    "not read": Kind(
        WARNING, "pictures of formats that are not read", "they are left out", "convert them to PNG or JPEG",
    ),
    "one class only": Kind(
        WARNING, "data whose masks hold one class only", "there is nothing to tell apart", "check the masks' values",
    ),
}  # fmt: skip


SILENT = ("0 and 255", "classes from 1")
"""The errors that no reader meets: such masks can be read, and mean something else."""

LEAKS = ("same image across splits", "similar image across splits", "augmented copy across splits")
"""The kinds that name scenes which a repaired copy leaves out of their split, because another has them too."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a data set.

    Attributes:
        kind: a name of `KINDS`.
        names: of the files or classes, all of them.
        facts: what the title and the remedy leave open.
        details: what there is to say of each, or of the first ones, a line each; empty where names say all.
    """

    kind: str
    names: tuple[str, ...]
    facts: dict[str, str] = field(default_factory=dict)
    details: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """ "error" or "warning"."""
        return KINDS[self.kind].severity

    @property
    def count(self) -> int:
        """How many files or classes."""
        return len(self.names)

    @property
    def title(self) -> str:
        """What it is."""
        return self._text(KINDS[self.kind].title)

    @property
    def consequence(self) -> str:
        """What it would do to training."""
        return KINDS[self.kind].consequence

    @property
    def remedy(self) -> str:
        """How it is mended."""
        return self._text(KINDS[self.kind].remedy)

    @property
    def shown(self) -> tuple[str, ...]:
        """The first ten names, as they can be printed."""
        return tuple(printable(name) for name in self.names[:LISTED])

    @property
    def lines(self) -> list[str]:
        """What to show of it, as it can be printed: ten lines at most, then how many more there are."""
        told = [printable(line) for line in self.details[:LISTED] if line] or list(self.shown)
        more = max(self.count, len(self.details)) - len(told)
        return told + [f"and {more:,} more"] * (more > 0)

    def _text(self, text: str) -> str:
        return text.format_map(self.facts)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "names": list(self.shown),
            "title": self.title,
            "details": [printable(line) for line in self.details[:LISTED]],
            "consequence": self.consequence,
            "remedy": self.remedy,
        }


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first; within a severity in the table's order."""
    order = list(KINDS)
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), order.index(f.kind)))
