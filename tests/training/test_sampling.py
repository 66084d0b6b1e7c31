"""Loss sampling is patchwise training: against patches that are really cut out, and against plain loops."""

from __future__ import annotations

from itertools import product
from math import sqrt
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fullconv import geometry
from fullconv.data.sample import SEMANTIC
from fullconv.labels import VOID
from fullconv.nets import FCN, build
from fullconv.nets.head import Head
from fullconv.nets.options import UPSAMPLINGS
from fullconv.training.losses import LossOptions, TaskLoss
from fullconv.training.sampling import Grid, GridScores, cell_shape, cells, kept, sampled

CLASSES = 4
FIELD, STRIDE = 10, 4  # of `unpadded`, by hand: 3, then 4 (stride 2), 4 + 2 * 2 = 8, 8 + 2 = 10 (stride 4)

Gradients = list[Tensor]


def unpadded() -> nn.Sequential:
    """A net whose cells see nothing but the image."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 5, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.Tanh(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Conv2d(6, CLASSES, 1)).double()


def image(rows: int, columns: int) -> Tensor:
    """(1, 2, H, W) float64 with so many rows and columns of cells, and pixels to spare at the far sides."""
    size = FIELD + STRIDE * (rows - 1) + 3, FIELD + STRIDE * (columns - 1) + 1
    return torch.randn(1, 2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def truth(rows: int, columns: int) -> Tensor:
    """(rows, columns) int64 classes."""
    return torch.randint(0, CLASSES, (rows, columns), generator=torch.Generator().manual_seed(2))


def cross_entropy(
    scores: Tensor, target: Tensor, reduction: str, weights: Tensor | None = None, share: float = 1.0
) -> Tensor:
    loss = TaskLoss(LossOptions({"cross-entropy": 1.0}, reduction), weights, share)
    return loss(scores, target, loss.amounts(target))[0]


def gradients(net: nn.Module, loss: Tensor) -> Gradients:
    return list(torch.autograd.grad(loss, list(net.parameters())))


def by_patches(
    net: nn.Module, picture: Tensor, corners: list[tuple[int, int]], labels: list[Tensor], mean: bool
) -> Gradients:
    """A minibatch of patches, each cut out of the picture at its corner: nothing but the patch reaches the net."""
    patches = torch.cat([picture[:, :, y : y + FIELD, x : x + FIELD].clone() for y, x in corners])
    scores = net(patches)
    assert scores.shape == (len(corners), CLASSES, 1, 1), "a patch is one cell's field, and no more"
    picked = scores[:, :, 0, 0].log_softmax(1)[torch.arange(len(corners)), torch.stack(labels)]
    return gradients(net, -picked.mean() if mean else -picked.sum())


def same(found: Gradients, expected: Gradients) -> None:
    assert max(g.abs().max() for g in expected) > 1e-3, "there is something to compare"
    for one_found, one_expected in zip(found, expected, strict=True):
        torch.testing.assert_close(one_found, one_expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_whole_image_is_the_minibatch_of_all_its_patches(reduction: str) -> None:
    net, picture, labels = unpadded(), image(5, 6), truth(5, 6)
    places = list(product(range(5), range(6)))
    corners = [(STRIDE * i, STRIDE * j) for i, j in places]
    scores = net(picture)
    assert scores.shape[2:] == labels.shape
    whole = gradients(net, cross_entropy(scores, labels[None], reduction))
    same(whole, by_patches(net, picture, corners, [labels[p] for p in places], reduction == "mean"))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_random_share_of_the_cells_is_a_minibatch_of_random_patches(reduction: str, share: float) -> None:
    net, picture, labels = unpadded(), image(5, 6), truth(5, 6)
    mask = kept([(3, 7)], (5, 6), share, seed=1)[0]
    places = [(int(i), int(j)) for i, j in zip(*np.nonzero(mask), strict=True)]
    assert 1 < len(places) < 29
    target = labels.masked_fill(~torch.from_numpy(mask), VOID)
    found = gradients(net, cross_entropy(net(picture), target[None], reduction))
    corners = [(STRIDE * i, STRIDE * j) for i, j in places]
    same(found, by_patches(net, picture, corners, [labels[p] for p in places], reduction == "mean"))


def test_shifts_by_up_to_the_stride_give_the_patches_at_every_pixel() -> None:
    net, picture = unpadded(), image(3, 4)
    rows, columns = (n - FIELD + 1 for n in picture.shape[2:])
    labels = truth(rows, columns)  # of every window of the image
    everywhere = list(product(range(rows), range(columns)))
    shifted = torch.zeros((), dtype=torch.float64)
    for down, right in product(range(STRIDE), range(STRIDE)):
        target = labels[down::STRIDE, right::STRIDE]
        scores = net(picture[:, :, down:, right:])
        assert scores.shape[2:] == target.shape
        shifted = shifted + cross_entropy(scores, target[None], "sum")
    same(gradients(net, shifted), by_patches(net, picture, everywhere, [labels[p] for p in everywhere], mean=False))


NETS: dict[str, dict[str, Any]] = {
    "fcn32s-slim": {"width": 0.1},
    "fcn16s-slim": {"width": 0.1},
    "fcn8s-slim": {"width": 0.1},
    "fcn1s-slim": {"width": 0.1},
    "fcn32s-vgg16": {"padding": "paper", "width": 1 / 8},
    "fcn8s-vgg16": {"padding": "paper", "width": 1 / 8},
    "fcn16s-resnet18": {"width": 1 / 8},
}
SIZES = [(37, 53), (1, 70), (64, 33)]


def net_and_head(name: str) -> tuple[FCN, Head]:
    net = build(name, 2, **NETS[name]).eval()
    return net, cast(Head, net.heads[SEMANTIC])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_pixel_belongs_to_the_cell_with_the_nearest_centre(name: str, size: tuple[int, int]) -> None:
    net, head = net_and_head(name)
    coarse = net.coarse(torch.zeros(1, 3, *size))[SEMANTIC].scores
    shape = cell_shape(net, size)
    assert shape == tuple(coarse.shape[2:])
    _, axes = net.paths()[0]  # from the input to the coarse scores, by way of the trunk: the upsampling plays no part
    fields = [geometry.coordinate_map(path).inverse() for path in axes]
    centres = [[float(f.scale * i + f.offset) for i in range(n)] for f, n in zip(fields, shape, strict=True)]
    rows, columns = cells(head, size, shape)
    assert (len(rows), len(columns)) == size
    for y in range(size[0]):
        assert rows[y] == max(range(shape[0]), key=lambda i: (-abs(centres[0][i] - y), i))
    for x in range(size[1]):
        assert columns[x] == max(range(shape[1]), key=lambda j: (-abs(centres[1][j] - x), j))


@pytest.mark.parametrize("size", [(37, 53), (64, 33)])
@pytest.mark.parametrize("name", sorted(NETS.keys() - {"fcn1s-slim"}))
@torch.no_grad()
def test_a_pixel_belongs_to_the_cell_that_weighs_most_in_its_score(name: str, size: tuple[int, int]) -> None:
    """The bilinear weights themselves, measured by upsampling one cell at a time."""
    net, head = net_and_head(name)
    shape = cell_shape(net, size)
    rows, columns = cells(head, size, shape)
    weights = torch.empty(*shape, *size)
    for i, j in product(*map(range, shape)):
        impulse = torch.zeros(1, 2, *shape)
        impulse[0, 0, i, j] = 1
        weights[i, j] = head.upsample(impulse, size)[0, 0]
    ys, xs = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    own = weights[rows[ys], columns[xs], ys, xs]
    torch.testing.assert_close(own, weights.flatten(0, 1).amax(0), rtol=0, atol=1e-6)
    assert own.min() > 0


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_cells_are_kept_with_their_probability_and_independently(share: float) -> None:
    draws = [(epoch, index) for epoch in range(5) for index in range(10)]
    mask = kept(draws, (30, 40), share, seed=0)
    assert mask.shape == (50, 30, 40)
    bound = 4 * sqrt(share * (1 - share) / mask.size)
    assert abs(mask.mean() - share) < bound
    # Two neighbours, and the same cell of two images, are both kept in share^2 of the cases.
    for both in (mask[:, 1:] & mask[:, :-1], mask[:, :, 1:] & mask[:, :, :-1], mask[1:] & mask[:-1]):
        assert abs(both.mean() - share**2) < 4 * sqrt(share**2 / both.size)


def test_cells_depend_on_seed_and_draw_alone() -> None:
    draws = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 9), (2, 3)]
    whole = kept(draws, (6, 7), 0.5, seed=4)
    assert len({mask.tobytes() for mask in whole}) == len(draws)
    for processes in (2, 3):
        for rank in range(processes):
            assert np.array_equal(kept(draws[rank::processes], (6, 7), 0.5, seed=4), whole[rank::processes])
    assert not np.array_equal(kept(draws, (6, 7), 0.5, seed=5), whole)


def test_pixels_of_other_cells_become_void_in_every_task() -> None:
    size, draws = (37, 53), [(0, 3), (2, 1)]
    net = build("fcn8s-slim", {"kind": 3, "side": 2}, width=0.1)
    heads = [cast(Head, head) for head in net.heads.values()]
    shape = cell_shape(net, size)
    assert len({(head.output.window, head.output.shift) for head in heads}) == 1
    rows, columns = cells(heads[1], size, shape)
    mask = kept(draws, shape, 0.5, seed=6)
    random = torch.Generator().manual_seed(0)
    targets = {task: torch.randint(0, k, (2, *size), generator=random) for task, k in (("kind", 3), ("side", 2))}
    targets["kind"] = targets["kind"].to(torch.uint8)
    targets["side"][:, :5] = VOID
    before = {task: target.clone() for task, target in targets.items()}
    found = sampled(targets, draws, net, 0.5, seed=6)
    for task, target in before.items():
        assert torch.equal(targets[task], target), "the targets given stay as they are"
        assert found[task].dtype == target.dtype
        for n, y, x in product(range(2), *map(range, size)):
            expected = target[n, y, x] if mask[n, rows[y], columns[x]] else VOID
            assert found[task][n, y, x] == expected
    assert sampled(targets, draws, net, 1.0, seed=6) is targets


def test_the_expected_gradient_is_that_of_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all sixteen choices of four cells, each with its probability."""
    share, size = 0.3, (61, 50)
    net, head = net_and_head("fcn32s-slim")
    nn.init.normal_(head.get_parameter("score.image.32.weight"))  # zero, it would let no gradient through
    assert cell_shape(net, size) == (2, 2)
    random = torch.Generator().manual_seed(0)
    scores = net(torch.randint(0, 256, (1, 3, *size), generator=random).float())
    assert isinstance(scores, Tensor)
    scores = scores.double()
    target = torch.randint(0, 2, (1, *size), generator=random)
    target[0, 20:30, 7:40] = VOID
    factors = torch.tensor([0.7, 1.9], dtype=torch.float64)

    def gradient(target: Tensor, share: float) -> Gradients:
        """Of the pixels' scores, float64, and of the weights, float32."""
        loss = cross_entropy(scores, target, "sum", factors, share)
        return list(torch.autograd.grad(loss, [scores, *net.parameters()], retain_graph=True))

    whole = gradient(target, 1)
    expected, undivided = ([torch.zeros_like(g, dtype=torch.float64) for g in whole] for _ in range(2))
    for choice in product([False, True], repeat=4):
        mask = np.array(choice).reshape(1, 2, 2)
        monkeypatch.setattr("fullconv.training.sampling.kept", lambda *_, mask=mask: mask)
        left = sampled({SEMANTIC: target}, [(0, 0)], net, share, seed=0)[SEMANTIC]
        probability = share ** sum(choice) * (1 - share) ** (4 - sum(choice))
        for total, by in ((expected, share), (undivided, 1.0)):
            for mean, g in zip(total, gradient(left, by), strict=True):
                mean += probability * g  # noqa: PLW2901  (in place)
    for g, divided, plain in zip(whole, expected, undivided, strict=True):
        largest = g.abs().max().item()
        assert largest > 1e-4
        accuracy = largest * (1e-12 if g.dtype == torch.float64 else 1e-5)
        torch.testing.assert_close(divided, g.double(), rtol=0, atol=accuracy)
        torch.testing.assert_close(plain, share * g.double(), rtol=0, atol=accuracy)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize(("start", "step"), [((0, 0), 1), ((0, 0), 2), ((1, 0), 2), ((2, 1), 3), ((0, 6), 7)])
def test_scores_on_a_grid_are_those_of_the_whole(upsampling: str, start: tuple[int, int], step: int) -> None:
    """Values, and gradients: nothing of the whole is computed for them but by the kinds that cannot do without."""
    torch.manual_seed(3)
    net = build("fcn8s-slim", {"a": 3, "b": 2}, width=0.1, upsampling=upsampling, dropout=0.0).double().eval()
    for parameter in net.heads.parameters():
        nn.init.normal_(parameter, std=0.1)
    image = torch.rand(2, 3, 41, 30, dtype=torch.float64) * 255
    found = GridScores(net)({"image": image}, Grid(start, step))
    whole = cast(dict[str, Tensor], net(image))
    for task, scores in whole.items():
        expected = scores[:, :, start[0] :: step, start[1] :: step]
        scale = scores.abs().max().item()
        torch.testing.assert_close(found[task], expected, rtol=0, atol=1e-6 * scale)  # float32 sums, in another order
        weights = torch.rand_like(expected)
        first, second = (
            torch.autograd.grad((each * weights).sum(), net.trunks.parameters(), retain_graph=True)
            for each in (found[task], expected)
        )
        for one, other in zip(first, second, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * other.abs().max().item())


def test_every_pixel_is_on_a_grid_in_its_turn() -> None:
    target = torch.arange(7 * 10).view(1, 7, 10)
    starts = [Grid.drawn(step, 3, seed=4).start for step in range(200)]
    assert sorted(set(starts)) == [(row, column) for row in range(3) for column in range(3)]
    assert starts == [Grid.drawn(step, 3, seed=4).start for step in range(200)], "a pure function"
    parts = [Grid(start, 3).of(target).flatten() for start in sorted(set(starts))]
    assert sorted(torch.cat(parts).tolist()) == list(range(70)), "each on one"
    assert Grid.drawn(5, 1, seed=4) == Grid()
