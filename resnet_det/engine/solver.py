"""The optimizer that SOLVER and RESNET_DET.TRAIN.OPTIMIZER describe."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_sgd
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW (arXiv 1711.05101) with the same learning rate, decay and clipping keys."""
    if cfg.RESNET_DET.TRAIN.OPTIMIZER == "SGD":
        return build_sgd(cfg, model)
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.AdamW(params, solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY, fused=True)
    return maybe_add_gradient_clipping(cfg, optimizer)
