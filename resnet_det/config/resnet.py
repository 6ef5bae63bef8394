"""What a config says about the ResNet."""

from __future__ import annotations

from detectron2.config import CfgNode

from resnet_det.config.keys import resnet_defaults
from resnet_det.depths import depths_of
from resnet_det.errors import InputError
from resnet_det.specs import BLOCK_EXPANSION, AttentionSpec, DeformSpec, ResNetSpec, make_spec

# Keys by which other builders change the ResNet, each with the value that does not.
FOREIGN_KEYS = {
    "MODEL.BACKBONE.ANTI_ALIAS": False,
    "MODEL.RESNETS.ANTI_ALIAS": False,
    "MODEL.RESNETS.AVD": False,
    "MODEL.RESNETS.AVG_DOWN": False,
    "MODEL.RESNETS.BOTTLENECK_WIDTH": 64,
    "MODEL.RESNETS.DEEP_STEM": False,
    "MODEL.RESNETS.DEFORM_INTERVAL": 1,
    "MODEL.RESNETS.RADIX": 1,
}
# Those of DeepLab's builder, which a ResNet reads too, with the values of a plain one.
DEEPLAB_KEYS = {
    "MODEL.RESNETS.STEM_TYPE": "basic",
    "MODEL.RESNETS.RES4_DILATION": 1,
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 1, 1],
}
_STEM_TYPES = {"basic": "7x7", "deeplab": "deep"}


def read_resnet_spec(
    cfg: CfgNode, *, in_channels: int | None = None, like_detectron2: bool = False, num_classes: int | None = None
) -> ResNetSpec:
    """The ResNet that MODEL.RESNETS, MODEL.RESNET_DET and MODEL.BACKBONE.FREEZE_AT describe.

    Args:
        in_channels: channels of the input image; as many as MODEL.PIXEL_MEAN if not given.
        like_detectron2: pass over keys that other builders add, as Detectron2's builder does. Else those of DeepLab
            are read, and all others must leave the net as it is.
        num_classes: of a linear head, whose logits are then the only output; None: no head.

    Raises:
        InputError: a key has a value that no ResNet can have.
    """
    resnets, own = cfg.MODEL.RESNETS, cfg.MODEL.get("RESNET_DET") or resnet_defaults()
    deeplab: dict[str, object] = {}
    if not like_detectron2:
        names = [key.rpartition(".")[2] for key in DEEPLAB_KEYS]
        deeplab = {name: resnets[name] for name in names if name in resnets}
        _refuse_foreign_keys(cfg)
    try:
        # The block and the stages first, as channels and what is given for each stage follow from them.
        kind = make_spec(resnets.DEPTH, block=own.BLOCK or None, stage_blocks=own.STAGE_BLOCKS or None)
        block, stages = kind.block, len(kind.stage_blocks)
        return make_spec(
            resnets.DEPTH,
            block=block if own.STAGE_BLOCKS else None,
            stage_blocks=own.STAGE_BLOCKS or None,
            in_channels=len(cfg.MODEL.PIXEL_MEAN) if in_channels is None else in_channels,
            stem=_stem(own, deeplab),
            stem_out_channels=resnets.STEM_OUT_CHANNELS,
            res2_out_channels=_res2_out_channels(resnets, own, block),
            num_groups=resnets.NUM_GROUPS,
            width_per_group=resnets.WIDTH_PER_GROUP,
            stride_in_1x1=resnets.STRIDE_IN_1X1,
            shortcut=own.SHORTCUT,
            preact=own.PREACT,
            se_reduction=own.SE_REDUCTION,
            norm=resnets.NORM,
            zero_init_residual=own.ZERO_INIT_RESIDUAL,
            stochastic_depth=own.STOCHASTIC_DEPTH,
            dilations=_dilations(resnets, own, deeplab, stages),
            multi_grid=_multi_grid(deeplab, stages),
            deform_stages=_set_stages(resnets.DEFORM_ON_PER_STAGE),
            deform=DeformSpec(modulated=resnets.DEFORM_MODULATED, num_groups=resnets.DEFORM_NUM_GROUPS),
            attention_stages=_set_stages(own.ATTENTION_STAGES),
            attention=AttentionSpec(num_heads=own.ATTENTION_HEADS, extent=own.ATTENTION_EXTENT),
            checkpoint_stages=_set_stages(own.CHECKPOINT_STAGES),
            out_features=("linear",) if num_classes else resnets.OUT_FEATURES,
            num_classes=num_classes,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
    except ValueError as error:
        raise InputError(f"MODEL.RESNETS: {error}") from None


def _refuse_foreign_keys(cfg: CfgNode) -> None:
    for key, neutral in FOREIGN_KEYS.items():
        _, section, name = key.split(".")
        value = cfg.MODEL[section].get(name, neutral)
        if value != neutral:
            raise InputError(
                f"{key} is {value!r}, a key of another builder that this ResNet does not have; set it to {neutral}, or "
                "MODEL.BACKBONE.NAME to that builder"
            )


def _stem(own: CfgNode, deeplab: dict[str, object]) -> str:
    stem_type = deeplab.get("STEM_TYPE", "basic")
    if stem_type not in _STEM_TYPES:
        raise ValueError(f"STEM_TYPE is {stem_type!r}; choose one of {', '.join(_STEM_TYPES)}")
    stem = _STEM_TYPES[stem_type]
    if "7x7" not in (stem, own.STEM) and stem != own.STEM:
        raise ValueError(f"STEM_TYPE is {stem_type!r}, MODEL.RESNET_DET.STEM {own.STEM!r}; leave one out")
    return own.STEM if stem == "7x7" else stem


def _set_stages(values: list[bool]) -> list[bool] | None:
    """A list for all stages that sets none, as Detectron2's default does for four, is right for any number of them."""
    return values if any(values) else None


def _multi_grid(deeplab: dict[str, object], stages: int) -> tuple[int, ...]:
    """Factors of 1 are none, whatever their number."""
    grid = tuple(deeplab.get("RES5_MULTI_GRID") or ())
    if set(grid) <= {1}:
        return ()
    if stages != 4:
        raise ValueError(f"RES5_MULTI_GRID is {list(grid)}, and res5 is not the last of {stages} stages; leave it out")
    return grid


def _dilations(resnets: CfgNode, own: CfgNode, deeplab: dict[str, object], stages: int) -> tuple[int, ...]:
    res4, res5 = deeplab.get("RES4_DILATION", 1), resnets.RES5_DILATION
    if (res4, res5) not in ((1, 1), (1, 2), (1, 4), (2, 4)):
        beside = f" and RES4_DILATION {res4}" if res4 != 1 else ""
        raise ValueError(f"RES5_DILATION is {res5}{beside}; choose 1, 2 or 4, and 4 where RES4_DILATION is 2")
    dilations = (1, 1, res4, res5, *(1,) * (stages - 4))
    if any(dilation != 1 for dilation in dilations[stages:]):
        raise ValueError(f"RES4_DILATION is {res4}, RES5_DILATION {res5}, and there are {stages} stages, from res2 on")
    dilations = dilations[:stages]
    if not own.DILATIONS:
        return dilations
    if any(theirs not in (1, ours) for theirs, ours in zip(dilations, own.DILATIONS, strict=False)):
        raise ValueError(
            f"RES4_DILATION is {res4}, RES5_DILATION {res5}, MODEL.RESNET_DET.DILATIONS {own.DILATIONS}; leave one out"
        )
    return tuple(own.DILATIONS)


def _res2_out_channels(resnets: CfgNode, own: CfgNode, block: str) -> int:
    """MODEL.RESNETS.RES2_OUT_CHANNELS, which follows the block: nobody has to set it, but for STAGE_BLOCKS that have
    channels of their own.

    Detectron2's default is 256, and a config does not tell a default from a value that was set: with basic blocks 256
    means unset.
    """
    channels, expected = resnets.RES2_OUT_CHANNELS, 64 * BLOCK_EXPANSION[block]
    if own.STAGE_BLOCKS:
        return expected if channels == 256 else channels
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
