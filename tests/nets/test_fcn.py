"""FCN against the paper's nets written out line by line, and what every net of the table must do."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_oracle import Oracle, fullconv_weights, random_oracle
from fullconv import geometry
from fullconv.errors import GeometryError, OptionError
from fullconv.geometry import Window
from fullconv.inference.model import Model
from fullconv.inspect import inspect_net
from fullconv.nets import FCN, NETS, InputOptions, NetOptions, build, fcn
from fullconv.nets.head import Head, crops
from fullconv.nets.options import PADDINGS, UPSAMPLINGS
from fullconv.nets.trace import trace
from fullconv.nets.trunks import TRUNKS, Trunk

CHANNELS = {"colour": 3, "depth": 1}
CLASSES = {"semantic": 4, "geometric": 3}

OF_AN_IMAGE = [name for name, net in NETS.items() if set(net.inputs) <= {"image"} and len(net.classes) < 2]

SIZES = [(1, 1), (1, 37), (33, 2), (53, 56), (64, 96)]


def for_every_net(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("padding", PADDINGS)(pytest.mark.parametrize("name", OF_AN_IMAGE)(test))


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def randomised(net: FCN, seed: int = 0) -> FCN:
    """Score layers that score something: they start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.heads.parameters():
            if parameter.ndim == 1 or parameter.shape[2:] == (1, 1):
                parameter.normal_(generator=generator)
    return net.eval()


@cache
def ready(name: str, padding: str) -> FCN:
    """One thin net for all tests that change nothing in it."""
    torch.manual_seed(0)
    return randomised(build(name, 5, padding=padding, width=1 / 8))


@cache
def thin_pair(stride: int) -> tuple[Oracle, FCN]:
    """A paper net of a sixteenth of the width, and ours with its weights."""
    oracle = random_oracle(stride, classes=5, width=1 / 16)
    net = build(f"fcn{stride}s-vgg16", 5, padding="paper", width=1 / 16).eval()
    net.load_state_dict(fullconv_weights(oracle))
    return oracle, net


class TestAgainstTheOracle:
    @pytest.mark.parametrize("size", [(1, 1), (33, 64), (53, 56), (97, 130)], ids=str)
    @pytest.mark.parametrize("stride", [32, 16, 8])
    def test_same_weights_same_scores(self, stride: int, size: tuple[int, int]) -> None:
        oracle, net = thin_pair(stride)
        x = image(2, 3, *size)
        with torch.inference_mode():
            expected, scores, labels = oracle(x), net(x), net.labels(x)
        assert expected.std() > 0.3 or size == (1, 1), "scores near zero: the test tests little"
        assert scores.shape == expected.shape == (2, 5, *size)
        # Up to 17 layers of float32 sums in two orders: up to 1.4e-5 was measured, on scores up to 12.
        assert torch.allclose(scores, expected, rtol=0, atol=5e-5)
        best = expected.topk(2, dim=1)
        clear = best.values[:, 0] - best.values[:, 1] > 1e-4
        assert torch.equal(labels[clear].long(), best.indices[:, 0][clear])

    def test_full_width(self) -> None:
        oracle = random_oracle(8)
        with torch.device("meta"):
            net = build("fcn8s-vgg16", padding="paper").eval()
        net.load_state_dict(fullconv_weights(oracle), assign=True)
        net.reset_normalisation()
        x = image(1, 3, 17, 2)
        with torch.inference_mode():
            assert torch.allclose(net(x), oracle(x), rtol=0, atol=5e-5)

    @pytest.mark.parametrize(
        ("stride", "with_scores", "with_dense_upsampling"),
        [(32, 134_346_581, 136_152_917), (16, 134_357_354, 134_815_994), (8, 134_362_751, 134_489_759)],
    )
    def test_parameter_counts_of_the_reference(self, stride: int, with_scores: int, with_dense_upsampling: int) -> None:
        """Reference 1.3."""
        for upsampling, expected in (("bilinear", with_scores), ("learned-all", with_dense_upsampling)):
            with torch.device("meta"):
                net = build(f"fcn{stride}s-vgg16", 21, padding="paper", upsampling=upsampling)
            assert sum(p.numel() for p in net.parameters()) == expected


class TestGeometry:
    @pytest.mark.parametrize(("stride", "skips", "offset"), [(32, {}, 19), (16, {16: 5}, 27), (8, {16: 5, 8: 9}, 31)])
    def test_crops_of_the_released_nets(self, stride: int, skips: dict[int, int], offset: int) -> None:
        head = ready(f"fcn{stride}s-vgg16", "paper").heads["semantic"]
        assert head.output.shift == (offset, offset)
        assert head.output.window == Window(2 * stride, stride, transposed=True)
        assert {s: step.shift for s, step in head.steps.items()} == {s: (-crop, -crop) for s, crop in skips.items()}
        assert all(step.window == Window(4, 2, transposed=True) for step in head.steps.values())
        named = [(name, step.shift[0]) for name, step in crops(head)]
        chain = ["32s", *(f"{s}s" for s in skips), "input"]
        offsets = [-crop for crop in skips.values()] + [offset]
        assert named == [(f"{a} -> {b}", o) for a, b, o in zip(chain, chain[1:], offsets, strict=False)]

    @pytest.mark.parametrize(("stride", "reach"), [(32, 436), (16, 468), (8, 468)])
    def test_fields_of_the_paper(self, stride: int, reach: int) -> None:
        net = ready(f"fcn{stride}s-vgg16", "paper")
        paths = net.paths()
        trunk = net.trunks["image"]
        fields = [geometry.receptive_field(trunk.paths(s)[0]).size for s in net.heads["semantic"].strides]
        assert fields == [404, 100, 44][: len(fields)]
        assert [name for name, _ in paths] == ["drop7", "pool4", "pool3"][: len(paths)]
        last = net.heads["semantic"].output.window
        for axis in range(2):
            streams = [[*axes[axis], last] for _, axes in paths]
            ranges = [geometry.inputs_of_all(streams, y, y + 1) for y in range(100, 164)]
            assert max(stop - start for start, stop in ranges) == reach

    @for_every_net
    def test_all_streams_end_on_one_grid(self, name: str, padding: str) -> None:
        net = ready(name, padding)
        head = net.heads["semantic"]
        for axis in range(2):
            streams = [axes[axis] for _, axes in net.paths()]
            maps = {geometry.coordinate_map(stream) for stream in streams}
            assert len(maps) == 1
            assert maps.pop().inverse().scale == NETS[name].stride
            # and the upsampled scores lie on the pixels
            for stream in streams:
                assert geometry.alignment([*stream, head.output.window], []) == head.output.shift[axis]

    @for_every_net
    def test_scores_have_the_sizes_that_geometry_computes(self, name: str, padding: str) -> None:
        net = ready(name, padding)
        with torch.inference_mode():
            coarse = net.coarse(image(1, 3, 53, 70))["semantic"]
        streams = [axes for _, axes in net.paths()]  # fused where all of them are
        expected = tuple(min(geometry.output_size(axes[i], n) for axes in streams) for i, n in enumerate((53, 70)))
        assert tuple(coarse.scores.shape[2:]) == expected
        assert coarse.size == (53, 70)

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("name", ["fcn32s-vgg16", "fcn8s-vgg16", "fcn16s-slim", "fcn2s-slim", "fcn1s-slim"])
    def test_field_by_gradient(self, name: str, padding: str) -> None:
        """The pixels that move one coarse score are exactly those that geometry names.

        A max pooling hands its gradient to one pixel only; with average pooling over the same windows, positive
        weights and positive images, every pixel that may be seen is seen, and nothing cancels.
        """
        net = ready(name, padding)
        positive = build(name, 1, padding=padding, width=1 / 64).eval()
        for parameter in positive.parameters():
            nn.init.constant_(parameter, 0.3)
        trunk = positive.trunks["image"]
        for key, layer in trunk.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(trunk, key, nn.AvgPool2d(layer.kernel_size, layer.stride, ceil_mode=layer.ceil_mode))
        height, width = 101, 70
        x = torch.full((1, 3, height, width), 255.0, requires_grad=True)
        scores = positive.coarse(x)["semantic"].scores
        streams = [axes for _, axes in net.paths()]
        h, w = scores.shape[2:]
        for row, column in {(0, 0), (h // 2, w // 2), (h - 1, 0), (h // 3, w - 1)}:
            (gradient,) = torch.autograd.grad(scores[0, 0, row, column], x, retain_graph=True)
            seen = torch.zeros(height, width, dtype=torch.bool)
            (top, bottom), (left, right) = (
                geometry.inputs_of_all([axes[axis] for axes in streams], unit, unit + 1)
                for axis, unit in ((0, row), (1, column))
            )
            seen[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
            assert seen.any()
            assert torch.equal(gradient[0].abs().sum(0) > 0, seen), (row, column)


class TestEveryNet:
    @for_every_net
    def test_any_size(self, name: str, padding: str) -> None:
        net = ready(name, padding)
        for size in SIZES:
            x = image(2, 3, *size)
            with torch.inference_mode():
                scores, labels = net(x), net.labels(x)
                assert torch.equal(net(x.float()), scores)
            assert scores.shape == (2, 5, *size)
            assert scores.dtype == torch.float32
            assert scores.isfinite().all()
            assert labels.dtype == torch.uint8
            assert torch.equal(labels, scores.argmax(1))

    @for_every_net
    def test_images_of_a_batch_do_not_meet(self, name: str, padding: str) -> None:
        net, x = ready(name, padding), image(3, 3, 40, 51)
        with torch.inference_mode():
            together = net(x)
            apart = torch.cat([net(one[None]) for one in x])
        # The convolution may sum in another order for another batch size.
        assert torch.allclose(together, apart, rtol=1e-4, atol=1e-4 * together.abs().max())

    @for_every_net
    def test_fresh_nets_score_zero(self, name: str, padding: str) -> None:
        """Score layers start at zero (Long et al. 2015, section 4.3), and so does every score."""
        for upsampling in UPSAMPLINGS:
            net = build(name, 3, padding=padding, upsampling=upsampling, width=1 / 64).eval()
            with torch.inference_mode():
                assert torch.count_nonzero(net(image(1, 3, 33, 40))) == 0

    @for_every_net
    def test_bfloat16_autocast(self, name: str, padding: str) -> None:
        net, x = ready(name, padding), image(1, 3, 40, 51)
        with torch.inference_mode():
            plain = net(x)
            with torch.autocast("cpu", torch.bfloat16):
                mixed, labels = net(x), net.labels(x)
        assert mixed.dtype == torch.float32
        assert torch.equal(labels, mixed.argmax(1))
        # bfloat16 keeps 8 bits: percents after a score of layers, and no rounding of upsampling on top
        assert (mixed - plain).abs().mean() < 0.05 * plain.abs().mean()

    @for_every_net
    @pytest.mark.parametrize("training", [True, False])
    def test_modes_stay_as_they_are(self, name: str, padding: str, training: bool) -> None:
        net = build(name, 3, padding=padding, width=1 / 64).train(training)
        next(iter(net.trunks["image"].children())).train(not training)  # a frozen layer
        before = [module.training for module in net.modules()]
        net.labels(image(2, 3, 20, 20))
        assert [module.training for module in net.modules()] == before

    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_what_is_learned(self, upsampling: str) -> None:
        net = randomised(build("fcn8s-slim", 3, upsampling=upsampling, width=1 / 8))
        net(image(2, 3, 40, 40)).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
        start = "heads.semantic.upscore."
        learned = {name.removeprefix(start) for name, _ in net.named_parameters() if name.startswith(start)}
        skips, last = {"16.weight", "8.weight"}, {"output.weight"}
        stacks = {f"{s}.layers.0.weight" for s in (16, 8)} | {f"output.layers.{i}.weight" for i in range(3)}
        unpooled = {
            f"{s}.{layer}.image.{kind}"
            for s in (16, 8, 4, 2) for layer in ("expand", "reduce") for kind in ("weight", "bias")
        }  # fmt: skip
        assert (
            learned
            == {
                "bilinear": set(),
                "interpolation": set(),
                "learned": skips,
                "learned-all": skips | last,
                "stacked": stacks | {f"output.activations.{i}.weight" for i in range(2)},
                "unpooling": unpooled | last,
            }[upsampling]
        )

    @pytest.mark.parametrize("upsampling", ["learned", "learned-all", "stacked"])
    def test_learned_upsampling_starts_as_bilinear(self, upsampling: str) -> None:
        net = ready("fcn8s-slim", "same")
        other = build("fcn8s-slim", 5, width=1 / 8, upsampling=upsampling).eval()
        other.load_state_dict(net.state_dict(), strict=False)
        x = image(2, 3, 53, 40)
        with torch.inference_mode():
            assert torch.allclose(other(x), net(x), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_images_of_any_float_type(self, dtype: torch.dtype) -> None:
        net, x = ready("fcn8s-slim", "same"), image(1, 3, 20, 30)
        with torch.inference_mode():
            assert torch.equal(net(x.to(dtype)), net(x))  # 0..255 is exact in each

    def test_nets_of_other_types(self) -> None:
        """Whole nets in bfloat16 or float64: scores are float32 all the same."""
        x = image(1, 3, 20, 30)
        for dtype in (torch.bfloat16, torch.float64):
            net = randomised(build("fcn8s-slim", 3, width=1 / 8)).to(dtype)
            with torch.inference_mode():
                assert net(x).dtype == torch.float32

    def test_the_rows_asked_for_are_those_of_the_whole(self) -> None:
        net, x = ready("fcn8s-slim", "same"), image(2, 3, 53, 40)
        with torch.inference_mode():
            coarse = net.coarse(x)["semantic"]
            part = coarse.head.rows(coarse.scores, coarse.size, (7, 31))
            assert torch.equal(part, net(x)[:, :, 7:31])


def upsampled_by(upsampling: str, trunk: str, stride: int, padding: str = "same", **options: object) -> FCN:
    """A thin net with random weights in all its head, so that every part of it matters."""
    torch.manual_seed(0)
    plain = {"inputs": {"image": InputOptions((127.5,) * 3, (64.0,) * 3)}, "classes": {"semantic": 4}, "width": 1 / 8}
    net = FCN(NetOptions(trunk, stride, upsampling=upsampling, padding=padding, **{**plain, **options}))
    with torch.no_grad():
        for name, parameter in net.heads.named_parameters():
            parameter.normal_(0.5 if "activations" in name else 0, parameter[0].numel() ** -0.5)
    return net.eval()


class TestEveryUpsampling:
    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("trunk", TRUNKS)
    @pytest.mark.parametrize("upsampling", ["interpolation", "stacked", "unpooling"])
    def test_every_trunk(self, upsampling: str, trunk: str, padding: str) -> None:
        coarsest = 16 if trunk == "slim1" else 32
        for stride, size in ((8, (1, 1)), (coarsest, (1, 1)), (8, (33, 47))):
            net = upsampled_by(upsampling, trunk, stride, padding)
            with torch.inference_mode():
                coarse = net.coarse(image(2, 3, *size))["semantic"]
                scores, labels = coarse.upsample(), coarse.labels().long()
            assert scores.shape == (2, 4, *size)
            assert scores.dtype == torch.float32
            assert scores.isfinite().all()
            assert scores.std() > 1e-3 or size == (1, 1)
            # Learned upsampling sums a block and the whole in different orders: near ties may differ.
            won = scores.gather(1, labels[:, None])[:, 0]
            assert torch.allclose(won, scores.amax(1), rtol=1e-5, atol=1e-5 * scores.abs().max())

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("trunk", ["vgg16", "alexnet", "resnet18", "googlenet", "slim", "slim1"])
    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_all_streams_end_on_the_pixels(self, upsampling: str, trunk: str, padding: str) -> None:
        net = upsampled_by(upsampling, trunk, 8, padding, width=1 / 64)
        head = net.heads["semantic"]
        finest = {"vgg16": 1, "slim1": 1, "alexnet": 4}.get(trunk, 2) if upsampling == "unpooling" else 8
        coarse = net.coarse(image(1, 3, 53, 70))["semantic"].scores
        for axis in range(2):
            streams = [axes[axis] for _, axes in net.paths()]
            assert {geometry.coordinate_map(stream).inverse().scale for stream in streams} == {finest}
            assert {geometry.alignment([*stream, head.output.window], []) for stream in streams} == {
                head.output.shift[axis]
            }
            if upsampling != "unpooling":
                sizes = [geometry.output_size(stream, (53, 70)[axis]) for stream in streams]
                assert coarse.shape[2 + axis] == min(sizes)

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_pixels_beyond_the_reach_change_nothing(self, upsampling: str, padding: str) -> None:
        net = upsampled_by(upsampling, "slim1", 4, padding, fusion="early")
        height, width = 40, 401  # a map much wider than any field
        x = image(1, 3, height, width)
        streams = [[*columns, net.heads["semantic"].output.window] for _, (_, columns) in net.paths()]
        right = net.heads["semantic"].output.shift[1]
        with torch.inference_mode():
            scores = net(x)
            for pixel in (0, 77, 200, 400):
                start, stop = geometry.inputs_of_all(streams, pixel + right, pixel + right + 1)
                other = image(1, 3, height, width, seed=1)
                seen = slice(max(start, 0), max(stop, 0))
                other[..., seen] = x[..., seen]
                changed = net(other)
                assert torch.allclose(changed[..., pixel], scores[..., pixel], rtol=1e-5, atol=1e-5)
                assert not torch.allclose(changed, scores, rtol=0.1, atol=0.1)  # elsewhere by far more than rounding
        assert stop - start < 300

    @pytest.mark.parametrize("size", [(32, 64), (33, 47), (1, 1)], ids=str)
    def test_interpolation_is_torchs(self, size: tuple[int, int]) -> None:
        """On VGG without its pad the cells of 32s are squares of 32 pixels from the first on."""
        net, x = upsampled_by("interpolation", "vgg16", 32), image(2, 3, *size)
        with torch.inference_mode():
            coarse = net.coarse(x)["semantic"].scores
            resized = F.interpolate(coarse, scale_factor=32, mode="bilinear", align_corners=False)
            assert torch.allclose(net(x), resized[:, :, : size[0], : size[1]], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["vgg16", "slim"])
    def test_unpooled_scores_are_of_the_size_of_the_first_poolings_input(self, name: str) -> None:
        net, sizes = upsampled_by("unpooling", name, 16, "paper"), []
        net.trunks["image"].conv1_2.register_forward_hook(lambda _, args, out: sizes.append(out.shape[2:]))
        with torch.inference_mode():
            assert [net.coarse(image(1, 3, 35, 50))["semantic"].scores.shape[2:]] == sizes
        head = net.heads["semantic"]
        assert head.poolings == [f"pool{number}" for number in range(1, 6 if name == "vgg16" else 5)]
        assert list(head.steps) == [16, 8, 4, 2, 1][: 5 if name == "vgg16" else 4]
        assert [each for each, _ in net.paths()] == {
            "vgg16": ["drop7", "pool5", "pool4", "pool4", "pool3", "pool2", "pool1"],
            "slim": ["drop7", "pool4", "relu4_2", "pool3", "pool2", "pool1"],
        }[name]

    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_the_rows_asked_for_are_those_of_the_whole(self, upsampling: str) -> None:
        net, x = upsampled_by(upsampling, "vgg16", 8), image(2, 3, 37, 40)
        with torch.inference_mode():
            coarse = net.coarse(x)["semantic"]
            part, whole = coarse.head.rows(coarse.scores, coarse.size, (7, 31)), coarse.upsample()[:, :, 7:31]
        exact = upsampling not in ("learned-all", "stacked")  # those convolve, in orders that depend on the size
        assert torch.equal(part, whole) if exact else torch.allclose(part, whole, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("fusion", ["early", "late"])
    @pytest.mark.parametrize("upsampling", ["interpolation", "stacked", "unpooling"])
    def test_several_inputs_and_tasks(self, upsampling: str, fusion: str) -> None:
        inputs = {name: InputOptions((127.5,) * c, (64.0,) * c) for name, c in CHANNELS.items()}
        net = upsampled_by(upsampling, "slim", 16, inputs=inputs, classes=CLASSES, fusion=fusion)
        with torch.inference_mode():
            scores = net({name: image(2, c, 40, 51) for name, c in CHANNELS.items()})
        assert {task: each.shape for task, each in scores.items()} == {
            "semantic": (2, 4, 40, 51),
            "geometric": (2, 3, 40, 51),
        }

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_nets_of_other_types(self, upsampling: str, dtype: torch.dtype) -> None:
        net, x = upsampled_by(upsampling, "slim", 8), image(1, 3, 40, 51)
        with torch.inference_mode():
            plain = net(x)
            with torch.autocast("cpu", torch.bfloat16):
                assert net.coarse(x)["semantic"].scores.dtype == net(x).dtype == torch.float32
            coarse = net.to(dtype).coarse(x)["semantic"]
            other = coarse.upsample()
        assert coarse.scores.dtype == other.dtype == torch.float32
        assert dtype == torch.bfloat16 or torch.allclose(other, plain, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_a_few_steps_reduce_the_loss(self, upsampling: str) -> None:
        torch.manual_seed(0)
        net = build("fcn8s-slim", 3, upsampling=upsampling, width=1 / 8, dropout=0.0).train()
        x = image(4, 3, 40, 48)
        x[:, :, 8:24, 8:40] //= 4  # a dark rectangle, its right half bluish
        x[:, 2, 8:24, 24:40] += 120
        target = torch.zeros(4, 40, 48, dtype=torch.long)
        target[:, 8:24, 8:24], target[:, 8:24, 24:40] = 1, 2
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        losses = []
        for _ in range(25):
            loss = F.cross_entropy(net(x), target)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert losses[0] == pytest.approx(torch.tensor(3.0).log().item())
        assert losses[-1] < 0.5 * losses[0]

    @pytest.mark.parametrize("upsampling", UPSAMPLINGS)
    def test_a_model_keeps_it(self, upsampling: str, tmp_path: Path) -> None:
        net, x = upsampled_by(upsampling, "slim", 8), image(1, 3, 33, 47)
        Model(net).save(tmp_path / "model.safetensors")
        read = Model.load(tmp_path / "model.safetensors").net
        assert read.options == net.options
        with torch.inference_mode():
            assert torch.equal(read(x), net(x))

    def test_inspection_names_the_steps(self) -> None:
        with torch.device("meta"):
            nets = {kind: build("fcn16s-vgg16", 5, padding="paper", upsampling=kind) for kind in UPSAMPLINGS}
        reports = {kind: inspect_net(net, (60, 70)) for kind, net in nets.items()}
        assert [(s.name, s.kind, s.kernel, s.stride, s.offset, s.cropped) for s in reports["stacked"].crops] == [
            ("32s -> 16s", "StackedUpsampling", 4, 2, (5, 5), "skip"),
            ("16s -> input", "StackedUpsampling", 46, 16, (34, 34), "upsampled"),  # 3 * 15 + 1; 27 + (45 - 31) / 2
        ]
        assert [(s.name, s.kind, s.kernel, s.offset, s.cropped) for s in reports["unpooling"].crops] == [
            ("32s -> 16s", "Unpooling", 2, (-3, -3), "coarser"),  # fc6 has lost 3 cells on either side
            *((f"{2 * s}s -> {s}s", "Unpooling", 2, (0, 0), "coarser") for s in (8, 4, 2, 1)),
            ("1s -> input", "BilinearUpsampling", 1, (99, 99), "upsampled"),
        ]
        assert reports["unpooling"].scores == {"semantic": (5, 60 + 198, 70 + 198)}
        assert [s.kind for s in reports["interpolation"].crops] == ["Interpolation"] * 2
        assert reports["interpolation"].reach == reports["bilinear"].reach == 468
        for kind, net in nets.items():
            report = reports[kind]
            assert report.parameters == sum(p.numel() for p in net.parameters())
            assert report.parameters == sum(f.parameters for f in (*report.layers, *report.crops))


class TestDropout:
    @pytest.mark.parametrize(("name", "rate", "layers"), [("fcn8s-vgg16", 0.5, 2), ("fcn8s-slim", 0.1, 1)])
    def test_elements_drop_not_channels(self, name: str, rate: float, layers: int) -> None:
        """Pitfall 17."""
        net = build(name, width=1 / 64)
        dropouts = [layer for layer in net.modules() if "Dropout" in type(layer).__name__]
        assert len(dropouts) == layers
        x = torch.ones(1, 16, 40, 40)
        for layer in dropouts:
            kept = layer.train()(x) > 0
            assert kept.float().mean().item() == pytest.approx(1 - rate, abs=0.02)
            assert (kept.float().mean((2, 3)) - (1 - rate)).abs().max() < 0.1
            assert torch.equal(layer.eval()(x), x)

    def test_rate_by_option(self) -> None:
        net = build("fcn8s-vgg16", width=1 / 64, dropout=0.0).train()
        assert {layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)} == {0.0}


class TestSeveralInputsAndTasks:
    def inputs(self, height: int = 40, width: int = 51) -> dict[str, Tensor]:
        return {name: image(2, c, height, width, seed=c) for name, c in CHANNELS.items()}

    @pytest.mark.parametrize("fusion", ["early", "late"])
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_scores_by_task(self, fusion: str, padding: str) -> None:
        net = build("fcn8s-slim", CLASSES, channels=CHANNELS, fusion=fusion, padding=padding, width=1 / 8)
        net = randomised(net)
        with torch.inference_mode():
            scores, labels = net(self.inputs()), net.labels(self.inputs())
        assert {task: s.shape for task, s in scores.items()} == {
            "semantic": (2, 4, 40, 51),
            "geometric": (2, 3, 40, 51),
        }
        assert all(torch.equal(labels[task], scores[task].argmax(1)) for task in CLASSES)
        assert net.paths("geometric") == net.paths("semantic") == net.paths()

    def test_late_fusion_is_the_mean_of_the_scores(self) -> None:
        """nyud-fcn32s-color-hha: coefficients 0.5 and 0.5 (reference 1.2)."""
        both = randomised(build("fcn32s-slim", 4, channels=CHANNELS, fusion="late", width=1 / 8))
        scores = []
        x = self.inputs()
        with torch.inference_mode():
            for name, channels in CHANNELS.items():
                one = build("fcn32s-slim", 4, channels=channels, width=1 / 8).eval()
                one.trunks["image"].load_state_dict(both.trunks[name].state_dict())
                one.heads["semantic"].score["image"].load_state_dict(both.heads["semantic"].score[name].state_dict())
                scores.append(one(x[name]))
            assert not torch.allclose(scores[0], scores[1], atol=0.1)  # so that their mean is neither
            assert torch.allclose(both(x), 0.5 * scores[0] + 0.5 * scores[1], rtol=1e-5, atol=1e-5)

    def test_early_fusion_is_a_concatenation(self) -> None:
        net = build("fcn32s-slim", 4, channels=CHANNELS, width=1 / 8)
        assert list(net.trunks) == ["fused"]
        assert net.trunks["fused"].conv1_1.in_channels == 4
        seen = []
        net.trunks["fused"].conv1_1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        x = self.inputs()
        net(dict(reversed(x.items())))  # the order of the mapping does not matter
        colour = (x["colour"] - torch.tensor([123.675, 116.28, 103.53])[:, None, None]) / torch.tensor(
            [58.395, 57.12, 57.375]
        )[:, None, None]
        assert torch.allclose(seen[0][:, :3], colour, atol=1e-5)
        assert torch.allclose(seen[0][:, 3:], (x["depth"].float() - 127.5) / 64, atol=1e-5)

    def test_vgg_reads_bgr_without_scaling(self) -> None:
        normalise = ready("fcn32s-vgg16", "paper").normalise["image"]
        rgb = torch.tensor([122.67891434 + 1, 116.66876762 + 2, 104.00698793 + 3]).view(1, 3, 1, 1)
        assert normalise(rgb).flatten().tolist() == pytest.approx([3, 2, 1], abs=1e-4)

    def test_one_input_by_name(self) -> None:
        net, x = ready("fcn8s-slim", "same"), image(1, 3, 20, 30)
        with torch.inference_mode():
            assert torch.equal(net({"image": x}), net(x))

    def test_wrong_inputs(self) -> None:
        net = build("fcn8s-slim", 4, channels=CHANNELS, width=1 / 64).eval()
        x = self.inputs()
        for wrong, message in (
            (x["colour"], "one tensor for a net with inputs colour, depth; give a mapping by name"),
            ({"colour": x["colour"]}, "inputs colour; expected colour, depth"),
            ({**x, "hha": x["colour"]}, "inputs colour, depth, hha; expected colour, depth"),
            (
                {**x, "depth": x["colour"]},
                "input 'depth' has shape (2, 3, 40, 51); expected (N, 1, H, W) with N, H and W of at least 1",
            ),
            ({**x, "colour": x["colour"][0]}, "input 'colour' has shape (3, 40, 51); expected (N, 3, H, W)"),
            ({**x, "depth": x["depth"][:, :, :0]}, "input 'depth' has shape (2, 1, 0, 51); expected (N, 1, H, W)"),
            ({n: v[:0] for n, v in x.items()}, "input 'colour' has shape (0, 3, 40, 51); expected (N, 3, H, W)"),
            (
                {**x, "depth": x["depth"][:, :, 1:]},
                "input 'depth' has shape (2, 1, 39, 51) beside (2, 3, 40, 51); give all inputs one N, H and W",
            ),
            ({**x, "depth": x["depth"][:1]}, "input 'depth' has shape (1, 1, 40, 51) beside (2, 3, 40, 51)"),
            ({**x, "depth": x["depth"].long()}, "input 'depth' is torch.int64; expected uint8, uint16 or float"),
            ({**x, "depth": x["depth"] > 9}, "input 'depth' is torch.bool; expected uint8, uint16 or float"),
        ):
            with pytest.raises(GeometryError, match=re.escape(message)):
                net(wrong)


class TestRefusals:
    def options(self, **changes: object) -> NetOptions:
        plain = {
            "trunk": "slim",
            "stride": 8,
            "classes": {"semantic": 3},
            "inputs": {"image": InputOptions((0,), (1,))},
        }
        return NetOptions(**{**plain, **changes})

    def test_trunk_and_stride(self) -> None:
        with pytest.raises(OptionError, match="unknown trunk 'slin'; did you mean 'slim'"):
            FCN(self.options(trunk="slin"))
        message = "trunk 'slim' has no features of stride 1; choose one of 32s, 16s, 8s, 4s, 2s"
        with pytest.raises(OptionError, match=message):
            FCN(self.options(stride=1))
        for stride in (4, 64):
            with pytest.raises(OptionError, match=f"a scale at stride {stride}, where 8s on slim scores nothing"):
                FCN(self.options(scales={16: 0.1, stride: 0.1}))

    def head(self, *layers: nn.Module, taps: dict[int, str], upsampling: str = "bilinear") -> Head:
        trunk = Trunk({f"layer{i}": layer for i, layer in enumerate(layers)}, taps)
        return Head(2, {"image": trunk}, 1, upsampling, {})

    def test_scores_that_start_inside_the_image(self) -> None:
        with pytest.raises(GeometryError, match="the scores start 2 pixels inside the image; pad more"):
            self.head(nn.Conv2d(1, 1, 5), taps={1: "layer0"})

    def test_layers_that_are_not_square(self) -> None:
        with pytest.raises(GeometryError, match="kernels 4 and 3 for the two axes; make the layers square"):
            self.head(nn.Conv2d(1, 1, (2, 3), 2, (0, 1)), taps={2: "layer0"})

    def test_stacks_of_other_factors(self) -> None:
        with pytest.raises(GeometryError, match="an upsampling by 3 is no stack of ones by 2"):
            self.head(nn.Conv2d(1, 1, 3, 3, 0), taps={3: "layer0"}, upsampling="stacked")

    def test_scores_that_do_not_cover_the_image(self) -> None:
        head = ready("fcn8s-slim", "same").heads["semantic"]
        coarse = torch.zeros(1, 5, 7, 8)
        there = head.output.window.output_size(7) - head.output.shift[0]
        for function in (head.upsample, head.labels):
            with pytest.raises(GeometryError, match=f"upsampled scores have {there} of {there + 1} pixels; pad more"):
                function(coarse, (there + 1, 8))
            assert function(coarse, (there, 8)).shape[-2:] == (there, 8)

    def test_a_skip_that_is_too_small(self) -> None:
        net = ready("fcn16s-vgg16", "paper")
        trunk = net.trunks["image"]
        sizes = {32: 3, 16: 12}  # needs 2 * 3 + 2 + 5
        features = {"image": {s: torch.zeros(1, trunk.channels(s), n, n) for s, n in sizes.items()}}
        message = "the skip at stride 16 has 12 cells, needs 13; pad more"
        with pytest.raises(GeometryError, match=message):
            net.heads["semantic"](features)

    def test_the_papers_pad_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pitfall 14: 97 makes every size legal."""
        monkeypatch.setattr(fcn, "PAPER_PADDING", 97)
        net = build("fcn32s-vgg16", 2, padding="paper", width=1 / 64).eval()
        for size in ((1, 1), (2, 3), (64, 33)):
            assert net(image(1, 3, *size)).shape[2:] == size


@pytest.mark.parametrize(
    ("name", "options", "reach"),
    [
        ("fcn32s-vgg16", {"padding": "paper", "width": 1 / 16}, 436),
        ("fcn16s-vgg16", {"padding": "paper", "width": 1 / 16}, 468),
        ("fcn8s-vgg16", {"padding": "paper", "width": 1 / 16}, 468),
        ("fcn16s-resnet18", {"width": 1 / 16}, 467),
        ("fcn8s-slim", {"upsampling": "learned-all"}, 469),
        ("fcn8s-slim", {"upsampling": "stacked"}, 469),
    ],
)
def test_the_traced_net_has_the_known_reach(name: str, options: dict[str, Any], reach: int) -> None:
    """404 pixels of fc6 and what upsampling adds: traced from `forward` itself, crops and skips included."""
    traced = trace(build(name, 3, **options).eval(), (1, 3, 75, 101))
    assert not traced.obstacles
    rows, columns = traced.output.fields()
    assert (rows.size, rows.stride, rows.centre) == (reach, 1, 0)
    assert columns == rows


def test_a_net_of_several_inputs_is_traced_by_their_names() -> None:
    net = build("nyud-fcn32s-color-hha", width=1 / 16).eval()
    traced = trace(net, {"color": (1, 3, 33, 47), "hha": (1, 3, 33, 47)})
    assert set(traced.output.reads) == {"color", "hha"}
    assert not traced.obstacles
