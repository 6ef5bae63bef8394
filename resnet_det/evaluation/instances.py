"""Predictions of a model as rows of COCO's results."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from resnet_det.masks import BoxMasks


def make_results(instances: Instances, image_id: Hashable) -> list[dict[str, Any]]:
    """What Detectron2's ``instances_to_coco_json`` gives, for masks that are in their boxes (BoxMasks), too.

    Args:
        instances: on the CPU.
    """
    if not (instances.has("pred_masks") and isinstance(instances.pred_masks, BoxMasks)):
        return instances_to_coco_json(instances, image_id)
    fields = {name: value for name, value in instances.get_fields().items() if name != "pred_masks"}
    rows = instances_to_coco_json(Instances(instances.image_size, **fields), image_id)
    return [{**row, "segmentation": runs} for row, runs in zip(rows, instances.pred_masks.to_rle(), strict=True)]
