"""OpenVINO's Core, and the stack for signals that its CPU plugin leaves behind.

The CPU plugin of each Core (OpenVINO 2026.4) gives the thread that makes it a stack of its own for signal handlers, and
puts back the one before when it goes. Of two Cores of which the first goes first, the second puts back memory that has
been freed. Python's signal handlers run on that stack: the next signal then ends the process, or writes over whatever
has that memory by now.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
from collections.abc import Iterator
from typing import Any

HOW_TO_INSTALL = "it is not part of the plain set-up: pip install openvino nncf"


def import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"OpenVINO is needed for this backend; {HOW_TO_INSTALL}") from error
    return openvino


@functools.cache
def get_core() -> Any:
    """The one Core of this process, with its CPU plugin. It stays, and so does the stack that it has set."""
    core = import_openvino().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    return core


class _SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2) on Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Meanwhile, others may make Cores of their own: this thread gets back the stack for signals that it had."""
    if not sys.platform.startswith("linux"):  # the plugin sets none there
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)
