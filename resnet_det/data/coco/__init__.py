"""COCO annotation files: read, normalised and judged in one place."""

from resnet_det.data.coco.data import CROWD_ADVICE, CocoData, Usage
from resnet_det.data.coco.file import read_coco_json
from resnet_det.data.coco.problems import KINDS, LEFT_OUT, Finding, Problem
from resnet_det.data.coco.reader import judge_content, read_coco

__all__ = [
    "CROWD_ADVICE",
    "KINDS",
    "LEFT_OUT",
    "CocoData",
    "Finding",
    "Problem",
    "Usage",
    "judge_content",
    "read_coco",
    "read_coco_json",
]
