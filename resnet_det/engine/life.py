"""A run of training from its beginning, or from a checkpoint, to its end, whatever is trained."""

from __future__ import annotations

import logging
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.engine.train_loop import HookBase, TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.engine.hooks import BestWeights, CheckpointHook, Interrupted, SignalHook
from resnet_det.engine.moving_average import MovingAverage
from resnet_det.engine.resuming import check_fixed_settings, set_schedule_to
from resnet_det.engine.run_folder import note_evaluated
from resnet_det.engine.step import TrainStep
from resnet_det.evaluation import write_results

logger = logging.getLogger(__name__)


class TrainingRun(TrainerBase):
    """Steps, what happens in between, and what is left when it is over.

    Attributes:
        finished: whether the run has come to its end.
        is_interrupted: whether it was ended by a signal, before its end.
    """

    signals: SignalHook
    checkpoint_hook: CheckpointHook
    best: BestWeights | None = None

    def __init__(
        self,
        step: TrainStep,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        output_dir: str,
        max_iter: int,
        *,
        fixed_settings: Mapping[str, Any],
    ) -> None:
        """
        Args:
            fixed_settings: what may not change when the run is resumed, by key.

        Raises:
            InputError: the disk has no room for a checkpoint.
        """
        TrainerBase.__init__(self)
        self._trainer, self.scheduler, self.output_dir = step, scheduler, output_dir
        self.start_iter, self.max_iter = 0, max_iter
        self.fixed_settings = fixed_settings
        self.checkpointer = Checkpointer(step.model, output_dir, trainer=weakref.proxy(self))
        if comm.is_main_process():
            self.checkpointer.check_space(step.state_mib())
        self._stop_reason = ""
        self.finished = self.is_interrupted = False
        self._last_eval_results: dict[str, Any] | None = None
        self._data_before: dict[str, Any] = {}  # of a run that is resumed; one that is only evaluated reads no more

    def load_initial_weights(self) -> None:
        """Load what a new run starts from."""

    def evaluate(self) -> Mapping[str, Any] | None:
        """Evaluate the evaluated model, and keep the results in ``_last_eval_results``."""

    def evaluate_at_the_end(self) -> None:
        """What is done besides at the last evaluation."""

    def describe_data(self) -> dict[str, Any]:
        """What is known of the data, for results.json."""
        return {}

    def check_results(self, results: dict[str, Any]) -> None:
        """Look at the results of a run that has ended."""

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def resume_or_load(self, resume: bool = True) -> None:
        """With ``resume``, go on from the last checkpoint in OUTPUT_DIR; else, or without one, start anew.

        Raises:
            InputError: no checkpoint can be read, it was made with another Detectron2, or initial weights do not fit.
        """
        iteration = self.checkpointer.resume_last() if resume else None
        if iteration is None:
            self.load_initial_weights()
            if self.ema is not None:
                self.ema.copy_from(self.checkpointer.model)
            self.checkpointer.begin()
        else:
            self.start_iter = iteration + 1
            self.checkpoint_hook.saved_iter = iteration
            self.checkpoint_hook.is_final = self.checkpointer.resumed_from == "model_final.pth"

    def train(self) -> OrderedDict[str, Any] | None:
        """Train to max_iter, or until something says stop, and evaluate.

        A run that is resumed after its last iteration does what was left of it.

        Returns:
            The results of the weights that the run ends with, 0 to 100, which are also written to
            output_dir/results.json: of model_best.pth after early stopping, else of model_final.pth or
            model_final_ema.pth. None in other processes than the first, without a test set, or after a signal.

        Raises:
            Interrupted: a signal has ended an evaluation; there is a checkpoint. Only with several processes, which are
                not in step any more.
        """
        if not self.checkpointer.run_id:
            self.checkpointer.begin()
        logger.info("Starting training from iteration %d", self.start_iter)
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage, self._hooks_around():
            self._loop()
        if self.is_interrupted:
            return None
        if self._last_eval_results is None or not comm.is_main_process():
            return None
        write_results(self._last_eval_results, self.output_dir, {**self._data_before, **self.describe_data()})
        note_evaluated(self.output_dir, self.evaluated_file)
        self.check_results(self._last_eval_results)
        return self._last_eval_results

    def _loop(self) -> None:
        try:
            self.before_train()
            self.iter = self.start_iter
            while self.iter < self.max_iter and not self._stop_reason:
                self.before_step()
                self.run_step()
                self.after_step()
                self.iter += 1
            self.iter -= 1  # of the last iteration that was made
            if self._stop_reason:
                logger.warning("Training stopped after iteration %d: %s", self.iter, self._stop_reason)
            if not self.is_interrupted:
                self._finish()
            self.iter += 1  # by which Detectron2's hooks tell that training has ended
        except Interrupted:
            self.is_interrupted = True
            logger.warning("Stopped by a signal during an evaluation; continue with --resume")
            if comm.get_world_size() > 1:
                raise
        finally:
            self._trainer.let_go_of_data()

    def _finish(self) -> None:
        """What a run has in the end, however it came there: model_final, and results of what it is judged by."""
        if self.iter >= 0:
            self.checkpoint_hook.save_unless_saved(is_final=True)
        if self._evaluates_best:
            logger.info("Evaluating model_best.pth, of iteration %d", self.best.iteration)
            with self.signals.may_interrupt(), weights_of(self.evaluated_model, self.evaluated_file):
                self.evaluate()
                self.evaluate_at_the_end()
        elif self._last_eval_results is not None:
            with self.signals.may_interrupt():
                self.evaluate_at_the_end()
        self.finished = True

    @contextmanager
    def _hooks_around(self) -> Iterator[None]:
        """After what is done here, hooks end; an error of theirs does not hide one from before."""
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.storage.iter = self.iter
            for hook in self._begun:
                try:
                    hook.after_train()
                except Exception:
                    if error is None:
                        raise
                    logger.exception("After that error, %s failed, too", type(hook).__name__)

    def before_train(self) -> None:
        self._begun: list[HookBase] = []
        for hook in self._hooks:
            self._begun.append(hook)
            hook.before_train()

    def stop(self, reason: str, *, interrupted: bool = False) -> None:
        """End training after this iteration. To be called in all processes.

        Args:
            interrupted: whether the run is to be resumed, so that nothing is evaluated.
        """
        self._stop_reason = reason
        self.is_interrupted |= interrupted

    @property
    def is_stopped(self) -> bool:
        return bool(self._stop_reason)

    def prepare_to_save(self) -> None:
        """What a checkpoint needs of all processes. In all of them together; then one can save alone."""
        self._trainer.prepare_to_save()

    @property
    def ema(self) -> MovingAverage | None:
        return self._trainer.ema

    @property
    def evaluated_model(self) -> nn.Module:
        """The moving average of the weights if there is one, else the model."""
        return self.checkpointer.model if self.ema is None else self.ema.module

    @property
    def evaluated_file(self) -> Path:
        """The weights that results.json is about."""
        final = "model_final.pth" if self.ema is None else "model_final_ema.pth"
        return Path(self.output_dir, "model_best.pth" if self._evaluates_best else final)

    @property
    def _evaluates_best(self) -> bool:
        return self.best is not None and self.best.wants_to_stop and self.best.iteration >= 0

    @property
    def skipped(self) -> dict[str, str]:
        return self._trainer.skipped

    @property
    def seed(self) -> int:
        return self._trainer.seed

    @property
    def signalled(self) -> bool:
        return self._trainer.signalled

    @signalled.setter
    def signalled(self, value: bool) -> None:
        self._trainer.signalled = value

    @property
    def stop_agreed(self) -> bool:
        return self._trainer.stop_agreed

    @property
    def device(self) -> torch.device:
        return self._trainer.device

    def state_dict(self) -> dict[str, Any]:
        return {
            **TrainerBase.state_dict(self),
            "_trainer": self._trainer.state_dict(),
            "fixed": self.fixed_settings,
            "data": {**self._data_before, **self.describe_data()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            InputError: a key that cannot change on the way has changed.
        """
        check_fixed_settings(self.fixed_settings, state_dict["fixed"])
        self._data_before = state_dict.get("data", {})
        of_hooks = dict(state_dict.get("hooks", {}))
        schedule = of_hooks.pop("LRScheduler", {})
        TrainerBase.load_state_dict(self, {**state_dict, "hooks": of_hooks})
        self._trainer.load_state_dict(state_dict["_trainer"])
        set_schedule_to(self.scheduler, state_dict["iteration"] + 1, schedule)


@contextmanager
def weights_of(model: nn.Module, path: Path) -> Iterator[None]:
    """Meanwhile, ``model`` has the weights of a checkpoint."""
    before = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
        yield
    finally:
        model.load_state_dict(before)
