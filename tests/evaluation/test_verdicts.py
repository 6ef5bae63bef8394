"""What pictures call right, wrong and missed."""

from __future__ import annotations

import pytest

from resnet_det.data import judge_content
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.errors import find_errors
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps
from resnet_det.evaluation.verdicts import judge

CONTENT = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "iscrowd": 0},
        {"image_id": 1, "category_id": 2, "bbox": [50, 0, 20, 20], "iscrowd": 0},
        {"image_id": 1, "category_id": 1, "bbox": [100, 0, 60, 60], "iscrowd": 1},
    ],
}


@pytest.mark.parametrize(("min_score", "objects"), [(0.0, ["tp", "miss", "other"]), (0.95, ["miss", "miss", "other"])])
def test_each_kind_of_detection_has_its_name(min_score, objects):
    rows = [
        {"category_id": 1, "bbox": [0, 0, 20, 18], "score": 0.9},
        {"category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.8},
        {"category_id": 1, "bbox": [50, 0, 20, 20], "score": 0.7},
        {"category_id": 1, "bbox": [110, 10, 20, 20], "score": 0.6},
        {"category_id": 2, "bbox": [0, 70, 20, 20], "score": 0.5},
    ]
    truth = make_ground_truth(judge_content(CONTENT))
    found = make_detections([{**row, "image_id": 1} for row in rows], truth)
    overlaps = compute_overlaps(truth, found, "bbox")
    matches = match_detections(truth, found, overlaps, "bbox")
    verdicts = judge(truth, found, matches, find_errors(truth, found, overlaps, matches), min_score)
    assert verdicts.detection_kind.tolist() == ["tp", "fp", "fp", "other", "fp"]
    assert verdicts.detection_labels == ["cat 0.90", "cat 0.80 Dupe", "cat 0.70 Cls", "cat 0.60", "dog 0.50 Bkg"]
    assert verdicts.object_kind.tolist() == objects
    assert verdicts.object_labels == ["cat", "dog", "cat"]
