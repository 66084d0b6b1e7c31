"""Optimisers and their parameter groups."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from fullconv.training.muon import LARGEST, Muon
from fullconv.training.recipe import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimiser: groups of weights (decayed), biases (`bias_lr`, not decayed), batch norm (not decayed).

    Muon makes the updates of the trunks' convolutions orthogonal, but for matrices too large for that. Each group's
    ``factor`` multiplies the learning rate; heads have `head_lr` beside it. SGD with momentum and a constant rate is
    Caffe's rule (reference 5.4). A fixed net has none but its score layers' parameters to learn.
    """
    if recipe.fixed:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(".score." in name)
    groups: dict[tuple[float, float, bool], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        factor = recipe.bias_lr if name.endswith("bias") else 1.0
        if name.startswith("heads."):
            factor *= recipe.head_lr
        matrix = parameter.ndim == 4 and not name.startswith("heads.") and _shorter(parameter) <= LARGEST
        kind = (decay, factor, recipe.optimizer == "muon" and matrix)
        start = {"params": [], "weight_decay": decay, "factor": factor, "matrices": kind[2]}
        groups.setdefault(kind, start)["params"].append(parameter)
    if recipe.optimizer == "sgd":
        return SGD(groups.values(), lr=recipe.lr, momentum=recipe.momentum)
    if recipe.optimizer == "muon":
        return Muon(groups.values(), lr=recipe.lr)
    return AdamW(groups.values(), lr=recipe.lr, fused=True)  # one pass over the weights instead of ten


def _shorter(weight: Tensor) -> int:
    """Side of a convolution's weight (outputs, inputs, height, width) as a matrix."""
    return min(weight.shape[0], weight[0].numel())


def training_mode(net: nn.Module) -> None:
    """Training mode, but for batch norm whose weights are kept from learning: its statistics are fixed with them."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.requires_grad:
            module.eval()
