"""Matches, curves and confidence intervals against COCO's numbers and against resampled data sets."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from evaluation_data import random_keypoints

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content
from resnet_det.evaluation.analysis import analyze
from resnet_det.evaluation.bootstrap import WeightedAP, draw_weights, mean_over, summarize_draws
from resnet_det.evaluation.coco import read_metrics, run_coco_evaluation
from resnet_det.evaluation.comparison import compare
from resnet_det.evaluation.curves import _curve, compute_curves, find_threshold
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps


def match(content, results, iou_type):
    truth = make_ground_truth(judge_content(content))
    detections = make_detections(results, truth)
    overlaps = compute_overlaps(truth, detections, iou_type)
    return truth, detections, match_detections(truth, detections, overlaps, iou_type)


def make(seed, iou_type, **options):
    if iou_type == "keypoints":
        return random_keypoints(seed, num_keypoints=17)
    return random_results(seed, **{"num_images": 25, **options})


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", [1, 2])
def test_our_matches_give_the_ap_of_each_class_and_threshold(iou_type, seed):
    content, results = make(seed, iou_type)
    truth, detections, matches = match(content, results, iou_type)
    assert matches.ignored.any()
    precision = run_coco_evaluation(truth, detections, iou_type).eval["precision"][:, :, :, 0, -1]
    ap = WeightedAP(truth, detections, matches).compute()
    assert ap[0].min() > 2
    assert ap[0].max() < 98
    np.testing.assert_allclose(ap / 100, precision.mean(axis=1), rtol=0, atol=1e-9)


def test_an_overlap_of_exactly_a_half_is_a_match():
    content = {
        "images": [{"id": 1, "file_name": "a", "height": 40, "width": 40}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 16], "area": 128, "iscrowd": 0}],
    }
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], "score": 0.9}]
    truth, detections, matches = match(content, results, "bbox")
    assert matches.annotation[:, 0].tolist() == [0] + [-1] * 9
    assert read_metrics(run_coco_evaluation(truth, detections, "bbox"))["AP50"] == pytest.approx(100)
    assert WeightedAP(truth, detections, matches).compute()[:2, 0].tolist() == [100, 0]


def test_more_than_100_detections_of_an_image_and_class_are_not_counted():
    content, results = make(3, "bbox", num_images=4, per_image=300)
    for entry in (*content["annotations"], *results):
        entry["category_id"] = 2
    truth, detections, matches = match(content, results, "bbox")
    assert matches.counted.sum() == 400
    expected = read_metrics(run_coco_evaluation(truth, detections, "bbox"))["AP"]
    assert mean_over(WeightedAP(truth, detections, matches).compute(), (0, 1)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("iou_type", ["bbox", "keypoints"])
def test_a_draw_is_the_ap_of_the_resampled_data_set(iou_type):
    content, results = make(4, iou_type)
    truth, detections, matches = match(content, results, iou_type)
    weighted = WeightedAP(truth, detections, matches)
    for weight in draw_weights(len(truth.images), num_draws=3, seed=5):
        assert weight.sum() == len(truth.images)
        drawn, found = copy.deepcopy(content) | {"images": [], "annotations": []}, []
        for place, times in enumerate(weight):
            image = truth.images[place]
            for copy_number in range(times):
                image_id = 1000 * place + copy_number
                drawn["images"].append(image | {"id": image_id})
                drawn["annotations"] += [
                    a | {"image_id": image_id} for a in content["annotations"] if a["image_id"] == image["id"]
                ]
                found += [r | {"image_id": image_id} for r in results if r["image_id"] == image["id"]]
        other_truth = make_ground_truth(judge_content(drawn))
        evaluation = run_coco_evaluation(other_truth, make_detections(found, other_truth), iou_type)
        expected = read_metrics(evaluation)["AP"]
        assert mean_over(weighted.compute(weight), (0, 1)) == pytest.approx(expected, abs=0.05)


def test_intervals_hold_the_value_and_are_the_same_for_the_same_seed():
    content, results = make(6, "bbox")
    truth = make_ground_truth(judge_content(content))
    run = make_detections(results, truth)
    first, again = (analyze(truth, [run], "bbox", num_draws=60, seed=7)[0] for _ in range(2))
    other = analyze(truth, [run], "bbox", num_draws=60, seed=8)[0]
    for name, interval in first.intervals.items():
        assert interval.low < interval.value == first.metrics[name] < interval.high
        assert interval.high - interval.low < 25
    assert first.intervals == again.intervals != other.intervals
    assert all(np.isfinite(interval.low) for interval in first.class_intervals)
    spread = summarize_draws(50.0, np.arange(0.0, 101.0))
    assert (spread.value, spread.low, spread.high) == pytest.approx((50, 2.5, 97.5))


def test_best_thresholds_are_those_of_all_cuts():
    content, results = make(7, "bbox")
    truth, detections, matches = match(content, results, "bbox")
    curves = compute_curves(truth, detections, matches)
    counted = matches.counted & ~matches.ignored[0]
    for place, curve in enumerate(curves):
        objects = int(((truth.category == place) & ~truth.crowd).sum())
        best, cuts = [], np.unique(detections.score[counted & (detections.category == place)])
        for cut in cuts:
            shown = counted & (detections.category == place) & (detections.score >= cut)
            right = int((matches.annotation[0, shown] >= 0).sum())
            best.append((2 * right / (shown.sum() + objects), -cut, right / shown.sum(), right / objects))
        f1, cut, precision, recall = max(best)
        below = max(cuts[cuts < -cut], default=-cut)  # any threshold above this shows the same
        assert (curve.best_f1, curve.best_threshold) == pytest.approx((f1, (below - cut) / 2))
        assert (curve.precision, curve.recall) == pytest.approx((precision, recall))
        assert curve.f1.max() <= f1 + 1e-12
        assert curve.f1[int(100 * -cut)] == pytest.approx(f1, abs=0.1)


def test_every_threshold_is_in_the_middle_of_the_best():
    def find(*scores, right):
        order = np.argsort(scores)[::-1]
        return _curve(np.array(scores)[order], np.isin(order, right), 2)

    curve = find(0.9, 0.7, 0.2, 0.1, right=[0, 1])
    assert curve.best_threshold == pytest.approx(0.45)
    assert find_threshold([curve]) == pytest.approx(0.45)
    alone = find(0.9, 0.75, right=[0, 1])  # below 0.75 nothing was seen
    assert alone.best_threshold == find_threshold([alone]) == 0.75
    near = find(0.9, np.nextafter(0.5, 1), 0.5, right=[0, 1])
    assert near.best_threshold == np.nextafter(0.5, 1)
    nothing = find(0.9, 0.7, right=[])
    assert np.isnan(nothing.best_threshold)
    assert find_threshold([nothing]) == 0


def test_a_class_with_one_object_has_a_curve():
    content, _ = make(7, "bbox")
    content["annotations"] = [{**one, "iscrowd": 0} for one in content["annotations"][:1]]
    (annotation,) = content["annotations"]
    found = {key: annotation[key] for key in ("image_id", "category_id", "bbox")}
    truth, detections, matches = match(content, [{**found, "score": 0.7}], "bbox")
    curve = compute_curves(truth, detections, matches)[truth.category[0]]
    assert (curve.best_f1, curve.precision, curve.recall) == (1, 1, 1)
    assert curve.best_threshold == pytest.approx(0.7)


def test_the_confusion_matrix_counts_every_object_and_detection_once():
    content, results = make(8, "bbox")
    truth = make_ground_truth(judge_content(content))
    analysis = analyze(truth, [make_detections(results, truth)], "bbox", num_draws=2)[0]
    assert 0.1 < analysis.threshold.value < 0.9
    shown = [row for row in results if row["score"] >= analysis.threshold.value]
    objects = np.bincount(truth.category[~truth.crowd], minlength=5)
    assert analysis.confusion.shape == (6, 6)
    assert (analysis.confusion.sum(axis=1)[:5] == objects).all()
    assert 0 <= len(shown) - analysis.confusion[:, :5].sum() <= 0.1 * len(shown)  # those on crowds are left out
    assert np.diag(analysis.confusion)[:5].sum() > analysis.confusion[:5, :5].sum() / 2
    assert 0 < analysis.calibration["ece"] < 1


def test_two_runs_are_compared_on_the_same_draws():
    content, results = make(9, "bbox")
    worse = [row for number, row in enumerate(results) if number % 3 == 0]
    truth = make_ground_truth(judge_content(content))
    runs = (make_detections(results, truth), make_detections(worse, truth))
    analyses = analyze(truth, runs, "bbox", num_draws=80)
    comparison = compare(truth, runs, tuple(analyses))
    difference = comparison.difference
    assert difference.value == pytest.approx(analyses[1].metrics["AP"] - analyses[0].metrics["AP"])
    assert difference.low < difference.value < difference.high < 0
    assert comparison.is_clear
    width = analyses[0].intervals["AP"].high - analyses[0].intervals["AP"].low
    assert difference.high - difference.low < width  # which is what pairing is for
    same = compare(truth, (runs[0], runs[0]), (analyses[0], analyses[0]))
    assert (same.difference.value, same.is_clear, same.most_different_images(5)) == (0, False, [])
    places = comparison.most_different_images(5)
    gaps = np.abs(np.diff(comparison.mistakes, axis=1)[:, 0])
    assert (
        sorted(gaps[places].tolist(), reverse=True)
        == gaps[places].tolist()
        == sorted(gaps.tolist())[: -len(places) - 1 : -1]
    )


def test_an_object_without_a_mask_is_a_crowd_of_its_box_where_masks_are_evaluated():
    content, _ = random_results(3, num_images=2)
    content["annotations"] = [{**one, "iscrowd": 0} for one in content["annotations"] if not one["iscrowd"]][:3]
    whole = make_ground_truth(judge_content(content))
    assert whole.for_task("segm") is whole
    del content["annotations"][1]["segmentation"]
    truth = make_ground_truth(judge_content(content))
    assert truth.for_task("bbox") is truth
    masks = truth.for_task("segm")
    assert (truth.crowd.tolist(), masks.crowd.tolist()) == ([False] * 3, [False, True, False])
    (corners,) = masks.annotations[1]["segmentation"]
    x, y, width, height = content["annotations"][1]["bbox"]
    assert [min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2])] == pytest.approx(
        [x, y, x + width, y + height]
    )
