"""When a model is evaluated while it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from resnet_det.engine.hooks.best import BestWeights
from resnet_det.engine.hooks.periods import is_due
from resnet_det.errors import InputError


class EvaluationHook(HookBase):
    """Evaluates every ``period`` iterations and at the end. It runs after the checkpoint of the same iteration.

    An evaluation that was due and did not come to its end - it failed, or was killed - is made up for when the run is
    resumed. While it runs, SIGTERM need not wait: a checkpoint is written, and the run ends.
    """

    def __init__(
        self, period: int, evaluate: Callable[[], Mapping[str, Any] | None], best: BestWeights | None = None
    ) -> None:
        """
        Args:
            evaluate: gives results in the first process; those of test sets from 0 to 100.
            best: is told all of them.
        """
        self.period, self.evaluate, self.best = period, evaluate, best
        self.evaluated_iter = -1

    def before_train(self) -> None:
        last = self.trainer.start_iter - 1
        if self.best is not None and self.best.wants_to_stop:
            self.trainer.stop(self.best.describe())
        is_left = self.evaluated_iter != last or last + 1 >= self.trainer.max_iter  # the end is always evaluated
        if last >= 0 and is_left and self._is_due(last) and not self.trainer.is_stopped:
            self.trainer.iter = self.trainer.storage.iter = last
            self.run()

    def after_step(self) -> None:
        if self._is_due(self.trainer.iter) and not self.trainer.is_interrupted:
            self.run()

    def _is_due(self, iteration: int) -> bool:
        return is_due(iteration, self.period, self.trainer.max_iter)

    def run(self) -> None:
        """Evaluate now."""
        self.trainer.prepare_to_save()
        try:
            with self.trainer.signals.may_interrupt():
                results = flatten(self.evaluate() or {})
        except BaseException:  # Interrupted, or an error: the iterations before it are not lost
            if self.trainer.checkpoint_hook.saved_iter != self.trainer.iter:
                self.trainer.checkpoint_hook.write()
            raise
        if comm.is_main_process() and results:
            self.trainer.storage.put_scalars(smoothing_hint=False, **results)
        comm.synchronize()
        self.evaluated_iter = self.trainer.iter
        if self.best is not None:
            self._judge(comm.all_gather(results)[0])

    def _judge(self, results: Mapping[str, float]) -> None:
        try:
            self.best.judge(results, self.trainer)
        except InputError:  # a metric that is not there
            self.trainer.checkpoint_hook.save_unless_saved()
            raise

    def state_dict(self) -> dict[str, Any]:
        best = {} if self.best is None else self.best.state_dict()
        return {"evaluated_iter": self.evaluated_iter, **best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.evaluated_iter = state["evaluated_iter"]
        if self.best is not None:
            self.best.load_state_dict(state)


def flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"bbox": {"AP": 1}} as {"bbox/AP": 1}."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat
