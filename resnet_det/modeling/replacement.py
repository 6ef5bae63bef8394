"""Ours in the place of Detectron2's ResNet, for projects whose own builders call Detectron2's."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps

from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import fpn, resnet

from resnet_det.modeling.build import (
    build_resnet_det_backbone,
    build_resnet_det_fpn_backbone,
    build_retinanet_resnet_det_fpn_backbone,
)

_PAIRS = (
    (resnet.build_resnet_backbone, build_resnet_det_backbone),
    (fpn.build_resnet_fpn_backbone, build_resnet_det_fpn_backbone),
    (fpn.build_retinanet_resnet_fpn_backbone, build_retinanet_resnet_det_fpn_backbone),
)


def replace_detectron2_resnet() -> ExitStack:
    """From now on, whoever asks Detectron2 for its ResNet gets ours.

    That is for code that calls ``build_resnet_backbone(cfg, input_shape)`` itself, so that MODEL.BACKBONE.NAME does not
    reach it. Detectron2's three builders are replaced in the registry and under every name that a module has for one:
    Detectron2's modules, and those that have imported it from there. Like the builders they stand for, ours then pass
    over keys that other builders add to MODEL.RESNETS.

    Returns:
        What takes it back: ``.close()``, or the end of a ``with`` block.
    """
    undo = ExitStack()
    for theirs, ours in _PAIRS:
        stand_in = wraps(theirs)(partial(ours, like_detectron2=True))
        if _swap(theirs, stand_in):
            undo.callback(_swap, stand_in, theirs)
    return undo


def _swap(old: Callable, new: Callable) -> bool:
    """Put ``new`` wherever a module, or the registry, has ``old``."""
    found = False
    for module in list(sys.modules.values()):
        for name in [name for name, value in list(getattr(module, "__dict__", {}).items()) if value is old]:
            setattr(module, name, new)
            found = True
    registered = BACKBONE_REGISTRY._obj_map
    for name in [name for name, value in registered.items() if value is old]:
        registered[name] = new
        found = True
    return found
