"""Processes that belong together end together."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(signum: int = signal.SIGKILL) -> None:
    """Let the kernel send ``signum`` to this process when the one that started it ends, however it ends.

    Why: torch leaves loader workers behind if the process that reads from them is killed, and torchrun its processes;
    each holds memory until somebody looks. Linux alone can do this; elsewhere nothing is done.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)


def obey_parent_only() -> None:
    """Let SIGTERM end this process only if its parent sends it; SIGUSR1, and what others send, does nothing.

    Why: torchrun, SLURM and Ctrl-C's relatives signal a whole group of processes. A loader worker that ends of it takes
    the trainer down, which at that moment writes its last checkpoint and needs none of the worker's batches.
    """
    if not hasattr(signal, "sigwaitinfo"):  # Linux has it
        return
    parent, heard = os.getppid(), {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, heard)

    def listen() -> None:
        while True:
            told = signal.sigwaitinfo(heard)
            if told.si_signo == signal.SIGTERM and told.si_pid == parent:
                os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
