"""Engines against the plain net on whole images: precisions, tiles, nets of every kind; what is not possible."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from classifiers import CLASSIFIERS
from fullconv.errors import GeometryError, OptionError
from fullconv.inference import engines
from fullconv.inference.cropped import CroppedNet
from fullconv.inference.engines import DTYPES, ENGINES, PLANS, Engine, engine, given
from fullconv.inference.reference import Reference
from fullconv.inference.staged import StagedNet
from fullconv.inference.tiles import PROCESS, Plan
from fullconv.nets import FCN, InputOptions
from fullconv.nets.dense_classifier import convolutionalize
from fullconv.nets.options import UPSAMPLINGS
from thin_nets import lively, noise, thin

TOLERANCE = 1e-5
"""Of the largest score: float32 sums in two orders."""


def difference(runner: Engine, images: dict[str, Tensor]) -> float:
    """The largest of all tasks' coarse scores from the plain net's in float32, as a share of the largest score.

    Where the cells that no pixel reads are left out, zeros are expected; full-size scores show that they are not read.
    """
    expected, found = Reference(runner.net).coarse(images), runner.coarse(images)
    assert list(found) == list(expected)
    largest = 0.0
    for task, plain in expected.items():
        assert found[task].size == plain.size
        assert found[task].scores.shape == plain.scores.shape
        assert found[task].scores.dtype == torch.float32
        wanted, given = plain.upsample(), found[task].upsample()
        largest = max(largest, float((given - wanted).abs().max() / wanted.abs().max()))
    return largest


def own() -> FCN:
    """A net whose trunk is a user's own classifier."""
    specimen = CLASSIFIERS["resnet"]
    inputs = InputOptions((127.5,) * specimen.channels, (64.0,) * specimen.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return lively(FCN(trunk=convolutionalize(specimen.build(), specimen.size, inputs=inputs), classes=3))


def small(runner: Engine, tile: int | str) -> Engine:
    """With tiles smaller than anybody may ask for."""
    runner.tile = tile
    return runner


class TestCoarse:
    @pytest.mark.parametrize("tile", ["auto", "off", 40, 64, 1000])
    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-vgg16", "fcn32s-alexnet", "fcn8s-resnet18"])
    def test_is_the_plain_nets(self, name: str, tile: int | str) -> None:
        for padding in ("paper", "same"):
            runner = small(engine(thin(name, padding=padding)), tile)
            assert isinstance(runner.cut, StagedNet)
            assert difference(runner, {"image": noise(2, 3, 131, 97)}) <= TOLERANCE

    @pytest.mark.parametrize("tile", ["auto", 50])
    def test_in_several_bands(self, tile: int | str) -> None:
        """Cells that lie left or right of a band come from another band."""
        runner = small(engine(thin("fcn8s-slim", padding="paper")), tile)
        images = {"image": noise(1, 3, 60, 230)}
        assert len(runner.plan((60, 230)).bands) == (5 if tile == 50 else 1)
        whole = Reference(runner.net).coarse(images)["semantic"].scores
        found = runner.coarse(images)["semantic"].scores
        kept = found[:, :, :, found.abs().sum((0, 1, 2)) > 0]
        assert kept.shape[3] >= 230 // 8, "at least a cell for every eight pixels"
        where = found != 0
        assert (found - whole)[where].abs().max() <= TOLERANCE * whole.abs().max()

    @pytest.mark.parametrize("tile", ["auto", 64])
    @pytest.mark.parametrize("name", ["unpooling", "own"])
    def test_of_nets_that_are_known_in_one_piece_only(self, name: str, tile: int | str) -> None:
        net = own() if name == "own" else thin("fcn8s-vgg16", 3, upsampling="unpooling", width=0.08)
        runner = engine(net, tile=tile)
        assert isinstance(runner.cut, CroppedNet)
        channels = net.options.inputs["image"].channels
        assert difference(runner, {"image": noise(2, channels, 131, 70)}) <= TOLERANCE

    def test_of_several_tasks(self) -> None:
        runner = engine(thin("siftflow-fcn16s", None, width=1 / 16), tile=64)
        assert len(runner.net.heads) == 2
        assert difference(runner, {"image": noise(1, 3, 85, 90)}) <= TOLERANCE

    def test_of_several_inputs(self) -> None:
        runner = engine(thin("nyud-fcn32s-color-hha", None, width=1 / 16), tile=64)
        images = {"color": noise(1, 3, 70, 90), "hha": noise(1, 3, 70, 90, seed=1)}
        assert difference(runner, images) <= TOLERANCE

    @pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float32])
    def test_of_any_type_that_nets_take(self, kind: torch.dtype) -> None:
        inputs = {"ms": InputOptions((99.0,) * 2, (50.0,) * 2, bands=(1, 2))}
        runner = small(engine(thin("fcn8s-slim", inputs=inputs)), 40)
        assert difference(runner, {"ms": noise(1, 2, 70, 50).to(kind)}) <= TOLERANCE

    @pytest.mark.parametrize("tile", ["auto", 64])
    @pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-resnet18"])
    def test_in_bfloat16(self, name: str, tile: int | str) -> None:
        """Eight bits of a number are kept, in every layer, so that scores differ by some of 2^-8."""
        runner = engine(thin(name), precision="bfloat16", tile=tile)
        assert runner.precision == "bfloat16"
        assert 1e-4 < difference(runner, {"image": noise(1, 3, 131, 97)}) < 8 * 2**-8

    def test_of_an_unpooling_net_in_bfloat16(self) -> None:
        net = thin("fcn8s-slim", 3, upsampling="unpooling", width=0.08)
        expected = Reference(net, "bfloat16").coarse({"image": noise(1, 3, 60, 50)})["semantic"].scores
        found = engine(net, precision="bfloat16").coarse({"image": noise(1, 3, 60, 50)})["semantic"].scores
        assert torch.equal(found, expected), "the same arithmetic on the whole image"

    def test_of_more_images_than_the_memory_has_room_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images = {"image": noise(7, 3, 60, 50)}
        runner = engine(thin("fcn8s-slim"))
        expected = runner.coarse(images)["semantic"]
        each = runner.plan((60, 50)).memory - PROCESS - runner.cut.weights
        less = engine(runner.net, memory=PROCESS + runner.cut.weights + 3 * each)
        seen, strips = [], Plan.strips

        def watched(self: Plan, *args: Any) -> Any:
            seen.append(args[2])
            return strips(self, *args)

        monkeypatch.setattr(Plan, "strips", watched)
        found = less.coarse(images)["semantic"]
        assert seen == [3, 3, 1]
        assert (found.size, found.scores.shape) == (expected.size, expected.scores.shape)
        assert (found.scores - expected.scores).abs().max() <= TOLERANCE * expected.scores.abs().max()

    def test_of_images_that_a_net_does_not_take(self) -> None:
        runner = engine(thin("fcn8s-slim"))
        with pytest.raises(GeometryError) as plain:
            runner.net.coarse(noise(1, 2, 20, 20))
        with pytest.raises(GeometryError) as found:
            runner.coarse({"image": noise(1, 2, 20, 20)})
        assert str(found.value) == str(plain.value)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
    def test_on_a_gpu(self) -> None:
        net = thin("fcn8s-slim").cuda()
        assert difference(engine(net, tile=64), {"image": noise(1, 3, 131, 97).cuda()}) <= 1e-3, "TF32 or not"


class TestEngine:
    @pytest.mark.parametrize("upsampling", [each for each in UPSAMPLINGS if each != "unpooling"])
    def test_its_weights_are_copies(self, upsampling: str) -> None:
        net, x = thin("fcn8s-slim", upsampling=upsampling), {"image": noise(1, 3, 40, 40)}
        runner = engine(net)
        before = runner.coarse(x)["semantic"]
        expected = before.scores, before.upsample()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        after = runner.coarse(x)["semantic"]
        assert torch.equal(after.scores, expected[0])
        assert torch.equal(after.upsample(), expected[1])
        assert expected[1].abs().max() > 0

    @pytest.mark.parametrize("padding", ["same", "paper"])
    def test_serves_several_threads(self, padding: str) -> None:
        runner = engine(thin("fcn8s-slim", width=1 / 16, padding=padding))
        sizes = [(height, width) for height in range(20, 40) for width in (20, 33, 47, 58)]
        images = {size: {"image": noise(1, 3, *size)} for size in sizes}
        expected = {size: engine(runner.net).coarse(images[size])["semantic"].scores for size in sizes[::7]}
        with ThreadPoolExecutor(8) as pool:
            scores = pool.map(lambda size: runner.coarse(images[size])["semantic"].scores, sizes)
            found = dict(zip(sizes, scores, strict=True))
        assert all(torch.equal(found[size], scores) for size, scores in expected.items())

    @pytest.mark.parametrize("training", [True, False])
    def test_the_net_is_left_as_it_was(self, training: bool) -> None:
        net = thin("fcn8s-resnet18").train(training)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        runner = engine(net)
        runner.coarse({"image": noise(1, 3, 40, 40)})
        assert all(module.training == training for module in net.modules())
        assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
        assert torch.equal(
            runner.coarse({"image": noise(1, 3, 40, 40)})["semantic"].scores,
            engine(net.eval()).coarse({"image": noise(1, 3, 40, 40)})["semantic"].scores,
        )

    def test_plans_are_kept_for_some_sizes(self) -> None:
        runner = engine(thin("fcn8s-slim"))
        assert runner.plan((50, 60)) is runner.plan((50, 60))
        for height in range(1, PLANS + 2):
            runner.plan((height, 8))
        assert len(runner._plans) <= PLANS
        assert runner.plan((PLANS + 1, 8)) is runner.plan((PLANS + 1, 8))

    def test_tile_and_memory_are_those_of_its_plans(self) -> None:
        assert len(engine(thin("fcn8s-slim"), tile=64).plan((40, 200)).bands) == 4
        with pytest.raises(OptionError, match=r"0.00 GiB of memory for images of 40 x 200; give at least"):
            engine(thin("fcn8s-slim"), memory=1).plan((40, 200))
        for tile in ("all", 0, -3, True, 2.5):
            with pytest.raises(OptionError, match=f"a tile of {tile!r}; expected a number of pixels, auto or off"):
                engine(thin("fcn8s-slim"), tile=tile)  # type: ignore[arg-type]

    @pytest.mark.parametrize("size", [(5,), (5, 5, 5), (0, 5), (5, -1), (2.5, 5)])
    def test_sizes_that_are_none(self, size: Any) -> None:
        with pytest.raises(GeometryError, match=re.escape(f"images of size {size}; expected (H, W) of at least 1")):
            engine(thin("fcn8s-slim")).plan(size)

    def test_plans_are_made_by_several_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Forgetful(dict[Any, Any]):
            """As if another thread had cleared it at once."""

            def __setitem__(self, key: Any, value: Any) -> None:
                pass

        monkeypatch.setattr(engines, "plan", lambda cut, size, **_: size)
        runner = engine(thin("fcn8s-slim"))
        runner._plans = Forgetful()
        sizes = [(height % 5 + 1, 8) for height in range(2000)]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(runner.plan, sizes)) == sizes

    def test_memory_is_a_number_of_bytes(self) -> None:
        with pytest.raises(OptionError, match="memory of '2GiB'; expected a number of bytes"):
            engine(thin("fcn8s-slim"), memory="2GiB")  # type: ignore[arg-type]


class TestChoice:
    def test_auto_says_why(self) -> None:
        chosen = engine(thin("fcn8s-slim"), "auto")
        assert chosen.name == "torch"
        assert chosen.why.startswith("engine torch: ")
        assert "\n" not in chosen.why
        assert engine(thin("fcn8s-slim"), "torch").why == ""

    @pytest.mark.parametrize(
        ("precision", "device", "name"),
        [
            ("int8", "cpu", "openvino"),
            ("float32", "cpu", "torch"),
            ("bfloat16", "cuda", "torch"),
            ("auto", "cuda", "torch"),
        ],
    )
    def test_auto_by_precision_and_device(self, precision: str, device: str, name: str) -> None:
        found, why = engines._chosen("auto", precision, torch.device(device))
        assert found == name
        assert why.startswith(f"engine {name}: ")
        assert (device in why) == (device == "cuda")

    @pytest.mark.parametrize("has", [True, False])
    def test_auto_precision_is_the_processors(self, has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fullconv.nets.precision.has_bfloat16", lambda device: has)
        assert engine(thin("fcn8s-slim"), precision="auto").precision == ("bfloat16" if has else "float32")

    def test_every_precision_of_torch_has_a_type(self) -> None:
        for name, kind in DTYPES.items():
            cut = engine(thin("fcn8s-slim"), precision=name).cut
            assert isinstance(cut, StagedNet)
            assert cut.kind == kind

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "torhc"}, "unknown engine 'torhc'; did you mean 'torch'"),
            ({"name": "onnx"}, f"unknown engine 'onnx'; .*Choices: {', '.join(sorted(ENGINES))}"),
            ({"precision": "float64"}, "unknown precision 'float64'"),
            ({"precision": "int8"}, "precision 'int8' with engine 'torch'; int8 is OpenVINO's: --engine openvino"),
            ({"name": "compile", "precision": "int8"}, "precision 'int8' with engine 'compile'; int8 is OpenVINO's"),
        ],
    )
    def test_what_is_not_possible(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(OptionError, match=message):
            engine(thin("fcn8s-slim"), **options)

    @pytest.mark.parametrize("name", ["openvino", "compile"])
    def test_compilers_need_the_net_on_the_processor(self, name: str) -> None:
        message = f"engine '{name}' compiles for the processor, and the net is on meta; take 'torch'"
        with pytest.raises(OptionError, match=message):
            engine(thin("fcn8s-slim").to("meta"), name)


def test_given_reads_rectangles() -> None:
    images = {"a": noise(2, 3, 20, 30), "b": noise(2, 1, 20, 30, seed=1)}
    found = given(images, (20, 30))((3, 9), (10, 30))
    assert {name: each.shape for name, each in found.items()} == {"a": (2, 3, 6, 20), "b": (2, 1, 6, 20)}
    assert all(torch.equal(found[name], images[name][:, :, 3:9, 10:30]) for name in images)
