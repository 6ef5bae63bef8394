"""What is said, and kept, of a step that failed."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from detectron2.utils import comm

from resnet_det.errors import InputError

logger = logging.getLogger(__name__)


class TrainingFailedError(InputError):
    """Losses or gradients are not finite: says in which process, at which iteration and on which images."""


class StepRecord:
    """The images and losses of one step, and whether they were sound: on the device, until somebody reads it."""

    def __init__(self, iteration: int, device: torch.device) -> None:
        self.iteration, self.device = iteration, device
        self.batches: list[list[dict]] = []
        self.losses: list[dict[str, torch.Tensor]] = []

    def add(self, batch: list[dict], losses: dict[str, torch.Tensor]) -> None:
        self.batches.append(batch)
        self.losses.append(losses)

    def mean_losses(self) -> dict[str, torch.Tensor]:
        """The mean of each loss over the batches of the step."""
        names = dict.fromkeys(name for losses in self.losses for name in losses)
        zero = torch.zeros((), device=self.device)
        return {name: sum(losses.get(name, zero) for losses in self.losses) / len(self.losses) for name in names}

    def set_flags(self, norm: torch.Tensor, signalled: bool) -> None:
        """Note what is wrong in any process: of losses, of gradients (of which ``norm`` is that), and a signal."""
        total = sum(loss.float() for losses in self.losses for loss in losses.values())
        signal = torch.full((), float(signalled), device=self.device)
        self._flags = torch.stack([1 - torch.isfinite(x).float() for x in (total, norm)] + [signal])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(self._flags, torch.distributed.ReduceOp.MAX)
        self.is_bad = self._flags[:2].amax()
        self._copied = None
        if self.device.type == "cuda" and torch.cuda.is_available():
            self._on_cpu = torch.empty(3, pin_memory=True)
            self._on_cpu.copy_(self._flags, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._on_cpu = self._flags

    def read_flags(self) -> tuple[bool, bool, bool]:
        """Whether a loss is not finite, a gradient is not, and a process is to stop. Waits for that step alone."""
        if self._copied is not None:
            self._copied.synchronize()
        loss, gradient, stop = (value > 0 for value in self._on_cpu.tolist())
        return loss, gradient, stop

    def find_bad_batch(self) -> tuple[list[dict], str] | None:
        """The first batch of this process with a loss that is not finite, and its losses; None if it had none."""
        for batch, losses in zip(self.batches, self.losses, strict=True):
            values = {name: loss.item() for name, loss in losses.items()}
            if not all(map(_is_finite, values.values())):
                return batch, ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return None


def explain_failure(record: StepRecord, skipped_steps: int, output_dir: str) -> TrainingFailedError:
    """The error for a step that was not sound; the batch that may be to blame is saved. In all processes together."""
    bad = record.find_bad_batch()
    blamed = [rank for rank, is_bad in enumerate(comm.all_gather(bad is not None)) if is_bad]
    rank = comm.get_rank()
    if blamed and rank not in blamed:
        return TrainingFailedError(
            f"training stopped at iteration {record.iteration}: see what process {blamed[0]} says"
        )
    batch, what = bad or (
        [sample for batch in record.batches for sample in batch],
        "the losses are finite, but their gradients are not",
    )
    if bad:
        what = f"the loss is not finite: {what}"
    elif skipped_steps:
        what = f"gradients were not finite in {skipped_steps} steps in a row, even at the smallest loss scale"
    return make_failure(record.iteration, batch, what, output_dir)


def make_failure(iteration: int, batch: list[dict], what: str, output_dir: str) -> TrainingFailedError:
    """The error for numbers that are not finite, on the images of ``batch``, which is saved."""
    # Before the first step no learning rate has had a hand in it.
    advice = " Often the learning rate is too high for the batch size (SOLVER.BASE_LR, REFERENCE_BATCH_SIZE)."
    if iteration == 0:
        advice = " No step was made before: look at these images, and at MODEL.WEIGHTS."
    path = save_batch(batch, iteration, output_dir)
    return TrainingFailedError(
        f"training stopped at iteration {iteration} in process {comm.get_rank()}, on image ids {name_images(batch)}: "
        f"{what}. Weights have not taken it in: resume from the last checkpoint.{advice} The batch was saved to {path}"
    )


def add_context(error: Exception, iteration: int, batch: list[dict], output_dir: str) -> None:
    """Note on ``error``, whose traceback stays, where it happened; the batch is saved."""
    note = f"at iteration {iteration} in process {comm.get_rank()}"
    if batch:
        note += (
            f", on image ids {name_images(batch)}; the batch was saved to {save_batch(batch, iteration, output_dir)}"
        )
    error.add_note(note)
    logger.error("Training stopped %s", note)


def name_images(batch: list[dict]) -> str:
    return ", ".join(str(sample.get("image_id", sample.get("file_name"))) for sample in batch)


def save_batch(batch: list[dict], iteration: int, output_dir: str) -> str:
    """Write a batch to a file, to look at; says where, or why it could not be."""
    path = Path(output_dir, f"failed_batch_rank{comm.get_rank()}_iter{iteration}.pth")
    try:
        torch.save(batch, path)
    except Exception as error:  # a full disk must not hide what went wrong
        return f"no file ({type(error).__name__}: {error})"
    return str(path)


def _is_finite(value: float) -> bool:
    return value - value == 0
