"""The files that annotation tools leave: which ones are theirs, and the images that they name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from resnet_det.data.formats.labels import IMAGE_SUFFIXES, LabelledObject, Split
from resnet_det.errors import InputError
from resnet_det.images.pages import find_file
from resnet_det.images.size import read_image_size

IMAGE_FOLDERS = ("images", "image", "imgs", "jpegimages")  # in any case
Shape = TypeVar("Shape")
Found = tuple[Path, tuple[int, int], list[LabelledObject]]


def find_files(source: Path, suffix: str, is_one: Callable[[Path], bool], what: str) -> dict[str, Path]:
    """The annotation files that ``source`` is or has in it, by the name of their split: its stem, or its folder's name
    where stems are the same (train/labels.json, val/labels.json).

    Args:
        is_one: whether a file is of the tool in question.
        what: what the files are called in the message.

    Raises:
        InputError: there is none.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")
    files = [source] if source.is_file() else sorted(source.rglob(f"*{suffix}"))
    files = [file for file in files if is_one(file)]
    if not files:
        raise InputError(f"{source}: {'not a' if source.is_file() else 'no'} {what}")
    stems = [file.stem for file in files]
    for names in (stems, [file.parent.name for file in files]):
        if len(set(names)) == len(files) and not (len(files) > 1 and any(name.startswith("_") for name in names)):
            return dict(zip(names, files, strict=True))
    names = ["_".join(file.relative_to(source).with_suffix("").parts) for file in files]
    return dict(zip(names, files, strict=True))


def image_folders(file: Path, told: Path | None) -> list[Path]:
    """Where the images of an annotation file may be: the folder that the user named, else its own, a folder "images" in
    it or beside it, or one that is called as a word of its name (train/ beside train_labels.csv)."""
    if told is not None:
        if not told.is_dir():
            raise InputError(f"--images {told}: no such folder")
        return [told]
    words = (*IMAGE_FOLDERS, *re.findall("[a-z]+", file.stem.lower()))
    places = [file.parent, file.parent.parent]
    inside = [
        path for place in places for path in sorted(place.iterdir()) if path.is_dir() and path.name.lower() in words
    ]
    return list(dict.fromkeys([places[0], *inside, places[1]]))


def find_image(name: Any, folders: Iterable[Path]) -> Path:
    """The image file that an annotation names, with its folders or, of another machine, without them; a name may lack
    its suffix, and may name a page of a stack (``stack.tif#3``).

    Raises:
        InputError: it is not there.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"its image is called {name!r}; a file name would be right")
    path = Path(name.strip().replace("\\", "/"))
    folders = list(folders)
    for folder in folders:
        for one in (folder / path, folder / path.name):
            if find_file(one).is_file():
                return one
    found = None if path.suffix.lower() in IMAGE_SUFFIXES else find_image_of(path.name, folders)
    if found is not None:
        return found
    raise InputError(f"no image {path.name} in {', '.join(map(str, folders))}")


def find_image_of(stem: str, folders: Iterable[Path]) -> Path | None:
    """The image of a file's own name."""
    suffixes = [case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper())]
    paths = (folder / f"{stem}{suffix}" for folder in folders for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def check_size(path: Path, told: Sequence[Any] = (0, 0)) -> tuple[int, int]:
    """Width and height of an image, which those that an annotation tells must be, if it does.

    Raises:
        InputError: it cannot be read, or has another size.
    """
    size = read_image_size(path)
    if all(isinstance(side, int | float) and side > 0 for side in told) and tuple(told) != size:
        raise InputError(f"the size is {told[0]:g} x {told[1]:g}, but {path} has {size[0]} x {size[1]} pixels")
    return size


def find_folder(folder: Path, names: Sequence[str]) -> Path | None:
    """The sub-folder of the first of ``names``, in any case, that is there."""
    present = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    return next((present[name] for name in names if name in present), None)


def read_each(
    shapes: Iterable[tuple[str, Shape]], read: Callable[[Shape], LabelledObject | None], split: Split
) -> list[LabelledObject]:
    """The objects that ``read`` makes of shapes. One that cannot be read is left out, which is said.

    Args:
        shapes: each with its place, for the message.
        read: gives None for what is no object.
    """
    objects = []
    for where, shape in shapes:
        try:
            one = read(shape)
        except InputError as error:
            split.left_out.append(f"{where}: {error}")
            continue
        if one is not None:
            objects.append(one)
    return objects


def leave_out(split: Split, where: str, error: Exception, num_objects: int) -> None:
    """Say that an image is left out, and how many objects with it."""
    split.left_out.append(f"{where}: {error}" + (f"; {num_objects} objects left out with it" if num_objects else ""))
