"""What each object and each detection is called in pictures: right, wrong, missed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.errors import ERROR_TYPES, Errors
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import Matches


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Keys of :data:`resnet_det.visualization.gallery.KINDS`, and what is written at the boxes."""

    object_kind: np.ndarray  # (annotations,) str
    detection_kind: np.ndarray  # (n,) str
    object_labels: list[str]
    detection_labels: list[str]


def judge(
    truth: GroundTruth, detections: Detections, matches: Matches, errors: Errors, min_score: float = 0.0
) -> Verdicts:
    """Verdicts at IoU 0.5. An object that only detections below ``min_score`` have found is missed."""
    counts = matches.counted & (detections.score >= min_score)
    found = np.zeros(len(truth.annotations), dtype=bool)
    found[matches.annotation[0, counts & (matches.annotation[0] >= 0)]] = True
    names = truth.class_names
    labels = []
    for row, (category, score, kind) in enumerate(zip(detections.category, detections.score, errors.type, strict=True)):
        is_wrong = kind >= 0 and matches.annotation[0, row] < 0
        labels.append(f"{names[category]} {score:.2f}" + (f" {list(ERROR_TYPES)[kind]}" if is_wrong else ""))
    is_right = matches.annotation[0] >= 0
    return Verdicts(
        object_kind=np.where(matches.ignored_annotation, "other", np.where(found, "tp", "miss")),
        detection_kind=np.where(matches.ignored[0], "other", np.where(is_right, "tp", "fp")),
        object_labels=[names[category] for category in truth.category],
        detection_labels=labels,
    )
