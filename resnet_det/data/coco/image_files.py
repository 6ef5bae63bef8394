"""The image files that an annotation file names: whether they are there, and under which name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from resnet_det.data.coco import CocoData
from resnet_det.errors import InputError
from resnet_det.images.pages import find_file, list_pages

MAX_NAMED = 3  # examples named in a message


def check_images(data: CocoData, image_folder: str | os.PathLike[str]) -> list[str]:
    """Problems with the folder of images, or with images that are not in it."""
    folder = Path(image_folder)
    if not folder.is_dir():
        return [f"no image folder {folder}"]
    present = {entry.name for entry in os.scandir(folder)}
    names = [image["file_name"] for image in data.images]
    missing = [name for name in names if name not in present and not find_file(folder / name).is_file()]
    if not missing:
        return _check_pages(folder, [name for name in names if name not in present])
    found = sum((folder / PureWindowsPath(name).name).is_file() for name in missing)
    hint = f"; {found} are there without the folders in their names" if found else ""
    examples = ", ".join(missing[:MAX_NAMED])
    return [f"{len(missing)} of {len(names)} images are not in {folder} (such as {examples}){hint}"]


def _check_pages(folder: Path, names: Sequence[str]) -> list[str]:
    """Pages that the stacks which are there do not have; each stack is opened once."""
    pages: dict[Path, set[str]] = {}
    missing = []
    for name in names:
        file = find_file(folder / name)
        if file == folder / name:
            continue
        if file not in pages:
            try:
                pages[file] = set(list_pages(file))
            except InputError as error:
                return [str(error)]
        if str(folder / name) not in pages[file] and not (len(pages[file]) == 1 and name.endswith("#0")):
            missing.append((name, len(pages[file])))
    if not missing:
        return []
    name, count = missing[0]
    told = f"{count} pages, counted from 0" if count > 1 else "one page, 0"
    return [f"{len(missing)} images are pages that their files do not have (such as {name}: {told})"]
