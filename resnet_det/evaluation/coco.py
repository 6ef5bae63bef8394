"""COCO's numbers, computed by hotcoco: pycocotools' own, bit for bit, many times faster."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import hotcoco
import numpy as np

from resnet_det.data.coco.keypoints import DEFAULT_SIGMA, NUM_COCO_KEYPOINTS
from resnet_det.errors import InputError
from resnet_det.evaluation.detections import Detections, load_detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.limits import resolve_limit

IOU_TYPES = ("bbox", "segm", "keypoints")
_BOX_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# COCO's numbers of each kind of evaluation in the order of pycocotools' ``stats``, by Detectron2's names.
METRICS = {
    "bbox": _BOX_METRICS,
    "segm": _BOX_METRICS,
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"),
}


@dataclass(frozen=True)
class ClassResult:
    """What was found of one class. AP and AR are from 0 to 100, and NaN for a class that the ground truth lacks."""

    name: str
    images: int
    objects: int
    detections: int
    ap: float
    ap50: float
    ap75: float
    ar: float


def metric_names(iou_type: str, max_detections: int | None = None) -> tuple[str, ...]:
    """COCO's numbers by Detectron2's names; that of the average recall has the limit of detections in it."""
    limit = resolve_limit(iou_type, max_detections)
    return tuple(f"AR{limit}" if name == "AR100" else name for name in METRICS[iou_type])


def run_coco_evaluation(
    truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    *,
    kpt_oks_sigmas: Sequence[float] = (),
    max_detections: int | None = None,
) -> hotcoco.COCOeval:
    """Evaluate ``detections`` as pycocotools' COCOeval does.

    Args:
        iou_type: one of ``IOU_TYPES``.
        kpt_oks_sigmas: of the keypoints, in the order of the annotations; if empty COCO's for 17 keypoints, and
            ``DEFAULT_SIGMA`` for another number.
        max_detections: of an image and class that count, the best first; None: COCO's 100, and 20 of people.

    Returns:
        The library's evaluation, accumulated and summarised.

    Raises:
        InputError: another number of keypoints than of sigmas.
    """
    truth = truth.for_task(iou_type)
    evaluation = hotcoco.COCOeval(truth.coco, load_detections(detections, truth, iou_type), iou_type)
    if max_detections is not None:
        is_keypoints = iou_type == "keypoints"
        evaluation.params.max_dets = [max_detections] if is_keypoints else [1, min(10, max_detections), max_detections]
    if iou_type == "keypoints":
        evaluation.params.kpt_oks_sigmas = resolve_sigmas(truth, kpt_oks_sigmas)
        _check_keypoints(truth, detections, len(evaluation.params.kpt_oks_sigmas))
    evaluation.evaluate()
    evaluation.accumulate()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that own sigmas are not COCO's, which the user knows
        evaluation.summarize()
    return evaluation


def resolve_sigmas(truth: GroundTruth, sigmas: Sequence[float]) -> list[float]:
    """``sigmas``; if there are none, COCO's for 17 keypoints, and ``DEFAULT_SIGMA`` for another number."""
    if len(sigmas):
        return list(sigmas)
    count = len(truth.keypoints or ()) or NUM_COCO_KEYPOINTS
    if count == NUM_COCO_KEYPOINTS:
        return list(hotcoco.Params("keypoints").kpt_oks_sigmas)
    return [DEFAULT_SIGMA] * count


def _check_keypoints(truth: GroundTruth, detections: Detections, num_sigmas: int) -> None:
    counts = {"detections": detections.rows, "annotations": truth.annotations}
    for what, rows in counts.items():
        found = {len(row["keypoints"]) // 3 for row in rows if "keypoints" in row}
        if found - {num_sigmas}:
            raise InputError(
                f"keypoints: the {what} have {', '.join(map(str, sorted(found)))} of them, but there are {num_sigmas} "
                "sigmas; set TEST.KEYPOINT_OKS_SIGMAS (evaluate.py: --sigmas) to one number for each keypoint"
            )


def read_metrics(evaluation: hotcoco.COCOeval) -> dict[str, float]:
    """COCO's AP and AR, 0 to 100, by Detectron2's names; NaN for what there are no objects for."""
    names = metric_names(evaluation.params.iou_type, evaluation.params.max_dets[-1])
    return {
        name: float(value) * 100 if value >= 0 else float("nan")
        for name, value in zip(names, evaluation.stats, strict=True)
    }


def tabulate_classes(evaluation: hotcoco.COCOeval, truth: GroundTruth, detections: Detections) -> list[ClassResult]:
    """The results of each class, in the order of the category ids."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (10, 101, k, 4, 3), (10, k, 4, 3)
    truth = truth.for_task(evaluation.params.iou_type)
    counted = ~truth.crowd
    num_detections = np.bincount(detections.category, minlength=len(truth.categories))
    table = []
    for place, name in enumerate(truth.class_names):
        objects = counted & (truth.category == place)
        table.append(
            ClassResult(
                name=name,
                images=len(np.unique(truth.image[objects])),
                objects=int(objects.sum()),
                detections=int(num_detections[place]),
                ap=_mean(precision[:, :, place, 0, -1]),
                ap50=_mean(precision[0, :, place, 0, -1]),
                ap75=_mean(precision[5, :, place, 0, -1]),
                ar=_mean(recall[:, place, 0, -1]),
            )
        )
    return table


def _mean(values: np.ndarray) -> float:
    """The mean in percent of what was computed; -1 stands for what was not."""
    values = values[values > -1]
    return float(values.mean()) * 100 if len(values) else float("nan")
