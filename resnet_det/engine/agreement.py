"""What one process decides for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from detectron2.utils import comm

from resnet_det.errors import InputError

T = TypeVar("T")


def decide_once(decide: Callable[[], T]) -> T:
    """The result of ``decide``, which the first process alone calls, in all processes.

    Why: what each process finds by itself - whether there is a checkpoint, what is faster - may differ, and then they
    train different models, or wait for each other for ever.

    Raises:
        InputError: in all processes, if ``decide`` raised one in the first. Its other errors keep their traceback
            there, and end the others, too.
    """
    if comm.get_world_size() == 1:
        return decide()
    result, wrong, bug = None, None, None
    if comm.is_main_process():
        try:
            result = decide()
        except InputError as error:
            wrong = str(error)
        except Exception as error:
            bug = error
    result, wrong, failed = comm.all_gather((result, wrong, bug is not None))[0]
    if bug is not None:
        raise bug
    if failed:
        raise RuntimeError("process 0 failed, and says why")
    if wrong is not None:
        raise InputError(wrong)
    return result


def check_everywhere(problem: str | None) -> None:
    """
    Raises:
        InputError: in all processes, if any of them has a ``problem``.
    """
    found = [(rank, text) for rank, text in enumerate(comm.all_gather(problem)) if text]
    if found:
        rank, text = found[0]
        raise InputError(text if comm.get_world_size() == 1 else f"process {rank}: {text}")
