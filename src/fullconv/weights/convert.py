"""Convert: weights of other tools become a model file, with a conformance report."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fullconv.errors import ModelFileError, OptionError, printable
from fullconv.labels import LabelSet
from fullconv.nets import FCN, build, parameter_count, published_labels
from fullconv.weights.donor import Checked, Donor
from fullconv.weights.modelfile import ModelFile, write_model
from fullconv.weights.plan import Entry
from fullconv.weights.published import PUBLISHED, PublishedWeights
from fullconv.weights.read import read_donor
from fullconv.weights.transplant import Transplant, transplant


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
        verdict: whether the file is the published one, as far as can be told.
        known_scores, scored_on: what the published model of that name was measured to score; empty where this is not
            that model: a classifier, another head, padding or class list, a file with another digest.
    """

    net: str
    sources: tuple[SourceFile, ...]
    entries: tuple[Entry, ...]
    checked: tuple[Checked, ...]
    dropped: tuple[str, ...]
    parameters: int
    zero: tuple[str, ...]
    verdict: str
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
    sources = tuple(_source(donor) for donor in donors)
    _require_promised(sources)
    verdict, published = _verdict(net, target, sources, donors, done)
    report = Conformance(
        net,
        sources,
        done.entries,
        done.checked,
        done.dropped,
        parameter_count(target),
        zero,
        verdict,
        dict(published.scores) if published else {},
        published.scored_on if published else "",
    )
    record: dict[str, Any] = {"converted_from": [asdict(source) for source in sources], "net": net, "verdict": verdict}
    if published:
        record["published"] = {"scored_on": published.scored_on, **published.scores}
    write_model(out, ModelFile(target, labels, record))
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
    """A file that has score layers of a task must not become a model that scores nothing there."""
    theirs, ours = _classes(donors), dict(net.options.classes)
    of_others = [name for donor in donors for name in donor.unused if name.startswith("score")]
    for task in ours:
        scores = [entry for entry in done.entries if entry.key.startswith(f"heads.{task}.score.")]
        if (task in theirs or of_others) and all(entry.how == "zero" for entry in scores):
            found = f"{theirs} classes by task" if task in theirs else f"other names ({', '.join(of_others[:4])})"
            raise ModelFileError(
                f"{', '.join(map(printable, paths))}: the score layers have {found}, the net {ours}: "
                "choose the net that it was made for, or begin with scores of zero by giving --classes"
            )


def _require_promised(sources: Sequence[SourceFile]) -> None:
    """torchvision's files carry the beginning of their sha256 in their names: what else would find changed weights.

    Raises:
        ModelFileError: it is not theirs.
    """
    for source in sources:
        promised = re.search(r"-([0-9a-f]{8})\.pth$", source.file)
        if promised and not source.sha256.startswith(promised[1]):
            raise ModelFileError(
                f"{printable(source.file)} is damaged or another file: its sha256 begins with {source.sha256[:8]}, "
                f"its name says {promised[1]}; download it again, or rename it if it is your own"
            )


def _verdict(
    net: str, target: FCN, sources: Sequence[SourceFile], donors: Sequence[Donor], done: Transplant
) -> tuple[str, PublishedWeights | None]:
    """Whether the model is the published one of its name, in words; and that one's record, if it may be."""
    known = [f"{source.file} is the published {source.published}" for source in sources if source.published]
    published = PUBLISHED.get(net)
    if published is None or published.net != net:
        return "; ".join(known) or "no published file of this net is known", None
    if known:
        return "; ".join(known), published if [source.published for source in sources] == [net] else None
    with torch.device("meta"):
        same = target.options == build(net).options
    heads = [entry for entry in done.entries if entry.key.startswith("heads.")]
    whole = same and not done.dropped and all(entry.how in ("copied", "reshaped") for entry in heads)
    if not whole or [donor.kind for donor in donors] != ["Caffe model"]:
        return f"not the published {net}: a start from other weights, or with other options", None
    if published.digest:
        return f"not the published {net}, whose {published.digest.replace(':', ' is ')}", None
    return f"every layer is that of the published {net}; whether the file is, no published digest tells", published


def _labels(net: str, target: FCN, donors: Sequence[Donor]) -> dict[str, LabelSet]:
    """The classes of the model: those that the files name, the published net's, or numbers."""
    known = {**(published_labels(net) or {})}
    known |= {task: labels for donor in donors for task, labels in donor.labels.items() if labels.named}
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
