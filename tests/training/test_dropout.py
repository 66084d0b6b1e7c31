"""Keyed dropout: F.dropout's semantics, with masks that belong to the images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fullconv.errors import OptionError
from fullconv.nets import build
from fullconv.training.draws import generator
from fullconv.training.dropout import DropoutKeys, KeyedDropout, keep_there, key_dropout

DRAWS = [(0, 3), (0, 5), (2, 3), (7, 0)]


def keyed(p: float = 0.5, seed: int = 0, layers: int = 1, **options: Any) -> tuple[nn.Sequential, DropoutKeys]:
    net = nn.Sequential(*(nn.Dropout(p, **options) for _ in range(layers)))
    return net, key_dropout(net, seed)


def masks(net: nn.Module, keys: DropoutKeys, draws: list[tuple[int, int]], *shape: int) -> Tensor:
    """What a net makes of ones."""
    keys.set_draws(draws)
    result: Tensor = net(torch.ones(len(draws), *shape))
    return result


@given(st.permutations(range(4)), st.integers(1, 3), st.integers(0, 2**40))
@settings(max_examples=25)
def test_the_masks_are_the_images_own(order: list[int], parts: int, seed: int) -> None:
    """However the images are shared out to batches, in whatever order, and whatever was drawn before."""
    net, keys = keyed(seed=seed)
    whole = masks(net, keys, DRAWS, 3, 5, 4)
    found = {}
    for part in range(parts):
        torch.manual_seed(part)  # torch's own generator plays no part
        mine = order[part::parts]
        found.update(zip(mine, masks(net, keys, [DRAWS[i] for i in mine], 3, 5, 4), strict=True))
    assert torch.equal(torch.stack([found[i] for i in range(4)]), whole)


def test_seeds_draws_layers_and_calls_give_other_masks() -> None:
    found = []
    for seed in (0, 1):
        net, keys = keyed(seed=seed, layers=2)
        for number in (0, 1):
            keys.set_draws(DRAWS)
            for _ in range(2):  # a layer that is used twice
                found += list(net[number](torch.ones(4, 3, 5, 7)))
    assert len({tuple((image > 0).flatten().tolist()) for image in found}) == 2 * 2 * 2 * len(DRAWS)


def test_the_masks_of_a_seed_stay_what_they_are() -> None:
    """Runs are resumed by later versions: 16 bits an element, channels last, against the levels of p."""
    net, keys = keyed(p=0.3, seed=2**40, layers=2)
    found = masks(net[1], keys, [(4, 9)], 3, 5, 7)
    stream = generator("dropout", 4, 9, 1, 0, seed=2**40)
    raw = stream.bytes(2 * 3 * 5 * 7)
    for row in range(5):
        for column in range(7):
            for channel in range(3):
                at = 2 * ((row * 7 + column) * 3 + channel)
                level = raw[at] + 256 * raw[at + 1]
                assert found[0, channel, row, column] == (0 if level < 19661 else torch.tensor(1 / 0.7))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_what_is_kept_is_scaled(p: float) -> None:
    net, keys = keyed(p=p)
    found = masks(net, keys, DRAWS, 64, 40, 40)
    kept = torch.nn.functional.dropout(torch.ones(1000), p).max()
    assert set(found.unique().tolist()) == {0.0, kept.item()}
    share, count = (found == 0).double().mean().item(), found.numel()
    assert abs(share - p) < 4 * (p * (1 - p) / count) ** 0.5  # four standard errors
    assert abs(found.mean().item() - 1) < 0.01


def test_p_of_one_leaves_nothing_and_of_zero_all() -> None:
    net, keys = keyed(p=1.0)
    assert masks(net, keys, DRAWS, 3, 4).abs().max() == 0
    zero, none = keyed(p=0.0)
    assert none.layers == []
    assert type(zero[0]) is nn.Dropout
    net, keys = keyed()
    net[0].p = 0.0  # set later
    assert torch.equal(masks(net, keys, DRAWS, 3, 4), torch.ones(4, 3, 4))


def test_evaluation_is_the_identity() -> None:
    net, _ = keyed()
    net.eval()
    x = torch.randn(9, 3, 4, 5)  # nobody tells the draws
    assert net(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_type_format_and_mask_do_not_depend_on_each_other(dtype: torch.dtype, memory: torch.memory_format) -> None:
    net, keys = keyed(p=0.4)
    x = torch.randn(4, 6, 5, 7).to(dtype).contiguous(memory_format=memory)
    keys.set_draws(DRAWS)
    y = net(x)
    assert y.dtype == dtype
    assert y.stride() == x.stride()
    scale = torch.tensor(1 / 0.6, dtype=dtype)
    torch.testing.assert_close(y, x * (masks(net, keys, DRAWS, 6, 5, 7) > 0) * scale)


@pytest.mark.parametrize("shape", [(4,), (4, 6), (4, 6, 3), (4, 2, 3, 4, 5), (4, 2, 0, 3)])
def test_any_number_of_axes(shape: tuple[int, ...]) -> None:
    net, keys = keyed()
    assert masks(net, keys, DRAWS, *shape[1:]).shape == shape


def test_gradients_pass_where_the_values_do() -> None:
    for inplace in (False, True):
        net, keys = keyed(inplace=inplace)
        keys.set_draws(DRAWS)
        leaf = torch.randn(4, 3, 5, 4, requires_grad=True)
        x = leaf * 1
        y = net(x)
        assert (y.data_ptr() == x.data_ptr()) is inplace
        y.sum().backward()
        assert torch.equal(leaf.grad, masks(net, keys, DRAWS, 3, 5, 4))


def test_under_autocast_the_type_of_the_features_stays() -> None:
    net, keys = keyed()
    conv = nn.Conv2d(3, 4, 1)
    keys.set_draws(DRAWS)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(conv(torch.randn(4, 3, 5, 4)))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert conv.weight.grad is not None


def test_another_number_of_images_is_refused() -> None:
    net, keys = keyed()
    keys.set_draws(DRAWS)
    with pytest.raises(OptionError) as caught:
        net(torch.ones(3, 8))
    assert str(caught.value) == (
        "dropout of a batch of 3 (shape 3x8), expected the 4 images whose draws were set; "
        "set those of every batch, and keep the images on the first axis"
    )


def test_layers_are_keyed_in_place() -> None:
    class Own(nn.Dropout):
        pass

    shared = nn.Dropout(0.2, inplace=True).eval()
    net = nn.Sequential(shared, nn.Dropout2d(), Own(), nn.Dropout(0.0), nn.Sequential(shared, nn.Dropout(0.7)))
    held, hooked = list(net.modules()), []
    shared.register_forward_hook(lambda *_: hooked.append(1))
    keys = key_dropout(net, 5)
    assert all(one is two for one, two in zip(net.modules(), held, strict=True))
    assert keys.layers == [shared, net[4][1]]
    assert [(each.p, each.inplace, each.training) for each in keys.layers] == [(0.2, True, False), (0.7, False, True)]
    assert [(each.seed, each.number) for each in keys.layers] == [(5, 0), (5, 1)]
    assert isinstance(shared, KeyedDropout)
    assert isinstance(shared, nn.Dropout)
    shared(torch.ones(1))
    assert hooked == [1]
    again = key_dropout(net, 6)
    assert [(each.seed, each.number) for each in again.layers] == [(6, 0), (6, 1)]


@pytest.mark.parametrize("name", ["fcn8s-slim", "fcn8s-vgg16", "fcn32s-alexnet", "fcn32s-googlenet", "fcn16s-resnet18"])
def test_nets_keep_their_geometry_and_train_alike_in_parts(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, 3, width=1 / 16, dropout=0.5)
    before = net.paths()
    keys = key_dropout(net, 1)
    assert len(keys.layers) >= 1
    assert net.paths() == before
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics are of the batch
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)  # so that features reach the scores
    images = torch.randn(4, 3, 40, 48)
    keys.set_draws(DRAWS)
    whole = net(images)
    plain = copy.deepcopy(net).eval()(images)
    assert not torch.allclose(whole, plain, rtol=1e-2)
    parts = []
    for image, draw in zip(images, DRAWS, strict=True):
        keys.set_draws([draw])
        parts.append(net(image[None]))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5 * whole.abs().max().item())


def test_other_devices_draw_where_they_compute() -> None:
    """The way of GPUs, which a CPU can go too."""
    first, same, other = (torch.empty(50, 100) for _ in range(3))
    for mask, key in ((first, 2**62), (same, 2**62), (other, 2**62 + 1)):
        keep_there(mask, 0.25, key)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert abs((first == 0).double().mean().item() - 0.25) < 4 * (0.25 * 0.75 / 5000) ** 0.5
