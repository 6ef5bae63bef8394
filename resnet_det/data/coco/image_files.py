"""The image files that an annotation file names: whether they are there, and under which name."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from resnet_det.data.coco import CocoData

MAX_NAMED = 3  # examples named in a message


def check_images(data: CocoData, image_folder: str | os.PathLike[str]) -> list[str]:
    """Problems with the folder of images, or with images that are not in it."""
    folder = Path(image_folder)
    if not folder.is_dir():
        return [f"no image folder {folder}"]
    present = {entry.name for entry in os.scandir(folder)}
    names = [image["file_name"] for image in data.images]
    missing = [name for name in names if name not in present and not (folder / name).is_file()]
    if not missing:
        return []
    found = sum((folder / PureWindowsPath(name).name).is_file() for name in missing)
    hint = f"; {found} are there without the folders in their names" if found else ""
    examples = ", ".join(missing[:MAX_NAMED])
    return [f"{len(missing)} of {len(names)} images are not in {folder} (such as {examples}){hint}"]
