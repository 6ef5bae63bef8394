"""Which weights of a run are the best, and when it is of no use to go on."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

from resnet_det.errors import InputError

logger = logging.getLogger(__name__)


def explain_unknown_metric(metric: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(metric, known, n=1)
    names = f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'no results'}."
    return f"RESNET_DET.TRAIN.BEST_METRIC {metric} is not among the results; {names}"


class BestWeights:
    """Keeps the weights with the best ``metric`` in model_best.pth, and stops training when it gets no better.

    Attributes:
        value, iteration: the best so far.
        num_worse: evaluations since then that were not better.
    """

    def __init__(self, metric: str, *, patience: int = 0, direction: str = "") -> None:
        """
        Args:
            metric: such as "bbox/AP", or "validation_total_loss".
            patience: evaluations without a better one after which training stops; 0: never.
            direction: "max", "min", or "": of a loss or an error the lowest is best, of all else the highest.
        """
        self.metric, self.patience = metric, patience
        lowest = direction == "min" or (not direction and ("loss" in metric or metric.endswith("_error")))
        self.sign = -1.0 if lowest else 1.0
        self.value, self.iteration, self.num_worse = -self.sign * math.inf, -1, 0

    @property
    def wants_to_stop(self) -> bool:
        return 0 < self.patience <= self.num_worse

    def describe(self) -> str:
        return (
            f"{self.metric} has not improved for {self.num_worse} evaluations; the best is {self.value:.3f} at "
            f"iteration {self.iteration}"
        )

    def judge(self, results: Mapping[str, float], trainer: Any) -> None:
        """Take note of an evaluation. In all processes together.

        Raises:
            InputError: ``metric`` is not among the results.
        """
        value = results.get(self.metric)
        if value is None:
            raise InputError(f"{explain_unknown_metric(self.metric, results)} Resume with a different BEST_METRIC")
        if math.isfinite(value) and self.sign * value > self.sign * self.value:
            self.value, self.iteration, self.num_worse = value, trainer.iter, 0
            info = {"iteration": trainer.iter, "metric": self.metric, "value": value}
            trainer.checkpointer.save_weights("model_best", trainer.evaluated_model, **info)
            logger.info("%s %.3f is the best so far: written to model_best.pth", self.metric, value)
            return
        if not math.isfinite(value) and self.iteration < 0:
            logger.info("%s is %s: it counts from its first number on", self.metric, value)
            return
        self.num_worse += 1
        if self.wants_to_stop:
            trainer.stop(self.describe())

    def state_dict(self) -> dict[str, Any]:
        return {"best_metric": self.metric, "best": (self.value, self.iteration, self.num_worse)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("best_metric") == self.metric:  # else the best by something else means nothing here
            self.value, self.iteration, self.num_worse = state["best"]
