"""OpenVINO's Core, and the stack for signals that its CPU plugin leaves behind.

The CPU plugin of each Core (OpenVINO 2026.4) gives the thread that loads it a stack of its own for signal handlers.
When it goes it frees that stack, and puts back the one before if its own is the current one. Of two Cores of which the
first goes first, the second puts back memory that has been freed. Python's signal handlers run on that stack: the next
signal then crashes the process, or writes over whatever has that memory by now.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Layers with weights that int8 is for, as ONNX names them, and as OpenVINO does.
LEARNED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
LEARNED |= {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"}
HOW_TO_INSTALL = "it is not part of the plain set-up: pip install openvino nncf"
_lock = threading.Lock()


def import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"OpenVINO is needed for this backend; {HOW_TO_INSTALL}") from error
    return openvino


def get_core() -> Any:
    """The one Core of this process, with its CPU plugin. It stays, and so does the stack that it has set.

    Raises:
        ImportError: OpenVINO is not installed, or has no CPU plugin here.
    """
    with _lock:  # of two threads, the second would make a Core that goes again
        return _make_core()


@functools.cache
def _make_core() -> Any:
    core = import_openvino().Core()
    try:
        core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
    except RuntimeError as error:
        raise ImportError(f"OpenVINO cannot load its CPU plugin: {error}") from error
    return core


def quantize(network: Any, samples: Sequence[Any], transform: Callable, ignored: Sequence[str] = ()) -> Any:
    """``network`` (of OpenVINO, or ONNX) in int8, by NNCF.

    Args:
        samples: that the ranges of its features are taken from.
        transform: makes of each what the network takes.
        ignored: names of operations that stay as they are.

    Raises:
        ImportError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise ImportError(f"NNCF is needed for int8; {HOW_TO_INSTALL}") from error
    nncf.set_log_level(logging.WARNING)  # else it names each operation that it leaves as it is
    with keep_signal_stack():
        return nncf.quantize(
            network,
            nncf.Dataset(samples, transform),
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(ignored)),
        )


class _SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2) on Linux."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Restore this thread's stack for signals afterwards, whatever Cores are made inside."""
    if not sys.platform.startswith("linux"):  # the plugin sets none there
        yield
        return
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = _SignalStack()
    is_known = sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if is_known:
            sigaltstack(ctypes.byref(before), None)
