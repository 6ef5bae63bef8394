"""TP / (TP + FP + FN) against plain loops and scipy's assignment, and where it is told."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pycocotools.mask as mask_util
import pytest
from scipy.optimize import linear_sum_assignment

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content
from resnet_det.errors import InputError
from resnet_det.evaluation.analysis import analyze
from resnet_det.evaluation.curves import SCORES
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.files import evaluate_files
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.thresholds import ScoreThreshold

SIDE, CELL = 96, 16
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def encode(mask):
    runs = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**runs, "counts": runs["counts"].decode()}


@cache
def decode(counts):
    return mask_util.decode({"size": [SIDE, SIDE], "counts": counts}).astype(bool)


def draw_cells(rng, share, jitter):
    """Label images of discs on a grid, of which none shares a pixel with another."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), dtype=int)
    for place in range((SIDE // CELL) ** 2):
        y, x = np.array(divmod(place, SIDE // CELL)) * CELL + CELL / 2 + rng.normal(0, jitter, 2)
        if rng.random() < share:
            inside = (rows - y) ** 2 + (columns - x) ** 2 < rng.uniform(4.5, 7) ** 2
            labels[inside & (labels == 0)] = place + 1
    return labels


def make_cells(seed, num_images=6, num_classes=1):
    """Cells and predictions of them in COCO's formats; no two share a pixel. The first image has no cells."""
    rng = np.random.default_rng(seed)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": n + 1, "name": f"c{n}"} for n in range(num_classes)],
    }
    results = []
    for image_id in range(1, num_images + 1):
        size = {"height": SIDE, "width": SIDE}
        content["images"].append({"id": image_id, "file_name": f"{image_id}.png", **size})
        share = 0.0 if image_id == 1 else 0.8
        for is_truth, labels in ((True, draw_cells(rng, share, 1.0)), (False, draw_cells(rng, 0.75, 1.0))):
            for label in np.unique(labels[labels > 0]):
                mask = encode(labels == label)
                entry = {"image_id": image_id, "category_id": int(rng.integers(num_classes)) + 1, "segmentation": mask}
                entry["bbox"] = mask_util.toBbox(mask).tolist()
                if is_truth:
                    area = float(mask_util.area(mask))
                    content["annotations"].append({**entry, "id": len(content["annotations"]) + 1, "area": area})
                    content["annotations"][-1]["iscrowd"] = 0
                else:
                    results.append({**entry, "score": float(rng.random())})
    return content, results


def count_by_assignment(content, results, iou_threshold, min_score):
    """TP, FP and FN of each image: as many pairs as can be, of one class and with enough overlap, by scipy."""
    counts = []
    for image in content["images"]:
        objects = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        found = [one for one in results if one["image_id"] == image["id"] and one["score"] >= min_score]
        right = 0
        if objects and found:
            masks = [[decode(one["segmentation"]["counts"]) for one in many] for many in (found, objects)]
            iou = np.array([[(a & b).sum() / (a | b).sum() for b in masks[1]] for a in masks[0]])
            same = [[a["category_id"] == b["category_id"] for b in objects] for a in found]
            good = (iou >= iou_threshold) & np.array(same)
            right = int(good[linear_sum_assignment(good, maximize=True)].sum())
        counts.append((right, len(found) - right, len(objects) - right))
    return np.array(counts)


def count_by_score(content, results, iou_threshold, min_score):
    """The same of boxes, which overlap: the best detection takes the free object of its class that it overlaps most."""

    def overlap(a, b):
        (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
        shared = max(min(ax + aw, bx + bw) - max(ax, bx), 0) * max(min(ay + ah, by + bh) - max(ay, by), 0)
        return shared / (aw * ah + bw * bh - shared)

    counts = []
    for image in content["images"]:
        free = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        found = [one for one in results if one["image_id"] == image["id"] and one["score"] >= min_score]
        num_objects, right = len(free), 0
        for one in sorted(found, key=lambda one: -one["score"]):
            rivals = [other for other in free if other["category_id"] == one["category_id"]]
            best = max(rivals, key=lambda other: overlap(one["bbox"], other["bbox"]), default=None)
            if best is not None and overlap(one["bbox"], best["bbox"]) >= iou_threshold:
                free.remove(best)
                right += 1
        counts.append((right, len(found) - right, num_objects - right))
    return np.array(counts)


def compute(content, results, iou_type, threshold=None):
    truth = make_ground_truth(judge_content(content))
    given = None if threshold is None else [ScoreThreshold(threshold, "given")]
    run = make_detections(results, truth)
    return analyze(truth, [run], iou_type, num_draws=2, max_detections=1000, score_thresholds=given)[0]


def assert_same(success, counts):
    """``counts``: (thresholds, images, 3)."""
    total = counts.sum(axis=2)
    np.testing.assert_array_equal(success.true_positives, counts[..., 0].sum(1))
    np.testing.assert_array_equal(success.false_positives, counts[..., 1].sum(1))
    np.testing.assert_array_equal(success.false_negatives, counts[..., 2].sum(1))
    np.testing.assert_allclose(success.pooled, 100 * counts[..., 0].sum(1) / total.sum(1))
    has_any = total[0] > 0
    assert success.images == has_any.sum()
    np.testing.assert_allclose(success.image_mean, 100 * (counts[:, has_any, 0] / total[:, has_any]).mean(1))


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("min_score", [0.0, 0.4])
def test_masks_that_share_no_pixel_are_counted_as_by_the_best_assignment(num_classes, min_score):
    content, results = make_cells(1, num_classes=num_classes)
    success = compute(content, results, "segm", min_score).success
    counts = np.array([count_by_assignment(content, results, t, min_score) for t in THRESHOLDS])
    assert_same(success, counts)
    assert 20 / num_classes < success.true_positives[0] > 2 * success.true_positives[6] > 0


def test_boxes_that_overlap_are_taken_by_score():
    content, results = random_results(5, num_images=12)
    content["annotations"] = [one for one in content["annotations"] if not one["iscrowd"]]
    rng = np.random.default_rng(0)
    results = [{**one, "score": float(rng.random())} for one in results]
    success = compute(content, results, "bbox", 0.3).success
    assert_same(success, np.array([count_by_score(content, results, t, 0.3) for t in THRESHOLDS]))


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong():
    content, results = make_cells(2)
    before = compute(content, results, "segm", 0.0).success
    crowd = {"id": 9999, "image_id": 1, "category_id": 1, "bbox": [0, 0, SIDE, SIDE], "area": SIDE**2, "iscrowd": 1}
    content["annotations"].append({**crowd, "segmentation": encode(np.ones((SIDE, SIDE)))})
    after = compute(content, results, "segm", 0.0).success
    in_image = sum(row["image_id"] == 1 for row in results)
    assert in_image > 5
    assert (before.false_positives - after.false_positives == in_image).all()
    assert (before.true_positives == after.true_positives).all()
    assert after.images == before.images - 1  # nothing of that image counts


def test_the_images_of_the_mean_are_the_same_at_each_iou():
    content, _ = make_cells(2, num_images=2)
    content["annotations"] = content["annotations"][:1]  # of the second image
    crowd = {"id": 9999, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 10], "area": 200, "iscrowd": 1}
    content["annotations"].append(crowd)
    # Three quarters of it are in the crowd, so that it is wrong from IoU 0.80 on.
    results = [{"image_id": 1, "category_id": 1, "bbox": [5, 0, 20, 10], "score": 0.9}]
    results.append(
        {**{key: content["annotations"][0][key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9}
    )
    success = compute(content, results, "bbox", 0.5).success
    assert success.images == 2
    assert success.image_mean.tolist() == [100] * 6 + [50] * 4


def test_the_threshold_is_the_best_of_all_hundredths():
    content, results = make_cells(3)
    analysis = compute(content, results, "segm")
    values = []
    for score in SCORES:
        found, false, missed = count_by_assignment(content, results, 0.5, score).sum(0)
        values.append(found / (found + false + missed))
    assert analysis.success.pooled[0] == pytest.approx(100 * max(values))
    best = np.flatnonzero(np.isclose(values, max(values)))
    assert (np.diff(best) == 1).all()
    assert analysis.threshold.value == SCORES[(best[0] + best[-1]) // 2]
    assert "chosen on these same images, so the numbers are optimistic" in str(analysis.threshold)


def test_nothing_at_all_has_no_index_and_nothing_found_has_0():
    content, results = make_cells(4, num_images=2)
    nothing = compute(content, [], "segm").success
    assert nothing.metrics == {"CSI50": 0, "CSI75": 0, "CSI-images": 0}
    assert nothing.images == 1
    content["annotations"] = []
    assert np.isnan(list(compute(content, [], "segm").success.metrics.values())).all()
    assert compute(content, results, "segm").success.pooled.max() == 0


@pytest.fixture
def files(tmp_path):
    paths = {}
    for name, seed in (("test", 5), ("val", 6)):
        for kind, data in zip(("annotations", "results"), make_cells(seed), strict=True):
            paths[name, kind] = tmp_path / f"{name}_{kind}.json"
            paths[name, kind].write_text(json.dumps(data))
    return paths


def test_the_tool_tells_it_with_a_threshold_of_other_images(files, tmp_path, run_tool_here):
    here = ["--annotations", files["test", "annotations"], "--results", files["test", "results"], "--iou-type", "segm"]
    other = ["--threshold-from", files["val", "annotations"], files["val", "results"]]
    run = run_tool_here("evaluate.py", *here, *other, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    chosen = compute(*(json.loads(files["val", kind].read_text()) for kind in ("annotations", "results")), "segm")
    threshold = chosen.threshold.value
    assert f"a score of at least {threshold:.2f} (best on {files['val', 'annotations']})" in run.stdout
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())["segm"]
    content, results = (json.loads(files["test", kind].read_text()) for kind in ("annotations", "results"))
    success = compute(content, results, "segm", threshold).success
    assert numbers["success"]["pooled"] == pytest.approx(success.pooled.tolist())
    assert numbers["threshold"] == numbers["success"]["threshold"] == threshold
    assert f"{success.pooled[0]:.1f}" in run.stdout
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{success.pooled[0]:.1f}</td>" in page
    assert "mean of 6 images" in page


def test_the_other_run_keeps_its_own_best_threshold(files, tmp_path, run_tool_here):
    annotations, results = files["test", "annotations"], files["test", "results"]
    other = tmp_path / "other_results.json"
    raised = [{**row, "score": 0.5 + row["score"] / 2} for row in json.loads(results.read_text())]
    other.write_text(json.dumps(raised))
    chosen = files["val", "annotations"], files["val", "results"]
    options = {"iou_types": ["segm"], "compare_with": other, "num_draws": 2}
    (analysis,), (comparison,) = evaluate_files(annotations, results, threshold_from=chosen, **options)
    best = compute(json.loads(annotations.read_text()), raised, "segm").threshold
    assert analysis.threshold.source == f"best on {chosen[0]}"
    assert comparison.second.threshold == best
    assert best.value >= 0.5 > analysis.threshold.value
    _, (comparison,) = evaluate_files(annotations, results, score_threshold=0.25, **options)
    assert (comparison.first.threshold.value, comparison.second.threshold.value) == (0.25, 0.25)
    flags = ["--annotations", annotations, "--results", results, "--compare", other, "--iou-type", "segm"]
    run = run_tool_here("evaluate.py", *flags, "--threshold-from", *chosen, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert f"Mistakes of the other run are counted at a score of at least {best}" in run.stdout
    assert "score threshold of the other run, segm" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda content, _: [one.pop("segmentation") for one in content["annotations"]],
            r"val_ann\S+ no annotation has",
        ),
        (
            lambda _, results: [one.update(score=0.5, image_id=1) for one in results],
            r"--threshold-from \S+val_results.json: no detection finds an object of \S+val_annotations.json \(segm\)",
        ),
        (lambda _, results: results.clear(), r"no detection finds an object of \S+val_annotations.json"),
    ],
)
def test_files_that_no_threshold_can_be_chosen_by_are_refused(files, edit, message):
    contents = [json.loads(files["val", kind].read_text()) for kind in ("annotations", "results")]
    edit(*contents)
    for kind, content in zip(("annotations", "results"), contents, strict=True):
        files["val", kind].write_text(json.dumps(content))
    other = files["val", "annotations"], files["val", "results"]
    with pytest.raises(InputError, match=message):
        evaluate_files(
            files["test", "annotations"],
            files["test", "results"],
            iou_types=["segm"],
            threshold_from=other,
            num_draws=2,
        )


def test_a_threshold_of_the_same_images_is_refused(files):
    here = files["test", "annotations"], files["test", "results"]
    with pytest.raises(
        InputError, match=r"--threshold-from .*: the same annotations as .*, whose images are to be judged"
    ):
        evaluate_files(*here, threshold_from=here)
