"""Safetensors files with a header of ours: written by hand, changed, damaged."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fullconv.errors import ModelFileError
from fullconv.weights import modelfile
from fullconv.weights.modelfile import KEY, read_header


def raw(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """A safetensors file by hand: its header's length, its header, its data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_header(path: Path, text: str) -> bytes:
    """A file with another fullconv header, its weights as they were."""
    blob = path.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    outer = json.loads(blob[8 : 8 + length])
    outer["__metadata__"][KEY] = text
    return raw(outer, blob[8 + length :])


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> bytes:
    """A file whose fullconv header was changed in place, its weights as they were."""
    header = read_header(path)
    change(header)
    return with_header(path, json.dumps(header))


def damaged(blob: bytes, rng: random.Random, places: Sequence[tuple[int, int]]) -> bytes:
    """Some bytes changed, dropped, doubled and moved, each within one of the intervals."""
    data = bytearray(blob)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        low, high = rng.choice(places)
        at = rng.randrange(low, min(high, len(data)))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(b'0123456789-+.eE"{}[],:\\ \n\0\xff' + b"aflnrstu")
        elif kind == 2:
            del data[at : at + rng.randrange(1, 20)]
        elif kind == 3:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        else:
            data[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)))
    return bytes(data)


def refused(read: Callable[[Path], object], path: Path) -> str:
    """The message with which a file is refused: one short line that names it."""
    with pytest.raises(ModelFileError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    return message


def require_survival(path: Path, write: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while a file is written anew must leave the older one, and nothing beside it."""
    before = path.read_bytes()

    def disk_full(tensors: object, target: Path, metadata: object) -> None:
        target.write_bytes(b"half a fi")
        raise OSError("No space left on device")

    monkeypatch.setattr(modelfile, "save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
