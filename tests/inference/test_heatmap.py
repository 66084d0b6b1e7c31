"""Heat maps, with classifiers whose answers are known by construction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import fullconv
from fullconv.data.image import read_image
from fullconv.errors import DataError, OptionError
from fullconv.inference.heatmap import LEAST_SCALE, DenseModel, Heatmap, class_number, heatmaps, save_heatmaps
from fullconv.inference.model import Model
from fullconv.labels import LabelSet
from fullconv.nets import InputOptions, build
from fullconv.nets.dense_classifier import convolutionalize

WINDOW, STRIDE = 16, 4
NAMES = ("dark thing", "grey thing", "bright square")
GAINS, BIASES = (-6.0, 0.0, 8.0), (0.0, 1.0, -2.0)


def detector(*tail: nn.Module, channels: int = 3) -> nn.Sequential:
    """Logit k of a window is GAINS[k] mean + BIASES[k], of its normalised pixels' mean."""
    cells = nn.Conv2d(channels, 1, STRIDE, STRIDE)
    linear = nn.Linear((WINDOW // STRIDE) ** 2, 3)
    with torch.no_grad():
        cells.weight.fill_(1 / (channels * STRIDE**2))
        cells.bias.zero_()
        linear.weight.copy_(torch.tensor(GAINS)[:, None].expand(3, 16) / 16)
        linear.bias.copy_(torch.tensor(BIASES))
    return nn.Sequential(cells, nn.Flatten(), linear, *tail)


def inputs(channels: int = 3) -> InputOptions:
    return InputOptions((100.0,) * channels, (50.0,) * channels)


def dense(*tail: nn.Module, channels: int = 3) -> DenseModel:
    net = fullconv.convolutionalize(detector(*tail, channels=channels), WINDOW, names=NAMES, inputs=inputs(channels))
    return DenseModel(net)


def expected(image: np.ndarray) -> np.ndarray:
    """(3, h, w): the softmax of every window's logits, window by window."""
    height, width = image.shape[:2]
    rows, columns = range(0, height - WINDOW + 1, STRIDE), range(0, width - WINDOW + 1, STRIDE)
    result = np.empty((3, len(rows), len(columns)))
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            mean = ((image[y : y + WINDOW, x : x + WINDOW].astype(float) - 100) / 50).mean()
            powers = np.exp([gain * mean + bias for gain, bias in zip(GAINS, BIASES, strict=True)])
            result[:, i, j] = powers / powers.sum()
    return result


def picture(height: int = 45, width: int = 61, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 160, (height, width, 3)).astype(np.uint8)


def with_square(row: int, column: int) -> np.ndarray:
    image = np.full((48, 72, 3), 90, np.uint8)
    image[row : row + WINDOW, column : column + WINDOW] = 255
    return image


def placed(values: np.ndarray, window: tuple[int, int] = (4, 4), stride: tuple[int, int] = (2, 2)) -> Heatmap:
    height = window[0] + stride[0] * (values.shape[0] - 1)
    width = window[1] + stride[1] * (values.shape[1] - 1)
    return Heatmap("a", values.astype(np.float32), np.zeros((height + 1, width, 3), np.uint8), window, stride)


class TestClassifier:
    def test_cells_are_the_windows_probabilities(self) -> None:
        image = picture()
        maps = {each.name: each for each in dense().top(image)}
        assert set(maps) == set(NAMES)
        for name, values in zip(NAMES, expected(image), strict=True):
            assert maps[name].cells.dtype == np.float32
            np.testing.assert_allclose(maps[name].cells, values, atol=1e-5)

    @pytest.mark.parametrize("tail", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1)])
    def test_a_classifier_that_ends_in_a_softmax_gets_no_second_one(self, tail: nn.Module) -> None:
        image = picture()
        np.testing.assert_allclose(
            dense(tail).heatmap(image, NAMES[2]).cells, dense().heatmap(image, NAMES[2]).cells, atol=1e-6
        )

    @pytest.mark.parametrize("place", [(0, 0), (8, 24), (32, 56), (12, 4)])
    def test_the_peak_is_at_the_square(self, place: tuple[int, int]) -> None:
        found = dense().heatmap(with_square(*place), "bright")
        assert found.name == "bright square"
        assert found.position == place
        assert (found.window, found.stride) == ((WINDOW, WINDOW), (STRIDE, STRIDE))
        row, column = place
        hottest = np.unravel_index(found.pixels().argmax(), (48, 72))
        assert row <= hottest[0] < row + WINDOW
        assert column <= hottest[1] < column + WINDOW
        assert found.peak == found.cells.max() == pytest.approx(expected(with_square(*place))[2].max(), abs=1e-5)

    def test_the_top_classes_are_in_the_order_of_their_peaks(self) -> None:
        image = with_square(8, 24)
        peaks = expected(image).max(axis=(1, 2))
        order = [NAMES[k] for k in np.argsort(-peaks)]
        model = dense()
        assert [each.name for each in model.top(image)] == order
        assert [each.name for each in model.top(image, 2)] == order[:2]
        for each in model.top(image, 1):
            assert each.peak == pytest.approx(peaks.max(), abs=1e-5)

    def test_an_image_of_one_window(self) -> None:
        image = picture(WINDOW, WINDOW)
        found = dense().heatmap(image, NAMES[0])
        assert found.cells.shape == (1, 1)
        assert (found.pixels() == found.cells[0, 0]).all()
        assert found.overlay().shape == (WINDOW, WINDOW, 3)

    def test_grey(self) -> None:
        grey = picture()[:, :, 0]
        image = grey[:, :, None].repeat(3, axis=2)
        np.testing.assert_allclose(
            dense(channels=1).heatmap(grey, NAMES[2]).cells, dense().heatmap(image, NAMES[2]).cells, atol=1e-6
        )

    def test_the_net_is_left_as_it_was(self) -> None:
        model = dense()
        model.net.train()
        model.heatmap(picture(), NAMES[0])
        assert all(part.training for part in model.net.modules())

    def test_files_and_pictures_of_any_kind(self, tmp_path: Path) -> None:
        image = picture()
        Image.fromarray(image).save(tmp_path / "a.png")
        cells = [dense().heatmap(each, NAMES[0]).cells for each in (image, tmp_path / "a.png", Image.fromarray(image))]
        assert (cells[0] == cells[1]).all()
        assert (cells[0] == cells[2]).all()

    def test_a_file_gives_the_same(self, tmp_path: Path) -> None:
        model, image = dense(), picture()
        model.save(tmp_path / "m.safetensors")
        again = fullconv.load(tmp_path / "m.safetensors")
        assert isinstance(again, DenseModel)
        assert repr(again) == "DenseModel(3 classes, windows of 16 x 16 every 4 x 4 pixels)"
        assert (again.heatmap(image, NAMES[1]).cells == model.heatmap(image, NAMES[1]).cells).all()

    def test_refusals(self, tmp_path: Path) -> None:
        model = dense()
        with pytest.raises(
            DataError, match=r"^the image is 15 x 40 pixels \(H x W\), the classifier takes 16 x 16 or more; enlarge it"
        ):
            model.top(picture(15, 40))
        Image.fromarray(picture(16, 9)).save(tmp_path / "small.png")
        with pytest.raises(DataError, match=r"small.png: the image is 16 x 9 pixels"):
            model.heatmap(tmp_path / "small.png", NAMES[0])
        with pytest.raises(DataError, match="the image is in colour, the classifier takes grey; convert it"):
            dense(channels=1).top(picture())
        with pytest.raises(OptionError, match="0 classes; expected at least 1"):
            model.top(picture(), 0)
        with pytest.raises(OptionError, match=r"does not know how .* normalised; .* inputs=InputOptions\(mean, std\)"):
            DenseModel(fullconv.convolutionalize(detector(), WINDOW)).top(picture())
        depth = fullconv.convolutionalize(detector(channels=1), WINDOW, inputs=InputOptions((7.0,), (1.0,), log=True))
        two = fullconv.convolutionalize(detector(channels=2), WINDOW, inputs=inputs(2))
        for net in (depth, two):
            with pytest.raises(OptionError, match="takes no pictures in colour or grey; call its net with a tensor"):
                DenseModel(net).top(picture())


class TestPixels:
    def test_by_hand(self) -> None:
        # Windows of 4 every 2 pixels: their centres are at 1.5 and 3.5.
        found = placed(np.array([[0.0, 1.0]]))
        assert found.pixels().dtype == np.float32
        assert found.pixels().tolist() == [[0, 0, 0.25, 0.75, 1, 1]] * 5

    def test_an_odd_window_has_its_centre_on_a_pixel(self) -> None:
        found = placed(np.array([[0.0], [0.5], [1.0]]), (3, 1), (4, 1))
        assert found.pixels()[:, 0].tolist() == [0, 0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 1]

    @given(
        st.integers(1, 5), st.integers(1, 5), st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 99),
    )  # fmt: skip
    def test_equals_interpolation_along_each_axis(
        self, h: int, w: int, window: tuple[int, int], stride: tuple[int, int], seed: int
    ) -> None:
        cells = np.random.default_rng(seed).random((h, w))
        found = placed(cells, window, stride)
        height, width = found.image.shape[:2]
        rows = [(window[0] - 1) / 2 + i * stride[0] for i in range(h)]
        columns = [(window[1] - 1) / 2 + j * stride[1] for j in range(w)]
        tall = np.array([np.interp(range(height), rows, column) for column in cells.T]).T
        whole = np.array([np.interp(range(width), columns, row) for row in tall])
        np.testing.assert_allclose(found.pixels(), whole, atol=1e-6)


class TestDrawing:
    def test_where_the_probability_is_0_the_picture_is_unchanged(self) -> None:
        found = placed(np.array([[0.0, 1.0]]))
        image = picture(*found.image.shape[:2])
        found = Heatmap("a", found.cells, image, (4, 4), (2, 2))
        assert (found.overlay()[:, :2] == image[:, :2]).all()
        assert (found.overlay(0) == image).all()
        assert (found.overlay(1)[:, 4:] == (252, 255, 164)).all()  # where inferno ends

    def test_a_class_that_is_nowhere_does_not_glow(self) -> None:
        assert placed(np.full((1, 1), 0.02)).highest == LEAST_SCALE
        assert placed(np.full((1, 1), 0.8)).highest == pytest.approx(0.8)

    def test_pictures_are_written(self, tmp_path: Path) -> None:
        found = placed(np.array([[0.0, 1.0]]))
        odd = Heatmap("缺陷", found.cells, found.image, (4, 4), (2, 2))
        found.save(tmp_path / "one.png")
        with pytest.raises(OptionError, match=r"one\.jpg does not end in \.png; heat maps are PNG"):
            found.save(tmp_path / "one.jpg")
        save_heatmaps(tmp_path / "four.png", [found, odd, found, found])
        for name in ("one.png", "four.png"):
            assert min(read_image(tmp_path / name).shape[:2]) > 400
        assert sorted(path.name for path in tmp_path.iterdir()) == ["four.png", "one.png"]
        assert repr(odd) == "Heatmap('缺陷', 1 x 2 cells, peak 1.000)"


class TestFCN:
    def test_cells_are_the_softmax_of_the_scores(self) -> None:
        torch.manual_seed(0)
        net = build("fcn8s-slim", 4, width=0.2)
        for name, parameter in net.named_parameters():
            if "score" in name:
                nn.init.normal_(parameter, std=0.5)
        model, image = Model(net, LabelSet(("ground", "road", "car", "tree"))), picture(75, 50)
        scores = model.scores(image).astype(float)
        values = np.exp(scores) / np.exp(scores).sum(axis=0)
        found = heatmaps(model, image, "car")[0]
        np.testing.assert_allclose(found.cells, values[2], atol=1e-6)
        assert (found.pixels() == found.cells).all()
        assert values[2][found.position] == pytest.approx(values[2].max(), abs=1e-6)
        order = np.argsort(-values.max(axis=(1, 2)))[:3]
        assert [each.name for each in heatmaps(model, image, n=3)] == [model.labels.names[k] for k in order]


class TestNames:
    IMAGENET = ("tench, Tinca tinca", "tabby, tabby cat", "tiger cat", "Cat", "catamaran")

    @pytest.mark.parametrize(
        ("name", "number"),
        [("tiger cat", 2), ("tabby cat", 1), ("TINCA", 0), ("Cat", 3), ("cat", 3), ("catam", 4)],
    )
    def test_found(self, name: str, number: int) -> None:
        assert class_number(name, self.IMAGENET) == number

    def test_not_found(self) -> None:
        with pytest.raises(OptionError, match=r"class 'b' may be 'tabby, tabby cat', 'b1'; give more of the name"):
            class_number("b", (*self.IMAGENET, "b1"))
        many = [f"cat {n}" for n in range(100)]
        with pytest.raises(OptionError, match=r"class 'cat' may be 'cat 0', .*'cat 9' and 90 more; give more"):
            class_number("cat", many)
        with pytest.raises(OptionError, match=r"unknown class 'tiger kat'; did you mean 'tiger cat'\? Choices: "):
            class_number("tiger kat", self.IMAGENET)
        with pytest.raises(OptionError, match="unknown class 'dog 1'") as caught:
            class_number("dog 1", many)
        assert str(caught.value).count("cat") == 10, "the nearest ten alone"
        with pytest.raises(OptionError, match="unknown class ''"):
            class_number("", many)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("how", ["layer", "function"])
def test_a_sigmoid_s_outputs_are_probabilities_each_by_itself(classes: int, how: str) -> None:
    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc, self.end = nn.Conv2d(3, 4, 3), nn.Linear(4, classes), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            x = self.fc(self.conv(x).mean((2, 3)))
            return self.end(x) if how == "layer" else torch.sigmoid(x)

    torch.manual_seed(0)
    net = Binary().eval()
    inputs = InputOptions((100.0,) * 3, (50.0,) * 3)
    dense = convolutionalize(net, 8, inputs=inputs)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = net((torch.from_numpy(image).permute(2, 0, 1)[None].float() - 100) / 50)[0]
    maps = heatmaps(DenseModel(dense), image, n=classes)
    assert {each.name: pytest.approx(each.peak) for each in maps} == {str(k): float(v) for k, v in enumerate(expected)}


def test_one_logit_is_a_probability_by_its_sigmoid() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten()).eval()
    dense = convolutionalize(net, 8, inputs=InputOptions((0.0,) * 3, (1.0,) * 3))
    with torch.no_grad():
        expected = net(torch.zeros(1, 3, 8, 8)).sigmoid().item()
    assert heatmaps(DenseModel(dense), np.zeros((8, 8, 3), np.uint8))[0].peak == pytest.approx(expected)
