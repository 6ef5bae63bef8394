"""From gradients to weights: unscaling, clipping, and a step that is left out where gradients are not finite."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from resnet_det.errors import InputError


def clip_and_measure(
    optimizer: torch.optim.Optimizer, grad_scaler: torch.amp.GradScaler, max_norm: float
) -> torch.Tensor:
    """Unscale the gradients, and let their global norm be at most ``max_norm`` (0: any).

    Unscaled before anything looks at them: an optimizer that is fused, or clips by itself (SOLVER.CLIP_GRADIENTS),
    would else take scaled ones for gradients.

    Returns:
        The norm as it was, on the device, where nothing has waited for it.
    """
    grad_scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if max_norm or not hasattr(nn.utils, "get_total_norm"):  # torch before 2.6 has none
        return nn.utils.clip_grad_norm_(parameters, max_norm or torch.inf)
    return nn.utils.get_total_norm([p.grad for p in parameters])


def apply_step(optimizer: torch.optim.Optimizer, grad_scaler: torch.amp.GradScaler, is_bad: torch.Tensor) -> None:
    """Step, unless ``is_bad``, a number on the device, is not 0. Where the optimizer is fused nothing waits for it."""
    if grad_scaler.is_enabled():
        grad_scaler.step(optimizer)
        grad_scaler.update()
    elif is_bad.is_cuda and getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()  # as torch's GradScaler tells it
        try:
            optimizer.step()
        finally:
            del optimizer.grad_scale, optimizer.found_inf
    elif not is_bad:
        optimizer.step()


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what a checkpoint knows of each parameter; learning rates and decay stay as the config has them.

    Raises:
        InputError: it was made for other parameters, or by another kind of optimizer.
    """
    mine = optimizer.state_dict()
    sizes = [[len(group["params"]) for group in groups] for groups in (mine["param_groups"], state["param_groups"])]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"the optimizer of the run that is resumed had groups of {sizes[1]} parameters, here they are {sizes[0]}: "
            "what is trained, or keys that make groups (MODEL.BACKBONE.FREEZE_AT, SOLVER.BIAS_LR_FACTOR, "
            "SOLVER.WEIGHT_DECAY_*, RESNET_DET.TRAIN.LAYER_DECAY, BACKBONE_LR_FACTOR), cannot be changed on the way"
        )
    groups = [
        {**saved, **{key: value for key, value in group.items() if key != "params"}}
        for saved, group in zip(state["param_groups"], mine["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
