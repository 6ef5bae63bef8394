"""How well measured numbers, such as counts, agree with the true ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_LIMIT = 1.96  # deviations, which hold 95 % of normally distributed differences


@dataclass(frozen=True)
class Agreement:
    """Of the pairs of a true and a measured number, in their unit unless said otherwise; NaN where it is not defined.

    The limits of agreement are those of Bland and Altman, Statistical methods for assessing agreement between two
    methods of clinical measurement, Lancet 1986: bias -/+ 1.96 standard deviations of the differences.

    Attributes:
        pairs: how many there are.
        bias: the mean of measured minus true.
        mae: the mean absolute difference.
        relative_error: the sum of absolute differences over the sum of the true numbers.
        r2: the coefficient of determination, 1 - sum of squared differences / sum of squares around the true mean; at
            most 1, and below 0 where the true mean would be closer than what was measured.
        low, high: limits of agreement.
    """

    pairs: int
    true_mean: float
    bias: float
    mae: float
    relative_error: float
    r2: float
    low: float
    high: float


def measure_agreement(true: np.ndarray, measured: np.ndarray) -> Agreement:
    """Compare numbers (n,) with the true ones (n,), in which neither is NaN."""
    count = len(true)
    if not count:
        return Agreement(0, *[math.nan] * 7)
    true, difference = np.asarray(true, dtype=float), np.asarray(measured, dtype=float) - true
    bias, total = float(difference.mean()), float(true.sum())
    spread = float(((true - true.mean()) ** 2).sum())
    deviation = float(difference.std(ddof=1)) if count > 1 else math.nan
    return Agreement(
        pairs=count,
        true_mean=float(true.mean()),
        bias=bias,
        mae=float(np.abs(difference).mean()),
        relative_error=float(np.abs(difference).sum() / total) if total else math.nan,
        r2=1 - float((difference**2).sum()) / spread if np.ptp(true) else math.nan,
        low=bias - _LIMIT * deviation,
        high=bias + _LIMIT * deviation,
    )
