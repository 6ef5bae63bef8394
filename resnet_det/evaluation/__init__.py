"""Evaluation: COCO's numbers and where they are written."""

from resnet_det.evaluation.build import build_evaluator, describe_use, inference_folder, write_results
from resnet_det.evaluation.evaluator import FastCOCOEvaluator

__all__ = ["FastCOCOEvaluator", "build_evaluator", "describe_use", "inference_folder", "write_results"]
