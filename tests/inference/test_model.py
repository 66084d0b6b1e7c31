"""Model and Prediction against the net itself and torch's softmax."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fullconv
from fullconv.errors import DataError, GeometryError, ModelFileError, OptionError
from fullconv.inference.model import SMALL, Model, drawable, load
from fullconv.labels import LabelSet
from fullconv.nets import FCN, InputOptions, build
from makers import save

LABELS = LabelSet(("ground", "road", "car"), ((10, 20, 30), (255, 0, 0), (0, 0, 255)))


def make_net(**options: object) -> FCN:
    torch.manual_seed(1)
    net = build("fcn8s-slim", options.pop("classes", 3), width=0.1, **options)  # type: ignore[arg-type]
    for name, parameter in net.heads.named_parameters():
        if "upscore" not in name:
            nn.init.normal_(parameter)
    return net.eval()


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_net(), LABELS)


@pytest.fixture(scope="module")
def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (41, 70, 3), dtype=np.uint8)


def plain(net: FCN, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """Full scores (K, H, W), straight from the net."""
    with torch.no_grad():
        scores = net(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    assert isinstance(scores, torch.Tensor)
    return scores[0]


@pytest.mark.parametrize("upsampling", ["bilinear", "learned", "learned-all"])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (41, 70), (130, 40)])
def test_labels_scores_and_confidence_are_those_of_the_full_scores(upsampling: str, size: tuple[int, int]) -> None:
    net = make_net(upsampling=upsampling)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    scores = plain(net, image)
    model = Model(net)
    prediction = model.predict(image)
    assert prediction.labels.dtype == np.uint8
    assert np.array_equal(prediction.labels, scores.argmax(0).numpy())
    assert len(np.unique(prediction.labels)) > 1 or min(size) == 1
    np.testing.assert_allclose(prediction.scores(), scores.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.scores(image), scores.numpy(), rtol=1e-5, atol=1e-5)
    expected = torch.softmax(scores, 0).max(0).values.numpy()
    assert prediction.confidence().dtype == np.float32
    np.testing.assert_allclose(prediction.confidence(), expected, rtol=1e-4, atol=1e-5)


def test_areas_are_the_shares_of_the_labels(model: Model, picture: np.ndarray) -> None:
    prediction = model.predict(picture)
    areas = prediction.areas()
    assert list(areas) == ["ground", "road", "car"]
    assert sum(areas.values()) == pytest.approx(1)
    for number, name in enumerate(areas):
        assert areas[name] == (prediction.labels == number).sum() / (41 * 70)


def test_every_form_of_an_image_gives_the_same(model: Model, picture: np.ndarray, tmp_path: Path) -> None:
    expected = model.predict(picture).labels
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    np.save(tmp_path / "a.npy", picture)
    alpha = np.concatenate([picture, np.full((41, 70, 1), 9, np.uint8)], axis=2)
    flipped = np.ascontiguousarray(picture[:, ::-1])[:, ::-1]  # the same pixels through negative strides
    forms = (path, str(path), tmp_path / "a.npy", Image.open(path), Image.fromarray(alpha), alpha, flipped)
    for form in (*forms, {"image": picture}):
        assert np.array_equal(model.predict(form).labels, expected)


def test_grey_is_colour_of_equal_channels(model: Model, picture: np.ndarray) -> None:
    grey = picture[:, :, :1]
    expected = model.predict(np.repeat(grey, 3, axis=2)).labels
    for form in (grey, grey[:, :, 0], Image.fromarray(grey[:, :, 0])):
        assert np.array_equal(model.predict(form).labels, expected)


def test_bfloat16_gives_float32_and_nearly_the_same_labels(model: Model, picture: np.ndarray) -> None:
    exact, near = model.predict(picture), model.predict(picture, "bfloat16")
    assert near.scores().dtype == np.float32
    assert not np.array_equal(exact.scores(), near.scores())
    assert (exact.labels == near.labels).mean() > 0.9


def test_a_model_file_gives_the_same_model_back(model: Model, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    Model(model.net, LABELS, {"seed": 1}, {"val": {"mean_iu": 0.5}}).save(path)
    for again in (load(path), Model.load(str(path)), fullconv.load(path)):
        assert again.labels == LABELS
        assert (again.training, again.metrics) == ({"seed": 1}, {"val": {"mean_iu": 0.5}})
        assert np.array_equal(again.predict(picture).scores(), model.predict(picture).scores())
    with pytest.raises(ModelFileError, match=r"none.safetensors does not exist"):
        load(tmp_path / "none.safetensors")


def test_masks_are_saved_with_their_colours(model: Model, picture: np.ndarray, tmp_path: Path) -> None:
    prediction = model.predict(picture)
    prediction.save(tmp_path / "sub" / "mask.png")
    with Image.open(tmp_path / "sub" / "mask.png") as mask:
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), prediction.labels)
        assert np.array_equal(np.asarray(mask.convert("RGB")), np.array(LABELS.colours, np.uint8)[prediction.labels])


def test_overlays_colour_the_classes_and_leave_the_background(model: Model, picture: np.ndarray) -> None:
    prediction = model.predict(picture)
    shown = prediction.overlay(0.25)
    assert shown.shape == picture.shape
    ground = prediction.labels == 0
    assert np.array_equal(shown[ground], picture[ground])
    colours = np.array(LABELS.colours)[prediction.labels[~ground]]
    assert np.abs(shown[~ground] - (0.75 * picture[~ground] + 0.25 * colours)).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_inputs_of_other_channels(channels: int) -> None:
    model = Model(make_net(channels=channels))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    prediction = model.predict(image)
    assert np.array_equal(prediction.labels, plain(model.net, image).argmax(0).numpy())
    assert np.array_equal(prediction.overlay(0), np.repeat(image[:, :, :1], 3, axis=2)), "the first channel as grey"
    message = rf"image 'image' is RGB; the net takes an \(H, W, {channels}\) uint8 array"
    with pytest.raises(OptionError, match=message):
        model.predict(Image.fromarray(image[:, :, 0]))


def test_drawable_keeps_colour_and_grey() -> None:
    for channels, kept in ((1, 1), (2, 1), (3, 3), (4, 1), (7, 1)):
        image = np.arange(2 * 2 * channels, dtype=np.uint8).reshape(2, 2, channels)
        options = InputOptions((0,) * channels, (1,) * channels)
        assert np.array_equal(drawable(image, options), image[:, :, :kept])


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("preview", "chosen"), [((2, 9, 4), [3, 0, 1]), ((4,), [1]), ((), [0])])
def test_drawable_shows_the_preview(kind: str, preview: tuple[int, ...], chosen: list[int]) -> None:
    options = InputOptions((10, 20, 30, 40), (1, 2, 3, 4), bands=(9, 4, 7, 2), preview=preview)
    image = np.random.default_rng(0).integers(0, 60, (5, 6, 4)).astype(kind)
    found = drawable(image, options)
    assert (found.dtype, found.shape) == (np.uint8, (5, 6, len(chosen)))
    for place, channel in enumerate(chosen):
        if kind == "uint8":
            assert np.array_equal(found[:, :, place], image[:, :, channel]), "pictures are as they are"
            continue
        deviations = (image[:, :, channel].astype(float) - (10, 20, 30, 40)[channel]) / (1, 2, 3, 4)[channel]
        assert np.abs(found[:, :, place] - np.interp(deviations, [-2, 2], [0, 255])).max() <= 1


def test_three_measured_channels_without_a_preview_are_a_picture() -> None:
    options = InputOptions((100, 200, 300), (10, 20, 30))
    image = np.array([[[100, 160, 1e9], [120, 240, -1e9]]], np.float32)
    assert drawable(image, options).tolist() == [[[127, 0, 255], [255, 255, 0]]]


def test_depth_is_drawn_by_its_logarithm() -> None:
    options = InputOptions((np.log(1000.0),), (np.log(2.0),), log=True)
    found = drawable(np.array([[[0], [250], [1000], [4000], [60_000]]], np.uint16), options)
    assert np.abs(found[0, :, 0] - np.array([0, 0, 127.5, 255, 255])).max() <= 1


def test_bands_are_checked() -> None:
    inputs = {"image": InputOptions((0, 0), (1, 1), bands=(3, 1))}
    model = Model(make_net(inputs=inputs))
    values = np.random.default_rng(0).normal(0, 3, (20, 30, 2))
    found = model.inputs(values)["image"]
    assert found.dtype == np.float32
    assert np.array_equal(found, values.astype(np.float32))
    expected = "expected an array of (H, W, 2) numbers, such as the bands of the files it was trained on"
    for wrong, told in (
        (values[:, :, 0], "float64 of shape (20, 30)"),
        (np.zeros((20, 30, 3), np.uint8), "uint8 of shape (20, 30, 3)"),
        (values > 0, "bool of shape (20, 30, 2)"),
        (Image.new("RGB", (3, 4)), "Image"),
    ):
        with pytest.raises(OptionError) as caught:
            model.predict(wrong)
        assert str(caught.value) == f"input 'image' is {told}; {expected}"
    values[3, 4, 1] = np.nan
    with pytest.raises(OptionError, match="input 'image' is not two-dimensional or not finite; put 0 where nothing"):
        model.predict(values)


def test_bands_from_files(tmp_path: Path) -> None:
    model = Model(make_net(inputs={"image": InputOptions((0, 0), (1, 1), bands=(3, 1))}))
    values = np.random.default_rng(0).normal(0, 3, (20, 30, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    expected = model.predict(values[:, :, [2, 0]]).labels
    for path in (tmp_path / "a.npy", str(tmp_path / "a.npy")):
        assert np.array_equal(model.predict(path).labels, expected)
    np.save(tmp_path / "b.npy", values[:, :, :2])
    with pytest.raises(DataError, match=r"b.npy: has 2 bands, and band 3 is asked for"):
        model.predict(tmp_path / "b.npy")
    Image.new("RGB", (3, 4)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"c.png: is no TIFF; rasters of chosen bands are TIFF or .npy files"):
        model.predict(tmp_path / "c.png")


def test_depth_from_a_file(tmp_path: Path) -> None:
    model = Model(make_net(inputs={"image": InputOptions((7.5,), (1,), log=True, bands=(1,))}))
    depth = np.random.default_rng(0).integers(0, 9000, (20, 30), dtype=np.uint16)
    np.save(tmp_path / "a.npy", depth)
    assert np.array_equal(model.predict(tmp_path / "a.npy").scores(), model.predict(depth).scores())


def test_several_inputs_and_tasks() -> None:
    torch.manual_seed(0)
    net = build("fcn8s-slim", {"kind": 3, "ground": 2}, channels={"colour": 3, "depth": 1}, width=0.1).eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter)
    model = Model(net, {"kind": LABELS, "ground": LabelSet(("no", "yes"))})
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (9, 8, c), dtype=np.uint8) for name, c in (("colour", 3), ("depth", 1))}
    with torch.no_grad():
        scores = net({name: torch.from_numpy(image).permute(2, 0, 1)[None] for name, image in images.items()})
    assert isinstance(scores, dict)
    tasks = model.predict_tasks(images)
    assert list(tasks) == ["kind", "ground"]
    for task, prediction in tasks.items():
        assert np.array_equal(prediction.labels, scores[task][0].argmax(0).numpy())
        assert list(prediction.areas()) == list(model.label_sets[task].names)
    assert np.array_equal(model.predict(images).labels, tasks["kind"].labels)
    with pytest.raises(OptionError, match="images for colour; the net's inputs are colour, depth"):
        model.predict({"colour": images["colour"]})
    with pytest.raises(OptionError, match="images for colour; the net's inputs are colour, depth"):
        model.predict(images["colour"])
    with pytest.raises(GeometryError, match=r"'depth' has shape \(1, 1, 9, 7\) beside"):
        model.predict({**images, "depth": images["depth"][:, :7]})


def test_depth_in_millimetres(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("nyud-fcn32s-color-d", width=1 / 16).eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter, 0, 0.05)
    model, rng = Model(net), np.random.default_rng(0)
    color, depth = rng.integers(0, 256, (30, 20, 3), dtype=np.uint8), rng.integers(0, 9000, (30, 20))
    with torch.no_grad():
        expected = net(
            {
                "color": torch.from_numpy(color).permute(2, 0, 1)[None],
                "depth": torch.from_numpy(depth).float()[None, None],
            }
        )
    for values in (depth.astype(np.uint16), depth.astype(float)[:, :, None], depth):
        prediction = model.predict({"color": color, "depth": values})
        assert np.array_equal(prediction.labels, expected[0].argmax(0).numpy())
    found = r"input 'depth' is uint8 of shape \(30, 20, 3\); expected an array of \(H, W\) numbers, such as depth in mm"
    with pytest.raises(OptionError, match=found):
        model.predict({"color": color, "depth": color})
    save(tmp_path / "depth.png", depth.astype(np.uint16))
    read = model.predict({"color": color, "depth": tmp_path / "depth.png"})
    assert np.array_equal(read.labels, expected[0].argmax(0).numpy())
    with pytest.raises(OptionError, match="input 'depth' is not two-dimensional or not finite; put 0 where"):
        model.predict({"color": color, "depth": np.full((30, 20), np.inf)})


def test_labels_without_names_are_numbered() -> None:
    model = Model(make_net(classes=4))
    assert model.labels == LabelSet.numbered(4)


@pytest.mark.parametrize("labels", [LabelSet.numbered(2), LabelSet.numbered(4), {"other": LABELS}, {}])
def test_labels_that_do_not_fit_are_refused(labels: LabelSet | dict[str, LabelSet]) -> None:
    with pytest.raises(OptionError, match=r"labels for .*; the net has \{'semantic': 3\}"):
        Model(make_net(), labels)


def test_images_that_are_none(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing.jpg: no such file"):
        model.predict(tmp_path / "missing.jpg")
    with pytest.raises(DataError, match="an image is a path, a PIL image or"):
        model.predict(torch.zeros(3, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="float64"):
        model.predict(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises((DataError, GeometryError), match=r"\b0\b"):
        model.predict(np.zeros((0, 4, 3), np.uint8))


def test_the_nets_mode_stays(picture: np.ndarray) -> None:
    net = make_net().train()
    Model(net).predict(picture)
    assert net.training


class TestEngine:
    def test_is_made_once_for_a_precision(self) -> None:
        model = Model(make_net())
        assert model.engine() is model.engine()
        assert model.engine("bfloat16") is not model.engine()
        with pytest.raises(OptionError, match="precision"):
            model.engine("float8")

    @pytest.mark.parametrize("through_data", [False, True])
    def test_changed_weights_count(
        self, through_data: bool, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> None:
        model = Model(make_net())
        before = model.scores(picture)
        for weight in model.net.heads.parameters():
            if through_data:
                weight.data.mul_(0.5)  # which torch does not count as a change
            else:
                with torch.no_grad():
                    weight.mul_(0.5)
        np.testing.assert_allclose(model.scores(picture), plain(model.net, picture).numpy(), rtol=1e-4, atol=1e-4)
        assert not np.allclose(model.scores(picture), before)

    def test_any_number_of_a_small_weight_counts(self) -> None:
        model = Model(make_net())
        weight = max((each for each in model.net.parameters() if each.numel() <= SMALL), key=torch.Tensor.numel)
        assert weight.numel() > 1000
        before = model.engine()
        weight.data[-1, -1, -1, -1] += 1
        assert model.engine() is not before

    def test_weights_that_are_no_numbers_are_still_the_same(self) -> None:
        model = Model(make_net())
        next(model.net.parameters()).data.fill_(torch.nan)
        assert model.engine() is model.engine()

    def test_the_precision_that_auto_means_has_one_engine(self) -> None:
        model = Model(make_net())
        chosen = model.engine("auto")
        assert model.engine(chosen.precision) is chosen

    def test_a_model_that_was_used_can_be_copied(
        self, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> None:
        model = Model(make_net(), LABELS)
        expected = model.predict(picture).labels
        other = copy.deepcopy(model)
        assert other.net is not model.net
        assert np.array_equal(other.predict(picture).labels, expected)
