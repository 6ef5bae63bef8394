"""An exported detector where a Predictor is expected."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from resnet_det.deploy import Detections, Detector
from resnet_det.visualization import Skeleton


class ExportedPredictor:
    """What :class:`resnet_det.engine.predictor.Predictor` is to those who draw, from a file of tools/export_model.py.

    Attributes:
        class_names, category_ids, skeleton, image_input: as the file says.
    """

    stuff_names: tuple[str, ...] = ()

    def __init__(self, path: str | os.PathLike, *, threads: int = 0) -> None:
        """
        Args:
            threads: 0: as many as there are cores.

        Raises:
            InputError: there is no such file, it is damaged, or its runtime is not installed.
        """
        self.detector = Detector(path, threads=threads)
        self.class_names, self.category_ids = self.detector.class_names, self.detector.category_ids
        self.image_input = self.detector.image_input
        skeleton = self.detector.metadata.get("skeleton", {})
        self.skeleton = Skeleton(**{key: tuple(map(tuple, pairs)) for key, pairs in skeleton.items()})

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """{"instances": ...} for each of ``images`` (see :class:`Detector`), which go through as one batch."""
        return [{"instances": make_instances(found)} for found in self.detector.detect(images)]


def make_instances(found: Detections) -> Instances:
    """``found`` as Detectron2 has it."""
    instances = Instances((found.height, found.width))
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.has_masks:
        instances.pred_masks = found.masks
    if found.keypoints is not None:
        instances.pred_keypoints = torch.from_numpy(found.keypoints)
    return instances
