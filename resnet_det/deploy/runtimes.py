"""ONNX Runtime, OpenVINO and torch, each as a function from images to the outputs of the network by name."""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.errors import InputError
from resnet_det.images.image_input import FORMATS
from resnet_det.openvino_core import get_core

METADATA_KEY = "resnet_det"
METADATA_FILE = f"{METADATA_KEY}.json"  # in the archive that torch writes
NEEDED = ("outputs", "precision", "class_names", "category_ids", "input_format", "min_size", "max_size")
SUFFIXES = {".onnx": "onnxruntime", ".xml": "openvino", ".pt2": "torch"}
Network = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]


def find_file(path: str | os.PathLike) -> Path:
    """The exported file at ``path``, or in the folder ``path``: model.onnx, else model.xml, else model.pt2.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        candidates = [path / f"model{suffix}" for suffix in SUFFIXES]
        found = [file for file in candidates if file.is_file()]
        if not found:
            names = ", ".join(file.name for file in candidates)
            raise InputError(f"{path}: holds none of {names}, which tools/export_model.py writes")
        return found[0]
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise InputError(f"{path}: ends in {path.suffix or 'nothing'}; exported detectors end in {known}")
    return path


def load_network(file: Path, threads: int = 0) -> tuple[Network, dict]:
    """The network in ``file``, and what its file says of it.

    Args:
        threads: 0: as many as there are cores.

    Raises:
        InputError: the runtime is not installed, or cannot read ``file``; another program has written it.
    """
    load = {"onnxruntime": _load_onnx, "openvino": _load_openvino, "torch": _load_torch}[SUFFIXES[file.suffix]]
    network, text = load(file, threads)
    metadata = _parse(text)
    missing = [key for key in NEEDED if key not in metadata]
    if missing:
        raise InputError(f"{file}: does not say its {', '.join(missing)}; tools/export_model.py writes files that do")
    if metadata["input_format"] not in FORMATS:
        raise InputError(f"{file}: takes images in {metadata['input_format']}; {', '.join(FORMATS)} are known here")
    return network, metadata


def _parse(text: str) -> dict:
    try:
        metadata = json.loads(text)
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _load_onnx(file: Path, threads: int) -> tuple[Network, str]:
    runtime = _import("onnxruntime", file)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class of their own in common
        version = f"ONNX Runtime {runtime.__version__}"
        raise InputError(f"{file}: {version} cannot load it: {_say(error)}") from error
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images, "sizes": sizes}), strict=True))

    return run, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")


def _load_openvino(file: Path, threads: int) -> tuple[Network, str]:
    openvino = _import("openvino", file)
    try:
        core = get_core()
        model = core.read_model(file)
        text = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else ""
        is_bfloat16 = _parse(text).get("precision") == "bfloat16"
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32"}
        if threads:
            hints["INFERENCE_NUM_THREADS"] = threads
        compiled = core.compile_model(model, "CPU", hints)
    except (RuntimeError, ImportError) as error:
        version = f"OpenVINO {openvino.__version__}"
        raise InputError(f"{file}: {version} cannot load it: {_say(error, -1)}") from error
    names = [output.get_any_name() for output in compiled.outputs]
    requests = threading.local()  # a request holds what it computes, so that each thread has its own

    def run(images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        if not hasattr(requests, "request"):
            requests.request = compiled.create_infer_request()
        found = requests.request.infer({"images": images, "sizes": sizes}, share_inputs=True, share_outputs=False)
        return dict(zip(names, found.values(), strict=True))

    return run, text


def _load_torch(file: Path, threads: int) -> tuple[Network, str]:
    torch = _import("torch", file)
    _import("torchvision", file)  # has operators of the graph
    extra = {METADATA_FILE: ""}
    try:
        module = torch.export.load(file, extra_files=extra).module()
    except Exception as error:  # of many kinds: it is an archive of JSON and tensors
        raise InputError(f"{file}: torch {torch.__version__} cannot load it: {_say(error)}") from error
    names = _parse(extra[METADATA_FILE]).get("outputs", ())
    if threads:
        torch.set_num_threads(threads)

    def run(images: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(images), torch.from_numpy(sizes))
        return {name: values.numpy() for name, values in zip(names, found, strict=True)}

    return run, extra[METADATA_FILE]


def _say(error: Exception, line: int = 0) -> str:
    lines = str(error).strip().splitlines()
    return lines[line] if lines else type(error).__name__


def _import(name: str, file: Path) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{file}: needs {name}: pip install {name}") from error
