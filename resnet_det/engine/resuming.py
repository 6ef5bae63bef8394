"""What may change when a run is resumed, and what may not."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.solver.lr_scheduler import LRMultiplier
from torch.optim.lr_scheduler import OneCycleLR

from resnet_det.config import backbone_outputs, read_spec
from resnet_det.densenet_specs import DenseNetSpec
from resnet_det.errors import InputError
from resnet_det.weights import describe_net

STRIDE_KEY = "MODEL.RESNETS.STRIDE_IN_1X1"
# What MATCH_WEIGHTS may have set, which no tensor of a checkpoint shows.
MATCHED = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", STRIDE_KEY)
# With another value of these the batches would differ, or what the model and the optimizer know would mean nothing.
_FIXED = (
    *MATCHED,
    "RESNET_DET.INPUT.WINDOW",
    "RESNET_DET.INPUT.LIMITS",
    "RESNET_DET.INPUT.DTYPE",
    "DATASETS.TRAIN",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "DATALOADER.REPEAT_THRESHOLD",
    "SOLVER.IMS_PER_BATCH",
    "RESNET_DET.TRAIN.ACCUMULATE",
    "RESNET_DET.TRAIN.OPTIMIZER",
    "DATALOADER.SAMPLER_TRAIN",
    "DATALOADER.ASPECT_RATIO_GROUPING",
    "MODEL.META_ARCHITECTURE",
)


def read_fixed_settings(cfg: CfgNode) -> dict[str, Any]:
    """What stays as it is for the whole of a run: values of keys, the classes that are trained on, and of the net what
    no tensor shows."""
    spec = read_spec(cfg) if backbone_outputs(cfg) is not None else None
    values = read_keys(cfg, [key for key in _FIXED if key != STRIDE_KEY or not isinstance(spec, DenseNetSpec)])
    classes = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes") if cfg.DATASETS.TRAIN else None
    net = {} if spec is None else describe_net(spec)
    return {**values, "the classes": classes, **name_facts(net)}


def read_keys(cfg: CfgNode, keys: Iterable[str]) -> dict[str, Any]:
    """The values of ``keys``, such as "SOLVER.IMS_PER_BATCH", with lists for tuples."""
    values = {}
    for key in keys:
        value: Any = cfg
        for part in key.split("."):
            value = value[part]
        values[key] = list(value) if isinstance(value, list | tuple) else value
    return values


def name_facts(net: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a net (:func:`describe_net`), as messages call it."""
    return {f"the net's {fact}": value for fact, value in net.items()}


def take_matched_keys_(cfg: CfgNode, checkpoint: str | os.PathLike[str]) -> None:
    """With MODEL.RESNET_DET.MATCH_WEIGHTS, set what it set when the run began: the weights it looked at may be gone."""
    if not cfg.MODEL.RESNET_DET.MATCH_WEIGHTS:
        return
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["trainer"].get("fixed", {})
    for key in MATCHED:
        if key in saved:
            cfg.merge_from_list([key, saved[key]])


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
