"""From rasters of many bands to a model that reads them: normalised by the data, resumed, chosen among inputs."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from command import Run, one_line
from fullconv.data.bands import BandsReader
from fullconv.data.mask import MaskReader
from fullconv.data.sample import IMAGE, SEMANTIC, InputKind, Sample
from fullconv.data.scenes import FileDataset, Input, Scene, Task
from fullconv.errors import OptionError
from fullconv.inference.evaluate import evaluate
from fullconv.inference.model import Model, load
from fullconv.inference.predict import predict
from fullconv.labels import LabelSet
from fullconv.nets import InputOptions
from fullconv.training.context import Trained
from fullconv.training.loading import Loader
from fullconv.training.progress import Tick
from fullconv.training.recipes import RECIPES
from fullconv.training.splits import open_splits
from fullconv.training.train import train
from inmemory import LABELS, InMemory, one
from makers import save, scene

NET: dict[str, Any] = {"net": "fcn1s-slim", "net_options": {"width": 0.1}, "precision": "float32"}
SIZE = (20, 24)


def five_bands(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """(H, W, 5) uint16, of each band in its own range, and the mask: classes differ in band 4."""
    image, mask = scene(seed, size=size)
    noise = np.random.default_rng(seed).integers(0, 200, (*size, 5))
    values = noise + np.array([1000, 2000, 3000, 4000, 50_000])
    values[:, :, 3] += 2000 * (mask % 255).astype(int)
    values[:, :, 0] += image[:, :, 0]
    return values.astype(np.uint16), mask


def write(path: Path, values: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"height": values.shape[0], "width": values.shape[1], "count": values.shape[2], "dtype": values.dtype}
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_600_000)
    with rasterio.open(path, "w", driver="GTiff", compress="deflate", transform=place, **shape) as raster:
        raster.write(np.moveaxis(values, 2, 0))


def make_rasters(root: Path, count: int = 4, text: str = "preview: [4, 2, 1]") -> Path:
    """A YAML file and its TIFFs: `count` to train on and two to score."""
    for seed in range(count + 2):
        split = "train" if seed < count else "val"
        values, mask = five_bands(seed)
        write(root / "images" / split / f"{seed}.tif", values)
        save(root / "masks" / split / f"{seed}.png", mask)
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nval: images/val\nnames: [a, b, c]\n{text}\n")
    return path


class Stop:
    """A listener that presses Ctrl-C when so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self, tick: Tick) -> None:
        self.left -= tick.phase == "train"
        if self.left == 0 and tick.phase == "train":
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    root = tmp_path_factory.mktemp("rasters")
    return root, train(make_rasters(root / "data"), out=root / "run", steps=2, **NET)


def test_the_net_is_normalised_by_the_data(trained: tuple[Path, Trained]) -> None:
    _, run = trained
    options = Model.load(run.model).net.options.inputs[IMAGE]
    every = np.concatenate([five_bands(seed)[0].reshape(-1, 5) for seed in range(4)]).astype(np.float64)
    np.testing.assert_allclose(options.mean, every.mean(0), rtol=1e-12)
    np.testing.assert_allclose(options.std, every.std(0), rtol=1e-9)
    assert (options.bands, options.preview, options.log) == ((1, 2, 3, 4, 5), (4, 2, 1), False)
    written = yaml.safe_load((run.path / "run.yaml").read_text())["net"]["inputs"]["image"]
    assert written["bands"] == [1, 2, 3, 4, 5]
    assert written["mean"] == list(options.mean)


def test_a_file_and_its_array_have_equal_scores(trained: tuple[Path, Trained]) -> None:
    root, run = trained
    model = load(run.model)
    for parameter in model.net.heads.parameters():
        torch.nn.init.normal_(parameter)
    path = root / "data" / "images" / "val" / "4.tif"
    values, _ = five_bands(4)
    expected = model.scores(path)
    assert expected.shape == (3, *SIZE)
    assert np.ptp(expected) > 0
    for form in (str(path), values, values.astype(np.float64), {"image": path}, {"image": values.astype(np.int32)}):
        assert np.array_equal(model.scores(form), expected)
    with torch.no_grad():
        bare = model.net(torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1)[None])
    assert isinstance(bare, torch.Tensor)
    np.testing.assert_allclose(bare[0].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_drawn_are_the_preview_bands(trained: tuple[Path, Trained], tmp_path: Path) -> None:
    root, run = trained
    path = root / "data" / "images" / "val" / "4.tif"
    model = Model.load(run.model)
    options = model.net.options.inputs[IMAGE]
    values, _ = five_bands(4)
    chosen = [3, 1, 0]
    stretched = (values[:, :, chosen] - np.array(options.mean)[chosen]) / np.array(options.std)[chosen]
    expected = np.clip(127.5 + 255 * stretched / 4, 0, 255)
    prediction = model.predict(path)
    assert (prediction.image.dtype, prediction.image.shape) == (np.uint8, (*SIZE, 3))
    assert np.abs(prediction.image - expected).max() <= 1.01
    outcome = predict(model, path, tmp_path / "4.png", overlay=True)
    assert (outcome.failures, len(outcome.written)) == ([], 1)
    with Image.open(tmp_path / "4_overlay.png") as picture:
        assert np.array_equal(np.asarray(picture), prediction.overlay())
    previews = sorted((run.path / "previews").glob("*.png"))
    assert [each.name for each in previews] == ["4.png", "5.png"]
    with Image.open(previews[0]) as picture:
        shown = np.asarray(picture)
    scale = 256 // SIZE[1]
    assert np.array_equal(shown[: SIZE[0] * scale : scale, : SIZE[1] * scale : scale], prediction.image)


def test_it_learns_from_a_band_that_no_picture_has(tmp_path: Path) -> None:
    run = train(make_rasters(tmp_path), out=tmp_path / "r", steps=120, lr=0.03, **NET)
    assert run.scores is not None
    assert run.scores.pixel_accuracy > 0.9
    again = evaluate(Model.load(run.model), tmp_path / "data.yaml", "val")
    assert again.scores == run.scores


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    data = make_rasters(tmp_path / "d", text="bands: [5, 4, 1]\npreview: 4\ntile: 16")
    options = {**NET, "data": data, "steps": 6, "crop": (12, 12), "scale": (0.7, 1.5), "jitter": 0.3, "seed": 3}
    train(out=tmp_path / "whole", **options)
    stopped = train(out=tmp_path / "parts", listener=Stop(3), **options)
    assert (stopped.stopped, stopped.steps) == (True, 3)
    again = train(data, out=tmp_path / "parts", resume=True)
    assert (again.stopped, again.steps) == (False, 6)
    expected, found = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert Model.load(again.model).net.options.inputs[IMAGE].bands == (5, 4, 1)


def test_images_of_several_sizes_are_filled_by_their_means() -> None:
    samples = [
        Sample(f"s{i}", {IMAGE: five_bands(i, size)[0]}, {SEMANTIC: five_bands(i, size)[1]})
        for i, size in enumerate([(12, 16), (9, 20)])
    ]
    data = InMemory(samples, inputs={IMAGE: InputKind(5, (1, 2, 3, 4, 5))})
    plain = replace(RECIPES["scratch"].augmentation, crop=None, scale=(1.0, 1.0), flip=False, jitter=0.0)
    (batch,) = Loader(data, [sample.size for sample in samples], plain, 0)([(0, 0), (0, 1)])
    for filled, sample in zip(batch.inputs[IMAGE], samples, strict=True):
        height, width = sample.size
        assert (filled.shape, filled.dtype) == ((12, 20, 5), np.uint16)
        assert np.array_equal(filled[:height, :width], sample.inputs[IMAGE])
        mean = sample.inputs[IMAGE].astype(np.float64).mean((0, 1))
        for margin in (filled[height:], filled[:, width:]):
            assert margin.size == 0 or np.abs(margin - mean).max() <= 1
    assert [int((mask == 255).sum()) for mask in batch.masks[SEMANTIC]] == [12 * 20 - 11 * 16, 12 * 20 - 8 * 20]


def colour_and_depth(root: Path, count: int = 4) -> tuple[FileDataset, FileDataset]:
    """Pictures and depth in mm, by file."""
    scenes = []
    for seed in range(count):
        image, mask = scene(seed, size=SIZE)
        names = {"color": root / "color" / f"{seed}.png", "depth": root / "depth" / f"{seed}.npy"}
        save(names["color"], image)
        names["depth"].parent.mkdir(exist_ok=True)
        np.save(names["depth"], (1000 + 500 * (mask % 255).astype(int)).astype(np.uint16))
        save(root / "masks" / f"{seed}.png", mask)
        scenes.append(Scene(f"s{seed}", names, {SEMANTIC: root / "masks" / f"{seed}.png"}))
    inputs = {"color": Input(), "depth": Input(BandsReader((1,)), InputKind(1, (1,), (1,), log=True))}
    task = {SEMANTIC: Task(LABELS, MaskReader(len(LABELS)))}
    return (
        FileDataset("scenes", "train", scenes[:-1], task, inputs),
        FileDataset("scenes", "val", scenes[-1:], task, inputs),
    )


def test_inputs_are_chosen(tmp_path: Path) -> None:
    data = colour_and_depth(tmp_path)
    for path in (tmp_path / "depth").iterdir():
        path.unlink()
    run = train(data, out=tmp_path / "colour", steps=1, inputs=["color"], **NET)
    assert list(Model.load(run.model).net.options.inputs) == ["color"]
    colour_and_depth(tmp_path)
    run = train(data, out=tmp_path / "both", steps=1, **NET)
    inputs = Model.load(run.model).net.options.inputs
    assert list(inputs) == ["color", "depth"]
    depth = np.log([np.load(path) for path in sorted((tmp_path / "depth").iterdir())[:3]])
    assert inputs["depth"].mean == pytest.approx([depth.mean()])
    assert inputs["depth"].std == pytest.approx([depth.std()])
    assert (inputs["depth"].log, inputs["depth"].bands) == (True, (1,))
    again = train(data, str(run.model), out=tmp_path / "again", steps=1)
    assert Model.load(again.model).net.options.inputs == inputs
    only = train(
        data, str(tmp_path / "colour" / "best.safetensors"), out=tmp_path / "only", steps=1, precision="float32"
    )
    assert list(Model.load(only.model).net.options.inputs) == ["color"], "a model takes the inputs that it had"


def test_a_resumed_run_keeps_its_choice(tmp_path: Path) -> None:
    data = colour_and_depth(tmp_path)
    train(data, out=tmp_path / "r", steps=2, inputs=["depth"], listener=Stop(1), **NET)
    again = train(data, out=tmp_path / "r", resume=True)
    assert again.steps == 2
    assert list(Model.load(again.model).net.options.inputs) == ["depth"]
    with pytest.raises(OptionError, match="a resumed run keeps its options; leave out inputs, or start a new run"):
        train(data, out=tmp_path / "r", resume=True, inputs=["color"])


def test_a_choice_that_is_not_there(tmp_path: Path) -> None:
    data = colour_and_depth(tmp_path)
    with pytest.raises(OptionError, match=r"unknown input of scenes 'dept'; did you mean 'depth'\? Choices: color, de"):
        train(data, out=tmp_path / "r", steps=1, inputs=["color", "dept"], **NET)
    arrays = InMemory([one(0)], inputs={IMAGE: InputKind(), "depth": InputKind(1)})
    with pytest.raises(OptionError, match="arrays: has the inputs image, depth, the net takes image; use data with"):
        train((arrays, arrays), out=tmp_path / "r", steps=1, inputs=["image"], **NET)
    assert not (tmp_path / "r" / "metrics.csv").exists()


def test_the_command_names_the_choices(tmp_path: Path, run: Run) -> None:
    path = make_rasters(tmp_path)
    line = one_line(run("train", "--data", path, "--inputs", "colour", "--steps", "1", "--out", tmp_path / "r"), 2)
    assert line == f"unknown input of {path} 'colour'. Choices: image"


@pytest.mark.parametrize(
    ("net", "expected"),
    [("nyud-fcn32s-color", ["color"]), ("nyud-fcn32s-color-d", ["color", "depth"])],
)
def test_published_nets_take_their_own_inputs(tmp_path: Path, net: str, expected: list[str]) -> None:
    train_, val = colour_and_depth(tmp_path)
    forty = {SEMANTIC: Task(LabelSet.numbered(40), MaskReader(40))}
    data = (
        FileDataset("nyud", "train", train_.scenes, forty, train_.sources),
        FileDataset("nyud", "val", val.scenes, forty, val.sources),
    )
    run = train(
        data, net, out=tmp_path / "r", steps=1, precision="float32", net_options={"width": 1 / 32, "padding": "same"}
    )  # fmt: skip
    inputs = Model.load(run.model).net.options.inputs
    assert list(inputs) == expected
    assert inputs["color"] == InputOptions((92.318, 97.203, 116.190), (1, 1, 1), "bgr"), "as it was published"
    splits = open_splits(data, inputs=expected)
    assert list(splits.train.dataset.inputs) == expected
