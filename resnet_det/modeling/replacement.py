"""Ours in the place of Detectron2's ResNet, for projects whose own builders call Detectron2's."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial

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
    registered = BACKBONE_REGISTRY._obj_map
    for theirs, ours in _PAIRS:
        stand_in = partial(ours, like_detectron2=True)
        for module in list(sys.modules.values()):
            for name in [name for name, value in getattr(module, "__dict__", {}).items() if value is theirs]:
                setattr(module, name, stand_in)
                undo.callback(setattr, module, name, theirs)
        if registered.get(theirs.__name__) is theirs:
            registered[theirs.__name__] = stand_in
            undo.callback(registered.__setitem__, theirs.__name__, theirs)
    return undo
