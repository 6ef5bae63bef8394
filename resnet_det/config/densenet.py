"""What a config says about the DenseNet, and which of the nets it says."""

from __future__ import annotations

from functools import cache
from typing import Any

from detectron2.config import CfgNode, get_cfg

from resnet_det.config.keys import resnet_defaults
from resnet_det.config.resnet import DEEPLAB_KEYS, FOREIGN_KEYS, read_resnet_spec
from resnet_det.densenet_specs import DenseNetSpec, make_densenet_spec
from resnet_det.errors import InputError
from resnet_det.specs import ResNetSpec

DENSENET_FPN_BACKBONE = "build_densenet_det_fpn_backbone"

# What of MODEL.RESNETS and MODEL.RESNET_DET means something to a DenseNet. All other keys must have their defaults.
# STRIDE_IN_1X1 is accepted and ignored: the configs that DenseNets share with ResNets set it.
_USED = {
    *("MODEL.RESNETS.DEPTH", "MODEL.RESNETS.NORM", "MODEL.RESNETS.OUT_FEATURES", "MODEL.RESNET_DET.CHECKPOINT_STAGES"),
    "MODEL.RESNETS.STRIDE_IN_1X1",
    *("MODEL.RESNET_DET.MATCH_WEIGHTS", "MODEL.RESNET_DET.CHECK_WEIGHTS", "MODEL.RESNET_DET.ALLOW_FROZEN_RANDOM"),
}


def read_densenet_spec(cfg: CfgNode, *, in_channels: int | None = None) -> DenseNetSpec:
    """The DenseNet that MODEL.RESNETS (DEPTH, NORM, OUT_FEATURES), MODEL.BACKBONE.FREEZE_AT and
    MODEL.RESNET_DET.CHECKPOINT_STAGES describe.

    Args:
        in_channels: channels of the input image; as many as MODEL.PIXEL_MEAN if not given.

    Raises:
        InputError: a key has a value that no DenseNet can have, or is set and without a meaning for it.
    """
    resnets, own = cfg.MODEL.RESNETS, cfg.MODEL.get("RESNET_DET") or resnet_defaults()
    for key, neutral in _unused_keys().items():
        _, section, name = key.split(".")
        value = cfg.MODEL.get(section, {}).get(name, neutral)
        if value != neutral:
            raise InputError(f"{key} is {value!r}, and a DenseNet has no such part: set it to {neutral!r}")
    try:
        return make_densenet_spec(
            resnets.DEPTH,
            in_channels=len(cfg.MODEL.PIXEL_MEAN) if in_channels is None else in_channels,
            norm=resnets.NORM,
            checkpoint_stages=own.CHECKPOINT_STAGES or None,
            out_features=resnets.OUT_FEATURES,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
    except ValueError as error:
        raise InputError(f"MODEL.RESNETS: {error}") from None


@cache
def _unused_keys() -> dict[str, Any]:
    """Keys of MODEL that describe other nets, Detectron2's and those of other builders, with their neutral values."""
    known = {f"MODEL.RESNETS.{key}": value for key, value in get_cfg().MODEL.RESNETS.items()}
    known |= {f"MODEL.RESNET_DET.{key}": value for key, value in resnet_defaults().items()}
    return {key: value for key, value in (known | FOREIGN_KEYS | DEEPLAB_KEYS).items() if key not in _USED}


def read_spec(cfg: CfgNode) -> ResNetSpec | DenseNetSpec:
    """The net that ``cfg`` describes, by MODEL.BACKBONE.NAME.

    Raises:
        InputError: a key has a value that the net cannot have.
    """
    return read_densenet_spec(cfg) if cfg.MODEL.BACKBONE.NAME == DENSENET_FPN_BACKBONE else read_resnet_spec(cfg)
