"""Preemption: what happens when a run is asked to end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

from detectron2.engine import HookBase

from resnet_det.engine import watchdog

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # preemption; what SLURM is often told to warn with


class Interrupted(BaseException):
    """Raised where a run can be left at once. No Exception: nobody's ``except`` may take it for an error."""


class SignalHook(HookBase):
    """On SIGTERM or SIGUSR1, saves and stops: after the running iteration, in all processes together, or at once in an
    evaluation.

    A process that has not ended ``grace_s`` seconds after the signal is killed, even if it is stuck outside Python: by
    a small process beside it, which hears of the signal from Python's handler in C.
    """

    def __init__(self, grace_s: float) -> None:
        """
        Args:
            grace_s: seconds; 0: however long it takes.
        """
        self.grace_s = grace_s
        self.received = False
        self._can_leave = False
        self._watchdog: subprocess.Popen | None = None

    def before_train(self) -> None:
        self._previous = {}
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets no other one have signals
        if self.grace_s:
            self._start_watchdog()
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, _: object) -> None:
        if not self.received:
            os.write(2, f"{signal.Signals(number).name} was received\n".encode())
        self.received = self.trainer.signalled = True
        if self._can_leave:
            self._can_leave = False
            raise Interrupted

    @contextlib.contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Meanwhile, a signal raises :class:`Interrupted`."""
        try:
            self._can_leave = True
            if self.received:
                raise Interrupted
            yield
        except Exception as error:
            if self.received:  # another process was quicker, and has left this one alone
                raise Interrupted from error
            raise
        finally:
            self._can_leave = False

    def after_step(self) -> None:
        if self.trainer.stop_agreed:
            self.trainer.checkpoint_hook.save_unless_saved()
            self.trainer.stop("stopped by a signal; continue with --resume", interrupted=True)

    def after_train(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._watchdog is not None:
            signal.set_wakeup_fd(self._previous_fd)
            os.close(self._write_end)
            self._watchdog.kill()  # loader workers have the pipe open, too: it would not hear of its end
            self._watchdog.wait()
            self._watchdog = None

    def _start_watchdog(self) -> None:
        """Let Python's handler in C write each signal to a pipe, which another process reads."""
        read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        wanted = ",".join(str(int(number)) for number in SIGNALS)
        command = [sys.executable, "-S", "-E", watchdog.__file__, str(os.getpid()), str(self.grace_s), wanted]
        self._watchdog = subprocess.Popen(command, stdin=read_end, start_new_session=True)
        os.close(read_end)
        self._previous_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
