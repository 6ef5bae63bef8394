"""What a config says of images: INPUT.FORMAT, MODEL.PIXEL_MEAN and RESNET_DET.INPUT."""

from __future__ import annotations

from detectron2.config import CfgNode

from resnet_det.images.image_input import CHANNELS, DTYPES, FORMATS, WINDOWS, ImageInput

COLOUR_FORMATS = ("BGR", "RGB")


def read_image_input(cfg: CfgNode) -> ImageInput:
    """How the images of ``cfg`` are read."""
    node = cfg.RESNET_DET.INPUT
    return ImageInput(
        format=cfg.INPUT.FORMAT,
        channels=len(cfg.MODEL.PIXEL_MEAN),
        window=node.WINDOW,
        limits=tuple(float(value) for value in node.LIMITS),
        dtype=node.DTYPE,
        shown=tuple(node.SHOWN),
    )


def check_image_input(cfg: CfgNode) -> list[str]:
    """Problems of the channels and of RESNET_DET.INPUT."""
    node, problems = cfg.RESNET_DET.INPUT, []
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        problems.append(
            f"MODEL.PIXEL_MEAN has {len(mean)} values, MODEL.PIXEL_STD {len(std)}: one for each channel each"
        )
    channels = 1 if cfg.INPUT.FORMAT == "L" else 3
    if cfg.INPUT.FORMAT in ("L", *COLOUR_FORMATS) and len(mean) != channels:
        problems.append(
            f"INPUT.FORMAT {cfg.INPUT.FORMAT} has {channels} channels, and MODEL.PIXEL_MEAN {len(mean)} values"
            + (f"; INPUT.FORMAT {CHANNELS} takes files of any number of channels" if len(mean) not in (1, 3) else "")
        )
    for key, choices in (("WINDOW", WINDOWS), ("DTYPE", DTYPES)):
        if node[key] not in choices:
            problems.append(f"RESNET_DET.INPUT.{key} is {node[key]!r}; choose one of {', '.join(choices)}")
    problems += _check_limits(node)
    if node.DTYPE == "float32" and cfg.INPUT.FORMAT not in FORMATS:
        problems.append(f"RESNET_DET.INPUT.DTYPE float32 goes with INPUT.FORMAT {', '.join(FORMATS)}")
    shown = list(node.SHOWN)
    if shown and not (len(shown) == 3 and all(type(place) is int and 0 <= place < len(mean) for place in shown)):
        problems.append(
            f"RESNET_DET.INPUT.SHOWN is {shown}; three channels from 0 to {len(mean) - 1} would be right, or []"
        )
    if cfg.INPUT.FORMAT == CHANNELS and cfg.VIS_PERIOD > 0:
        problems.append(
            f"VIS_PERIOD is {cfg.VIS_PERIOD}; Detectron2 cannot show images of INPUT.FORMAT {CHANNELS}: set it to 0"
        )
    return problems


def _check_limits(node: CfgNode) -> list[str]:
    limits = list(node.LIMITS)
    if node.WINDOW not in ("fixed", "percentiles"):
        return [f"RESNET_DET.INPUT.LIMITS {limits} is for WINDOW fixed and percentiles: set it to []"] if limits else []
    is_pair = len(limits) == 2 and all(type(value) in (int, float) for value in limits) and limits[0] < limits[1]
    if node.WINDOW == "fixed" and not is_pair:
        return [
            f"RESNET_DET.INPUT.LIMITS is {limits}; the values of black and white, such as [-160, 240], would be right"
        ]
    if node.WINDOW == "percentiles" and not (is_pair and limits[0] >= 0 and limits[1] <= 100):
        return [f"RESNET_DET.INPUT.LIMITS is {limits}; two percentages, such as [0.5, 99.5], would be right"]
    return []
