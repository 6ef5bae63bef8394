"""Cleaned copies of inspected data sets: what can be mended is mended, the other broken entries are left out."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from resnet_det.data.coco import CocoData, Problem, judge_content
from resnet_det.data.coco.fields import is_absent, read_flag, read_id
from resnet_det.data.coco.file import SECTIONS
from resnet_det.data.coco.masks import as_json
from resnet_det.data.inspection.boxes import clip_boxes
from resnet_det.data.inspection.sets import InspectedSet, inspect_data
from resnet_det.images.image_input import ImageInput
from resnet_det.images.pages import find_file, split_page
from resnet_det.images.pillow import ORIENTATION, open_image, to_array
from resnet_det.outputs import link_file

DROPPED = {
    "malformed-entry",
    "duplicate-image-id",  # whose the annotations are cannot be told; the first entry keeps them
    "unknown-image-id",
    "unknown-category-id",
    "missing-image",
    "unreadable-image",
    "truncated-image",
    "wrong-size",
    "box-not-finite",
    "box-without-area",
    "box-outside",
    "duplicate-box",
}
# What the reader mends or leaves out of an entry; a copy has what the reader makes of it.
NORMALISED = {
    "other-form": "with a value in another form",
    "missing-id": "with a new id",
    "missing-size": "with the size of their files",
    "missing-area": "with an area filled in",
    "box-from-mask": "with a box from their mask",
    "polygon-too-short": "without polygons that are too short",
    "malformed-mask": "without their mask, which is malformed",
    "rle-size": "without their mask, which is of another size",
    "keypoints-length": "without their keypoints, which are malformed",
    "ignore": "marked ignore, now crowd regions",
    "duplicate-category-name": "with a name of their own",
}
REWRITTEN = {"exif-rotation", "exif-size", "cmyk-image", "16-bit-image", "animated-image"}
_FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "BMP": "BMP", "TIFF": "TIFF", "WEBP": "WEBP", "PPM": "PPM"}  # others: PNG


def write_clean_sets(sets: Sequence[InspectedSet], folder: Path, *, crowd_as_objects: bool = False) -> Iterator[str]:
    """Write the sets to ``folder``: annotation files, and images below ``images/``; one folder each if they had.

    Yields:
        What was written and what was changed, line by line, as it is done.
    """
    names = _make_unique([one.annotation_file.name for one in sets])
    sources = list(dict.fromkeys(one.image_folder.resolve() for one in sets))
    below = dict(zip(sources, _make_unique([source.name for source in sources]), strict=True))
    for one, name in zip(sets, names, strict=True):
        if not one.is_usable:
            yield f"{one.annotation_file}: no copy, since it is not in COCO format"
            continue
        source = one.image_folder.resolve()
        images = folder / "images" / below[source] if len(sources) > 1 else folder / "images"
        rewritten = {
            one.content["images"][problem.index]["file_name"]: problem.kind
            for problem in reversed(one.problems)  # of several kinds the first stays: how the image is turned
            if problem.kind in REWRITTEN and problem.section == "images"
        }
        content, changes = clean_content(one.content, one.problems, crowd_as_objects=crowd_as_objects)
        for number, image in enumerate(content["images"]):
            name_before = image["file_name"]
            if PurePath(name_before).is_absolute() or ".." in PurePath(name_before).parts:
                image["file_name"] = f"{number}_{PurePath(name_before).name}"  # stays in the new folder
            kind = rewritten.get(name_before)
            _write_image(find_file(source / name_before), images / split_page(image["file_name"])[0], kind)
            if kind:
                changes[f"images rewritten as 8-bit RGB: {kind}"] += 1
        (folder / name).write_text(json.dumps(content))
        yield (
            f"{folder / name}: {len(content['images']):,} images (in {images}), "
            f"{len(content['annotations']):,} annotations"
        )
        wide = max((len(f"{count:,}") for count in changes.values()), default=0)
        yield from (f"  {count:{wide},}  {change}" for change, count in sorted(changes.items()))
        if not changes:
            yield "  nothing to change"


def clean_content(
    content: dict[str, Any], problems: Sequence[Problem], *, crowd_as_objects: bool = False
) -> tuple[dict[str, Any], Counter[str]]:
    """A copy of an annotation file's content as the reader takes it and without the errors among ``problems``, and what
    was changed, counted.

    It is inspected again after each round of changes, since one can bring another to light: annotations that move to
    an image may be there already.
    """
    content = content | {
        section: [dict(entry) if isinstance(entry, dict) else entry for entry in content.get(section, ())]
        for section in SECTIONS
    }
    changes: Counter[str] = Counter()
    for problem in problems:
        if problem.kind in NORMALISED:
            changes[f"{problem.section} {NORMALISED[problem.kind]}"] += 1
    data = judge_content(content, crowd_as_objects=crowd_as_objects)
    if crowd_as_objects:
        crowds = sum(read_flag(content["annotations"][place].get("iscrowd")) or 0 for place in data.index.tolist())
        changes["crowd regions that are objects now"] += crowds
    _normalise(content, data)
    while made := _change(content, problems):
        changes += made
        problems = inspect_data(judge_content(content))
    return content, +changes


def _normalise(content: dict[str, Any], data: CocoData) -> None:
    """Give the entries that can be used the values that the reader takes, in place."""
    for section, index, entries in (
        ("images", data.image_index, data.images),
        ("categories", data.category_index, data.categories),
    ):
        for place, entry in zip(index.tolist(), entries, strict=True):
            content[section][place].update(entry)
    area = data.area.tolist()
    kinds = ("other-form", "polygon-too-short")
    data.judge_masks()
    data.judge_keypoints()
    mended = {place for finding in data.all_findings() if finding.kind in kinds for place in finding.index.tolist()}
    for row, (place, entry) in enumerate(zip(data.index.tolist(), data.annotations, strict=True)):
        target = content["annotations"][place]
        target |= {key: entry[key] for key in ("id", "image_id", "category_id", "bbox")}
        target |= {"iscrowd": int(data.crowd[row])} if "iscrowd" in target or data.crowd[row] else {}
        target.pop("ignore", None)
        if target.get("area") != area[row]:
            target["area"] = area[row]
        for key, value in (("segmentation", data.mask(row)), ("keypoints", data.keypoints(row))):
            if value is None and not is_absent(target.get(key)):
                del target[key]
            elif value is not None and place in mended:
                target[key] = as_json(value)


def _change(content: dict[str, Any], problems: Sequence[Problem]) -> Counter[str]:
    """Change ``content`` in place by one round of ``problems``."""
    made: Counter[str] = Counter()
    dropped: dict[str, set[int]] = defaultdict(set)

    def drop(problem: Problem) -> None:
        if problem.index not in dropped[problem.section]:
            dropped[problem.section].add(problem.index)
            made[f"{problem.section} dropped: {problem.kind}"] += 1

    for problem in problems:
        if problem.kind in DROPPED:
            drop(problem)
    # An image listed twice waits for a round in which all entries are sound, the one that stays included.
    waiting = {"file-listed-twice"} if any(dropped.values()) else set()
    sizes = {image["id"]: (image["width"], image["height"]) for image in _sound_images(content, dropped["images"])}
    fresh_ids = {
        section: itertools.count(1 + max((e["id"] for e in content[section] if _has_number(e)), default=0))
        for section in ("annotations", "categories")
    }
    for problem in problems:
        if problem.index in dropped[problem.section] or problem.kind in waiting:
            continue
        entry = content[problem.section][problem.index] if problem.section else {}
        if problem.kind == "box-partly-outside":
            _clip_box(entry, sizes[entry["image_id"]])
            made["boxes clipped to their image"] += 1
        elif problem.kind == "duplicate-annotation-id":
            entry["id"] = next(fresh_ids["annotations"])
            made["annotations with a new id"] += 1
        elif problem.kind == "duplicate-category-id":
            first = next(c for c in content["categories"] if isinstance(c, dict) and c.get("id") == entry["id"])
            if first.get("name") == entry["name"]:
                drop(problem)
            else:
                entry["id"] = next(fresh_ids["categories"])
                made["categories with a new id"] += 1
        elif problem.kind == "file-listed-twice":
            _move_annotations(content, problem.index)
            drop(problem)
    _drop(content, dropped, made)
    return made


def _drop(content: dict[str, Any], dropped: dict[str, set[int]], made: Counter[str]) -> None:
    """Take away entries, and the annotations of images that are no longer there."""
    known = {
        image["id"] for image in content["images"] if isinstance(image, dict) and read_id(image.get("id")) is not None
    }
    for section, places in dropped.items():
        content[section] = [entry for index, entry in enumerate(content[section]) if index not in places]
    gone = known - {image["id"] for image in content["images"]}
    kept = [a for a in content["annotations"] if not isinstance(a, dict) or a.get("image_id") not in gone]
    if len(kept) < len(content["annotations"]):
        made["annotations dropped: those of dropped images"] += len(content["annotations"]) - len(kept)
    content["annotations"] = kept


def _clip_box(annotation: dict[str, Any], size: tuple[int, int]) -> None:
    _, _, width, height = annotation["bbox"]
    is_box_area = annotation.get("area") == width * height
    annotation["bbox"] = clip_boxes(np.array([annotation["bbox"]], dtype=float), np.array([size]))[0].tolist()
    if is_box_area:
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]


def _move_annotations(content: dict[str, Any], index: int) -> None:
    """Give the annotations of an image to the first image of the same file."""
    image = content["images"][index]
    path = os.path.normpath(image["file_name"])
    first = next(other for other in content["images"] if os.path.normpath(other["file_name"]) == path)
    for annotation in content["annotations"]:
        if annotation["image_id"] == image["id"]:
            annotation["image_id"] = first["id"]


def _sound_images(content: dict[str, Any], dropped: set[int]) -> list[dict[str, Any]]:
    return [image for index, image in enumerate(content["images"]) if index not in dropped]


def _has_number(entry: Any) -> bool:
    return isinstance(entry, dict) and type(entry.get("id")) is int


def _make_unique(names: Sequence[str]) -> list[str]:
    """The names, with a number before those that others have, too."""
    return [name if names.count(name) == 1 else f"{number}_{name}" for number, name in enumerate(names, 1)]


def _write_image(source: Path, target: Path, kind: str | None) -> None:
    """Link or copy a file; rewrite it as 8-bit RGB if there is a ``kind`` of problem with it."""
    if target.exists():  # sets that share a folder may share images
        return
    if kind:
        target.parent.mkdir(parents=True, exist_ok=True)
        rewrite, file_format = read_rgb(source, as_stored=kind == "exif-size")
        rewrite.save(target, file_format, **({"quality": 95, "subsampling": 0} if file_format == "JPEG" else {}))
        return
    link_file(source, target)


def read_rgb(source: Path, *, as_stored: bool) -> tuple[Image.Image, str]:
    """8-bit RGB pixels without metadata, as they are read everywhere, and the format to write them in.

    Args:
        as_stored: not turned by their EXIF data.
    """
    # Those with too many pixels were not judged.
    with source.open("rb") as file, open_image(file, str(source), None, None) as image:
        if as_stored:
            image.getexif()[ORIENTATION] = 1
        pixels = to_array(image, str(source), ImageInput("RGB"))
        return Image.fromarray(pixels), _FORMATS.get(image.format, "PNG")
