"""More objects in an image than COCO counts detections of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_data import run_pycocotools

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content
from resnet_det.evaluation.analysis import analyze
from resnet_det.evaluation.coco import read_metrics, run_coco_evaluation
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.files import evaluate_files
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.limits import find_limit_cost


def dense(count=300):
    """``count`` objects in a grid, all found exactly."""
    boxes = [[25 * (n % 25), 35 * (n // 25), 20, 30] for n in range(count)]
    common = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 480, "width": 640}],
        "annotations": [{**common, "id": n + 1, "bbox": box, "area": 600, "iscrowd": 0} for n, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    return content, [{**common, "bbox": box, "score": 1 - n / 1000} for n, box in enumerate(boxes)]


@pytest.mark.parametrize(("limit", "ap", "missed"), [(None, 100 * 34 / 101, 200), (300, 100, 0), (1000, 100, 0)])
def test_300_exact_detections(limit, ap, missed):
    content, results = dense()
    truth = make_ground_truth(judge_content(content))
    (analysis,) = analyze(truth, [make_detections(results, truth)], "bbox", num_draws=2, max_detections=limit)
    assert analysis.metrics["AP"] == pytest.approx(ap)
    assert analysis.metrics[f"AR{limit or 100}"] == pytest.approx(100 if limit else 100 / 3)
    assert (analysis.errors.counts["Miss"], analysis.errors.beyond_limit) == (missed, missed)
    if limit:
        assert analysis.limit_cost is None
    else:
        assert (analysis.limit_cost.images, analysis.limit_cost.objects) == (1, 200)
        assert analysis.limit_cost.max_ap == pytest.approx(ap)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("limit", [3, 10, 250])
def test_any_limit_gives_the_numbers_of_pycocotools(iou_type, limit):
    content, results = random_results(11, num_images=20, per_image=60)
    truth = make_ground_truth(judge_content(content))
    detections = make_detections(results, truth)
    evaluation = run_coco_evaluation(truth, detections, iou_type, max_detections=limit)
    expected = run_pycocotools(content, results, iou_type, max_dets=[1, min(10, limit), limit])
    for key in ("precision", "recall"):
        np.testing.assert_allclose(evaluation.eval[key], expected.eval[key], rtol=0, atol=1e-9)
    assert f"AR{limit}" in read_metrics(evaluation)
    (analysis,) = analyze(truth, [detections], iou_type, num_draws=1, max_detections=limit)
    precision = expected.eval["precision"][:, :, :, 0, -1]
    assert analysis.metrics["AP"] == pytest.approx(100 * precision[precision > -1].mean(), abs=1e-7)


def test_the_limit_counts_for_each_class():
    content, _ = dense(120)
    for annotation in content["annotations"][:60]:
        annotation["category_id"] = 2
    content["categories"].append({"id": 2, "name": "other"})
    truth = make_ground_truth(judge_content(content))
    assert find_limit_cost(truth, 100) is None
    assert find_limit_cost(truth, 59).objects == 2


def test_the_report_says_what_the_limit_costs(tmp_path, caplog):
    paths = tmp_path / "annotations.json", tmp_path / "results.json"
    for path, content in zip(paths, dense(), strict=True):
        path.write_text(json.dumps(content))
    evaluate_files(*paths, output=tmp_path, num_draws=2)
    text = "200 objects cannot be found, and AP is at most 33.7"
    assert text in caplog.text
    assert text in (tmp_path / "report.html").read_text()
    facts = json.loads((tmp_path / "evaluation.json").read_text())["facts"]
    assert text in facts["limit, bbox"]
