"""Optimisers and their parameter groups."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from fullconv.training.recipe import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """SGD or AdamW with groups of weights (decayed), biases (`bias_lr`, not decayed) and batch norm (not decayed).

    Each group's ``factor`` multiplies the learning rate; heads have `head_lr` beside it. SGD with momentum and a
    constant rate is Caffe's rule (reference 5.4). A fixed net has none but its score layers' parameters to learn.
    """
    if recipe.fixed:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(".score." in name)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
        factor = recipe.bias_lr if name.endswith("bias") else 1.0
        if name.startswith("heads."):
            factor *= recipe.head_lr
        group = groups.setdefault((decay, factor), {"params": [], "weight_decay": decay, "factor": factor})
        group["params"].append(parameter)
    if recipe.optimizer == "sgd":
        return SGD(groups.values(), lr=recipe.lr, momentum=recipe.momentum)
    return AdamW(groups.values(), lr=recipe.lr, fused=True)  # one pass over the weights instead of ten


def training_mode(net: nn.Module) -> None:
    """Training mode, but for batch norm that does not learn: its statistics are fixed with its weights."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
