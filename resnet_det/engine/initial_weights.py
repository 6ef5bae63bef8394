"""MODEL.WEIGHTS: whether the config fits them, and how they get into the model."""

from __future__ import annotations

import logging
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from resnet_det.config import backbone_outputs
from resnet_det.engine.foreign_weights import load_into_any_model
from resnet_det.errors import InputError
from resnet_det.weights import Conventions, fetch_weights, find_conventions, load_weights

logger = logging.getLogger(__name__)


def prepare_weights(cfg: CfgNode) -> None:
    """Fetch MODEL.WEIGHTS before training starts, and hold the config to what they were trained with.

    With MODEL.RESNET_DET.MATCH_WEIGHTS, ``cfg`` is changed to that.

    Raises:
        InputError: they cannot be had, or were trained with other input than the config says.
    """
    if backbone_outputs(cfg) is None or not cfg.MODEL.WEIGHTS:
        return
    if comm.get_local_rank() == 0:
        fetch_weights(cfg.MODEL.WEIGHTS)
    comm.synchronize()
    conventions = find_conventions(cfg.MODEL.WEIGHTS)
    wanted = _differences(cfg, conventions) if conventions else {}
    if wanted and cfg.MODEL.RESNET_DET.MATCH_WEIGHTS:
        for key, value in wanted.items():
            cfg.merge_from_list([key, value])
            logger.warning("%s set to %s, as MODEL.WEIGHTS were trained with", key, value)
    elif wanted and cfg.MODEL.RESNET_DET.CHECK_WEIGHTS:
        raise InputError(_explain_differences(cfg.MODEL.WEIGHTS, wanted))
    elif conventions and not wanted:
        logger.info("INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and STRIDE_IN_1X1 are what MODEL.WEIGHTS were trained with")


def check_from_scratch(cfg: CfgNode) -> list[str]:
    """What in ``cfg`` makes no sense without MODEL.WEIGHTS: parts that would stay as they were drawn."""
    if cfg.MODEL.WEIGHTS or backbone_outputs(cfg) is None or cfg.MODEL.RESNET_DET.ALLOW_FROZEN_RANDOM:
        return []
    problems = []
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        problems.append(f"MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT} freezes random weights: set it to 0")
    if cfg.MODEL.RESNETS.NORM == "FrozenBN":
        problems.append("MODEL.RESNETS.NORM FrozenBN never normalises: set it to BN, SyncBN or GN")
    if problems:
        problems[0] = f"MODEL.WEIGHTS is empty, so training starts from scratch. {problems[0]}"
        problems[-1] += " (MODEL.RESNET_DET.ALLOW_FROZEN_RANDOM True to do it all the same)"
    return problems


def _differences(cfg: CfgNode, conventions: Conventions) -> dict[str, Any]:
    """The keys that differ from ``conventions``, with the values they should have."""
    wanted: dict[str, Any] = {}
    if len(cfg.MODEL.PIXEL_MEAN) == len(conventions.pixel_mean):  # else the first convolution is adapted
        wanted["INPUT.FORMAT"] = conventions.channel_order
        wanted["MODEL.PIXEL_MEAN"] = list(conventions.pixel_mean)
        wanted["MODEL.PIXEL_STD"] = list(conventions.pixel_std)
    wanted["MODEL.RESNETS.STRIDE_IN_1X1"] = conventions.stride_in_1x1
    return {key: value for key, value in wanted.items() if _close(_get(cfg, key), value) is False}


def _get(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _close(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return all(abs(a - b) < 0.01 for a, b in zip(value, wanted, strict=True))
    return value == wanted


def _explain_differences(source: str, wanted: dict[str, Any]) -> str:
    tree: dict[str, Any] = {}
    for key, value in wanted.items():
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    lines = yaml.safe_dump(tree, default_flow_style=None, sort_keys=False).rstrip()
    return (
        f"MODEL.WEIGHTS {source} were not trained with what the config says of {', '.join(wanted)}. Put this into the "
        f"config, or set MODEL.RESNET_DET.MATCH_WEIGHTS True (CHECK_WEIGHTS False to go on as it is):\n{lines}"
    )


def load_initial_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Load MODEL.WEIGHTS to train from; every tensor of the backbone must be in them.

    Raises:
        InputError: they do not fit the backbone.
    """
    if not cfg.MODEL.WEIGHTS:
        return
    if backbone_outputs(cfg) is None:
        load_into_any_model(model, cfg.MODEL.WEIGHTS)
    else:
        logger.info("%s", load_weights(model, cfg.MODEL.WEIGHTS))


def load_trained_weights(cfg: CfgNode, model: nn.Module) -> None:
    """Load MODEL.WEIGHTS to evaluate or predict with; every tensor of the model must be in them.

    Raises:
        InputError: one is not.
    """
    if not cfg.MODEL.WEIGHTS:
        raise InputError("MODEL.WEIGHTS is empty: which weights? (MODEL.WEIGHTS output/model_final.pth)")
    if backbone_outputs(cfg) is None:
        lacking, report = load_into_any_model(model, cfg.MODEL.WEIGHTS), ""
    else:
        report = load_weights(model, cfg.MODEL.WEIGHTS, adapt_channels=False)
        lacking = [*report.missing, *(name for name, *_ in report.wrong_shape)]
    if lacking:
        raise InputError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS}: {len(lacking)} tensors of this detector are not in them, or have "
            f"another shape, such as {lacking[0]}. Are they of another config?\n{report}".rstrip()
        )
