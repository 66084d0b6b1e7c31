"""int8: a stage's graph with weights and activations in 8 bits, as nncf chooses their ranges on samples.

Choosing takes seconds, so that graphs are kept in the cache folder. They are kept as OpenVINO's own description of a
graph, not as compiled code: reading one runs nothing that is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullconv import __version__
from fullconv.errors import OptionError, one_line
from fullconv.files import atomic
from fullconv.inference.openvino import core, runtime
from fullconv.inference.samples import Samples
from fullconv.weights.fetch import cache_folder

DISK = 4 << 30
"""Bytes of graphs that are kept; the ones longest unused go."""

SUFFIX = ".safetensors"


def quantiser() -> Any:
    """The nncf package.

    Raises:
        OptionError: it, or openvino, is not installed.
    """
    runtime()
    try:
        import nncf
    except ImportError as error:
        raise OptionError(
            f"int8 needs nncf, which cannot be imported ({one_line(error)}); run: pip install 'fullconv[openvino]'"
        ) from error
    return nncf


def quantized(model: Any, samples: Iterable[Tensor]) -> Any:
    """A graph in 8 bits, from the cache if it was made of the same graph and samples before.

    Weights are symmetric, one range a channel; activations asymmetric (nncf's preset "mixed").

    Args:
        model: an OpenVINO model with one input, (N, C, h, w) float32.
        samples: inputs that it will meet; where the graph is kept, `Samples` are not read.

    Raises:
        OptionError: no samples, or a graph that nncf cannot quantize.
    """
    samples = Samples.of(samples)
    if not len(samples):
        raise OptionError("int8 without samples, by which ranges are chosen; give images like those to be labelled")
    folder = cache_folder() / "int8"
    key = key_of(model, samples)
    if _is_ours(folder):
        kept = read(folder / f"{key}{SUFFIX}", key)
        if kept is not None:
            return kept
    made = _made(model, samples)
    with suppress(Exception):  # of many types: a full disk, a home that is read-only; the next run chooses again
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_ours(folder):
            write(folder / f"{key}{SUFFIX}", key, made)
            bound(folder, DISK)
    return made


def _made(model: Any, samples: Samples) -> Any:
    nncf, openvino = quantiser(), runtime()
    level, own, one = nncf.nncf_logger.level, openvino.Core, core()
    nncf.set_log_level(logging.ERROR)
    try:
        openvino.Core = lambda: one  # nncf would make several
        with redirect_stdout(io.StringIO()):  # it draws its progress where a command's answer goes
            return nncf.quantize(
                model,
                nncf.Dataset(samples, lambda x: x.to("cpu", torch.float32).contiguous().numpy()),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(samples),
            )
    except Exception as error:  # of many types
        raise OptionError(
            f"nncf cannot quantize a stage ({one_line(error)}); choose the precision bfloat16 or float32"
        ) from error
    finally:
        openvino.Core = own
        nncf.set_log_level(level)


def key_of(model: Any, samples: Samples) -> str:
    """Of all that a quantized graph depends on: the graph, its weights, the samples, and who makes it; hex."""
    nncf, openvino = quantiser(), runtime()
    found = hashlib.sha256(f"{__version__} {openvino.__version__} {nncf.__version__} {samples.digest}".encode())
    numbers: dict[str, int] = {}
    for number, node in enumerate(model.get_ordered_ops()):  # by number: names differ from run to run
        numbers[node.get_friendly_name()] = number
        sources = [
            (
                numbers.get(each.get_source_output().get_node().get_friendly_name(), -1),
                each.get_source_output().get_index(),
            )
            for each in node.inputs()
        ]
        ends = [(str(each.get_element_type()), str(each.get_partial_shape())) for each in node.outputs()]
        if node.get_type_name() == "Constant":
            found.update(repr(("Constant", ends)).encode())
            found.update(np.ascontiguousarray(node.get_data()).data)
        else:
            found.update(repr((node.get_type_name(), sources, ends, sorted(node.get_attributes().items()))).encode())
    return found.hexdigest()


def write(path: Path, digest: str, model: Any) -> None:
    """Keep a graph; raises OSError."""
    from safetensors.numpy import save_file

    with tempfile.TemporaryDirectory() as place:
        xml = Path(place) / "graph.xml"
        runtime().save_model(model, xml, compress_to_fp16=False)
        parts = {
            name: np.frombuffer(xml.with_suffix(suffix).read_bytes(), np.uint8)
            for name, suffix in (("graph", ".xml"), ("weights", ".bin"))
        }
    about = {"fullconv": json.dumps({"kind": "int8", "of": digest, "sha256": _sha256(parts)})}
    with atomic(path, durable=False) as temporary:
        save_file(parts, temporary, about)


def read(path: Path, digest: str) -> Any | None:
    """A graph that was kept; None where there is none, or it is damaged or of something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {}).get("fullconv", "{}"))
            parts = {name: file.get_tensor(name) for name in ("graph", "weights")}
        if about != {"kind": "int8", "of": digest, "sha256": _sha256(parts)}:
            return None
        os.utime(path)
        return core().read_model(parts["graph"].tobytes(), runtime().Tensor(parts["weights"]))
    except (OSError, ValueError, RuntimeError, RecursionError, AttributeError, SafetensorError):
        return None


def bound(folder: Path, budget: int) -> None:
    """Remove the graphs longest unused until the rest have at most `budget` bytes."""
    kept = sorted(((each.stat().st_mtime, each) for each in folder.glob(f"*{SUFFIX}")), reverse=True)
    total = 0
    for _, path in kept:
        total += path.stat().st_size
        if total > budget:
            path.unlink(missing_ok=True)


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can have put something there."""
    if os.name != "posix":
        return folder.is_dir()
    try:
        about = folder.stat()
    except OSError:
        return False
    return about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _sha256(parts: dict[str, np.ndarray[Any, Any]]) -> str:
    found = hashlib.sha256()
    for name in sorted(parts):
        found.update(f"{name} {parts[name].nbytes} ".encode())
        found.update(parts[name].data)
    return found.hexdigest()
