"""What a config says about the ResNet."""

from __future__ import annotations

from detectron2.config import CfgNode

from resnet_det.config.keys import resnet_defaults
from resnet_det.errors import InputError
from resnet_det.specs import BLOCK_EXPANSION, DeformSpec, ResNetSpec, depths_of, make_spec


def read_resnet_spec(cfg: CfgNode, *, in_channels: int | None = None) -> ResNetSpec:
    """The ResNet that MODEL.RESNETS, MODEL.RESNET_DET and MODEL.BACKBONE.FREEZE_AT describe.

    Args:
        in_channels: channels of the input image; as many as MODEL.PIXEL_MEAN if not given.

    Raises:
        InputError: a key has a value that no ResNet can have.
    """
    resnets, own = cfg.MODEL.RESNETS, cfg.MODEL.get("RESNET_DET") or resnet_defaults()
    try:
        # The block first, as channels follow from it.
        block = make_spec(resnets.DEPTH, block=own.BLOCK or None, stage_blocks=own.STAGE_BLOCKS or None).block
        return make_spec(
            resnets.DEPTH,
            block=block if own.STAGE_BLOCKS else None,
            stage_blocks=own.STAGE_BLOCKS or None,
            in_channels=len(cfg.MODEL.PIXEL_MEAN) if in_channels is None else in_channels,
            stem=own.STEM,
            stem_out_channels=resnets.STEM_OUT_CHANNELS,
            res2_out_channels=_res2_out_channels(resnets, block),
            num_groups=resnets.NUM_GROUPS,
            width_per_group=resnets.WIDTH_PER_GROUP,
            stride_in_1x1=resnets.STRIDE_IN_1X1,
            shortcut=own.SHORTCUT,
            preact=own.PREACT,
            se_reduction=own.SE_REDUCTION,
            norm=resnets.NORM,
            zero_init_residual=own.ZERO_INIT_RESIDUAL,
            stochastic_depth=own.STOCHASTIC_DEPTH,
            dilations=_dilations(resnets, own),
            deform_stages=tuple(resnets.DEFORM_ON_PER_STAGE),
            deform=DeformSpec(modulated=resnets.DEFORM_MODULATED, num_groups=resnets.DEFORM_NUM_GROUPS),
            checkpoint_stages=tuple(own.CHECKPOINT_STAGES),
            out_features=tuple(resnets.OUT_FEATURES),
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
    except ValueError as error:
        raise InputError(f"MODEL.RESNETS: {error}") from None


def _dilations(resnets: CfgNode, own: CfgNode) -> tuple[int, ...]:
    if resnets.RES5_DILATION not in (1, 2):
        raise ValueError(f"RES5_DILATION is {resnets.RES5_DILATION}; choose 1 or 2")
    if not own.DILATIONS:
        return (1, 1, 1, resnets.RES5_DILATION)
    if resnets.RES5_DILATION not in (1, own.DILATIONS[-1]):
        raise ValueError(
            f"RES5_DILATION is {resnets.RES5_DILATION}, MODEL.RESNET_DET.DILATIONS {own.DILATIONS}; leave one out"
        )
    return tuple(own.DILATIONS)


def _res2_out_channels(resnets: CfgNode, block: str) -> int:
    """MODEL.RESNETS.RES2_OUT_CHANNELS, which follows the block: nobody has to set it.

    Detectron2's default is 256, and a config does not tell a default from a value that was set: with basic blocks 256
    means unset.
    """
    channels, expected = resnets.RES2_OUT_CHANNELS, 64 * BLOCK_EXPANSION[block]
    if block == "basic" and channels not in (64, 256):
        raise ValueError(
            f"RES2_OUT_CHANNELS is {channels}, but basic blocks (depths {depths_of(block)}) have {expected}; "
            "leave the key out"
        )
    if block == "bottleneck" and channels == 64:
        raise ValueError(
            f"RES2_OUT_CHANNELS is 64, which belongs to basic blocks (depths {depths_of('basic')}); "
            f"this ResNet has bottlenecks and {expected}; leave the key out"
        )
    return expected if block == "basic" else channels
