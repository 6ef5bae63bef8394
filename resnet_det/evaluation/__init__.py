"""Evaluation: COCO's numbers and where they are written."""

from resnet_det.evaluation.build import build_evaluator, write_results

__all__ = ["build_evaluator", "write_results"]
