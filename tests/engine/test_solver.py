"""Optimizers and schedules: what each key does to a parameter's learning rate and decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnet_det import make_resnet
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))


def decays(cfg, model):
    groups = build_optimizer(cfg, model).param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    return {name: of[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_decay_of_weights_norms_and_biases(default_cfg, model, kind):
    solver = default_cfg.SOLVER
    default_cfg.RESNET_DET.TRAIN.OPTIMIZER = kind
    solver.BASE_LR, solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM = 0.1, 0.01, 0.02
    solver.WEIGHT_DECAY_BIAS, solver.BIAS_LR_FACTOR = 0.03, 2.0
    found = decays(default_cfg, model)
    assert found == {"0.weight": (0.1, 0.01), "0.bias": (0.2, 0.03), "1.weight": (0.1, 0.02), "1.bias": (0.2, 0.03)}


@pytest.mark.parametrize(("warmup", "peak"), [(10, 10), (25, 25), (90, 30), (0, 1)])
def test_one_cycle_rises_for_the_iterations_of_the_warm_up(default_cfg, model, warmup, peak):
    solver = default_cfg.SOLVER
    solver.LR_SCHEDULER_NAME, solver.MAX_ITER, solver.WARMUP_ITERS, solver.BASE_LR = "OneCycleLR", 100, warmup, 1.0
    optimizer = build_optimizer(default_cfg, model)
    scheduler = build_lr_scheduler(default_cfg, optimizer)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert abs(rates.index(max(rates)) - peak) <= 1  # at most 30 %
    assert max(rates) == pytest.approx(1.0, rel=0.02)
    assert rates == sorted(rates[: rates.index(max(rates)) + 1]) + sorted(
        rates[rates.index(max(rates)) + 1 :], reverse=True
    )


def test_what_takes_gradients_as_they_are_gets_them(default_cfg, model):
    default_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    default_cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    default_cfg.SOLVER.BASE_LR, default_cfg.SOLVER.MOMENTUM, default_cfg.SOLVER.WEIGHT_DECAY = 1.0, 0.0, 0.0
    default_cfg.SOLVER.WEIGHT_DECAY_NORM = 0.0
    optimizer = build_optimizer(default_cfg, model)
    before = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    optimizer.step()
    torch.testing.assert_close(before - model[0].weight.detach(), torch.full_like(before, 0.5))


def test_all_of_a_resnet_but_its_head_has_the_learning_rates_of_a_backbone(default_cfg):
    train = default_cfg.RESNET_DET.TRAIN
    default_cfg.SOLVER.BASE_LR, train.BACKBONE_LR_FACTOR, train.LAYER_DECAY = 1.0, 0.1, 0.5
    model = nn.Module()
    model.backbone = make_resnet(block="basic", stage_blocks=(1, 1), preact=True, num_classes=3)
    rates = {name: rate for name, (rate, _) in decays(default_cfg, model).items()}
    assert {name.split(".")[1]: rate for name, rate in rates.items()} == pytest.approx(
        {"stem": 0.025, "res2": 0.05, "res3": 0.1, "final_norm": 0.1, "linear": 1.0}
    )
