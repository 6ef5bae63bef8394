"""Writing a detector as ONNX, OpenVINO or torch.export file."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resnet_det.deploy.runtimes import METADATA_FILE, METADATA_KEY
from resnet_det.errors import InputError
from resnet_det.openvino_core import LEARNED, quantize

OPSET = 20
FILES = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin"), "torch": ("model.pt2",)}
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}
PRECISIONS = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "float16", "int8"),
    "torch": ("float32",),
}
SHAPES = {"Shape", "ShapeOf"}
RESULT = "Result"  # what OpenVINO calls an output
Graph = dict[str, tuple[str, list[str]]]  # of each node, by name: its type, and the nodes it reads from
Batch = tuple[np.ndarray, np.ndarray]  # images and sizes


def check_precision(kind: str, precision: str) -> None:
    """
    Raises:
        InputError: files of this kind have no such precision.
    """
    if precision not in PRECISIONS[kind]:
        others = [name for name, known in PRECISIONS.items() if precision in known]
        instead = f"; --format {' or '.join(others)} has it" if others else ""
        raise InputError(f"--precision {precision} is not for {kind}, which has {', '.join(PRECISIONS[kind])}{instead}")


def check_libraries(formats: Sequence[str], precision: str) -> None:
    """
    Raises:
        InputError: a library is not installed, or torch is too old.
    """
    if not hasattr(torch.export.Dim, "DYNAMIC"):
        raise InputError(
            f"exporting needs a later torch than {torch.__version__}, whose torch.export lacks Dim.DYNAMIC"
        )
    names = {name for kind in formats for name in NEEDED[kind]} | ({"nncf"} if precision == "int8" else set())
    missing = sorted(name for name in names if importlib.util.find_spec(name) is None)
    if missing:
        raise InputError(
            f"--format {' '.join(formats)} --precision {precision} needs {', '.join(missing)}, which the plain set-up "
            "leaves out: pip install 'resnet_det[export]'"
        )


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision, on its own code
            return torch.export.export(module, (images, sizes), dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch._dynamo.exc.TorchDynamoException) as error:
        what = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"torch.export cannot follow this model: {what}") from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, output_names: Sequence[str]) -> None:
    """Write ``program`` as an ONNX file in float32, which says nothing of itself yet. That can be done once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own code
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images", "sizes"],
            output_names=output_names,
            verbose=False,
        )
    written.save(str(path), external_data=False)


def write_files(
    program: torch.export.ExportedProgram,
    plain_onnx: Path,
    folder: Path,
    formats: Sequence[str],
    metadata: dict[str, Any],
    calibration: Iterable[Batch] = (),
) -> Iterator[tuple[str, Path]]:
    """Write ``program`` to ``folder`` in each of ``formats``; yields each format and its file once it is written.

    Args:
        plain_onnx: what :func:`write_onnx` has written of it, which all but "torch" are made of.
        metadata: of the network, with its "precision".
        calibration: for int8.
    """
    is_int8 = metadata["precision"] == "int8"
    batches = list(calibration) if is_int8 else []
    text = json.dumps(metadata)
    for kind in formats:
        file = folder / FILES[kind][0]
        if kind == "torch":
            torch.export.save(program, file, extra_files={METADATA_FILE: text})
        elif kind == "onnx":
            import onnx

            model = onnx.load(plain_onnx)
            model = _quantize(model, batches) if is_int8 else model
            onnx.helper.set_model_props(model, {METADATA_KEY: text})
            onnx.save(model, file)
            onnx.checker.check_model(str(file), full_check=True)
        else:
            import openvino

            model = openvino.convert_model(plain_onnx)
            model = _quantize(model, batches) if is_int8 else model
            model.set_rt_info(text, [METADATA_KEY])
            openvino.save_model(model, file, compress_to_fp16=metadata["precision"] == "float16")
        yield kind, file


def _quantize(model: Any, batches: Sequence[Batch]) -> Any:
    return quantize(
        model,
        batches,
        lambda batch: {"images": batch[0], "sizes": batch[1]},
        ignored=find_what_stays(_read_graph(model)),
    )


def find_what_stays(graph: Graph) -> list[str]:
    """Nodes that int8 leaves in float32: all that compute boxes and scores, for which 256 values are too few.

    What becomes int8 is the backbone, the FPN, dense heads, and the convolutions and matrix products on single boxes,
    except for predictors: the last of them, after which nothing learned follows.
    """
    learned = {name for name, (kind, _) in graph.items() if kind in LEARNED}
    read_by = defaultdict(list)
    for name, (_, sources) in graph.items():
        for source in sources:
            read_by[source].append(name)
    after_choice = _reach([name for name, (kind, _) in graph.items() if kind == "TopK"], read_by)
    dense = learned - after_choice
    within = _reach(dense, read_by) & _reach(dense, {name: sources for name, (_, sources) in graph.items()})
    by_hand = {
        name: [reader for reader in readers if reader not in learned and graph[reader][0] not in SHAPES]
        for name, readers in read_by.items()
    }
    predictors = {name for name in learned if any(graph[node][0] == RESULT for node in _reach([name], by_hand))}
    quantized = (learned | within) - predictors
    return [name for name, (kind, _) in graph.items() if name not in quantized and kind != RESULT]


def _reach(start: Iterable[str], following: Mapping[str, list[str]]) -> set[str]:
    found, waiting = set(start), list(start)
    while waiting:
        new = set(following.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def _read_graph(model: Any) -> Graph:
    """The nodes and outputs of an ONNX or OpenVINO model, without its constants."""
    if hasattr(model, "get_ordered_ops"):
        return {
            op.get_friendly_name(): (
                op.get_type_name(),
                [value.get_node().get_friendly_name() for value in op.input_values()],
            )
            for op in model.get_ordered_ops()
            if op.get_type_name() not in ("Constant", "Parameter")
        }
    makers = {output: node.name for node in model.graph.node for output in node.output}
    nodes = {
        node.name: (node.op_type, [makers[name] for name in node.input if name in makers]) for node in model.graph.node
    }
    outputs = [value.name for value in model.graph.output]
    outputs = [value.name for value in model.graph.output]
    return nodes | {f"output {name}": (RESULT, [makers[name]] if name in makers else []) for name in outputs}
