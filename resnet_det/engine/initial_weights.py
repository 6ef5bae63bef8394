"""MODEL.WEIGHTS: whether the config fits them, and how they get into the model."""

from __future__ import annotations

import logging
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from resnet_det.config import backbone_outputs, read_spec
from resnet_det.densenet_specs import DenseNetSpec
from resnet_det.engine.foreign_weights import load_into_any_model
from resnet_det.errors import InputError
from resnet_det.specs import ResNetSpec
from resnet_det.weights import (
    Conventions,
    describe_net,
    describe_stride,
    fetch_weights,
    find_conventions,
    load_weights,
)

logger = logging.getLogger(__name__)

# What of a net its weights are bound to, and the keys that say it. Dilation is left out: dilated stages deliberately
# take the weights of undilated ones (arXiv 1606.00915).
_NET_KEYS = {
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "norm": "MODEL.RESNETS.NORM",
    "stem": "MODEL.RESNET_DET.STEM",
    "shortcut": "MODEL.RESNET_DET.SHORTCUT",
    "preact": "MODEL.RESNET_DET.PREACT",
    "squeeze_excitation": "MODEL.RESNET_DET.SE_REDUCTION",
    "deform": "MODEL.RESNETS.DEFORM_ON_PER_STAGE, DEFORM_MODULATED and DEFORM_NUM_GROUPS",
}


def prepare_weights(cfg: CfgNode, *, spec: ResNetSpec | DenseNetSpec | None = None, is_given: bool = False) -> None:
    """Fetch MODEL.WEIGHTS before training starts, and hold the config to what they were trained with.

    With MODEL.RESNET_DET.MATCH_WEIGHTS, pixels and strides in ``cfg`` are changed to that. Other dilations are logged.

    Args:
        spec: of the net that is trained. None: the one that ``cfg`` describes or, with ``is_given``, not known.
        is_given: the caller has built the net, and no key decides how it computes.

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
    if conventions is None:
        return
    if spec is None and not is_given:
        spec = read_spec(cfg)
    _check_net(cfg, spec, conventions, is_given=is_given)
    expected = _expect(cfg, conventions, has_stride=isinstance(spec, ResNetSpec) and not is_given)
    wanted = {key: value for key, value in expected.items() if not _close(_get(cfg, key), value)}
    if wanted and cfg.MODEL.RESNET_DET.MATCH_WEIGHTS:
        for key, value in wanted.items():
            cfg.merge_from_list([key, value])
            logger.warning("%s set to %s, as MODEL.WEIGHTS were trained with", key, value)
    elif wanted and cfg.MODEL.RESNET_DET.CHECK_WEIGHTS:
        raise InputError(_explain_differences(cfg.MODEL.WEIGHTS, wanted))
    elif expected and not wanted:
        logger.info("%s: as MODEL.WEIGHTS were trained with", ", ".join(expected))


def _check_net(
    cfg: CfgNode, spec: ResNetSpec | DenseNetSpec | None, conventions: Conventions, *, is_given: bool
) -> None:
    """
    Args:
        spec, is_given: see :func:`prepare_weights`.

    Raises:
        InputError: the net computes otherwise than the one that MODEL.WEIGHTS were trained in, and CHECK_WEIGHTS is on.
    """
    ours = {} if spec is None else describe_net(spec)
    theirs = dict(conventions.net)
    if is_given and spec is not None and conventions.stride_in_1x1 is not None:  # else the key is compared, or set
        ours, theirs = ours | describe_stride(spec), theirs | {"stride_in_1x1": conventions.stride_in_1x1}
    for stage, dilations in theirs.get("dilations", {}).items():
        now = ours.get("dilations", {}).get(stage, dilations)
        if now != dilations:
            logger.warning(
                "MODEL.WEIGHTS %s were trained with dilations %s of the blocks of %s, and the net that is built has %s",
                cfg.MODEL.WEIGHTS, dilations, stage, now,
            )  # fmt: skip
    differ = [fact for fact in _NET_KEYS if fact in ours and fact in theirs and ours[fact] != theirs[fact]]
    if differ and cfg.MODEL.RESNET_DET.CHECK_WEIGHTS:
        told = "; ".join(
            f"{fact} is {theirs[fact]!r} there, {ours[fact]!r} here" + ("" if is_given else f" ({_NET_KEYS[fact]})")
            for fact in differ
        )
        raise InputError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS} are of a net that computes otherwise than the one that is built: "
            f"{told}. Build the net that was trained (MODEL.RESNET_DET.CHECK_WEIGHTS False to go on as it is)"
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


def _expect(cfg: CfgNode, conventions: Conventions, *, has_stride: bool) -> dict[str, Any]:
    """The keys that ``conventions`` decide, with the values they should have.

    Args:
        has_stride: whether MODEL.RESNETS.STRIDE_IN_1X1 has a meaning for the net.
    """
    wanted: dict[str, Any] = {}
    if len(cfg.MODEL.PIXEL_MEAN) == len(conventions.pixel_mean):  # else the first convolution is adapted
        wanted["INPUT.FORMAT"] = conventions.channel_order
        wanted["MODEL.PIXEL_MEAN"] = list(conventions.pixel_mean)
        wanted["MODEL.PIXEL_STD"] = list(conventions.pixel_std)
    if has_stride and conventions.stride_in_1x1 is not None:
        wanted["MODEL.RESNETS.STRIDE_IN_1X1"] = conventions.stride_in_1x1
    return wanted


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
