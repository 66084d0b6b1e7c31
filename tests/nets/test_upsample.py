"""Upsampling against torch's dense transposed convolution, and labels against argmax."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fcn_oracle import surgery
from fullconv.geometry import Window
from fullconv.nets import upsample
from fullconv.nets.upsample import (
    BilinearUpsampling,
    Interpolation,
    Interval,
    LearnedUpsampling,
    Upsampling,
    bilinear_kernel,
)

DECONVOLUTIONS = [BilinearUpsampling, LearnedUpsampling]
KINDS = [*DECONVOLUTIONS, Interpolation]
FIXED = [BilinearUpsampling, Interpolation]
Kind = type[BilinearUpsampling] | type[LearnedUpsampling]


def up(kernel: int, stride: int) -> Window:
    return Window(kernel, stride, transposed=True)


def dense(x: Tensor, weight: Tensor, stride: int, rows: Interval, columns: Interval) -> Tensor:
    """The whole map in float64 on a wide margin of zeros, of which the rectangle is a slice."""
    margin = 40
    whole = F.pad(F.conv_transpose2d(x.double(), weight.double(), stride=stride), [margin] * 4)
    return whole[:, :, rows[0] + margin : rows[1] + margin, columns[0] + margin : columns[1] + margin]


def interpolated(x: Tensor, window: Window, rows: Interval, columns: Interval) -> Tensor:
    """torch's interpolation of a map whose border cells are repeated widely, in float64: its values in a rectangle.

    Values lie on and halfway between the pixels of the enlarged map, as kernels of both parities need them: output y of
    a transposed convolution is centred (y - (k - 1) / 2) / f cells from cell 0.
    """
    margin, fine = 40, 2 * window.stride
    wide = F.pad(x.double(), [margin] * 4, mode="replicate")
    whole = F.interpolate(wide, size=[fine * (n - 1) + 1 for n in wide.shape[2:]], mode="bilinear", align_corners=True)
    down, across = (2 * torch.arange(*span) - (window.kernel - 1) + fine * margin for span in (rows, columns))
    return whole[:, :, down[:, None], across]


@st.composite
def cases(draw: st.DrawFn, bilinear: bool = False) -> tuple[Tensor, Window, Interval, Interval]:
    """Scores, a window and a rectangle that may reach beyond the upsampled map."""
    if bilinear:
        factor = draw(st.integers(1, 6))
        window = up(2 * factor - draw(st.integers(0, 1)), factor)
    else:
        window = up(draw(st.integers(1, 9)), draw(st.integers(1, 4)))
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 6))]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    starts = [draw(st.integers(-9, window.output_size(n) + 6)) for n in shape[2:]]
    rows, columns = ((start, start + draw(st.integers(1, 30))) for start in starts)
    return x, window, rows, columns


class TestKernel:
    def test_published_taps(self) -> None:
        """Reference 4.3."""
        assert bilinear_kernel(4).tolist() == [0.25, 0.75, 0.75, 0.25]
        even, odd = bilinear_kernel(64), bilinear_kernel(63)
        assert (even[0], even.max(), even[31]) == (1 / 64, 63 / 64, 63 / 64)
        assert (odd[0], odd.max(), odd[31]) == (1 / 32, 1, 1)
        assert even.dtype == torch.float32

    @pytest.mark.parametrize("size", range(1, 70))
    def test_caffes_own_filler_gives_the_same_numbers(self, size: int) -> None:
        f = -(-size // 2)
        c = (size - 1) / (2 * f)
        assert bilinear_kernel(size).tolist() == pytest.approx([1 - abs(x / f - c) for x in range(size)], abs=1e-7)

    @pytest.mark.parametrize("factor", [1, 2, 3, 8, 16, 32])
    def test_taps_on_one_output_sum_to_one(self, factor: int) -> None:
        for size in (2 * factor, 2 * factor - 1):
            taps = F.pad(bilinear_kernel(size), (0, 2 * factor - size))
            assert torch.allclose(taps[:factor] + taps[factor:], torch.ones(factor))

    @pytest.mark.parametrize("size", [4, 16, 32, 63, 64])
    def test_outer_product_is_the_reference_surgery(self, size: int) -> None:
        taps = bilinear_kernel(size)
        assert torch.allclose(taps[:, None] * taps, surgery(1, size)[0, 0], rtol=0, atol=1e-7)


class TestScores:
    @settings(deadline=None)
    @given(cases())
    def test_bilinear_equals_the_dense_deconvolution(self, case: tuple[Tensor, Window, Interval, Interval]) -> None:
        x, window, rows, columns = case
        y = BilinearUpsampling(x.shape[1], window)(x, rows, columns)
        expected = dense(x, surgery(x.shape[1], window.kernel), window.stride, rows, columns)
        assert y.shape == expected.shape
        assert y.dtype == torch.float32
        # A handful of products of float32 numbers of order one.
        assert torch.allclose(y.double(), expected, rtol=0, atol=2e-6)

    @settings(deadline=None)
    @given(cases(bilinear=True))
    def test_learned_starts_as_bilinear(self, case: tuple[Tensor, Window, Interval, Interval]) -> None:
        x, window, rows, columns = case
        bilinear, learned = (kind(x.shape[1], window)(x, rows, columns) for kind in DECONVOLUTIONS)
        assert torch.allclose(bilinear, learned, rtol=0, atol=2e-6)

    @settings(deadline=None)
    @given(cases(bilinear=True), st.integers(0, 9))
    def test_learned_equals_the_dense_deconvolution(
        self, case: tuple[Tensor, Window, Interval, Interval], seed: int
    ) -> None:
        x, window, rows, columns = case
        learned = LearnedUpsampling(x.shape[1], window)
        with torch.no_grad():
            learned.weight.normal_(generator=torch.Generator().manual_seed(seed))
        y = learned(x, rows, columns)
        expected = dense(x, learned.weight, window.stride, rows, columns)
        assert y.shape == expected.shape
        assert torch.allclose(y.double(), expected, rtol=0, atol=2e-5)  # up to 16 products a value

    @settings(deadline=None)
    @given(cases(bilinear=True))
    def test_interpolation_is_torchs(self, case: tuple[Tensor, Window, Interval, Interval]) -> None:
        x, window, rows, columns = case
        y = Interpolation(x.shape[1], window)(x, rows, columns)
        expected = interpolated(x, window, rows, columns)
        assert y.shape == expected.shape
        assert y.dtype == torch.float32
        assert torch.allclose(y.double(), expected, rtol=0, atol=2e-6)

    @pytest.mark.parametrize("factor", [2, 4, 8, 32])
    def test_interpolation_by_even_factors_is_half_pixel_resizing(self, factor: int) -> None:
        """Borders included, and beyond them the edge repeats."""
        x = torch.randn(2, 3, 5, 1)
        resized = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        expected = F.pad(resized, [2 * factor] * 4, mode="replicate")
        rows, columns = ((factor // 2 - 2 * factor, factor // 2 + (n + 2) * factor) for n in (5, 1))
        y = Interpolation(3, up(2 * factor, factor))(x, rows, columns)
        assert torch.allclose(y, expected, rtol=0, atol=2e-6)

    @pytest.mark.parametrize("kind", FIXED)
    @settings(deadline=None)
    @given(cases(bilinear=True))
    def test_a_rectangle_has_the_bits_of_the_whole(
        self, kind: Kind, case: tuple[Tensor, Window, Interval, Interval]
    ) -> None:
        """Labels and tiles rest on this."""
        x, window, _, _ = case
        layer = kind(x.shape[1], window)
        height, width = (window.output_size(n) for n in x.shape[2:])
        whole = layer.whole(x)
        for top, left in ((0, 0), (height // 3, width // 2), (height - 1, width - 1)):
            part = layer(x, (top, height), (left, width))
            assert torch.equal(part, whole[:, :, top:, left:])
        assert torch.equal(layer(x[:1], (0, height), (0, width)), whole[:1])

    def test_interior_is_half_pixel_resizing(self) -> None:
        """Reference 3.6."""
        x = torch.randn(2, 3, 9, 11)
        y = BilinearUpsampling(3, up(16, 8))(x, (4, 76), (4, 92))
        resized = F.interpolate(x, scale_factor=8, mode="bilinear", align_corners=False)
        assert torch.allclose(y[:, :, 4:-4, 4:-4], resized[:, :, 4:-4, 4:-4], atol=1e-6)

    def test_weights_fade_at_the_border(self) -> None:
        """Reference 3.6: in 32s the first column has weight 0.609 and the 13th full weight."""
        y = BilinearUpsampling(1, up(64, 32))(torch.ones(1, 1, 3, 3), (32, 64), (19, 60))[0, 0, 0]
        assert y[0].item() == pytest.approx(0.609, abs=5e-4)
        assert y[12].item() < 1
        assert torch.equal(y[13:], torch.ones_like(y[13:]))

    @pytest.mark.parametrize("kind", KINDS)
    def test_autocast_rounds_nothing(self, kind: Kind) -> None:
        x, layer = torch.randn(1, 2, 5, 4), kind(2, up(8, 4))
        plain = layer(x, (2, 20), (0, 16))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(layer(x, (2, 20), (0, 16)), plain)
        assert layer(x.bfloat16(), (2, 20), (0, 16)).dtype == torch.float32

    @pytest.mark.parametrize("kind", KINDS)
    def test_shapes_alone_on_the_meta_device(self, kind: Kind) -> None:
        y = kind(2, up(8, 4)).to("meta")(torch.empty(3, 2, 5, 4, device="meta"), (2, 20), (0, 16))
        assert (y.shape, y.device.type) == ((3, 2, 18, 16), "meta")

    def test_the_abstract_layer_does_nothing(self) -> None:
        with pytest.raises(NotImplementedError):
            Upsampling(2, up(4, 2))(torch.zeros(1, 2, 3, 3), (0, 1), (0, 1))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_whole_is_the_uncropped_map(self, kind: Kind) -> None:
        assert kind(2, up(7, 4)).whole(torch.zeros(3, 2, 5, 1)).shape == (3, 2, 23, 7)  # 4 (n - 1) + 7

    @pytest.mark.parametrize("kind", KINDS)
    def test_resetting_gives_the_weights_of_the_start(self, kind: Kind) -> None:
        layer = kind(2, up(8, 4))
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_()
        layer.reset_parameters()
        for key, value in kind(2, up(8, 4)).state_dict().items():
            assert torch.equal(layer.state_dict()[key], value)

    def test_weights_of_other_types_sum_in_float32(self) -> None:
        x = torch.randn(1, 2, 5, 4)
        layer = LearnedUpsampling(2, up(8, 4))
        plain = layer.whole(x)
        assert torch.equal(layer.to(torch.bfloat16).whole(x), plain)  # bilinear weights are exact in it

    @pytest.mark.parametrize("kind", KINDS)
    def test_repr_shows_the_geometry(self, kind: Kind) -> None:
        assert repr(kind(21, up(16, 8))) == f"{kind.__name__}(21, kernel_size=16, stride=8)"


class TestGradients:
    @settings(deadline=None)
    @given(cases(bilinear=True))
    def test_gradients_are_those_of_the_dense_deconvolution(
        self, case: tuple[Tensor, Window, Interval, Interval]
    ) -> None:
        x, window, rows, columns = case
        upstream = torch.randn(*x.shape[:2], rows[1] - rows[0], columns[1] - columns[0])
        kernel = surgery(x.shape[1], window.kernel).double().requires_grad_()
        reference = x.double().requires_grad_()
        (dense(reference, kernel, window.stride, rows, columns) * upstream).sum().backward()
        for kind in DECONVOLUTIONS:
            layer, leaf = kind(x.shape[1], window), x.clone().requires_grad_()
            (layer(leaf, rows, columns) * upstream).sum().backward()
            # Sums of up to 144 products of order one.
            assert torch.allclose(leaf.grad.double(), reference.grad, rtol=0, atol=2e-5)
            for parameter in layer.parameters():
                assert torch.allclose(parameter.grad.double(), kernel.grad, rtol=0, atol=5e-5)

    @settings(deadline=None)
    @given(cases(bilinear=True))
    def test_gradients_of_interpolation_are_torchs(self, case: tuple[Tensor, Window, Interval, Interval]) -> None:
        x, window, rows, columns = case
        upstream = torch.randn(*x.shape[:2], rows[1] - rows[0], columns[1] - columns[0])
        reference, leaf = x.double().requires_grad_(), x.clone().requires_grad_()
        (interpolated(reference, window, rows, columns) * upstream).sum().backward()
        (Interpolation(x.shape[1], window)(leaf, rows, columns) * upstream).sum().backward()
        # A border cell gathers whatever reads beyond it: up to 900 products of order one.
        assert torch.allclose(leaf.grad.double(), reference.grad, rtol=1e-5, atol=5e-5)

    @pytest.mark.parametrize("border", [kind.border for kind in FIXED])
    @pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (5, 3), (7, 2), (1, 1), (3, 4)])
    def test_gradients_numerically(self, border: str, kernel: int, stride: int) -> None:
        x = torch.randn(2, 1, 3, 2, dtype=torch.float64, requires_grad=True)
        taps = torch.randn(kernel, dtype=torch.float64)
        rectangle = ((-3, 9), (1, 12))
        assert torch.autograd.gradcheck(
            lambda leaf: upsample._Interpolate.apply(leaf, taps, stride, rectangle, border), x
        )

    def test_gradients_of_a_plain_sum(self) -> None:
        """An expanded gradient: every cell away from the border hands on stride squared."""
        x = torch.randn(1, 1, 5, 5, requires_grad=True)
        BilinearUpsampling(1, up(8, 4))(x, (0, 24), (0, 24)).sum().backward()
        assert torch.allclose(x.grad, torch.full_like(x, 16))

    def test_backward_under_autocast_rounds_nothing(self) -> None:
        x = torch.randn(1, 2, 5, 4, requires_grad=True)
        layer = BilinearUpsampling(2, up(8, 4))
        (plain,) = torch.autograd.grad(layer(x, (2, 20), (0, 16)).square().sum(), x)
        with torch.autocast("cpu", torch.bfloat16):
            (mixed,) = torch.autograd.grad(layer(x, (2, 20), (0, 16)).square().sum(), x)
        assert torch.equal(mixed, plain)

    def test_only_learned_weights_are_learned(self) -> None:
        assert list(BilinearUpsampling(3, up(4, 2)).parameters()) == []
        assert [p.shape for p in LearnedUpsampling(3, up(4, 2)).parameters()] == [(3, 3, 4, 4)]


def labels_of(x: Tensor, layer: Upsampling, offset: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) of a rectangle of the output."""
    rows, columns = ((start, start + n) for start, n in zip(offset, size, strict=True))
    return torch.stack([layer.labels(one, rows, columns) for one in x])


def largest_tensor(function: Callable[[], object]) -> int:
    """Elements of the largest tensor that any operation gave meanwhile."""

    class Largest(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else [result]:
                if isinstance(value, Tensor):
                    self.largest = max(self.largest, value.numel())
            return result

    with Largest() as mode:
        function()
    return mode.largest


class TestLabels:
    SHAPES = ((1, 1, 1, 1), (2, 3, 5, 7), (2, 21, 9, 4), (1, 255, 3, 3), (2, 2, 1, 13))
    WINDOWS = (up(1, 1), up(4, 2), up(16, 8), up(63, 32), up(64, 32))

    @pytest.mark.parametrize("kind", FIXED)
    @pytest.mark.parametrize("window", WINDOWS, ids=str)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("block", [1, 5000])
    def test_labels_are_the_argmax_of_the_scores(
        self, kind: Kind, window: Window, shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upsample, "LABEL_BLOCK", block)
        x, layer = torch.randn(shape), kind(shape[1], window)
        full = [window.output_size(n) for n in shape[2:]]
        for offset in ((0, 0), (window.stride // 2, window.stride - 1)):
            size = full[0] - offset[0], full[1] - offset[1]
            labels = labels_of(x, layer, offset, size)
            assert labels.dtype == torch.uint8
            scores = layer(x, (offset[0], full[0]), (offset[1], full[1]))
            assert torch.equal(labels, scores.argmax(1))

    @pytest.mark.parametrize("kind", FIXED)
    def test_labels_far_beyond_the_map(self, kind: Kind) -> None:
        """Of zeros the first class, of repeated cells that of the border."""
        x = torch.rand(2, 3, 14, 15)
        x[:, 2] += 1
        x[:, 1, 1:3, 2:4] += 2
        layer = kind(3, up(8, 4))
        labels = labels_of(x, layer, (-9, 3), (70, 66))  # most of it on the map, so that cells are picked at all
        assert torch.equal(labels, layer(x, (-9, 61), (3, 69)).argmax(1))
        assert labels.unique().tolist() == ([1, 2] if kind is Interpolation else [0, 1, 2])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("window", WINDOWS, ids=str)
    def test_the_first_of_equal_scores_wins(self, kind: Kind, window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
        """Small whole scores: sums are exact and ties abound. So exact, that the dense deconvolution agrees too."""
        monkeypatch.setattr(upsample, "LABEL_BLOCK", 3000)
        x = torch.randint(0, 3, (2, 6, 8, 7)).float()
        height, width = (window.output_size(n) for n in x.shape[2:])
        labels = labels_of(x, kind(6, window), (0, 0), (height, width))
        if kind is Interpolation:
            scores = interpolated(x, window, (0, height), (0, width))
        else:
            scores = dense(x, surgery(6, window.kernel), window.stride, (0, height), (0, width))
        assert torch.equal(labels, scores.argmax(1))
        assert (scores == scores.amax(1, keepdim=True)).sum() > labels.numel(), "no ties: the test tests nothing"

    def test_learned_labels_win_within_rounding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch's convolution rounds a block and the whole differently, so only near ties may differ."""
        monkeypatch.setattr(upsample, "LABEL_BLOCK", 2000)
        layer = LearnedUpsampling(5, up(16, 8))
        with torch.no_grad():
            layer.weight.normal_()
            x = torch.randn(2, 5, 9, 8)
            labels = labels_of(x, layer, (3, 5), (70, 61)).long()
            scores = layer(x, (3, 73), (5, 66))
        won = scores.gather(1, labels[:, None])[:, 0]
        assert torch.allclose(won, scores.amax(1), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_full_size_scores_never_exist(self, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upsample, "LABEL_BLOCK", 1 << 14)
        x, layer, size = torch.randn(2, 8, 32, 32), kind(8, up(16, 8)), (240, 240)
        with torch.no_grad():
            full = largest_tensor(lambda: layer(x, (4, 244), (4, 244)))
            block = largest_tensor(lambda: labels_of(x, layer, (4, 4), size))
        assert full >= 2 * 8 * 240 * 240
        # 8 classes, 8 rows of 240 columns; and the rest of the cells that the rows cut
        assert block <= max(3 * 8 * 8 * 256, 2 * 240 * 240)

    @pytest.mark.parametrize("kind", FIXED)
    @pytest.mark.parametrize("window", [up(4, 2), up(15, 8), up(16, 8), up(63, 32)], ids=str)
    @pytest.mark.parametrize("lead", [0.0, 1e-7, 1e-6, 1e-5, 1e-3])
    def test_near_ties_are_decided_by_the_rounded_scores(self, kind: Kind, window: Window, lead: float) -> None:
        """Classes that lie within a rounding of each other: the shortcut must leave them to the sums."""
        common = 1 + torch.rand(2, 1, 24, 24)
        x = common * (1 + lead * torch.randn(2, 4, 24, 24).round())
        x[:, 1, 10:, :] += 1  # more than half of the ground is clear, so that cells are picked at all
        # Here the last class leads in every cell, by so little that the rounded sums of the first may catch up.
        x[:, 3, 2:9] = torch.nextafter(x[:, :3, 2:9].amax(1), torch.tensor(torch.inf))
        layer = kind(4, window)
        height, width = (window.output_size(n) for n in x.shape[2:])
        labels = labels_of(x, layer, (0, 0), (height, width))
        assert torch.equal(labels, layer(x, (0, height), (0, width)).argmax(1))

    def test_only_cells_that_disagree_are_interpolated(self) -> None:
        """One class left, the other right: the scores of one column of cells, and of the border, are all it takes."""
        x = torch.zeros(1, 2, 64, 64)
        x[:, 0, :, :20], x[:, 1, :, 20:] = 1.0, 1.0
        layer = BilinearUpsampling(2, up(16, 8))
        blocks_of_cells = (4 * 65 + 64) * 64
        assert largest_tensor(lambda: labels_of(x, layer, (4, 4), (512, 512))) <= max(65 * 65 * 64, 2 * blocks_of_cells)
        assert torch.equal(labels_of(x, layer, (4, 4), (512, 512)), layer(x, (4, 516), (4, 516)).argmax(1))

    @pytest.mark.parametrize("kind", FIXED)
    def test_columns_are_summed_in_the_rows_that_a_block_reads(
        self, kind: Kind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of all rows, for every block, time would grow with the square of the image's height."""
        monkeypatch.setattr(upsample, "LABEL_BLOCK", 1)
        along, summed = upsample._along, []

        def counted(x: Tensor, taps: Tensor, stride: int, interval: Interval, axis: int, border: str) -> Tensor:
            if axis == 3:
                summed.append(x.shape[2])
            return along(x, taps, stride, interval, axis, border)

        monkeypatch.setattr(upsample, "_along", counted)
        labels_of(torch.randn(1, 8, 32, 32), kind(8, up(16, 8)), (8, 8), (240, 240))
        assert summed == [2] * 30, "blocks of 8 rows, which read two rows of cells each"

    def test_scores_are_taken_in_blocks_of_the_given_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upsample, "LABEL_BLOCK", 16 * 240 * 8)
        asked = []

        class Recorded(LearnedUpsampling):
            def forward(self, x: Tensor, rows: Interval, columns: Interval) -> Tensor:
                asked.append((x.shape[0], rows, columns))
                return super().forward(x, rows, columns)

        labels_of(torch.randn(2, 8, 32, 32), Recorded(8, up(16, 8)), (4, 6), (40, 240))
        assert asked == [(1, rows, (6, 246)) for rows in ((4, 20), (20, 36), (36, 44))] * 2


class TestIdentities:
    """Reference 4.3: upsampling by a factor is the backward pass of a convolution with that stride."""

    kernels, strides, sizes = st.integers(1, 5), st.integers(1, 4), st.integers(1, 5)

    @settings(deadline=None)
    @given(kernels, strides, sizes, sizes, st.integers(1, 3))
    def test_a_transposed_convolution_is_the_gradient_of_the_convolution(
        self, kernel: int, stride: int, height: int, width: int, maps: int
    ) -> None:
        """What falls on the input of the strided convolution when scores arrive as gradients at its output."""
        scores = torch.randn(2, maps, height, width, dtype=torch.float64)
        weight = torch.randn(maps, maps, kernel, kernel, dtype=torch.float64)
        image = torch.zeros(2, maps, *(stride * (n - 1) + kernel for n in (height, width)), dtype=torch.float64)
        image.requires_grad_()
        convolved = F.conv2d(image, weight, stride=stride)
        assert convolved.shape == scores.shape
        (gradient,) = torch.autograd.grad(convolved, image, scores)
        assert torch.allclose(gradient, F.conv_transpose2d(scores, weight, stride=stride), rtol=0, atol=1e-12)
        layer = LearnedUpsampling(maps, up(kernel, stride))
        with torch.no_grad():
            layer.weight.copy_(weight)
        assert torch.allclose(layer.whole(scores).double(), gradient, rtol=0, atol=1e-4)  # float32

    @settings(deadline=None)
    @given(kernels, strides, sizes, sizes)
    def test_its_matrix_is_that_of_the_convolution_transposed(
        self, kernel: int, stride: int, height: int, width: int
    ) -> None:
        """Column i of C is the answer of the convolution to an impulse at pixel i; upsampling is C.T @ scores."""
        size = [stride * (n - 1) + kernel for n in (height, width)]
        weight = torch.randn(1, 1, kernel, kernel, dtype=torch.float64)
        impulses = torch.eye(size[0] * size[1], dtype=torch.float64).view(-1, 1, *size)
        C = F.conv2d(impulses, weight, stride=stride).flatten(1).T
        assert C.shape == (height * width, size[0] * size[1])
        x, scores = torch.randn(size[0] * size[1]).double(), torch.randn(height * width).double()
        assert torch.allclose((C @ x).view(1, 1, height, width), F.conv2d(x.view(1, 1, *size), weight, stride=stride))
        upsampled = F.conv_transpose2d(scores.view(1, 1, height, width), weight, stride=stride)
        assert torch.allclose((C.T @ scores).view(1, 1, *size), upsampled, rtol=0, atol=1e-12)
        layer = LearnedUpsampling(1, up(kernel, stride))
        with torch.no_grad():
            layer.weight.copy_(weight)
        mine = layer.whole(scores.view(1, 1, height, width))
        assert torch.allclose(mine.double(), upsampled, rtol=0, atol=1e-4)

    @pytest.mark.parametrize(("kernel", "stride", "size"), [(4, 2, 5), (3, 2, 4), (15, 8, 3)])
    def test_bilinear_upsampling_is_a_matrix_too(self, kernel: int, stride: int, size: int) -> None:
        """Separable, and fixed: that of the convolution with bilinear taps along each axis, transposed."""
        length = stride * (size - 1) + kernel
        taps = bilinear_kernel(kernel)
        C = torch.stack([F.pad(taps, (stride * i, length - kernel - stride * i)) for i in range(size)])
        x = torch.randn(size, size)
        expected = C.T @ x @ C
        mine = BilinearUpsampling(1, up(kernel, stride)).whole(x[None, None])[0, 0]
        assert torch.allclose(mine, expected, rtol=0, atol=2e-6)
