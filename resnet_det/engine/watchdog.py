"""A process beside a training process, which kills that one if it does not end after a signal. Run as a program.

Why another process: one that is stuck in a C function runs no Python, so neither a signal handler nor a thread of its
own can be relied on. The number of each signal, though, Python's handler in C writes to a pipe at once
(``signal.set_wakeup_fd``).
"""

import os
import select
import signal
import sys
import time


def watch(pid: int, grace_s: float, wanted: set[int]) -> None:
    """Read signal numbers from standard input; ``grace_s`` seconds after one of ``wanted``, kill the process ``pid``.

    Ends when the pipe does, which is when that process ends.
    """
    deadline = None
    while True:
        wait_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([0], [], [], wait_s)[0]:
            if os.getppid() == pid:
                os.write(2, b"did not exit within RESNET_DET.TRAIN.GRACE_SECONDS of a signal: killed\n")
                os.kill(pid, signal.SIGKILL)
            return
        numbers = os.read(0, 4096)
        if not numbers:
            return
        if deadline is None and wanted & set(numbers):
            deadline = time.monotonic() + grace_s


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # meant for the other one
    watch(int(sys.argv[1]), float(sys.argv[2]), {int(number) for number in sys.argv[3].split(",")})
