"""What a model is trained on, as detections to draw."""

from __future__ import annotations

import supervision as sv
from detectron2.structures import BitMasks, Instances, PolygonMasks


def detections_from_targets(targets: Instances) -> sv.Detections:
    """The ground truth that a data set mapper made, in pixels of the augmented image."""
    if not len(targets):
        return sv.Detections.empty()
    masks = targets.gt_masks if targets.has("gt_masks") else None
    if isinstance(masks, PolygonMasks):
        masks = BitMasks.from_polygon_masks(masks, *targets.image_size)
    data = {}
    if targets.has("gt_keypoints"):
        keypoints = targets.gt_keypoints.tensor.numpy().astype(float)
        keypoints[:, :, 2] = keypoints[:, :, 2] > 0
        data["keypoints"] = keypoints
    return sv.Detections(
        xyxy=targets.gt_boxes.tensor.numpy().astype(float),
        mask=None if masks is None else masks.tensor.numpy().astype(bool),
        class_id=targets.gt_classes.numpy().astype(int),
        data=data,
    )
