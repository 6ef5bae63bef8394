"""What work takes in a process of its own, and how much memory several processes take together (Linux)."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import resource
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

KIB = 2**10
NUM_PER_BATCH = 64


def run_in_child(work: Callable[[], Any]) -> tuple[Any, int]:
    """Do ``work`` in a forked process, whose memory is gone afterwards.

    Returns:
        What it returned, and the most memory it took at once in bytes, beyond what this process has. Pages of
        libraries, which a forked process reads again as it needs them, are left out.

    Raises:
        RuntimeError: it failed, or was killed.
    """
    _give_back_free_memory()  # else it would serve the new process, and not be counted
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work_and_report, args=(work, sender))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError("a process that measures was killed: too little memory?") from None
    finally:
        child.join()


def _work_and_report(work: Callable[[], Any], sender: Connection) -> None:
    status = Path("/proc/self/status")
    resident, of_files = _read_kib(status, "VmRSS"), _read_kib(status, "RssFile")
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB - resident
    sender.send((result, peak - (_read_kib(status, "RssFile") - of_files)))
    sender.close()
    os._exit(0)  # the system frees the memory at once; Python would go through all objects


def measure_shared_memory(dicts: Sequence[dict], *, num_workers: int, start_method: str) -> int:
    """Bytes that this process and the workers of a loader have together, once they have read all of ``dicts``.

    Memory that processes share counts once (their proportional set sizes are added). Libraries are left out: the system
    drops and reads their pages as it likes.
    """
    _give_back_free_memory()  # what was freed after reading a file
    loader = DataLoader(
        _Readable(dicts),
        batch_size=NUM_PER_BATCH,
        num_workers=num_workers,
        multiprocessing_context=start_method,
        persistent_workers=True,
    )
    for _ in loader:
        pass
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    paths = [Path(f"/proc/{pid}/smaps_rollup") for pid in pids]
    return sum(_read_kib(path, key) for path in paths for key in ("Pss_Anon", "Pss_Shmem", "SwapPss"))


class _Readable(Dataset):
    """Reads dicts, and hands on their places alone."""

    def __init__(self, dicts: Sequence[dict]) -> None:
        self.dicts = dicts

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, index: int) -> int:
        for annotation in self.dicts[index]["annotations"]:
            for polygon in annotation["segmentation"]:
                sum(polygon)
        return index


def _give_back_free_memory() -> None:
    """glibc keeps what was freed between blocks in use."""
    ctypes.CDLL(None).malloc_trim(0)


def _read_kib(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * KIB
