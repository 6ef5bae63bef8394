"""Two runs on the same images: what is better, whether that is more than chance, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.analysis import Analysis
from resnet_det.evaluation.bootstrap import Interval, summarize_draws
from resnet_det.evaluation.detections import Detections
from resnet_det.evaluation.ground_truth import GroundTruth


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second run against the first. Differences are second minus first; intervals are of paired draws."""

    first: Analysis
    second: Analysis
    difference: Interval  # of AP
    class_differences: list[Interval]
    mistakes: np.ndarray  # (images, 2): false positives and misses of each run at the threshold of its analysis

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference leaves out 0; False where there is no interval."""
        return self.difference.low > 0 or self.difference.high < 0

    def most_different_images(self, count: int) -> list[int]:
        """Places of the images whose number of mistakes differs most."""
        gap = np.abs(np.diff(self.mistakes, axis=1)[:, 0])
        order = np.argsort(-gap, kind="stable")[:count]
        return [int(place) for place in order if gap[place] > 0]


def compare(truth: GroundTruth, runs: tuple[Detections, Detections], analyses: tuple[Analysis, Analysis]) -> Comparison:
    """Compare two runs that were analysed together (:func:`~resnet_det.evaluation.analysis.analyze`)."""
    first, second = analyses
    return Comparison(
        first=first,
        second=second,
        difference=summarize_draws(
            second.metrics["AP"] - first.metrics["AP"],
            second.ap_draws() - first.ap_draws(),
        ),
        class_differences=[
            summarize_draws(b.ap - a.ap, second.class_draws(place) - first.class_draws(place))
            for place, (a, b) in enumerate(zip(first.classes, second.classes, strict=True))
        ],
        mistakes=np.stack([count_mistakes(truth, run, one) for run, one in zip(runs, analyses, strict=True)], axis=1),
    )


def count_mistakes(truth: GroundTruth, detections: Detections, analysis: Analysis) -> np.ndarray:
    """(images,): false positives and misses at IoU 0.5 among the detections that are shown."""
    matches = analysis.matches
    shown = matches.counted & (detections.score >= analysis.threshold.value) & ~matches.ignored[0]
    wrong = shown & (matches.annotation[0] < 0)
    missed = ~matches.ignored_annotation
    missed[matches.annotation[0, shown & (matches.annotation[0] >= 0)]] = False
    count = len(truth.images)
    return np.bincount(detections.image[wrong], minlength=count) + np.bincount(truth.image[missed], minlength=count)
