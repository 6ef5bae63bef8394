"""How much each detection overlaps each object of its image: the IoU of boxes or masks, or keypoint similarity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np

from resnet_det.evaluation.coco import resolve_sigmas
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pairs of a detection and an object, of any classes, that overlap by at least ``MIN_OVERLAP``.

    With a crowd, the overlap is the part of the detection that lies in it.
    """

    detection: np.ndarray  # (p,)
    annotation: np.ndarray  # (p,)
    iou: np.ndarray  # (p,)


MIN_OVERLAP = 0.1  # TIDE's lower threshold: what overlaps less lies on background


def compute_overlaps(
    truth: GroundTruth, detections: Detections, iou_type: str, *, kpt_oks_sigmas: Sequence[float] = ()
) -> Overlaps:
    """Overlaps of all detections, by the rules of COCO's evaluation of that ``iou_type``."""
    truth = truth.for_task(iou_type)
    sigmas = resolve_sigmas(truth, kpt_oks_sigmas) if iou_type == "keypoints" else ()
    by_image_dt = _group(detections.image, len(truth.images))
    by_image_gt = _group(truth.image, len(truth.images))
    boxes = detections.box() if iou_type == "bbox" else None
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for place, (dt, gt) in enumerate(zip(by_image_dt, by_image_gt, strict=True)):
        if not len(dt) or not len(gt):
            continue
        if boxes is not None:
            iou = hotcoco.primitives.bbox_iou(boxes[dt], truth.box[gt], truth.crowd[gt])
        elif iou_type == "segm":
            height, width = truth.size[place].astype(int).tolist()
            iou = hotcoco.primitives.mask_iou(
                [to_rle(detections.rows[i]["segmentation"], height, width) for i in dt],
                [to_rle(truth.annotations[i]["segmentation"], height, width) for i in gt],
                truth.crowd[gt],
            )
        else:
            objects = [{**truth.annotations[i], "bbox": truth.box[i], "area": truth.area[i]} for i in gt]
            iou = compute_oks([detections.rows[i] for i in dt], objects, sigmas)
        row, column = np.nonzero(iou >= MIN_OVERLAP)
        parts.append((dt[row], gt[column], iou[row, column]))
    return Overlaps(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def to_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Polygons or run lengths as compressed run lengths."""
    if isinstance(segmentation, list):
        return hotcoco.mask.merge(hotcoco.mask.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return hotcoco.mask.frPyObjects(segmentation, height, width)
    return segmentation


def compute_oks(
    detections: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], sigmas: Sequence[float]
) -> np.ndarray:
    """(number of detections, number of annotations): COCO's object keypoint similarity.

    To an object without labelled keypoints the distance is that to its box, enlarged to three times its size.
    Source: https://cocodataset.org/#keypoints-eval and pycocotools' computeOks.
    """
    found = np.array([row["keypoints"] for row in detections], dtype=float).reshape(len(detections), -1, 3)
    sigmas = np.asarray(sigmas)
    similarity = np.empty((len(detections), len(annotations)))
    for column, annotation in enumerate(annotations):
        points = np.reshape(annotation["keypoints"], (-1, 3)).astype(float)
        labelled = points[:, 2] > 0
        if labelled.any():
            distance = (found[:, labelled, :2] - points[labelled, :2]) ** 2
            scale = (2 * sigmas[labelled]) ** 2
        else:
            x, y, width, height = annotation["bbox"]
            low, high = np.array([x - width, y - height]), np.array([x + 2 * width, y + 2 * height])
            distance = (np.maximum(low - found[..., :2], 0) + np.maximum(found[..., :2] - high, 0)) ** 2
            scale = (2 * sigmas) ** 2
        area = annotation["area"] + np.spacing(1)
        similarity[:, column] = np.exp(-distance.sum(2) / scale / area / 2).mean(1)
    return similarity


def _group(places: np.ndarray, count: int) -> list[np.ndarray]:
    """The rows of each of ``count`` places, in order."""
    order = np.argsort(places, kind="stable")
    return np.split(order, np.cumsum(np.bincount(places, minlength=count))[:-1]) if count else []
