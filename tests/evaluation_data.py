"""Random people with keypoints, and results for them."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resnet_det.benchmark.random_results import random_results


def random_keypoints(
    seed: int, *, num_keypoints: int, num_images: int = 20
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """People with keypoints, some without any labelled, and results for them."""
    content, results = random_results(seed, num_images=num_images, per_image=12)
    rng = np.random.default_rng(seed)
    content["categories"] = [{"id": 1, "name": "person"}]
    truth: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        points = random_points(rng, annotation["bbox"], num_keypoints)
        points[:, 2] = rng.integers(0, 3, num_keypoints) * (rng.random() < 0.9)
        annotation |= {"category_id": 1, "keypoints": points.ravel().tolist()}
        annotation["num_keypoints"] = int((points[:, 2] > 0).sum())
        truth.setdefault(annotation["image_id"], []).append(annotation)
    for row in results:
        near = truth.get(row["image_id"], [])
        points = random_points(rng, row["bbox"], num_keypoints)
        if near and rng.random() < 0.7:
            meant = near[rng.integers(len(near))]
            points = np.reshape(meant["keypoints"], (-1, 3)).astype(float)
            points[:, :2] += rng.normal(0, 0.04, (num_keypoints, 2)) * meant["bbox"][2:]
            row["bbox"] = meant["bbox"]
        row |= {"category_id": 1, "keypoints": points.ravel().tolist()}
    return content, results


def random_points(rng: np.random.Generator, box: list[float], count: int) -> np.ndarray:
    x, y, width, height = box
    return np.stack([x + rng.random(count) * width, y + rng.random(count) * height, np.full(count, 2.0)], axis=1)


def run_pycocotools(
    content: dict, results: list[dict], iou_type: str, *, sigmas: Sequence[float] = (), max_dets: Sequence[int] = ()
) -> COCOeval:
    """pycocotools' own evaluation, accumulated; of masks it gets no boxes, by which it would tell their size."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(content))
        truth.createIndex()
        rows = [{k: v for k, v in row.items() if iou_type != "segm" or k != "bbox"} for row in results]
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(rows))), iou_type)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        if max_dets:
            evaluation.params.maxDets = list(max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
