"""What can be wrong with a data set in COCO format, found before time is spent on training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from resnet_det.data.json_files import read_json
from resnet_det.errors import InputError

NEEDED_BY = {"segmentation": "MODEL.MASK_ON or RESNET_DET.DATA.COPY_PASTE", "keypoints": "MODEL.KEYPOINT_ON"}
MAX_NAMED = 3  # examples named in a message


def read_coco_json(annotation_file: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a COCO annotation file.

    Raises:
        InputError: the file is missing, is not JSON, or lacks images, annotations or categories.
    """
    path = find_annotation_file(annotation_file)
    content = read_json(path)
    wanted = ("images", "annotations", "categories")
    lacking = [key for key in wanted if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise InputError(f"{path}: not in COCO format: no list under {', '.join(lacking)}")
    return content


def find_annotation_file(annotation_file: str | os.PathLike[str]) -> Path:
    """
    Raises:
        InputError: it is not there.
    """
    path = Path(annotation_file)
    if not path.is_file():
        raise InputError(
            f"{path}: no such annotation file (folder {'exists' if path.parent.is_dir() else 'is missing, too'})"
        )
    return path


def check_coco(
    content: dict[str, Any], image_folder: str | os.PathLike[str] | None, needed: Sequence[str] = ()
) -> list[str]:
    """Problems of a COCO data set that would stop a training run or falsify it, missing images among them.

    Args:
        image_folder: None if no images are needed.
        needed: what each annotation must have besides its box, such as "segmentation".
    """
    problems = []
    if not content["images"]:
        problems.append("it has no images")
    if not content["categories"]:
        problems.append("it has no categories")
    image_ids = {image.get("id") for image in content["images"]}
    category_ids = {category.get("id") for category in content["categories"]}
    annotations = content["annotations"]
    for what, wrong in (
        (
            "images without id, file_name, height or width",
            _lacking(content["images"], "id", "file_name", "height", "width"),
        ),
        (
            "annotations without id, image_id, category_id or bbox",
            _lacking(annotations, "id", "image_id", "category_id", "bbox"),
        ),
        ("annotations of unknown image_id", (a["id"] for a in annotations if a.get("image_id", None) not in image_ids)),
        (
            "annotations of unknown category_id",
            (a["id"] for a in annotations if a.get("category_id") not in category_ids),
        ),
        ("annotations with an id used before", _repeated(a.get("id") for a in annotations)),
        ("images with an id used before", _repeated(image.get("id") for image in content["images"])),
        (
            "annotations whose bbox is not [x, y, width, height]",
            (a["id"] for a in annotations if not _is_box(a.get("bbox"))),
        ),
    ):
        examples = list(wrong)
        if examples:
            problems.append(f"{len(examples)} {what} (such as {_name(examples)})")
    for key in needed:
        lacking = list(_lacking(annotations, key))
        if lacking:
            problems.append(
                f"{len(lacking)} of {len(annotations)} annotations have no {key} (such as {_name(lacking)}), which "
                f"{NEEDED_BY[key]} asks for"
            )
    return problems or ([] if image_folder is None else check_images(content, image_folder))


def check_images(content: dict[str, Any], image_folder: str | os.PathLike[str]) -> list[str]:
    """Problems with the folder of images, or with images that are not in it."""
    folder = Path(image_folder)
    if not folder.is_dir():
        return [f"no image folder {folder}"]
    present = {entry.name for entry in os.scandir(folder)}
    names = [image["file_name"] for image in content["images"]]
    missing = [name for name in names if name not in present and not (folder / name).is_file()]
    if missing:
        return [f"{len(missing)} of {len(names)} images are not in {folder} (such as {_name(missing)})"]
    return []


def _lacking(items: list[dict], *keys: str) -> Iterable[str]:
    return (
        str(item.get("id", f"number {index}"))
        for index, item in enumerate(items)
        if not all(key in item for key in keys)
    )


def _repeated(ids: Iterable[Any]) -> Iterable[Any]:
    seen = set()
    for value in ids:
        if value in seen:
            yield value
        seen.add(value)


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)


def _name(examples: list[Any]) -> str:
    return ", ".join(map(str, examples[:MAX_NAMED]))
