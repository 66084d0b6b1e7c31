"""The same random .caffemodel through OpenCV's Caffe importer and through `convert`: the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffe_nets import CLASSIFIERS, NAMES, CaffeNet, caffe_net, opencv_scores
from caffe_writer import write_caffemodel
from fullconv.inference.model import Model
from fullconv.nets import NETS
from fullconv.nets.classifier import Classifier
from fullconv.weights.convert import convert

BGR = {
    "voc": (104.00698793, 116.66876762, 122.67891434),
    "pascalcontext": (104.007, 116.669, 122.679),
    "nyud": (116.190, 97.203, 92.318),
    "siftflow": (114.578, 115.294, 108.353),
}
"""Means that the reference's data layers subtract (reference 5.5 and 7)."""

HHA, LOG_DEPTH = (132.431, 94.076, 118.477), 7.844

FCNS = [name for name in NAMES if name not in CLASSIFIERS]
OUTPUTS = {"score": "semantic", "score_sem": "semantic", "score_geo": "geometric"}
SIZES = [(37, 53), (61, 40)]


def images(net: CaffeNet, name: str, seed: int) -> tuple[dict[str, Tensor], dict[str, NDArray[np.float32]]]:
    """The same random input for our net and, prepared as the data layer does, for Caffe."""
    rng = np.random.default_rng(seed)
    ours, theirs = {}, {}
    for blob, (channels, height, width) in net.inputs.items():
        if blob == "depth":
            depth = rng.integers(500, 9000, (height, width, 1)).astype(np.float32)
            ours[blob], prepared = depth, np.log(depth) - np.float32(LOG_DEPTH)
        else:
            # Blocks and noise: maxima over flat ground are alike everywhere.
            coarse = rng.integers(0, 200, (height // 6 + 1, width // 6 + 1, channels))
            image = np.kron(coarse, np.ones((6, 6, 1), int))[:height, :width] + rng.integers(0, 56, (height, width, 3))
            ours["image" if blob == "data" and not name.startswith("nyud") else blob] = image.astype(np.uint8)
            mean = HHA if blob == "hha" or (name.endswith("-hha") and blob == "data") else BGR[name.partition("-")[0]]
            prepared = (image if mean == HHA else image[:, :, ::-1]) - np.array(mean)
        theirs[blob] = prepared.astype(np.float32).transpose(2, 0, 1).copy()
    if name in ("nyud-fcn32s-color", "nyud-fcn32s-hha"):  # Caffe calls any single input "data"
        ours = {name.rpartition("-")[2]: ours["data"]}
    return {key: torch.from_numpy(value.transpose(2, 0, 1).copy())[None] for key, value in ours.items()}, theirs


def old_types(net: CaffeNet) -> list[tuple[str, str, list[NDArray[np.float32]]]]:
    """The layers as a V1 file holds them: it has a number for Data, and none for Crop and Input."""
    types = {"Input": "Data", "Crop": "V1:77"}
    return [(name, types.get(kind, kind), blobs) for name, kind, blobs in net.layers]


def compare(name: str, size: tuple[int, int], width: float, folder: Path, **form: bool) -> None:
    oracle = caffe_net(name, size, width=width, seed=len(name))
    ours, theirs = images(oracle, name, seed=size[0])
    expected = opencv_scores(oracle, theirs, folder)
    layers = old_types(oracle) if form.get("v1") else oracle.layers
    write_caffemodel(folder / "released.caffemodel", layers, **form)
    convert(folder / "released.caffemodel", name, folder / "m.safetensors", width=width)
    model = Model.load(folder / "m.safetensors")
    with torch.inference_mode():
        coarse = model.net.coarse(ours)
        for output, scores in expected.items():
            each = coarse[OUTPUTS[output]]
            got = each.upsample()[0].numpy()
            assert got.shape == scores.shape == (model.net.options.classes[OUTPUTS[output]], *size)
            assert scores.std(axis=(1, 2)).mean() > 0.02, "scores hardly vary: the test tests little"
            assert np.abs(got - scores).max() / np.abs(scores).max() < 1e-4
            assert (each.labels()[0].numpy() == scores.argmax(0)).mean() >= 0.999


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FCNS)
def test_scores_are_those_of_caffe(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    compare(name, size, 1 / 8, tmp_path)


@pytest.mark.parametrize("size", [(19, 33), (2, 7)], ids=str)
def test_scores_are_those_of_caffe_at_full_width(size: tuple[int, int], tmp_path: Path) -> None:
    compare("voc-fcn8s", size, 1.0, tmp_path)


def test_scores_are_those_of_caffe_from_any_form_of_file(tmp_path: Path) -> None:
    for number, form in enumerate(
        ({"v1": True, "legacy_shapes": True}, {"double": True, "diffs": True}, {"packed": False})
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        compare("voc-fcn16s", (23, 31), 1 / 16, folder, **form)


def test_every_caffe_net_is_compared() -> None:
    assert set(FCNS) == {name for name in NETS if not name.startswith("fcn")}


@pytest.mark.parametrize(
    ("name", "net", "last"),
    [
        ("caffenet", "fcn32s-alexnet", "fc8"),
        ("alexnet-bvlc", "fcn32s-alexnet-bvlc", "fc8"),
        ("vgg16", "fcn8s-vgg16", "fc8"),
        ("googlenet", "fcn16s-googlenet", "loss3/classifier"),
    ],
)
def test_classifier_files_become_trunks(name: str, net: str, last: str, tmp_path: Path) -> None:
    """V1 with legacy shapes, as such files are; the trunk, kept a classifier, gives the classifier's own logits."""
    side = CLASSIFIERS[name]
    oracle = caffe_net(name, (side, side), width=1 / 8, seed=4)
    image = np.random.default_rng(5).integers(0, 256, (side, side, 3)).astype(np.uint8)
    mean = (104, 117, 123) if name == "googlenet" else BGR["voc"]
    prepared = (image[:, :, ::-1] - np.array(mean)).astype(np.float32).transpose(2, 0, 1).copy()
    (expected,) = opencv_scores(oracle, {next(iter(oracle.inputs)): prepared}, tmp_path).values()
    write_caffemodel(tmp_path / "c.caffemodel", old_types(oracle), v1=True, legacy_shapes=True)
    report = convert(tmp_path / "c.caffemodel", net, tmp_path / "m.safetensors", width=1 / 8)
    assert f"{last} (InnerProduct)" in report.dropped
    fcn = Model.load(tmp_path / "m.safetensors").net
    assert report.zero == tuple(key for key in fcn.state_dict() if key.startswith("heads."))
    classifier = Classifier(fcn.options.trunk, width=1 / 8).eval()
    classifier.trunk.load_state_dict(fcn.trunks["image"].state_dict())
    weight, bias = next(blobs for layer, _, blobs in oracle.layers if layer == last)
    with torch.inference_mode():
        classifier.score.weight.copy_(torch.from_numpy(weight)[:, :, None, None])
        classifier.score.bias.copy_(torch.from_numpy(bias))
        logits = classifier(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])[0].numpy()
    assert logits.shape == (1000, 1, 1)
    assert np.abs(logits.ravel() - expected.ravel()).max() / np.abs(expected).max() < 1e-4
