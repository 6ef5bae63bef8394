"""What tools/compare_depths.py has found about detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from resnet_det.errors import InputError
from resnet_det.explain.estimates import normal_quantile


def read_detectors(path: Path) -> list[dict[str, Any]]:
    """ "name", "ap" (of boxes) with its standard error "deviation" (None if it is not known), "gmacs" and
    "parameters_m" of each detector in a tradeoff.json, the cheapest first.

    Raises:
        InputError: the file cannot be read, is not one of those, or has no AP or GMACs.
    """
    right = "tradeoff.json of tools/compare_depths.py, made of runs, would be right"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--detectors {path}: {error}; {right}") from None
    try:
        found = [
            {
                "name": str(one["name"]),
                "ap": float(one["ap"]["bbox"]["metrics"]["AP"]),
                "deviation": _read_deviation(one["ap"]["bbox"]["interval"]),
                "gmacs": float(one["gmacs"]),
                "parameters_m": float(one["parameters"]) / 1e6,
            }
            for one in content["detectors"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"--detectors {path}: no AP and GMACs of each detector in it ({error!r}); {right}") from None
    found.sort(key=lambda one: one["gmacs"])
    if len({one["gmacs"] for one in found}) < len(found):
        raise InputError(f"--detectors {path}: two detectors have the same GMACs; compare different depths")
    return found


def _read_deviation(interval: dict[str, float | None]) -> float | None:
    """From the ends of an interval of 95 %."""
    low, high = interval["low"], interval["high"]
    return None if low is None or high is None else (high - low) / (2 * normal_quantile())
