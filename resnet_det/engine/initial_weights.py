"""MODEL.WEIGHTS: whether the config fits them, and how they get into the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from resnet_det.config import backbone_outputs, read_spec
from resnet_det.engine.foreign_weights import load_into_any_model
from resnet_det.errors import InputError
from resnet_det.weights import Conventions, describe_net, fetch_weights, find_conventions, load_weights

logger = logging.getLogger(__name__)

# What of a net its weights are bound to, and the keys that say it. Dilation is not among it: a dilated stage takes the
# weights of one that is not (arXiv 1606.00915), and does on purpose.
_NET_KEYS = {
    "norm": "MODEL.RESNETS.NORM",
    "stem": "MODEL.RESNET_DET.STEM",
    "shortcut": "MODEL.RESNET_DET.SHORTCUT",
    "preact": "MODEL.RESNET_DET.PREACT",
    "squeeze_excitation": "MODEL.RESNET_DET.SE_REDUCTION",
    "deform": "MODEL.RESNETS.DEFORM_ON_PER_STAGE, DEFORM_MODULATED and DEFORM_NUM_GROUPS",
}


def prepare_weights(cfg: CfgNode, *, net: Mapping[str, Any] | None = None) -> None:
    """Fetch MODEL.WEIGHTS before training starts, and hold the config to what they were trained with.

    With MODEL.RESNET_DET.MATCH_WEIGHTS, pixels and strides in ``cfg`` are changed to that. Other dilations are logged.

    Args:
        net: what is known of the net that is trained (:func:`describe_net`), if that is not the one of ``cfg``.

    Raises:
        InputError: they cannot be had, were trained with other input than the config says, or in a net that computes
            otherwise.
    """
    if backbone_outputs(cfg) is None or not cfg.MODEL.WEIGHTS:
        return
    if comm.get_local_rank() == 0:
        fetch_weights(cfg.MODEL.WEIGHTS)
    comm.synchronize()
    conventions = find_conventions(cfg.MODEL.WEIGHTS)
    if conventions is not None:
        _check_net(cfg, describe_net(read_spec(cfg)) if net is None else net, conventions.net)
    wanted = _differences(cfg, conventions) if conventions else {}
    if wanted and cfg.MODEL.RESNET_DET.MATCH_WEIGHTS:
        for key, value in wanted.items():
            cfg.merge_from_list([key, value])
            logger.warning("%s set to %s, as MODEL.WEIGHTS were trained with", key, value)
    elif wanted and cfg.MODEL.RESNET_DET.CHECK_WEIGHTS:
        raise InputError(_explain_differences(cfg.MODEL.WEIGHTS, wanted))
    elif conventions and not wanted:
        logger.info("INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and STRIDE_IN_1X1 are what MODEL.WEIGHTS were trained with")


def _check_net(cfg: CfgNode, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """
    Args:
        ours, theirs: what is known of the net that is built, and of the one that MODEL.WEIGHTS were trained in.

    Raises:
        InputError: they compute otherwise, and CHECK_WEIGHTS is on.
    """
    for stage, dilations in theirs.get("dilations", {}).items():
        now = ours.get("dilations", {}).get(stage, dilations)
        if now != dilations:
            logger.warning(
                "MODEL.WEIGHTS %s were trained with dilations %s of the blocks of %s, and the config says %s",
                cfg.MODEL.WEIGHTS, dilations, stage, now,
            )  # fmt: skip
    both = [fact for fact in _NET_KEYS if fact in ours and fact in theirs]
    differ = [fact for fact in both if ours[fact] != theirs[fact]]
    if differ and cfg.MODEL.RESNET_DET.CHECK_WEIGHTS:
        told = "; ".join(
            f"{fact} is {theirs[fact]!r} there, {ours[fact]!r} here ({_NET_KEYS[fact]})" for fact in differ
        )
        raise InputError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS} are of a net that computes otherwise than that of the config: {told}. "
            "Build the net that was trained (MODEL.RESNET_DET.CHECK_WEIGHTS False to go on as it is)"
        )


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
    if conventions.stride_in_1x1 is not None:
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
        report = load_weights(model, cfg.MODEL.WEIGHTS)
        lacking = [*report.missing, *(name for name, *_ in report.wrong_shape)]
    if lacking:
        raise InputError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS}: {len(lacking)} tensors of this detector are not in them, or have "
            f"another shape, such as {lacking[0]}. Are they of another config?\n{report}".rstrip()
        )
