"""What a config says about the DenseNet, and which of the nets it says."""

from __future__ import annotations

from detectron2.config import CfgNode

from resnet_det.config.keys import resnet_defaults
from resnet_det.config.resnet import read_resnet_spec
from resnet_det.densenet_specs import DenseNetSpec, make_densenet_spec
from resnet_det.errors import InputError
from resnet_det.specs import ResNetSpec

DENSENET_FPN_BACKBONE = "build_densenet_det_fpn_backbone"

# Keys of MODEL.RESNETS that a DenseNet has no use for, each with Detectron2's default.
_UNUSED = {
    "NUM_GROUPS": 1,
    "WIDTH_PER_GROUP": 64,
    "STEM_OUT_CHANNELS": 64,
    "RES2_OUT_CHANNELS": 256,
    "RES5_DILATION": 1,
    "DEFORM_ON_PER_STAGE": [False, False, False, False],
}
# Keys of MODEL.RESNET_DET that it does have.
_OWN = ("CHECKPOINT_STAGES", "MATCH_WEIGHTS", "CHECK_WEIGHTS", "ALLOW_FROZEN_RANDOM")


def read_densenet_spec(cfg: CfgNode, *, in_channels: int | None = None) -> DenseNetSpec:
    """The DenseNet that MODEL.RESNETS (DEPTH, NORM, OUT_FEATURES), MODEL.BACKBONE.FREEZE_AT and
    MODEL.RESNET_DET.CHECKPOINT_STAGES describe.

    Args:
        in_channels: channels of the input image; as many as MODEL.PIXEL_MEAN if not given.

    Raises:
        InputError: a key has a value that no DenseNet can have, or is set and without a meaning for it.
    """
    resnets, defaults = cfg.MODEL.RESNETS, resnet_defaults()
    own = cfg.MODEL.get("RESNET_DET") or defaults
    unused = {f"MODEL.RESNETS.{key}": (resnets[key], neutral) for key, neutral in _UNUSED.items()}
    unused |= {f"MODEL.RESNET_DET.{key}": (own[key], defaults[key]) for key in defaults if key not in _OWN}
    for key, (value, neutral) in unused.items():
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


def read_spec(cfg: CfgNode) -> ResNetSpec | DenseNetSpec:
    """The net that ``cfg`` describes, by MODEL.BACKBONE.NAME.

    Raises:
        InputError: a key has a value that the net cannot have.
    """
    return read_densenet_spec(cfg) if cfg.MODEL.BACKBONE.NAME == DENSENET_FPN_BACKBONE else read_resnet_spec(cfg)
