"""Ways to run a model on images: prepared, by OpenVINO, under autocast, and exported to a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances
from torch import nn

from resnet_det.benchmark.models import EXPORTED, autocast
from resnet_det.deploy import Detector
from resnet_det.deploy.export import PRECISIONS, check_libraries, trace, write_files, write_onnx
from resnet_det.deploy.modules import make_exportable
from resnet_det.engine.exported import make_instances
from resnet_det.engine.precision import prepare_as_asked
from resnet_det.errors import InputError
from resnet_det.modeling import prepare_for_inference

INT8_ALONE = "openvino", *EXPORTED  # what has int8


def inference_contenders(
    models: dict[str, nn.Module],
    precisions: Mapping[str, torch.dtype],
    *,
    device: str,
    compiled: bool = False,
    openvino: bool = False,
    images: Sequence[dict[str, Any]] = (),
) -> dict[str, nn.Module | Callable]:
    """By title: each model in each precision, ready to be called; ours prepared, the others under autocast.

    Args:
        openvino: whether OpenVINO computes ours, too, in each precision.
        images: that int8, which only OpenVINO has, is calibrated on.

    Raises:
        InputError: OpenVINO is not installed, or has no such precision.
    """
    contenders = {}
    for title, model in models.items():
        for precision, dtype in precisions.items():
            if dtype == torch.int8:
                continue
            if title != "resnet_det":
                contenders[f"{title} {precision}"] = autocast(model.eval().to(device), device, dtype)
                continue
            contenders[f"{title} {precision}"] = prepare_for_inference(model.to(device), dtype=dtype)
            if compiled:
                fast = prepare_for_inference(model.to(device), dtype=dtype, compile_backbone=True)
                contenders[f"{title} {precision} compiled"] = fast
    for precision, dtype in precisions.items() if openvino else ():
        options = {"calibration": images} if dtype == torch.int8 else {}
        contenders[f"resnet_det by OpenVINO {precision}"] = prepare_as_asked(
            models["resnet_det"],
            f"--against openvino, --precision {precision}",
            dtype=dtype,
            backend="openvino",
            **options,
        )
    return contenders


def exported_contenders(
    cfg: CfgNode,
    model: nn.Module,
    precisions: Mapping[str, torch.dtype],
    formats: Sequence[str],
    images: Sequence[dict[str, Any]],
) -> dict[str, ExportedModel]:
    """By title: files of ``model`` in each of ``formats`` (of ``EXPORTED``) and each precision that it has.

    Args:
        images: as the model takes them, that int8 takes its ranges from.

    Raises:
        InputError: the model cannot be exported, or a library is not installed.
    """
    contenders = {}
    chosen = {
        precision: [name for name in formats if _name(dtype) in PRECISIONS[EXPORTED[name]]]
        for precision, dtype in precisions.items()
    }
    for name in formats:
        if not any(name in names for names in chosen.values()):
            known = ", ".join(PRECISIONS[EXPORTED[name]])
            raise InputError(f"--against {name}: its files have none of the precisions asked for; they have {known}")
    for precision, names in chosen.items():
        check_libraries([EXPORTED[name] for name in names], _name(precisions[precision]))
    try:
        module = make_exportable(model)
        program = trace(module, len(cfg.MODEL.PIXEL_MEAN))
    except ValueError as error:
        raise InputError(f"--against {','.join(formats)}: {error}") from error
    num_classes = (
        cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    ).NUM_CLASSES
    metadata = {
        "outputs": list(module.output_names),
        "class_names": [f"class {index}" for index in range(num_classes)],
        "category_ids": list(range(1, num_classes + 1)),
        "input_format": cfg.INPUT.FORMAT,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
    }
    with tempfile.TemporaryDirectory() as aside:
        plain = Path(aside) / "float32.onnx"
        write_onnx(program, plain, metadata["outputs"])
        for precision, names in chosen.items():
            titles = {EXPORTED[name]: f"{name} {precision}" for name in names}
            folder = Path(aside) / precision
            folder.mkdir()
            described = metadata | {"precision": _name(precisions[precision])}
            for kind, file in write_files(program, plain, folder, list(titles), described, map(make_input, images)):
                contenders[titles[kind]] = ExportedModel(file)
    return contenders


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class ExportedModel:
    """An exported file that is called as a model of Detectron2 is, with images that are resized already."""

    def __init__(self, file: Path) -> None:
        self.detector = Detector(file, threads=torch.get_num_threads())

    def __call__(self, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"instances": self._detect(entry)} for entry in inputs]

    def _detect(self, entry: dict[str, Any]) -> Instances:
        (found,) = self.detector.detect_resized(*make_input(entry), [(entry["height"], entry["width"])])
        instances = make_instances(found)
        if found.has_masks:
            instances.pred_masks = torch.from_numpy(found.make_masks())  # pasted, as the models do it
        return instances


def make_input(entry: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """A batch of the one image of ``entry``, and its size."""
    image = entry["image"][None].float().numpy()
    return image, np.array([image.shape[2:]], np.int64)
