"""The mean over folds, and how far it may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resnet_det.evaluation.bootstrap import Interval, student_t


@dataclass(frozen=True)
class FoldMean:
    """A metric over the folds in which it is defined.

    Attributes:
        values: of each fold; NaN where a fold has nothing that it could be computed of.
        deviation: their standard deviation.
    """

    values: tuple[float, ...]
    interval: Interval
    deviation: float

    @property
    def folds(self) -> int:
        """How many folds the mean is of: those whose value is known."""
        return sum(map(math.isfinite, self.values))


def average_folds(values: Sequence[float], test_share: float) -> FoldMean:
    """The mean of a metric, with a t interval of 95 %.

    Folds are not independent, as they share most of their training images; their variance s^2 is therefore multiplied
    by 1 / k + n_test / n_train in place of 1 / k. Source: Nadeau and Bengio, Inference for the Generalization Error,
    Machine Learning 52, 2003, section 3. They derive it for random splits; that it is used for folds is customary
    (Bouckaert and Frank, PAKDD 2004), and no estimate of the variance over folds is unbiased for all data (Bengio and
    Grandvalet, JMLR 5, 2004).

    Args:
        values: of each fold; what is NaN is left out.
        test_share: test images for each training image, n_test / n_train.
    """
    known = np.array([value for value in values if math.isfinite(value)])
    count = len(known)
    mean = float(known.mean()) if count else math.nan
    if count < 2:
        return FoldMean(tuple(values), Interval(mean, math.nan, math.nan), math.nan)
    deviation = float(known.std(ddof=1))
    half = float(student_t(np.array(count - 1))) * deviation * math.sqrt(1 / count + test_share)
    return FoldMean(tuple(values), Interval(mean, mean - half, mean + half).clipped(), deviation)
