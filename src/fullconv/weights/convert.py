"""Convert: weights of other tools become a model file, with a conformance report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fullconv.errors import ModelFileError, OptionError, printable
from fullconv.labels import LabelSet
from fullconv.nets import FCN, build, published_labels
from fullconv.weights.donor import Checked, Donor, read_donor
from fullconv.weights.modelfile import ModelFile, write_model
from fullconv.weights.published import PUBLISHED
from fullconv.weights.transplant import Entry, Transplant, transplant


@dataclass(frozen=True)
class SourceFile:
    """One file that weights came from.

    Attributes:
        file, kind: its name, and what it is.
        sha256: of the file.
        published: the name of the published file that it is, by its digest; None where it is none, or none is known.
    """

    file: str
    kind: str
    sha256: str
    published: str | None


@dataclass(frozen=True)
class Conformance:
    """What a conversion did; see `convert`.

    Attributes:
        net: its name.
        sources: the files.
        entries: what became of each weight.
        checked: layers of the files that say what the net computes.
        dropped: what the files hold beyond them.
        parameters: of the net.
        zero: score layers that no file gave: the model scores nothing before it is trained.
        known_scores, scored_on: what the published model of that name was measured to score; empty for a classifier.
    """

    net: str
    sources: tuple[SourceFile, ...]
    entries: tuple[Entry, ...]
    checked: tuple[Checked, ...]
    dropped: tuple[str, ...]
    parameters: int
    zero: tuple[str, ...]
    known_scores: Mapping[str, float]
    scored_on: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def convert(
    files: str | Path | Sequence[str | Path],
    net: str,
    out: str | Path,
    *,
    classes: int | Mapping[str, int] | None = None,
    padding: str | None = None,
    upsampling: str | None = None,
    width: float | None = None,
) -> Conformance:
    """Write a model file from .caffemodel, torchvision or fullconv files.

    A file of a whole FCN gives a model that works at once; a classifier gives the trunk, and score layers of zeros to
    be trained with ``fullconv train --init``.

    Args:
        files: one, or one for each input of a net with several trunks.
        net: a name of `NETS`.
        out: the model file to write.
        classes: K, or K by task; default: the published net's, those of the file, else 21.
        padding, upsampling, width: see `NetOptions`; default: the net's own.

    Raises:
        ModelFileError: a file that is damaged, of another net, or without all weights of the trunk.
        OptionError: an unknown net or a file of another kind.
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(file) for file in files]
    if not paths:
        raise OptionError("no file to convert; give a .caffemodel, .pth or .safetensors file")
    if Path(out).suffix != ".safetensors":
        raise OptionError(f"{printable(out)} is to be a model file; end its name in .safetensors")
    if Path(out).resolve() in [path.resolve() for path in paths]:
        raise OptionError(f"{printable(out)} would replace the file it is made of; name another with -o")
    options: dict[str, Any] = {"padding": padding, "upsampling": upsampling, "width": width}
    given = {key: value for key, value in options.items() if value is not None}

    def empty(counts: int | Mapping[str, int] | None) -> FCN:
        with torch.device("meta"):  # it takes over the files' tensors, which are in memory once
            return build(net, counts, **given)

    target = empty(classes)
    donors = [read_donor(path, target) for path in paths]
    if classes is None and published_labels(net) is None:
        target = empty(_classes(donors) or None)
    labels = _labels(net, target, donors)
    done = transplant(target, donors, labels)
    if fresh := done.fresh():
        named = f"{printable(paths[0])} lacks" if len(paths) == 1 else f"{', '.join(map(printable, paths))} lack"
        raise ModelFileError(
            f"{named} {len(fresh)} weights of the trunk ({', '.join(fresh[:3])}, ...); "
            "to train with what is there: fullconv train --init"
        )
    if classes is None:
        _require_scores(paths, target, donors, done)
    zero = tuple(e.key for e in done.entries if e.how == "zero" and e.key.startswith("heads."))
    whole = not zero and all(e.how in ("copied", "reshaped") for e in done.entries if e.key.startswith("heads."))
    published = PUBLISHED.get(net) if whole else None
    sources = tuple(_source(donor) for donor in donors)
    report = Conformance(
        net,
        sources,
        done.entries,
        done.checked,
        done.dropped,
        sum(p.numel() for p in target.parameters()),
        zero,
        dict(published.scores) if published else {},
        published.scored_on if published else "",
    )
    record = {"converted_from": [asdict(source) for source in sources], "net": net}
    known = (
        {"published": {"net": net, "scored_on": report.scored_on, **report.known_scores}} if report.known_scores else {}
    )
    write_model(out, ModelFile(target, labels, record, known))
    return report


def _classes(donors: Sequence[Donor]) -> dict[str, int]:
    """K by task of the donors' score layers."""
    counts: dict[str, int] = {}
    for donor in donors:
        for key, given in donor.weights.items():
            if key.startswith("heads.") and ".score." in key:
                counts.setdefault(key.split(".")[1], len(given.tensor))
    return counts


def _require_scores(paths: Sequence[Path], net: FCN, donors: Sequence[Donor], done: Transplant) -> None:
    """A file that has score layers must not become a model that scores nothing."""
    theirs, ours = _classes(donors), dict(net.options.classes)
    lost = all(
        entry.how == "zero" for entry in done.entries if entry.key.startswith("heads.") and ".score." in entry.key
    )
    if theirs and lost:
        raise ModelFileError(
            f"{', '.join(map(printable, paths))}: the score layers have {theirs} classes by task, and the net {ours}: "
            "choose the net that it was made for, or begin with scores of zero by giving --classes"
        )


def _labels(net: str, target: FCN, donors: Sequence[Donor]) -> dict[str, LabelSet]:
    """The classes of the model: the file's, the published net's, or numbers."""
    known = {**(published_labels(net) or {}), **{t: labels for d in donors for t, labels in d.labels.items()}}
    return {
        task: known[task] if task in known and len(known[task]) == count else LabelSet.numbered(count)
        for task, count in target.options.classes.items()
    }


def _source(donor: Donor) -> SourceFile:
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with donor.path.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            sha1.update(chunk)
    digests = {"sha256": sha256.hexdigest(), "sha1": sha1.hexdigest()}
    for name, weights in PUBLISHED.items():
        if weights.digest is not None:
            kind, _, value = weights.digest.partition(":")
            if digests[kind].startswith(value):
                return SourceFile(donor.path.name, donor.kind, digests["sha256"], name)
    return SourceFile(donor.path.name, donor.kind, digests["sha256"], None)
