"""Pictures of objects on images."""

from resnet_det.visualization.drawing import (
    detections_from_annotations,
    detections_from_instances,
    draw_detections,
    side_by_side,
)
from resnet_det.visualization.panoptic import draw_panoptic
from resnet_det.visualization.skeleton import NO_SKELETON, Skeleton, make_skeleton
from resnet_det.visualization.targets import detections_from_targets

__all__ = [
    "NO_SKELETON",
    "Skeleton",
    "detections_from_annotations",
    "detections_from_instances",
    "detections_from_targets",
    "draw_detections",
    "draw_panoptic",
    "make_skeleton",
    "side_by_side",
]
