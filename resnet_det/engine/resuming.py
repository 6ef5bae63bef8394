"""What may change when a run is resumed, and what may not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier
from torch.optim.lr_scheduler import OneCycleLR

from resnet_det.errors import InputError

# With another value of these the batches would be others, or what the optimizer knows would mean nothing.
_FIXED = (
    "SOLVER.IMS_PER_BATCH",
    "RESNET_DET.TRAIN.ACCUMULATE",
    "RESNET_DET.TRAIN.OPTIMIZER",
    "DATALOADER.SAMPLER_TRAIN",
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "MODEL.META_ARCHITECTURE",
)


def read_fixed_settings(cfg: CfgNode) -> dict[str, Any]:
    """The values of keys that stay what they are for the whole of a run."""
    values = {}
    for key in _FIXED:
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        values[key] = value
    return values


def check_fixed_settings(now: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """
    Args:
        now, saved: values by key; a key that was not saved does not count.

    Raises:
        InputError: one has changed since the checkpoint was written.
    """
    changed = {key: value for key, value in now.items() if saved.get(key, value) != value}
    if changed:
        told = ", ".join(f"{key} was {saved[key]} and is {value}" for key, value in changed.items())
        raise InputError(
            f"--resume: {told}. A run cannot go on with that: leave it as it was, or start anew from its weights "
            "(MODEL.WEIGHTS, another OUTPUT_DIR, without --resume)"
        )


def set_schedule_to(scheduler: torch.optim.lr_scheduler.LRScheduler, iteration: int, saved: dict[str, Any]) -> None:
    """Let a schedule, as the config has it now, be where it is before ``iteration``.

    What a checkpoint knows of Detectron2's schedules and of OneCycleLR besides (base rates, the length of a cycle) is
    of the config that the run had: a longer schedule or another learning rate counts from here on.

    Args:
        saved: the state of any other scheduler, which is taken as it is.
    """
    if not isinstance(scheduler, LRMultiplier | OneCycleLR):
        scheduler.load_state_dict(saved)
        return
    last = scheduler.total_steps - 1 if isinstance(scheduler, OneCycleLR) else scheduler._max_iter
    iteration = min(iteration, last)  # MAX_ITER may have been made shorter: then nothing is left to train
    scheduler.last_epoch, scheduler._step_count = iteration, iteration + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects get_lr to be called by step alone
        rates = scheduler.get_lr()
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
