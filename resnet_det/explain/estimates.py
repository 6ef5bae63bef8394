"""Numbers with what chance makes of them: errors on so many images, and sums of these."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


def normal_quantile(comparisons: int = 1) -> float:
    """How many standard errors a value is from the truth at most, at 95 % for all comparisons together (Bonferroni)."""
    return statistics.NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / (2 * comparisons))


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error, as far as that is known from what was measured once.

    Attributes:
        deviation: 0 for what chance has no part in, such as a number of layers; None: not known.
    """

    value: float
    deviation: float | None = None


def share(percent: float, images: int) -> Estimate:
    """An error, or another share of images, in percent, with its binomial standard error in percentage points.

    That is taken at Laplace's estimate of the share, so that it is above 0 where no image, or every one, is wrong.

    Args:
        images: that it was measured on.
    """
    smoothed = (percent / 100 * images + 1) / (images + 2)
    return Estimate(percent, 100 * math.sqrt(max(smoothed * (1 - smoothed), 0.0) / images))


def combine(*terms: tuple[float, Estimate], constant: float = 0.0) -> Estimate:
    """``constant`` and the weighted sum of estimates. A difference of four errors of one size has the square root of
    two times the standard error of a difference of two.

    Estimates count as independent. Those of two nets on the same images go up and down together, so that the standard
    error of their difference is rather too large.

    Args:
        terms: weight and estimate; each estimate once. If the standard error of one is not known, that of the sum is
            not, either.
    """
    value = constant + sum(weight * one.value for weight, one in terms)
    if any(one.deviation is None for _, one in terms):
        return Estimate(value)
    return Estimate(value, math.sqrt(sum((weight * one.deviation) ** 2 for weight, one in terms)))


def fit_slope(places: Sequence[float]) -> list[float]:
    """The weights by which values at ``places`` sum up to the slope of their least-squares line.

    Args:
        places: two or more different numbers.
    """
    centred = np.asarray(places, dtype=float) - np.mean(places)
    return (centred / np.square(centred).sum()).tolist()


def guessing_error(labels: np.ndarray) -> float:
    """The error in percent of always naming the class that most images have: 90 for ten classes of one size.

    Shapes:
        labels: (N,) int64 of the images.
    """
    return 100 * (1 - np.bincount(labels).max() / len(labels))
