"""How large signals and gradients are from layer to layer: one pass forward and back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from resnet_det.modeling.blocks import ResidualBlock

MAX_POINTS = 120  # of a curve that is kept


def measure_signals(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, list[float]]:
    """One pass of images through a net in its mode, and of the gradient of their mean cross entropy back.

    Args:
        net: gives {"linear": logits}; of residual blocks. Its running statistics change if it is in training mode.
        images: (N, C, H, W), of the net's type. float64 holds what overflows float32 in deep nets without norms.
        labels: (N,).

    Returns:
        By block, from the first: "activation", the root mean square of its output, and "gradient", the norm of the
        loss's gradient by that output. By weighted layer: "weight_gradient", the norm of the gradient by its weights.
    """
    outputs: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        net.zero_grad(set_to_none=True)
        F.cross_entropy(net(images)["linear"], labels).backward()
    finally:
        for hook in hooks:
            hook.remove()
    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    found = {
        "activation": [output.detach().square().mean().sqrt().item() for output in outputs],
        "gradient": [output.grad.norm().item() for output in outputs],
        "weight_gradient": [layer.weight.grad.norm().item() for layer in layers],
    }
    net.zero_grad(set_to_none=True)
    return found


def thin(values: list[Any], most: int = MAX_POINTS) -> list[Any]:
    """``most`` of the values, evenly, with the first and the last."""
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
