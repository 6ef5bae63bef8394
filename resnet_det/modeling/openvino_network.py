"""A part of a model as a network that OpenVINO computes on the CPU."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resnet_det.openvino_core import LEARNED, get_core, import_openvino, quantize

logger = logging.getLogger(__name__)

OPENVINO_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


class OpenVinoNetwork:
    """A function of arrays, (N, H, W, C) or as its module takes them, of any N, H and W.

    It can be deep-copied, pickled and called from several threads.

    Attributes:
        dtype: what it computes in.
    """

    def __init__(
        self,
        module: nn.Module,
        examples: Sequence[torch.Tensor],
        shapes: Sequence[Sequence[int]],
        dtype: torch.dtype,
        samples: Sequence[Any] = (),
        transform: Callable = np.asarray,
        *,
        keeps_predictors: bool = False,
    ) -> None:
        """
        Args:
            module: takes tensors, and gives a tuple of them; it is not changed.
            examples: inputs that it is traced with, of batches of at least 2, as a batch of 1 would be baked in.
            shapes: of its inputs, with -1 for what is free.
            samples: that int8's ranges are taken from; ``transform`` makes the inputs of each.
            keeps_predictors: int8 leaves the last layer with weights before each output in float32.

        Raises:
            ImportError: OpenVINO, or for int8 NNCF, is not installed.
            ValueError: another dtype; int8 without samples; a layer that OpenVINO does not have.
        """
        if dtype not in OPENVINO_DTYPES:
            raise ValueError(f"dtype is {dtype}; choose one of {', '.join(map(str, OPENVINO_DTYPES))} for OpenVINO")
        if dtype == torch.int8 and not samples:
            raise ValueError("int8 needs calibration: images of the kind that will be looked at")
        self.dtype = dtype
        self._network = _convert(module, examples, shapes)
        if dtype == torch.int8:
            kept = _find_predictors(self._network) if keeps_predictors else ()
            self._network = quantize(self._network, samples, transform, kept)
        self._reset()

    def _reset(self) -> None:
        self._compiled: Any = None
        self._requests = threading.local()
        self._lock = threading.Lock()

    def __call__(self, *inputs: np.ndarray) -> list[np.ndarray]:
        request = getattr(self._requests, "request", None)
        if request is None:  # each thread has one of its own, as a request holds what it computes
            request = self._requests.request = self._compile().create_infer_request()
        return list(request.infer(list(inputs), share_inputs=True, share_outputs=False).values())

    def _compile(self) -> Any:
        with self._lock:
            if self._compiled is None:
                core = get_core()
                kinds = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
                if self.dtype == torch.bfloat16 and "BF16" not in kinds:
                    logger.warning("OpenVINO has no bfloat16 on this processor: it computes in float32")
                hints = {
                    "INFERENCE_PRECISION_HINT": "bf16" if self.dtype == torch.bfloat16 else "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                }
                self._compiled = core.compile_model(self._network, "CPU", hints)
        return self._compiled

    def __getstate__(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "network.xml"), Path(folder, "network.bin")
            import_openvino().serialize(self._network, *map(str, files))
            return {"dtype": self.dtype, "network": tuple(file.read_bytes() for file in files)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.dtype = state["dtype"]
        self._network = import_openvino().Core().read_model(*state["network"])
        self._reset()


def _convert(module: nn.Module, examples: Sequence[torch.Tensor], shapes: Sequence[Sequence[int]]) -> Any:
    openvino = import_openvino()
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            # OpenVINO's own tracing would compare two runs of the net to 1e-5, and warn of rounding.
            traced = torch.jit.trace(module, tuple(examples), strict=False, check_trace=False)
            return openvino.convert_model(traced, input=[openvino.PartialShape(list(shape)) for shape in shapes])
    except (RuntimeError, openvino.frontend.OpConversionFailure) as error:
        raise ValueError(f"OpenVINO cannot convert the {module.title}: {error}") from error


def _find_predictors(network: Any) -> list[str]:
    """The last layer with weights before each output."""
    found = []
    for node in network.get_results():
        while node.get_type_name() not in LEARNED and node.get_input_size():
            node = node.input_value(0).get_node()
        found.append(node.get_friendly_name())
    return found
