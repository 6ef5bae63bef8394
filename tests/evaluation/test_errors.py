"""TIDE's error types against tidecv's numbers, and against its definitions in plain Python."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pycocotools.mask as mask_util
import pytest

from resnet_det.benchmark.random_results import HEIGHT, WIDTH, random_results
from resnet_det.data import judge_content, read_coco_json
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.errors import ERROR_TYPES, find_errors
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps

# tidecv 1.0.1 on coco_eval_fixture (with numpy 2.4.6 and pycocotools 2.0.11).
TIDECV = {
    "bbox": {"Cls": 22.246, "Loc": 0.228, "Both": 0.0, "Dupe": 0.019, "Bkg": 0.0, "Miss": 8.524},
    "segm": {"Cls": 16.186, "Loc": 11.601, "Both": 1.013, "Dupe": 0.0, "Bkg": 0.268, "Miss": 7.779},
}
TIDECV_COUNTS = {
    "bbox": {"Cls": 83, "Loc": 1, "Both": 0, "Dupe": 1, "Bkg": 0, "Miss": 97},
    "segm": {"Cls": 76, "Loc": 82, "Both": 7, "Dupe": 0, "Bkg": 4, "Miss": 109},
}
TIDECV_OTHERS = {"bbox": (64.205, 6.822, 17.685), "segm": (51.801, 8.660, 23.746)}


def errors_of(content, results, iou_type):
    truth = make_ground_truth(judge_content(content))
    detections = make_detections(results, truth)
    overlaps = compute_overlaps(truth, detections, iou_type)
    return find_errors(truth, detections, overlaps, match_detections(truth, detections, overlaps, iou_type))


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_errors_cost_what_tidecv_says(shared_data, iou_type):
    folder = shared_data("coco_eval_fixture")
    content = read_coco_json(folder / "instances_val2014_100.json")
    results = json.loads((folder / f"instances_val2014_fake{iou_type}100_results.json").read_text())
    errors = errors_of(content, results, iou_type)
    assert errors.counts == TIDECV_COUNTS[iou_type]
    assert errors.cost == pytest.approx(TIDECV[iou_type], abs=0.1)
    others = (errors.base_ap, errors.false_positive_cost, errors.false_negative_cost)
    assert others == pytest.approx(TIDECV_OTHERS[iou_type], abs=0.1)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_errors_cost_what_the_definitions_say(iou_type, seed):
    content, results = random_results(seed, num_images=40)
    for number, row in enumerate(results):
        row["score"] += number * 1e-7  # tidecv leaves the order of equal scores open
    content["categories"].append({"id": 99, "name": "never there"})
    for row in results[::50]:
        row["category_id"] = 99
    errors = errors_of(content, results, iou_type)
    cost, counts = tide_by_definition(content, results, iou_type)
    assert min(counts.values()) > 0
    assert errors.counts == counts
    assert errors.cost == pytest.approx(cost, abs=0.1)


def test_where_there_are_no_objects_all_is_background():
    content, results = random_results(4, num_images=3)
    content["annotations"].clear()
    assert errors_of(content, results, "bbox").counts == {**dict.fromkeys(ERROR_TYPES, 0), "Bkg": len(results)}


def tide_by_definition(content, results, iou_type):
    """The rules of tidecv (quantify.py and errors/main_errors.py), one object at a time."""
    points, errors, num_objects, missed = [], [], defaultdict(int), []
    for image in content["images"]:
        gts = [a | {"found": None, "best": None} for a in content["annotations"] if a["image_id"] == image["id"]]
        crowds, gts = [g for g in gts if g["iscrowd"]], [g for g in gts if not g["iscrowd"]]
        dts = sorted((r for r in results if r["image_id"] == image["id"]), key=lambda r: -r["score"])
        iou, inside = overlap(dts, gts, iou_type, crowd=False), overlap(dts, crowds, iou_type, crowd=True)
        for gt in gts:
            num_objects[gt["category_id"]] += 1
        state = []
        for d, dt in enumerate(dts):
            free = [
                (iou[d][g], -g)
                for g, gt in enumerate(gts)
                if gt["category_id"] == dt["category_id"] and gt["found"] is None and iou[d][g] >= 0.5
            ]
            if free:
                gts[-max(free)[1]]["found"] = d
            ignored = any(
                inside[d][c] > 0.5 and crowd["category_id"] == dt["category_id"] for c, crowd in enumerate(crowds)
            )
            state.append("right" if free else "ignored" if ignored else "wrong")
        for d, dt in enumerate(dts):
            point = {"category": dt["category_id"], "score": dt["score"], "right": state[d] == "right", "error": None}
            point["counts"] = state[d] != "ignored"
            points.append(point)
            if state[d] == "right":
                continue
            same = [iou[d][g] if gt["category_id"] == dt["category_id"] else 0 for g, gt in enumerate(gts)] or [0]
            other = [iou[d][g] if gt["category_id"] != dt["category_id"] else 0 for g, gt in enumerate(gts)] or [0]
            taken = [value for value, gt in zip(same, gts, strict=False) if gt["found"] is not None]
            meant = None
            if 0.1 <= max(same) <= 0.5:
                point["error"], meant = "Loc", gts[int(np.argmax(same))]
            elif max(other) >= 0.5:
                point["error"], meant = "Cls", gts[int(np.argmax(other))]
            elif max(taken, default=0) >= 0.5:
                point["error"] = "Dupe"
            else:
                point["error"] = "Bkg" if max(*same, *other) <= 0.1 else "Both"
            errors.append((point["error"], state[d]))
            if meant is not None and meant["found"] is None:
                point["meant"] = meant
                if meant["best"] is None or meant["best"]["score"] < point["score"]:
                    meant["best"] = point
        missed += [gt for gt in gts if gt["found"] is None and gt["best"] is None]
    counts = {name: sum(kind == (name, "wrong") for kind in errors) for name in ERROR_TYPES} | {"Miss": len(missed)}
    base = mean_ap([p for p in points if p["counts"]], num_objects)
    cost = {}
    for name in ERROR_TYPES:
        mended, objects = [], dict(num_objects)
        for point in points:
            if point["error"] != name:
                mended += [point] * point["counts"]
            elif "meant" in point and point["meant"]["best"] is point:
                mended.append(point | {"right": True, "category": point["meant"]["category_id"]})
        if name == "Miss":
            for gt in missed:
                objects[gt["category_id"]] -= 1
        cost[name] = max(mean_ap(mended, objects) - base, 0)
    return cost, counts


def mean_ap(points, num_objects):
    values = []
    for category in {point["category"] for point in points} | {key for key, count in num_objects.items() if count}:
        own = sorted((p for p in points if p["category"] == category), key=lambda p: -p["score"])
        if not num_objects.get(category):
            values.append(0.0)
            continue
        right = np.cumsum([p["right"] for p in own])
        precision = right / np.arange(1, len(own) + 1)
        recall = right / num_objects[category]
        at = [precision[recall >= r - 1e-12].max(initial=0) for r in np.linspace(0, 1, 101)]
        values.append(100 * np.mean(at))
    return np.mean(values)


def overlap(dts, gts, iou_type, *, crowd):
    if not dts or not gts:
        return np.zeros((len(dts), len(gts)))
    if iou_type == "bbox":
        first, second = [d["bbox"] for d in dts], [g["bbox"] for g in gts]
    else:
        first, second = [d["segmentation"] for d in dts], [to_rle(g["segmentation"]) for g in gts]
    return mask_util.iou(first, second, [crowd] * len(gts))


def to_rle(segmentation):
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, HEIGHT, WIDTH))
    return segmentation
