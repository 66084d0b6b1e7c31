"""Muon against torch's own, which takes matrices alone, and AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim import Muon as TorchMuon

from fullconv.nets import build
from fullconv.training.muon import LARGEST, RATE, Muon, orthogonal
from fullconv.training.optimizer import make_optimizer
from fullconv.training.recipe import Recipe


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16), (1, 9), (9, 1)])
def test_an_update_is_nearly_orthogonal_and_keeps_its_directions(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ orthogonal(matrix) @ v.T
    assert s.min() > 0.02 * matrix.norm()
    singular = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < singular.min() <= singular.max() < 1.3  # what the iteration promises
    off = inner - torch.diag(inner.diagonal())
    assert off.abs().max() < 0.05, "the directions of the matrix; bfloat16 has three digits"


def test_matrices_follow_torchs_muon_and_the_others_adamw() -> None:
    torch.manual_seed(0)
    conv, bias = nn.Parameter(torch.randn(12, 5, 3, 3)), nn.Parameter(torch.randn(7))
    matrix, vector = (nn.Parameter(p.detach().clone()) for p in (conv.movedim(1, -1).flatten(1), bias))
    groups = [
        {"params": [conv], "weight_decay": 0.1, "matrices": True},
        {"params": [bias], "weight_decay": 0.0, "matrices": False},
    ]
    ours = Muon(groups, lr=2e-3)
    theirs = TorchMuon([matrix], lr=2e-3 * RATE, weight_decay=0.1, momentum=0.95, adjust_lr_fn="original")
    adamw = AdamW([vector], lr=2e-3, weight_decay=0.0)
    for _ in range(4):
        conv.grad, bias.grad = torch.randn_like(conv), torch.randn_like(bias)
        matrix.grad, vector.grad = conv.grad.movedim(1, -1).flatten(1), bias.grad.clone()
        for optimizer in (ours, theirs, adamw):
            optimizer.step()
        torch.testing.assert_close(conv.movedim(1, -1).flatten(1), matrix, rtol=0, atol=2e-3)  # sums in bfloat16
        torch.testing.assert_close(bias, vector, rtol=1e-6, atol=1e-7)
    assert conv.grad is not None


def test_what_has_no_gradient_stays() -> None:
    conv = nn.Parameter(torch.randn(3, 2, 3, 3))
    before = conv.detach().clone()
    Muon([{"params": [conv], "weight_decay": 0.1, "matrices": True}], lr=0.1).step()
    assert torch.equal(conv, before)


def test_the_convolutions_of_the_trunk_are_its_matrices() -> None:
    net = build("fcn8s-slim", 3, width=0.1, upsampling="learned")
    optimizer = make_optimizer(net, Recipe(optimizer="muon"))
    names = {id(p): name for name, p in net.named_parameters()}
    found = {names[id(p)]: group["matrices"] for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == len(names)
    assert {name for name, matrix in found.items() if matrix} == {
        name for name, p in net.named_parameters() if name.startswith("trunks.") and p.ndim == 4
    }
    with torch.device("meta"):
        vgg = build("fcn8s-vgg16", 3)
    optimizer = make_optimizer(vgg, Recipe(optimizer="muon"))
    large = [p for group in optimizer.param_groups if not group["matrices"] for p in group["params"] if p.ndim == 4]
    assert {tuple(p.shape[:2]) for p in large if len(p) > LARGEST} == {(4096, 512), (4096, 4096)}


def test_it_learns(tmp_path: object) -> None:
    """A quadratic whose directions differ by a thousand: the rare ones are learned as well."""
    torch.manual_seed(0)
    target, scales = torch.randn(6, 4, 3, 3), torch.logspace(0, -3, 6)[:, None, None, None]
    weight = nn.Parameter(torch.zeros_like(target))
    optimizer = Muon([{"params": [weight], "weight_decay": 0.0, "matrices": True}], lr=4e-3)

    def error() -> Tensor:
        return (weight - target).square().flatten(1).mean(1)

    for step in range(200):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 200)
        weight.grad = scales * (weight.detach() - target)
        optimizer.step()
    assert (error() < 0.1 * target.square().flatten(1).mean(1)).all()
