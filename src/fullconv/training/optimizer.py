"""Optimisers and their parameter groups."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from fullconv.training.recipes import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> Optimizer:
    """SGD or AdamW with three groups: weights (decayed), biases (`bias_lr`, not decayed), batch norm (not decayed).

    Each group's ``factor`` multiplies the learning rate. SGD with momentum and a constant rate is Caffe's rule
    (reference 5.4). A fixed net has none but its score layers' parameters to learn.
    """
    if recipe.fixed:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(".score." in name)
    weights, biases, scales = [], [], []
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim > 1:
            weights.append(parameter)
        elif name.endswith("bias"):
            biases.append(parameter)
        else:
            scales.append(parameter)
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay, "factor": 1.0},
        {"params": biases, "weight_decay": 0.0, "factor": recipe.bias_lr},
        {"params": scales, "weight_decay": 0.0, "factor": 1.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum)
    return AdamW(groups, lr=recipe.lr, fused=True)  # one pass over the weights instead of ten


def training_mode(net: nn.Module) -> None:
    """Training mode, but for batch norm that does not learn: its statistics are fixed with its weights."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()
