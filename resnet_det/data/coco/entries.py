"""The images and categories of an annotation file: their ids, names and sizes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from resnet_det.data.coco.fields import id_order, is_absent, read_id, read_size
from resnet_det.data.coco.problems import Finding
from resnet_det.errors import InputError
from resnet_det.images.size import read_image_size


class Findings:
    """Collects what is wrong with the entries of one list, kind by kind, with a text for each."""

    def __init__(self, section: str) -> None:
        self.section = section
        self.texts: dict[str, dict[int, str]] = {}

    def add(self, kind: str, place: int, text: str) -> None:
        texts = self.texts.setdefault(kind, {})
        texts[place] = f"{texts[place]}; {text}" if place in texts else text

    def collect(self) -> list[Finding]:
        return [
            Finding(kind, self.section, np.array(sorted(texts), dtype=np.int64), texts.__getitem__)
            for kind, texts in self.texts.items()
        ]


def read_images(
    entries: Sequence[Any], folder: str | os.PathLike[str] | None
) -> tuple[list[dict[str, Any]], np.ndarray, list[Finding]]:
    """The usable images, sorted by id, their places in the file, and what is wrong.

    Each has an id, a file name, and a height and width in pixels, which are 0 where neither the file nor, in
    ``folder``, the image tells them.
    """
    findings = Findings("images")
    usable = []
    for place, entry in enumerate(entries):
        image = _read_image(entry, place, folder, findings)
        if image is not None:
            usable.append((place, image))
    for place, first in find_repeated((place, image["id"]) for place, image in usable):
        findings.add("duplicate-image-id", place, f"its id is that of images[{first}], too; each needs its own")
    return (*_sort(usable), findings.collect())


def _read_image(entry: Any, place: int, folder: Any, findings: Findings) -> dict[str, Any] | None:
    if not isinstance(entry, dict):
        findings.add("malformed-entry", place, f"it is {entry!r:.40}; an object would be right")
        return None
    image_id, name = entry.get("id"), entry.get("file_name")
    changes: dict[str, Any] = {}
    if type(image_id) is not int:
        changes["id"] = read_id(image_id)
    if changes.get("id", 0) is None:
        findings.add("malformed-entry", place, f"its id is {image_id!r:.40}; a whole number would be right")
        return None
    if not isinstance(name, str) or not name:
        text = f"its file_name is {name!r:.40}; the path of a file in the image folder would be right"
        findings.add("malformed-entry", place, text)
        return None
    if "\\" in name and folder is not None:
        changes.update(_find_windows_file(Path(folder), name, place, findings))
    for key in ("height", "width"):
        value = entry.get(key)
        if type(value) is int and value > 0:
            continue
        changes[key] = read_size(value) or 0
        if changes[key] and not isinstance(value, float):
            findings.add("other-form", place, f"its {key} is {value!r:.40}; {changes[key]} would be right")
        elif not changes[key] and not is_absent(value) and value != 0:
            text = f"its {key} is {value!r:.40}; a number of pixels would be right"
            findings.add("malformed-entry", place, text)
            return None
    image = {**entry, **changes} if changes else entry
    if not (image["height"] and image["width"]):
        image = {**image, **_find_size(folder, image["file_name"])}
        told = f"it is {image['width']}x{image['height']}" if image["width"] else "its file cannot be read either"
        findings.add("missing-size", place, f"neither height nor width: {told}")
    return image


def _find_windows_file(folder: Path, name: str, place: int, findings: Findings) -> dict[str, str]:
    """The name of the file that a path with backslashes means, if it is not there as it is written."""
    if (folder / name).is_file():
        return {}
    path = PureWindowsPath(name)
    meant = next((one for one in (path.as_posix(), path.name) if (folder / one).is_file()), None)
    if meant is None:
        return {}
    findings.add("other-form", place, f"its file_name is {name!r}, which is taken for {meant!r}")
    return {"file_name": meant}


def _find_size(folder: Any, name: str) -> dict[str, int]:
    """Both sides of an image file; 0 where it cannot be told."""
    if folder is None:
        return {"height": 0, "width": 0}
    try:
        width, height = read_image_size(Path(folder, name))
    except InputError:
        return {"height": 0, "width": 0}
    return {"height": height, "width": width}


def read_categories(entries: Sequence[Any]) -> tuple[list[dict[str, Any]], np.ndarray, list[Finding]]:
    """The usable categories, sorted by id, their places in the file, and what is wrong.

    Each has an id and a name of its own.
    """
    findings = Findings("categories")
    usable = []
    for place, entry in enumerate(entries):
        category_id = read_id(entry.get("id")) if isinstance(entry, dict) else None
        if category_id is None:
            what = (
                f"its id is {entry.get('id')!r:.40}; a whole number"
                if isinstance(entry, dict)
                else f"it is {entry!r:.40}; an object"
            )
            findings.add("malformed-entry", place, f"{what} would be right")
            continue
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            said = str(category_id if is_absent(name) else name)
            findings.add("other-form", place, f"its name is {name!r:.40}: it is called {said!r}; a text would be right")
            name = said
        usable.append((place, {**entry, "id": category_id, "name": name}))
    for place, first in find_repeated((place, category["id"]) for place, category in usable):
        text = f"its id is that of categories[{first}], too; each needs its own"
        findings.add("duplicate-category-id", place, text)
    counts = Counter(name for _, name in {(category["id"], category["name"]) for _, category in usable})
    for place, category in usable:
        name = category["name"]
        if counts[name] > 1:
            category["name"] = f"{name} (id {category['id']})"
            findings.add(
                "duplicate-category-name", place, f"{name!r} is there {counts[name]} times: {category['name']!r}"
            )
    return (*_sort(usable), findings.collect())


def find_repeated(items: Iterable[tuple[int, Any]]) -> list[tuple[int, int]]:
    """(place, place of the first with the same value) of each value that was there before."""
    first: dict[Any, int] = {}
    return [(place, first[value]) for place, value in items if first.setdefault(value, place) != place]


def _sort(usable: list[tuple[int, dict[str, Any]]]) -> tuple[list[dict[str, Any]], np.ndarray]:
    usable.sort(key=lambda item: id_order(item[1]["id"]))
    return [entry for _, entry in usable], np.array([place for place, _ in usable], dtype=np.int64)
