"""Optimizers and learning rates that SOLVER and RESNET_DET.TRAIN describe."""

from __future__ import annotations

import logging
import re
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping

from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

# Parts of a ResNet, wherever a detector keeps them. Its classification head is none: it is new, as other heads are.
_PART = re.compile(r"(?:module\.)?(?:backbone\.(?:bottom_up\.)?|roi_heads\.)(?:stem|res(\d+)|(final_norm))\.")


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD as Detectron2's, or AdamW (arXiv 1711.05101) or LAMB (1904.00962) with the same learning rate, decay and
    clipping keys.

    Raises:
        InputError: timm, which has LAMB, is not installed.
    """
    solver, train = cfg.SOLVER, cfg.RESNET_DET.TRAIN
    base_lr = scaled_base_lr(cfg)
    params = get_default_optimizer_params(
        model,
        base_lr=base_lr,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    names = [name for name, _ in model.named_parameters()]
    last_stage = max((int(found[1] or 1) for found in map(_PART.match, names) if found), default=1)
    factors = {
        parameter: backbone_lr_factor(name, train.BACKBONE_LR_FACTOR, train.LAYER_DECAY, last_stage=last_stage)
        for name, parameter in model.named_parameters()
    }
    params = scale_param_groups(params, factors)
    is_cuda = next(model.parameters()).is_cuda
    if train.OPTIMIZER == "AdamW":
        optimizer = torch.optim.AdamW(params, base_lr, weight_decay=solver.WEIGHT_DECAY, fused=True)
    elif train.OPTIMIZER == "LAMB":
        optimizer = _import_lamb()(params, base_lr, weight_decay=solver.WEIGHT_DECAY)
    else:
        optimizer = torch.optim.SGD(
            params,
            base_lr,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
            fused=is_cuda or None,
        )
    return maybe_add_gradient_clipping(cfg, optimizer)


def _import_lamb() -> type[torch.optim.Optimizer]:
    try:
        from timm.optim import Lamb  # only then: it takes seconds
    except ImportError:
        raise InputError("RESNET_DET.TRAIN.OPTIMIZER LAMB: pip install 'resnet_det[lamb]' (timm)") from None
    return Lamb


def scaled_base_lr(cfg: CfgNode) -> float:
    """SOLVER.BASE_LR for the images of one step, if REFERENCE_BATCH_SIZE says for how many it was chosen.

    The learning rate grows with the batch (arXiv 1706.02677, section 2.1).
    """
    solver, train = cfg.SOLVER, cfg.RESNET_DET.TRAIN
    if not train.REFERENCE_BATCH_SIZE:
        return solver.BASE_LR
    images = solver.IMS_PER_BATCH * train.ACCUMULATE
    scaled = solver.BASE_LR * images / train.REFERENCE_BATCH_SIZE
    logger.info(
        "Learning rate %g for %d images a step: SOLVER.BASE_LR %g is for %d (REFERENCE_BATCH_SIZE)",
        scaled,
        images,
        solver.BASE_LR,
        train.REFERENCE_BATCH_SIZE,
    )
    return scaled


def backbone_lr_factor(name: str, backbone_factor: float, layer_decay: float, *, last_stage: int = 5) -> float:
    """What the learning rate of the parameter ``name`` is multiplied with.

    Args:
        backbone_factor: for the ResNet as a whole.
        layer_decay: once more for each stage below the last: res4 has it once, the stem four times (arXiv 1801.06146);
            the norm behind the last stage (``final_norm``) belongs to that stage.
        last_stage: the number in the name of the last stage.
    """
    found = _PART.match(name)
    if not found:
        return 1.0
    stage = last_stage if found[2] else int(found[1] or 1)
    return backbone_factor * layer_decay ** (last_stage - stage)


def scale_param_groups(groups: list[dict[str, Any]], factors: dict[torch.nn.Parameter, float]) -> list[dict[str, Any]]:
    """The groups with each parameter's learning rate multiplied by its factor; equal ones are kept together."""
    merged: dict[tuple, dict[str, Any]] = {}
    for group in groups:
        for parameter in group["params"]:
            options = {key: value for key, value in group.items() if key != "params"}
            options["lr"] *= factors[parameter]
            merged.setdefault(tuple(sorted(options.items())), {**options, "params": []})["params"].append(parameter)
    return list(merged.values())


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Detectron2's schedules by SOLVER.LR_SCHEDULER_NAME, and OneCycleLR (arXiv 1708.07120)."""
    if cfg.SOLVER.LR_SCHEDULER_NAME != "OneCycleLR":
        return build_detectron2_lr_scheduler(cfg, optimizer)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=cfg.SOLVER.MAX_ITER + 1,  # the scheduler is asked once more after the last iteration
        pct_start=min(0.3, max(cfg.SOLVER.WARMUP_ITERS, 1) / cfg.SOLVER.MAX_ITER),
        cycle_momentum=False,
    )
