"""Learning curves of a run, from metrics.json in its folder."""

from __future__ import annotations

import json
import math
from pathlib import Path

MAX_POINTS = 400  # of a curve: more are not to be seen
LOSS = "total_loss"

Curve = list[tuple[int, float]]  # iteration, value


def read_curves(folder: Path) -> dict[str, Curve]:
    """The training loss ("total_loss") and AP ("bbox/AP") over iterations; empty for a run that has not trained.

    Lines that were not written to the end are passed over; of an iteration that was done twice, the last counts.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        return {}
    curves: dict[str, dict[int, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if not isinstance(values, dict) or "iteration" not in values:
            continue
        for key, value in values.items():
            if (key == LOSS or key.endswith("/AP")) and isinstance(value, float) and math.isfinite(value):
                curves.setdefault(key, {})[values["iteration"]] = value
    return {key: _thin(sorted(curve.items())) for key, curve in curves.items()}


def last_rise(curve: Curve) -> float:
    """How much AP grew from the last evaluation but one to the last; 0 if there are not two."""
    return curve[-1][1] - curve[-2][1] if len(curve) > 1 else 0.0


def _thin(curve: Curve) -> Curve:
    step = math.ceil(len(curve) / MAX_POINTS)
    return curve[:-1:step] + curve[-1:]
