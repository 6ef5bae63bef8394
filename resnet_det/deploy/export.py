"""Writing a detector as ONNX, OpenVINO or torch.export file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resnet_det.deploy.runtimes import METADATA_KEY
from resnet_det.errors import InputError
from resnet_det.openvino_core import keep_signal_stack

OPSET = 20
FILES = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
PRECISIONS = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "float16", "int8"),
    "torch": ("float32",),
}
Batch = tuple[torch.Tensor, torch.Tensor]  # images and sizes


def check_precision(kind: str, precision: str) -> None:
    """
    Raises:
        InputError: files of this kind have no such precision.
    """
    if precision not in PRECISIONS[kind]:
        others = [name for name, known in PRECISIONS.items() if precision in known]
        instead = f"; --format {' or '.join(others)} has" if others else ""
        raise InputError(f"--precision {precision}: {kind} has {', '.join(PRECISIONS[kind])}{instead}")


@torch.no_grad()
def trace(module: nn.Module, in_channels: int) -> torch.export.ExportedProgram:
    """``module`` (:func:`resnet_det.deploy.modules.make_exportable`) as a graph for any batch, height and width.

    Raises:
        ValueError: there is something in it that depends on values of tensors.
    """
    images = torch.rand(2, in_channels, 160, 224) * 255  # a batch of one would be taken for the only one
    sizes = torch.tensor([[160, 200], [150, 224]])
    shapes = {
        "images": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),
        "sizes": {0: torch.export.Dim.DYNAMIC},
    }
    try:
        return torch.export.export(module, (images, sizes), dynamic_shapes=shapes, strict=False)
    except Exception as error:  # of many kinds, all of which say what in the model it was
        raise ValueError(f"torch.export cannot follow this model: {error}") from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, names: Sequence[str], metadata: dict) -> None:
    """``program`` as an ONNX file with named inputs and outputs."""
    onnx = _import("onnx", "onnx")
    _import("onnxscript", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own code
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images", "sizes"],
            output_names=list(names),
            verbose=False,
        )
    written.model.metadata_props[METADATA_KEY] = json.dumps(metadata)
    written.save(str(path), external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


def write_openvino(onnx_file: Path, path: Path, metadata: dict, calibration: Sequence[Batch]) -> None:
    """The network of ``onnx_file`` as OpenVINO's .xml and .bin; in int8 with ranges from ``calibration``."""
    openvino = _import("openvino", "openvino")
    model = openvino.convert_model(onnx_file)
    if metadata["precision"] == "int8":
        model = _quantize(model, calibration)
    model.set_rt_info(json.dumps(metadata), [METADATA_KEY])
    openvino.save_model(model, path, compress_to_fp16=metadata["precision"] == "float16")


def write_torch(program: torch.export.ExportedProgram, path: Path, metadata: dict) -> None:
    """``program`` as a .pt2 file for :func:`torch.export.load`."""
    torch.export.save(program, path, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})


def quantize_onnx(source: Path, path: Path, metadata: dict, calibration: Sequence[Batch]) -> None:
    """The network of ``source`` in int8, with ranges from ``calibration``."""
    onnx = _import("onnx", "onnx")
    model = _quantize(onnx.load(source), calibration)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = json.dumps(metadata)
    onnx.save(model, path)


def _quantize(model: Any, calibration: Sequence[Batch]) -> Any:
    if not calibration:
        raise InputError("--precision int8 takes its ranges from images: name a set with --calibration")
    nncf = _import("nncf", "openvino")
    data = nncf.Dataset(
        list(calibration), lambda batch: {"images": batch[0].numpy(), "sizes": batch[1].numpy().astype(np.int64)}
    )
    with keep_signal_stack():
        return nncf.quantize(model, data, subset_size=len(calibration))


def _import(name: str, extra: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise InputError(f"{name} is needed for this format: pip install resnet_det[{extra}]") from error
