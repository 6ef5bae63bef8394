"""Read and write files of weights. Nothing in a file is ever run."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from resnet_det.errors import InputError
from resnet_det.pickles import RefusedError, read_pickled_arrays

SUFFIXES = (".pth", ".pt", ".pyth", ".pkl", ".safetensors")

# Under which the tensors stand in a checkpoint, most wanted first.
_WRAPPERS = ("model", "state_dict", "model_state", "state_dict_ema", "model_ema", "blobs")


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, on the CPU. See :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file of weights, on the CPU, and what else is in it (an optimizer's state, the iteration, ...).

    Args:
        path: .pth, .pt, .pyth (torch.save), .pkl (pickled arrays, as Detectron2's and Caffe2's) or .safetensors.

    Raises:
        InputError: there is no such file; it is damaged or holds no tensors; it asks for anything but arrays and plain
            containers, which is then named and not run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: weights are read from {', '.join(SUFFIXES)}")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path), {}
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file, or cut off: {error}") from None
    is_pickle = path.suffix == ".pkl" and not zipfile.is_zipfile(path)
    return _split_checkpoint(_read_pickle(path) if is_pickle else _read_torch(path), path)


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused_or_damaged(path, error) from None
    except (EOFError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a file of torch.save, or cut off: {str(error).splitlines()[0]}") from None


def _refused_or_damaged(path: Path, error: Exception) -> InputError:
    text = str(error)
    for start, end in (("Unsupported global: GLOBAL ", " was not"), ("Trying to load unsupported GLOBAL ", " whose")):
        if start in text:
            return _refusal(path, text.split(start)[1].split(end)[0])
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        unsafe = []  # not readable even as far as that
    if unsafe:
        return _refusal(path, ", ".join(unsafe))
    return InputError(f"{path}: not a file of torch.save, or cut off: {text.splitlines()[0]}")


def _refusal(path: Path, name: str) -> InputError:
    return InputError(
        f"{path}: refused, as it asks to run {name}. Nothing of it was run. "
        "Weights are tensors in plain containers; let whoever made the file save those alone."
    )


def _read_pickle(path: Path) -> Any:
    try:
        return read_pickled_arrays(path)
    except RefusedError as error:
        raise _refusal(path, error.name) from None


def _split_checkpoint(content: Any, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, whatever it is wrapped in, and what stands beside them."""
    extra: dict[str, Any] = {}
    while isinstance(content, dict):
        wrapper = next((name for name in _WRAPPERS if isinstance(content.get(name), dict)), None)
        if wrapper is None:
            break
        extra |= {name: value for name, value in content.items() if name != wrapper}
        content = content[wrapper]
    tensors = {}
    for name, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, np.ndarray) and value.dtype != object:
            value = torch.from_numpy(np.array(value))
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensors[name] = value
    if not tensors:
        raise InputError(f"{path}: there are no tensors in it")
    return tensors, extra


def write_tensors(tensors: dict[str, torch.Tensor], path: str | Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write ``tensors`` to a .pth, .pt, .pyth, .pkl or .safetensors file.

    .pkl is Detectron2's format (arrays under "model"); .pth holds the tensors alone, or with ``extra`` both.

    Raises:
        InputError: the suffix is none of these, or ``extra`` is given for a format that holds tensors alone.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: weights are written to {', '.join(SUFFIXES)}")
    if extra and path.suffix in (".pkl", ".safetensors"):
        raise InputError(f"{path}: only .pth, .pt and .pyth hold more than weights: strip the optimizer's state")
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    elif path.suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "resnet_det", "matching_heuristics": True}))
    else:
        torch.save({"model": tensors, **extra} if extra else tensors, path)
