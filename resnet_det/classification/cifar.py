"""CIFAR-10 and CIFAR-100 as they are published: pickled batches ("python version") or bytes ("binary version")."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from resnet_det.errors import InputError
from resnet_det.pickles import read_pickled_arrays

_PIXELS = 3 * 32 * 32
# By split: names of the files of CIFAR-10 and CIFAR-100, pickled and binary.
_FILES = {
    "train": ("data_batch_[1-9]", "train", "data_batch_[1-9].bin", "train.bin"),
    "test": ("test_batch", "test", "test_batch.bin", "test.bin"),
}
_KNOWN = [pattern for patterns in _FILES.values() for pattern in patterns]
# Where names of the classes stand, and under which key of a pickle.
_NAMES = {
    "batches.meta": "label_names",
    "meta": "fine_label_names",
    "batches.meta.txt": "",
    "fine_label_names.txt": "",
}


def find_cifar_files(path: Path, split: str) -> list[Path]:
    """CIFAR's files of ``split`` ("train" or "test") in a folder, or ``path`` if it is one of them; else none."""
    if path.is_file():
        return [path] if any(path.match(pattern) for pattern in _KNOWN) else []
    for pattern in _FILES[split]:
        found = sorted(file for file in path.glob(pattern) if file.is_file())
        if found:
            return found
    return []


def read_cifar(files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """The images (N, 32, 32, 3) uint8 in RGB order, their labels (N,) int64, names of the classes, and of the images.

    CIFAR-100 has its 100 fine classes; without the file of names, numbers are the names.

    Raises:
        InputError: a file is damaged, or not one of CIFAR's.
    """
    read = [_read_binary(file) if file.suffix == ".bin" else _read_pickle(file) for file in files]
    pixels = np.concatenate([pixels for pixels, _ in read]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = np.concatenate([labels for _, labels in read])
    names = _read_names(files[0].parent)
    if names is None:
        names = [str(number) for number in range(labels.max() + 1)]
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(f"{files[0].parent}: labels from {labels.min()} to {labels.max()}, and {len(names)} classes")
    places = [
        f"{file.name}:{number}" for file, (_, found) in zip(files, read, strict=True) for number in range(len(found))
    ]
    return np.ascontiguousarray(pixels), labels, names, places


def _read_pickle(file: Path) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickled_arrays(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: not one of CIFAR's files: it holds a {type(content).__name__}")
    pixels, labels = content.get("data"), content.get("labels", content.get("fine_labels"))
    is_sound = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape[1:] == (_PIXELS,)
    if not is_sound or not isinstance(labels, list | np.ndarray) or len(labels) != len(pixels):
        raise InputError(
            f"{file}: not one of CIFAR's files: 'data' (N, {_PIXELS}) and 'labels' or 'fine_labels' (N) would be right"
        )
    return pixels, np.asarray(labels, dtype=np.int64)


def _read_binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a label and the pixels; CIFAR-100's have the coarse label before the fine one."""
    labels = 2 if file.name in ("train.bin", "test.bin") else 1
    data = np.fromfile(file, dtype=np.uint8)
    if not len(data) or len(data) % (labels + _PIXELS):
        raise InputError(f"{file}: {len(data)} bytes are no whole number of images of {labels + _PIXELS} bytes")
    rows = data.reshape(-1, labels + _PIXELS)
    return rows[:, labels:], rows[:, labels - 1].astype(np.int64)


def _read_names(folder: Path) -> list[str] | None:
    for name, key in _NAMES.items():
        path = folder / name
        if path.is_file():
            names = read_pickled_arrays(path).get(key) if key else path.read_text().split()
            if isinstance(names, list):
                return [str(name) for name in names]
    return None
