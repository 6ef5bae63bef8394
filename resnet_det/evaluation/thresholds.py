"""From which score on detections count, and where that was chosen."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_det.evaluation.curves import ClassCurve, compute_curves
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth
from resnet_det.evaluation.matching import match_detections
from resnet_det.evaluation.overlaps import compute_overlaps

ON_THESE_IMAGES = "chosen on these same images, so the numbers are optimistic"


def parse_score(text: str) -> float:
    """A score from 0 to 1, for a command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}; a score from 0 to 1 would be right, such as 0.5")
    return value


def add_threshold_arguments(
    parser: argparse.ArgumentParser, *, score_help: str, from_help: str, parse: Callable[[str], float] = parse_score
) -> None:
    """``--score-threshold`` or ``--threshold-from``."""
    threshold = parser.add_mutually_exclusive_group()
    threshold.add_argument("--score-threshold", type=parse, metavar="S", help=score_help)
    threshold.add_argument("--threshold-from", type=Path, nargs=2, metavar=("ANNOTATIONS", "RESULTS"), help=from_help)


@dataclass(frozen=True)
class ScoreThreshold:
    """The lowest score that counts, and in words where it comes from."""

    value: float
    source: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.source})"


def find_curves(
    truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    *,
    kpt_oks_sigmas: Sequence[float] = (),
    max_detections: int | None = None,
) -> list[ClassCurve]:
    """F1 of each class over the score; arguments as of :func:`~resnet_det.evaluation.analysis.analyze`."""
    truth = truth.for_task(iou_type)
    overlaps = compute_overlaps(truth, detections, iou_type, kpt_oks_sigmas=kpt_oks_sigmas)
    matches = match_detections(truth, detections, overlaps, iou_type, max_detections=max_detections)
    return compute_curves(truth, detections, matches)
