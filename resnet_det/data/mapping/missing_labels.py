"""Objects without a mask or keypoints among objects with some, for mappers that expect all objects to have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.structures import BoxMode

Mapper = Callable[[dict[str, Any]], dict[str, Any]]

_OFFSET = 1 << 20  # added to the category of an object without a mask, which mappers hand through


class CompletingMapper:
    """Gives each object what it lacks before ``mapper`` has the image, and tells which masks were made so.

    In place of a mask it is the box, and ``gt_has_mask`` of the instances is False; in place of keypoints they are all
    not labelled, which no loss counts. Images whose objects lack nothing pass as they are.
    """

    def __init__(self, mapper: Mapper, *, masks: bool, num_keypoints: int) -> None:
        """Args:
        masks: objects need a mask.
        num_keypoints: of each object; 0 if they need none.
        """
        self.mapper, self.masks, self.num_keypoints = mapper, masks, num_keypoints

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        annotations = dataset_dict.get("annotations")
        if not annotations:
            return self.mapper(dataset_dict)
        completed = [self._complete(annotation) for annotation in annotations]
        if all(new is old for new, old in zip(completed, annotations, strict=True)):
            return self.mapper(dataset_dict)
        mapped = self.mapper({**dataset_dict, "annotations": completed})
        if "instances" in mapped and self.masks:
            instances = mapped["instances"]
            instances.gt_has_mask = instances.gt_classes < _OFFSET
            instances.gt_classes = torch.where(
                instances.gt_has_mask, instances.gt_classes, instances.gt_classes - _OFFSET
            )
        return mapped

    def _complete(self, annotation: dict[str, Any]) -> dict[str, Any]:
        if self.masks and "segmentation" not in annotation:
            x0, y0, x1, y1 = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
            corners = [x0, y0, x1, y0, x1, y1, x0, y1]
            category = annotation["category_id"] + _OFFSET
            annotation = {**annotation, "segmentation": [corners], "category_id": category}
        if self.num_keypoints and not annotation.get("keypoints"):
            annotation = {**annotation, "keypoints": [0.0] * 3 * self.num_keypoints}
        return annotation
