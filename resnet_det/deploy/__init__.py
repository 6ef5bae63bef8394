"""Detectors out of Python: what is exported, and what runs it with neither torch nor Detectron2."""

from resnet_det.deploy.detector import Detections, Detector

__all__ = ["Detections", "Detector"]
