"""Read and write files of weights. What a file is, its content tells, not its suffix. Nothing in a file is ever run."""

from __future__ import annotations

import io
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from resnet_det.errors import InputError
from resnet_det.pickles import RefusedError, make_pickle_module, read_pickled_arrays, refuse
from resnet_det.weights.wrappers import find_tensors, without_passed_over

logger = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".pyth", ".pkl", ".safetensors")  # that are written
READABLE = "files of torch.save, pickled arrays and safetensors, whatever their suffix"

_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # with which torch.save before 1.6 begins
# How files begin that are often taken for weights, and what they are.
_OTHER_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file: `git lfs pull` fetches that",
    b"<": "a web page or XML: the download has failed, or the address was that of a page about the file",
    b"\x89HDF": "an HDF5 file (of Keras, say)",
    b"\x93NUMPY": "a single NumPy array",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"GGUF": "a GGUF file",
}
_HEAD_BYTES = 512

# What files of this package say beside their tensors of how these were trained, as JSON (see conventions.py): a key of
# a safetensors file's metadata, or beside "model".
TRAINED_WITH = "resnet_det.trained_with"


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights, on the CPU. See :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a file of weights, on the CPU, and what else is in it (an optimizer's state, the iteration, ...).

    Args:
        path: a file of torch.save, pickled arrays (Detectron2's and Caffe2's) or safetensors, of any suffix. Where a
            training program has wrapped its weights, they are found; objects of that program are passed over.

    Raises:
        InputError: there is no such file; it is damaged, of another kind, or holds no tensors; it asks for something
            that may run, which is then named and not run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder; name the file in it' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    _check_kind(path, head)
    if _is_safetensors(head):
        try:
            with safe_open(path, "pt") as opened:
                metadata = opened.metadata() or {}
            extra = {TRAINED_WITH: metadata[TRAINED_WITH]} if TRAINED_WITH in metadata else {}
            return safetensors.torch.load_file(path), extra
        except SafetensorError as error:
            raise InputError(f"{path}: not a safetensors file, or cut off: {error}") from None
    passed_over: set[str] = set()
    try:
        if zipfile.is_zipfile(path) or head.startswith((b"PK\x03\x04", _LEGACY_MAGIC)):
            with path.open("rb") as file:  # by its path, torch.load would go by the suffix
                content = _read_torch(file, path, passed_over)
        else:
            content = read_pickled_arrays(path, also=_make_allowed(passed_over), passed_over=passed_over)
    except RefusedError as error:
        raise InputError(
            f"{path}: {error}. Weights are tensors in plain containers; let whoever made the file save those alone."
        ) from None
    tensors, extra = find_tensors(content, path, passed_over)
    if passed_over:
        logger.info("%s: passed over, and not run: %s", path, ", ".join(sorted(passed_over)))
    return tensors, without_passed_over(extra)


def _check_kind(path: Path, head: bytes) -> None:
    """
    Raises:
        InputError: a file of that beginning is known to be something else.
    """
    if not head:
        raise InputError(f"{path}: the file is empty")
    text = head.lstrip().lower()
    for start, kind in _OTHER_KINDS.items():
        if text.startswith(start.lower()):
            raise InputError(f"{path}: {kind}. Weights are read from {READABLE}")
    if head[257:262] == b"ustar":
        raise InputError(f"{path}: an archive of tar: unpack it. Weights are read from {READABLE}")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if "constants.pkl" in names:
            raise InputError(
                f"{path}: TorchScript, which is a program with its weights: in Python, "
                "torch.save(torch.jit.load(file).state_dict(), new_file) saves these alone"
            )
        if "data.pkl" not in names:
            raise InputError(f"{path}: a zip archive of {', '.join(names[:3])}: unpack it, if there are weights in it")


def _is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and its brace."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 32


def _read_torch(file: BinaryIO, where: Path | str, passed_over: set[str]) -> Any:
    """What torch.save has written, by this package's unpickler.

    Args:
        where: what the file is called in errors.

    Raises:
        RefusedError: it asks for something that may run.
        InputError: it is damaged.
    """
    unpickler = make_pickle_module(_make_allowed(passed_over), passed_over)
    try:
        return torch.load(file, map_location="cpu", weights_only=False, pickle_module=unpickler)
    except RefusedError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: not a file of torch.save, or cut off: {reason}") from None


def _make_allowed(passed_over: set[str]) -> dict[tuple[str, str], Any]:
    """What of torch's may be made: tensors, sizes, devices, types of numbers."""

    def load_storage(data: Any) -> Any:
        """What a tensor becomes in a plain pickle: a file of torch.save inside the file."""
        if not isinstance(data, bytes):
            refuse("torch.storage._load_from_bytes")
        return _read_torch(io.BytesIO(data), "a tensor", passed_over)

    return {**_TORCH, ("torch.storage", "_load_from_bytes"): load_storage}


def _rebuild_parameter(tensor: torch.Tensor, *_: object) -> torch.Tensor:
    return tensor


def _rebuild_from_type(rebuild: Any, _: type, arguments: tuple, __: object) -> Any:
    """A tensor with attributes of its own, without these."""
    return rebuild(*arguments)


_TORCH: dict[tuple[str, str], Any] = {
    **{
        ("torch", str(value).removeprefix("torch.")): value
        for value in vars(torch).values()
        if isinstance(value, torch.dtype)
    },
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch", "Tensor"): torch.Tensor,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): torch._utils._rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
}


def keep_what_has_room(extra: dict[str, Any], path: Path, *, strip: bool = False) -> dict[str, Any]:
    """What of ``extra``, of :func:`read_checkpoint`, a file with the suffix of ``path`` can hold beside the weights.

    Args:
        strip: of what can, keep how the weights were trained alone.
    """
    if path.suffix == ".pkl":
        return {}
    if strip or path.suffix == ".safetensors":
        return {key: value for key, value in extra.items() if key == TRAINED_WITH}
    return extra


def write_tensors(tensors: dict[str, torch.Tensor], path: str | Path, *, extra: dict[str, Any] | None = None) -> None:
    """Write ``tensors`` to a .pth, .pt, .pyth, .pkl or .safetensors file.

    .pkl is Detectron2's format (arrays under "model"); .pth holds the tensors alone, or with ``extra`` both;
    .safetensors has room for ``TRAINED_WITH`` alone.

    Raises:
        InputError: the suffix is none of these, or ``extra`` is given for a format that holds tensors alone.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: weights are written to {', '.join(SUFFIXES)}")
    if extra and keep_what_has_room(extra, path) != extra:
        raise InputError(f"{path}: only .pth, .pt and .pyth hold more than weights: strip the optimizer's state")
    tensors = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path, metadata=extra or None)
    elif path.suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "resnet_det", "matching_heuristics": True}))
    else:
        torch.save({"model": tensors, **extra} if extra else tensors, path)
