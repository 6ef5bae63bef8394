"""Backbones that OpenVINO computes, inside Detectron2's detectors."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from resnet_det.openvino_core import get_core, import_openvino, quantize

logger = logging.getLogger(__name__)

OPENVINO_DTYPES = (torch.float32, torch.bfloat16, torch.int8)
MULTIPLE = 64  # sides of the example that is traced; those of images are free


class OpenVinoBackbone(Backbone):
    """A backbone, with its FPN, that OpenVINO computes on the CPU: the same features, without gradients.

    It can be deep-copied, pickled and called from several threads. It has no parameters, so no state: what is in it
    are the weights of the backbone that it was made of.

    Shapes:
        x: (N, C, H, W) float32, any size that the backbone takes; out: feature maps by name, float32, channels-last.
    """

    def __init__(
        self, backbone: Backbone, dtype: torch.dtype, samples: Sequence[torch.Tensor] = (), *, in_channels: int = 3
    ) -> None:
        """
        Args:
            backbone: in evaluation mode; it is not changed.
            dtype: float32, bfloat16, or int8 with ``samples``.
            samples: normalized images (1, C, H, W) as ``backbone`` takes them, from which int8's ranges are taken.
            in_channels: C.

        Raises:
            ImportError: OpenVINO, or for int8 NNCF, is not installed.
            ValueError: another dtype; int8 without samples; a layer that OpenVINO does not have.
        """
        super().__init__()
        if dtype not in OPENVINO_DTYPES:
            raise ValueError(f"dtype is {dtype}; choose one of {', '.join(map(str, OPENVINO_DTYPES))} for OpenVINO")
        if dtype == torch.int8 and not samples:
            raise ValueError("int8 needs calibration: images of the kind that will be looked at")
        self.dtype = dtype
        self._shapes = dict(backbone.output_shape())
        self._size_divisibility = backbone.size_divisibility
        self._padding_constraints = dict(getattr(backbone, "padding_constraints", {}))
        self._computed = list(self._shapes)
        self._subsampled = ""  # p5, of which p6 is every second pixel: OpenVINO loses its scale in int8
        if isinstance(getattr(backbone, "top_block", None), LastLevelMaxPool):
            self._computed.pop()
            self._subsampled = backbone.top_block.in_feature
        self._network = _convert(backbone, self._computed, in_channels)
        if dtype == torch.int8:
            images = [sample.float().contiguous().numpy() for sample in samples]
            self._network = quantize(self._network, images, np.asarray)
        self._compiled: Any = None
        self._requests = threading.local()
        self._lock = threading.Lock()

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        return dict(self._padding_constraints)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if x.device.type != "cpu":
            raise ValueError(f"the images are on {x.device}, and OpenVINO's backbone computes on the CPU alone")
        request = getattr(self._requests, "request", None)
        if request is None:  # each thread has one of its own, as a request holds what it computes
            request = self._requests.request = self._compile().create_infer_request()
        found = request.infer([x.detach().float().contiguous().numpy()], share_inputs=True, share_outputs=False)
        features = {
            name: torch.from_numpy(value).permute(0, 3, 1, 2)
            for name, value in zip(self._computed, found.values(), strict=True)
        }
        if self._subsampled:
            subsampled = features[self._subsampled][:, :, ::2, ::2]
            features[list(self._shapes)[-1]] = subsampled.contiguous(memory_format=torch.channels_last)
        return features

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
        state = {key: value for key, value in self.__dict__.items() if key not in ("_compiled", "_requests", "_lock")}
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder, "network.xml"), Path(folder, "network.bin")
            import_openvino().serialize(self._network, *map(str, files))
            state["_network"] = tuple(file.read_bytes() for file in files)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._network = import_openvino().Core().read_model(*self._network)
        self._compiled, self._requests, self._lock = None, threading.local(), threading.Lock()

    def extra_repr(self) -> str:
        return f"dtype={self.dtype}, outputs={list(self._shapes)}"


class _StopError(Exception):
    """What comes after a recorded input is not wanted."""


def record_inputs(model: nn.Module, part: nn.Module, inputs: Iterable[Any]) -> list[torch.Tensor]:
    """What ``model`` gives to ``part`` for each of ``inputs``."""
    recorded = []

    def record(_: nn.Module, args: tuple) -> None:
        recorded.append(args[0].detach().clone())
        raise _StopError

    handle = part.register_forward_pre_hook(record)
    try:
        for entry in inputs:
            with contextlib.suppress(_StopError):
                model([entry])
    finally:
        handle.remove()
    return recorded


class _ChannelsLast(nn.Module):
    """The features of ``backbone`` in the order of ``names``, with the channels as the last axis."""

    def __init__(self, backbone: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, tuple(names)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.backbone(x)
        return tuple(features[name].permute(0, 2, 3, 1) for name in self.names)


def _convert(backbone: Backbone, names: Sequence[str], in_channels: int) -> Any:
    openvino = import_openvino()
    example = torch.rand(2, in_channels, 2 * MULTIPLE, 3 * MULTIPLE)  # a batch of one would be baked in
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            # OpenVINO's own tracing would compare two runs of the net to 1e-5, and warn of rounding.
            traced = torch.jit.trace(_ChannelsLast(backbone, names), example, strict=False, check_trace=False)
            return openvino.convert_model(traced, input=openvino.PartialShape([-1, in_channels, -1, -1]))
    except (RuntimeError, openvino.frontend.OpConversionFailure) as error:
        raise ValueError(f"OpenVINO cannot convert the backbone: {error}") from error
