"""Processes that belong together end together."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Let the kernel send ``signum`` to this process when the one that started it ends, however it ends.

    Why: torch leaves loader workers behind if the process that reads from them is killed, and torchrun its processes;
    each holds memory until somebody looks. Linux alone can do this; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
