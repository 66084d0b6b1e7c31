"""Any file of weights -> a donor, by its suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fullconv.errors import ModelFileError, OptionError, printable
from fullconv.nets import FCN
from fullconv.weights.caffe_donor import read_caffe
from fullconv.weights.donor import Donor, Given
from fullconv.weights.modelfile import read_model
from fullconv.weights.torchvision import read_torchvision

HDF5 = (".h5", ".hdf5")
"""Suffixes of Caffe's other format."""


def read_donor(path: str | Path, target: FCN) -> Donor:
    """The weights of a model file, .caffemodel or torchvision file that `target` can take; target may be on "meta".

    Raises:
        ModelFileError: the file is damaged, or its weights do not have the shapes of the target's trunk.
        OptionError: a file of another kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in HDF5:
        suffix = ".caffemodel"  # its reader says what to do with them
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{printable(path)} {what}; expected a file of weights")
    if suffix not in READERS:
        raise OptionError(
            f"{printable(path)}: weights are read from {', '.join(READERS)} files; rename it to what it is"
        )
    return READERS[suffix](path, target)


def _model(path: Path, _: FCN) -> Donor:
    file = read_model(path)
    options = file.net.options
    weights = {key: Given(value, key, tuple(value.shape)) for key, value in file.net.state_dict().items()}
    inputs = dict(options.inputs)
    return Donor(path, "fullconv model", options.trunk_name, weights, inputs, file.labels, options.scales)


def _torchvision(path: Path, target: FCN) -> Donor:
    file = read_torchvision(path, target.options.trunk, target.options.width)
    weights = {
        f"trunks.image.{key}": Given(tensor, file.sources[key], file.shapes[key])
        for key, tensor in file.weights.items()
    }
    unused = tuple(map(printable, file.dropped))
    return Donor(path, "torchvision classifier", target.options.trunk, weights, {"image": file.inputs}, unused=unused)


READERS: dict[str, Callable[[Path, FCN], Donor]] = {
    ".safetensors": _model,
    ".caffemodel": read_caffe,
    ".pth": _torchvision,
    ".pt": _torchvision,
}
