"""COCO annotation files on their way to other layouts: what is read of them, and where their images go."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from resnet_det.data.coco import CocoData, read_coco
from resnet_det.data.coco.image_files import check_images
from resnet_det.data.formats.shapes import ROUNDING_PX
from resnet_det.errors import InputError
from resnet_det.images.pages import find_file
from resnet_det.outputs import link_file

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class ExportedSet:
    """One annotation file.

    Args:
        name: of its split.
        file_names: what its images are called in the new folder, in the order of ``data.images``.
        counts: what is not as in the file any more, and how often.
    """

    name: str
    data: CocoData
    image_folder: Path
    file_names: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def objects_of(self) -> Iterator[tuple[int, list[int]]]:
        """For each image its place, and the rows of its usable annotations."""
        rows: list[list[int]] = [[] for _ in self.data.images]
        for row, image in enumerate(self.data.image.tolist()):
            rows[image].append(row)
        return enumerate(rows)


def read_sets(pairs: Sequence[tuple[str, str]], split_names: Sequence[str] = ()) -> list[ExportedSet]:
    """Read annotation files with their image folders.

    Args:
        split_names: train, val or test for each; if not given, as their paths tell.

    Raises:
        InputError: a file has errors or cannot be read, images are missing, splits cannot be told, or the files do not
            have the same classes.
    """
    names = list(split_names) or [_guess_split(Path(annotations)) for annotations, _ in pairs]
    if len(names) != len(pairs) or len(set(names)) < len(names) or not set(names) <= set(SPLITS):
        told = ", ".join(name or "unknown" for name in names)
        raise InputError(
            f"--splits: the splits are {told}; one of train, val and test for each --annotations, each once"
        )
    sets = []
    for name, (file, images) in zip(names, pairs, strict=True):
        data = read_coco(file, images)
        data.raise_problems(file, more=check_images(data, images))
        unknown = [image["file_name"] for image in data.images if not (image["width"] and image["height"])]
        if unknown:
            raise InputError(f"{file}: the size of {unknown[0]} is not known, and its file cannot be read")
        sets.append(ExportedSet(name, data, Path(images)))
    for other in sets[1:]:
        if other.data.class_names != sets[0].data.class_names:
            first = sets[0].data
            raise InputError(
                f"{pairs[0][0]} and {other.data.path} do not have the same classes: {first.class_names} and "
                f"{other.data.class_names}"
            )
    return sets


def _guess_split(file: Path) -> str:
    """Train, val or test, if a word of the file's name or the whole name of its folder is one of these; else ""."""
    words = re.findall("[a-z]+", file.stem.lower())
    for found in (
        {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS},
        {SPLIT_WORDS.get(file.parent.name.lower())},
    ):
        if len(found) == 1:
            return found.pop() or ""
    return ""


def clip_box(one: ExportedSet, row: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what of a box is in its image, in pixels."""
    height, width = one.data.sizes[one.data.image[row]].tolist()
    x, y, w, h = one.data.box[row].tolist()
    if max(-x, -y, x + w - width, y + h - height) > ROUNDING_PX:
        one.counts["boxes that reach outside their image: clipped"] += 1
    return max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)


def place_images(one: ExportedSet, folder: Path, *, flat: bool, taken: set[str]) -> None:
    """Link or copy the images of a set to ``folder``, under the names of :func:`name_images`.

    Raises:
        InputError: an image is a page of a stack.
    """
    name_images(one, flat=flat, taken=taken)
    for image, name in zip(one.data.images, one.file_names, strict=True):
        path = one.image_folder / image["file_name"]
        if find_file(path) != path:
            raise InputError(
                f"{one.data.path}: {image['file_name']} is a page of a stack, and this format has a file for each "
                "image; write the pages as files of their own"
            )
        link_file(path, folder / name)


def name_images(one: ExportedSet, *, flat: bool, taken: set[str]) -> None:
    """Set ``file_names`` of a set: what its images are called in a new folder.

    What is made of an image is called as that, without the suffix, so that no two may differ in that alone.

    Args:
        flat: without the folders in their names.
        taken: names without suffix that are in use; those of this set are added.
    """
    one.file_names.clear()
    for image in one.data.images:
        path = PurePath(image["file_name"])
        name = path.name if flat or path.is_absolute() or ".." in path.parts else str(path)
        stem, suffix = os.path.splitext(name)
        free, number = stem, 2
        while free in taken:
            free, number = f"{stem}-{number}", number + 1
        if free != stem:
            one.counts["images with a new name, as another has theirs"] += 1
        taken.add(free)
        one.file_names.append(free + suffix)


def describe_export(one: ExportedSet) -> Iterator[str]:
    """What of a set is not as in its file any more, line by line; after it was written."""
    for what, count in one.data.left_out().items():
        if what != "objects: crowd region":
            yield f"{count} {what}: left out"
    yield from (f"{count} {what}" for what, count in (+one.counts).items())
