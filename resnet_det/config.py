"""The keys that resnet_det adds to a Detectron2 config, what they say about the ResNet, and what can be wrong."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from resnet_det.errors import InputError
from resnet_det.specs import BLOCK_EXPANSION, DeformSpec, ResNetSpec, depths_of, make_spec

TRAIN_CHOICES = {"AMP_DTYPE": ("float16", "bfloat16", "auto"), "OPTIMIZER": ("SGD", "AdamW")}

PLAIN_BACKBONE = "build_resnet_det_backbone"
FPN_BACKBONE = "build_resnet_det_fpn_backbone"
RETINANET_BACKBONE = "build_retinanet_resnet_det_fpn_backbone"


def add_resnet_det_config(cfg: CfgNode) -> None:
    """Add our keys, with their defaults, to ``cfg`` in place; keys that are there already stay as they are."""
    defaults = CfgNode()
    defaults.MODEL = CfgNode()
    defaults.MODEL.RESNET_DET = _resnet_defaults()
    defaults.RESNET_DET = CfgNode()

    # Own data sets in COCO format: a list of [name, annotation file, image folder]. The names can then stand in
    # DATASETS.TRAIN and DATASETS.TEST; class names and the number of classes are taken from the annotation file.
    defaults.RESNET_DET.DATA = CfgNode()
    defaults.RESNET_DET.DATA.COCO = []

    # With SOLVER.AMP.ENABLED: "float16", "bfloat16", or "auto" (bfloat16 if it is faster than float32 on this
    # machine, else float32). Both work on CUDA and on the CPU.
    defaults.RESNET_DET.TRAIN = CfgNode()
    defaults.RESNET_DET.TRAIN.AMP_DTYPE = "float16"

    # "SGD" (Detectron2's) or "AdamW". Both take SOLVER.BASE_LR, WEIGHT_DECAY and the other keys of SOLVER.
    defaults.RESNET_DET.TRAIN.OPTIMIZER = "SGD"

    _add_missing(cfg, defaults)


def _resnet_defaults() -> CfgNode:
    """What MODEL.RESNETS has no keys for. With these defaults the ResNet is Detectron2's."""
    node = CfgNode()
    # Blocks of res2 to res5, such as [3, 8, 36, 3], and their kind, "basic" or "bottleneck"; empty: those of
    # MODEL.RESNETS.DEPTH.
    node.STAGE_BLOCKS = []
    node.BLOCK = ""
    # "7x7", "deep" (ResNet-C: three 3x3) or "deep_tiered".
    node.STEM = "7x7"
    # Where the shape changes: "projection", or "avg_down" (ResNet-D). "none": no shortcuts at all, the plain net.
    node.SHORTCUT = "projection"
    # Pre-activation blocks (ResNet-v2).
    node.PREACT = False
    # Squeeze-and-excitation with so many times fewer channels (usually 16); 0: none.
    node.SE_REDUCTION = 0
    # Start each block as its shortcut: zero weights in the last norm.
    node.ZERO_INIT_RESIDUAL = False
    # Chance of skipping the last block in training; it grows linearly from the first block.
    node.STOCHASTIC_DEPTH = 0.0
    # Dilation of res2 to res5, such as [1, 1, 1, 2]; empty: MODEL.RESNETS.RES5_DILATION. A dilated stage keeps the
    # stride of the stage before, under an FPN too.
    node.DILATIONS = []
    # Which of res2 to res5 save memory in training by computing their blocks twice.
    node.CHECKPOINT_STAGES = [False, False, False, False]
    # Set INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and STRIDE_IN_1X1 to what MODEL.WEIGHTS were trained with.
    node.MATCH_WEIGHTS = False
    # Stop before training if those four keys are not what MODEL.WEIGHTS were trained with, as far as that is known.
    node.CHECK_WEIGHTS = True
    # Let training from scratch freeze random weights (FREEZE_AT > 0) or have norms that never normalise (FrozenBN).
    node.ALLOW_FROZEN_RANDOM = False
    return node


def _add_missing(cfg: CfgNode, defaults: CfgNode) -> None:
    for key, value in defaults.items():
        if key not in cfg:
            cfg[key] = value
        elif isinstance(value, CfgNode):
            _add_missing(cfg[key], value)


def read_resnet_spec(cfg: CfgNode, *, in_channels: int | None = None) -> ResNetSpec:
    """The ResNet that MODEL.RESNETS, MODEL.RESNET_DET and MODEL.BACKBONE.FREEZE_AT describe.

    Args:
        in_channels: channels of the input image; as many as MODEL.PIXEL_MEAN if not given.

    Raises:
        InputError: a key has a value that no ResNet can have.
    """
    resnets, own = cfg.MODEL.RESNETS, cfg.MODEL.get("RESNET_DET") or _resnet_defaults()
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


def backbone_outputs(cfg: CfgNode) -> list[str] | None:
    """Names of the feature maps that the backbone of ``cfg`` hands on; None if it is not one of ours."""
    if cfg.MODEL.BACKBONE.NAME == PLAIN_BACKBONE:
        return list(cfg.MODEL.RESNETS.OUT_FEATURES)
    levels = [f"p{name.removeprefix('res')}" for name in cfg.MODEL.FPN.IN_FEATURES]
    if cfg.MODEL.BACKBONE.NAME == FPN_BACKBONE:
        return [*levels, f"p{int(levels[-1][1:]) + 1}"] if levels else []
    if cfg.MODEL.BACKBONE.NAME == RETINANET_BACKBONE:
        return [*levels, "p6", "p7"]
    return None


def check_cfg(cfg: CfgNode) -> list[str]:
    """Everything in ``cfg`` that would fail later on, each with its key and what would be right; not the data."""
    problems = []
    model = cfg.MODEL
    for key, name, registry in (
        ("MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY),
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY),
    ):
        if name not in registry:
            choices = ", ".join(sorted(known for known, _ in registry))
            problems.append(f"{key} is {name!r}; choose one of {choices}")
    for key, choices in TRAIN_CHOICES.items():
        if cfg.RESNET_DET.TRAIN[key] not in choices:
            problems.append(
                f"RESNET_DET.TRAIN.{key} is {cfg.RESNET_DET.TRAIN[key]!r}; choose one of {', '.join(choices)}"
            )
    outputs = backbone_outputs(cfg)
    if outputs is None:
        return problems
    try:
        read_resnet_spec(cfg)
    except InputError as error:
        problems.append(str(error))
    if model.BACKBONE.NAME != PLAIN_BACKBONE:
        problems += _not_among(
            "MODEL.FPN.IN_FEATURES", model.FPN.IN_FEATURES, model.RESNETS.OUT_FEATURES, "MODEL.RESNETS.OUT_FEATURES"
        )
    for key, names in _features_used(cfg).items():
        problems += _not_among(key, names, outputs, f"the outputs of {model.BACKBONE.NAME}")
    if model.META_ARCHITECTURE == "GeneralizedRCNN" and model.ROI_HEADS.NAME != "Res5ROIHeads":
        problems += _repeated_strides(cfg)
    return problems


def _repeated_strides(cfg: CfgNode) -> list[str]:
    """ROI heads pick the level by the size of the box, which takes one level per stride."""
    names = [name for name in cfg.MODEL.ROI_HEADS.IN_FEATURES if name in ("p2", "p3", "p4", "p5")]
    try:
        strides = read_resnet_spec(cfg).strides
        used = [strides[f"res{name[1:]}"] for name in names]
    except (InputError, KeyError):
        return []
    if len(set(used)) == len(used):
        return []
    return [
        f"MODEL.ROI_HEADS.IN_FEATURES {names} have strides {used}; leave out levels of dilated stages until each "
        "stride is there once"
    ]


def _features_used(cfg: CfgNode) -> dict[str, list[str]]:
    """The keys by which the heads of this meta-architecture pick feature maps."""
    model = cfg.MODEL
    if model.META_ARCHITECTURE == "RetinaNet":
        return {"MODEL.RETINANET.IN_FEATURES": model.RETINANET.IN_FEATURES}
    used = {}
    if model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork"):
        used["MODEL.RPN.IN_FEATURES"] = model.RPN.IN_FEATURES
    if model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN"):
        used["MODEL.ROI_HEADS.IN_FEATURES"] = model.ROI_HEADS.IN_FEATURES
    if model.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
        used["MODEL.SEM_SEG_HEAD.IN_FEATURES"] = model.SEM_SEG_HEAD.IN_FEATURES
    return used


def _not_among(key: str, names: list[str], known: list[str], what: str) -> list[str]:
    return [f"{key} has {name!r}, which is not among {what}: {', '.join(known)}" for name in names if name not in known]
