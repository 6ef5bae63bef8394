"""Evaluation with test-time augmentation, by Detectron2's TEST.AUG."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.modeling import GeneralizedRCNNWithTTA
from torch import nn

from resnet_det.evaluation import inference_folder


def evaluate_with_augmentation(trainer: type[DefaultTrainer], cfg: CfgNode, model: nn.Module) -> OrderedDict[str, Any]:
    """Results under "bbox_TTA", ...; none where TEST.AUG.ENABLED is not set.

    What is found goes to folders beside those of the evaluation without augmentation, which stay as they are.
    """
    if not cfg.TEST.AUG.ENABLED:
        return OrderedDict()
    evaluators = [
        trainer.build_evaluator(cfg, name, os.fspath(inference_folder(cfg, name)) + "_TTA")
        for name in cfg.DATASETS.TEST
    ]
    results = trainer.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    return OrderedDict((f"{key}_TTA", value) for key, value in results.items())
