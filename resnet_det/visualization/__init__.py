"""Pictures of objects on images."""

from resnet_det.visualization.drawing import (
    detections_from_annotations,
    detections_from_instances,
    draw_detections,
    side_by_side,
)

__all__ = ["detections_from_annotations", "detections_from_instances", "draw_detections", "side_by_side"]
