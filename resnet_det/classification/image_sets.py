"""Images with a class each: folders by class, tar files, and CIFAR's own files."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from resnet_det.classification.cifar import find_cifar_files, read_cifar
from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.data.loading.serialized import SerializedDicts
from resnet_det.data.mapping.fast_image import decode_bgr
from resnet_det.errors import InputError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
_BLOCK = 512  # of a tar file, which ends with blocks of zeros


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes.

    Attributes:
        name: the path they were found at.
        classes: names, by the number that a label is.
        labels: of each image, (N,) int64.
        dicts: an entry for each image: "file_name", "label", "place" among the images, and where it is in a tar file.
        pixels: the images, (N, H, W, C) uint8 in RGB order, if they are in memory.
        problems: by place, what was wrong with images in memory for which others stand in.
    """

    name: str
    classes: tuple[str, ...]
    labels: np.ndarray
    dicts: SerializedDicts
    pixels: np.ndarray | None = None
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.dicts)

    def read(self, entry: dict[str, Any], *, grey: bool = False) -> np.ndarray:
        """An image as (H, W, 3) in RGB order, or (H, W, 1).

        Raises:
            InputError: it cannot be read; the message names it.
        """
        if self.pixels is not None:
            image = self.pixels[entry["place"]]
            return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if grey and image.shape[2] == 3 else image
        name = entry["file_name"]
        data = _read_bytes(entry)
        if grey:
            return _decode_grey(data, name)
        return cv2.cvtColor(decode_bgr(data, name), cv2.COLOR_BGR2RGB)


def load_image_set(path: str | Path, *, split: str = "train") -> ImageSet:
    """The images at ``path``, which are read when they are wanted; CIFAR's are in memory.

    Args:
        path: a folder with a folder of images for each class; a tar file of class/name.jpg, or of key.jpg and key.cls
            (WebDataset), or a folder of such shards; a folder with CIFAR's files as they are published, or one file.
            Classes of folders and tar files are numbered by their names sorted as text ("10" before "2"), CIFAR's as
            its files number them.
        split: "train" or "test": which of CIFAR's files of a folder are meant.

    Raises:
        InputError: there is no such data, they are damaged, a class has no images, or there is only one class.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder of images")
    cifar_files = find_cifar_files(path, split)
    if cifar_files:
        found = _from_cifar(path, cifar_files)
    elif path.is_dir() and not (shards := sorted(path.glob("*.tar"))):
        found = _from_folders(path)
    elif path.is_dir():
        found = _from_tars(path, shards)
    else:
        found = _from_tars(path, [path])
    _check_classes(found)
    return found


def find_splits(root: str | Path) -> tuple[str, str]:
    """The paths of the images to train on and to test on in one folder: root/train, and root/val or root/test, as
    folders or tar files. CIFAR's files stand for both.

    Raises:
        InputError: there is one of them alone, or neither.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"--data {root}: no such folder")
    if find_cifar_files(root, "train") and find_cifar_files(root, "test"):
        return str(root), str(root)

    def first(*names: str) -> str | None:
        candidates = [root / f"{name}{suffix}" for name in names for suffix in ("", ".tar")]
        return next((str(path) for path in candidates if path.exists()), None)

    train, test = first("train"), first("val", "validation", "test")
    if train is None or test is None:
        lacking = "train" if train is None else "val or test"
        raise InputError(
            f"--data {root}: there is no {lacking} in it. Folders (or .tar files) train and val, or train and test, "
            "would be right; --train-data and --test-data name other ones"
        )
    return train, test


def _check_classes(images: ImageSet) -> None:
    if not len(images):
        raise InputError(f"{images.name}: there are no images (files that end in {', '.join(sorted(IMAGE_SUFFIXES))})")
    counts = np.bincount(images.labels, minlength=len(images.classes))
    empty = [name for name, count in zip(images.classes, counts, strict=True) if not count]
    if empty:
        raise InputError(
            f"{images.name}: no images of {_some(empty)}; {len(images.classes)} classes are there. Take the folder of "
            "an empty class away, here and where you test, or fill it"
        )
    if len(images.classes) < 2:
        raise InputError(
            f"{images.name}: one class only ({images.classes[0]}), and a classifier tells two or more apart. Is this "
            "the folder that holds a folder for each class?"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _from_folders(root: Path) -> ImageSet:
    """torchvision's ImageFolder: classes are the folders in ``root``, numbered by their sorted names."""
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not classes:
        raise InputError(f"{root}: there are no folders in it; one for each class would be right, with its images")
    if {name.lower() for name in classes} <= _SPLITS:
        raise InputError(
            f"{root} holds {_some(classes)}, which are no classes: name one of them, such as {root / classes[0]}, or "
            "give the whole as --data"
        )
    files = [(file, label) for label, name in enumerate(classes) for file in _find_images(root / name)]
    dicts = ({"file_name": file, "label": label} for file, label in files)
    return _make(str(root), classes, [label for _, label in files], dicts)


def _find_images(folder: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(directory, name)


def _from_cifar(path: Path, files: Sequence[Path]) -> ImageSet:
    pixels, labels, classes, names = read_cifar(files)
    dicts = ({"file_name": name, "label": label} for name, label in zip(names, labels.tolist(), strict=True))
    return _make(str(path), classes, labels, dicts, pixels=pixels)


def _from_tars(path: Path, shards: Sequence[Path]) -> ImageSet:
    """What a class is called is what the folder of its images is called, or what their .cls files hold."""
    members: list[dict[str, Any]] = []
    keys: dict[str, str] = {}
    for shard in shards:
        members += _list_members(shard, keys)
    if keys:
        without = [entry["file_name"] for entry in members if entry["key"] not in keys]
        if without:
            raise InputError(f"{path}: no .cls beside {_some(without)}, as there is beside others")
        names = [keys[entry["key"]] for entry in members]
    else:
        names = [Path(entry["file_name"]).parent.name for entry in members]
        if not all(names):
            raise InputError(f"{path}: {members[names.index('')]['file_name']} is in no folder, which is its class")
    classes = sorted(set(names))  # as text, numbers too: the order that folders of the same names have
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [numbers[name] for name in names]
    dicts = (
        {**{key: entry[key] for key in ("tar", "offset", "size")}, "file_name": f"{entry['tar']}: {entry['file_name']}"}
        | {"label": label}
        for entry, label in zip(members, labels, strict=True)
    )
    return _make(str(path), classes, labels, dicts)


def _list_members(shard: Path, keys: dict[str, str]) -> list[dict[str, Any]]:
    """Where the images of a tar file are in it; what its .cls files hold goes into ``keys``."""
    if shard.name.endswith(_COMPRESSED):
        raise InputError(f"{shard}: compressed, so that images in the middle cannot be had: unpack it, or to a .tar")
    found, end = [], 0
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as file:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if not member.isfile():
                    continue
                folder, name = os.path.split(member.name)
                if name.startswith("."):  # such as those of macOS, which are no images
                    continue
                stem, _, suffix = name.partition(".")
                key = f"{shard}/{folder}/{stem}"
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                    found.append({"tar": str(shard), "offset": member.offset_data, "size": member.size, "key": key})
                    found[-1]["file_name"] = member.name
                elif suffix == "cls":
                    file.seek(member.offset_data)
                    keys[key] = file.read(member.size).decode().strip()
            file.seek(end)
            # tarfile takes anything that is no header for the end of the file.
            if end > shard.stat().st_size or file.read(_BLOCK).strip(b"\0"):
                raise tarfile.ReadError("cut off, or damaged in the middle")
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise InputError(f"{shard}: not a whole tar file of images ({error})") from None
    return found


def _make(
    name: str,
    classes: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    dicts: Iterable[dict[str, Any]],
    pixels: np.ndarray | None = None,
) -> ImageSet:
    entries = SerializedDicts({**entry, "place": place} for place, entry in enumerate(dicts))
    return ImageSet(name, tuple(classes), np.asarray(labels, dtype=np.int64), entries, pixels)


def _read_bytes(entry: dict[str, Any]) -> bytes:
    try:
        if "tar" not in entry:
            return Path(entry["file_name"]).read_bytes()
        with open(entry["tar"], "rb") as file:
            file.seek(entry["offset"])
            return file.read(entry["size"])
    except OSError as error:
        raise InputError(f"{entry['file_name']}: {error.strerror}") from None


def _decode_grey(data: bytes, name: str) -> np.ndarray:
    return cv2.cvtColor(decode_bgr(data, name), cv2.COLOR_BGR2GRAY)[..., None]
