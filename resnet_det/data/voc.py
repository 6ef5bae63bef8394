"""Data sets in Pascal VOC's layout: Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from resnet_det.data.image_size import read_image_size
from resnet_det.data.labels import IMAGE_SUFFIXES, LabelledImage, LabelledObject, Split
from resnet_det.errors import InputError

SPLITS = ("train", "val", "test")


def read_voc(
    folder: str | os.PathLike[str],
    split_names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    *,
    zero_based: bool = False,
    ignore_difficult: bool = False,
) -> tuple[list[Split], list[str]]:
    """Read splits of a VOC folder, and everything that is wrong with them.

    VOC's boxes count pixels from 1, both ends included: (1, 1, 1, 1) is the first pixel.

    Args:
        split_names: lists of ImageSets/Main; if not given, those of train, val and test that are there. Without
            ImageSets all annotations are one split, "all".
        class_names: the classes in their order; if not given, all that occur, by alphabet.
        zero_based: boxes are edges counted from 0, with the right and bottom ones excluded, as labelImg writes them.
        ignore_difficult: objects marked "difficult" become crowds, which are neither trained on nor evaluated. Else
            they are ordinary ones: Detectron2's loader of VOC trains on them, too.

    Returns:
        The splits and the class names.

    Raises:
        InputError: it is no VOC folder, or a split is not there.
    """
    folder = Path(folder)
    for name in ("Annotations", "JPEGImages"):
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: no folder {name}, so this is not Pascal VOC's layout")
    splits = []
    for name, ids in _read_ids(folder, split_names).items():
        split = Split(name, folder / "JPEGImages")
        for image_id in ids:
            path = folder / "Annotations" / f"{image_id}.xml"
            try:
                image = _read_image(path, split, zero_based=zero_based, ignore_difficult=ignore_difficult)
            except InputError as error:
                split.problems.append(str(error))
                continue
            split.images.append(image)
            split.problems += [
                f"{path}: object {number} is a {item.class_name!r}, which is not among the classes given"
                for number, item in enumerate(image.objects, start=1)
                if class_names and item.class_name not in class_names
            ]
        splits.append(split)
    found = {item.class_name for split in splits for image in split.images for item in image.objects}
    return splits, [*class_names, *sorted(found - set(class_names))]


def _read_ids(folder: Path, split_names: Sequence[str]) -> dict[str, list[str]]:
    lists = folder / "ImageSets" / "Main"
    if not split_names and not lists.is_dir():
        return {"all": sorted(path.stem for path in (folder / "Annotations").glob("*.xml"))}
    names = split_names or [name for name in SPLITS if (lists / f"{name}.txt").is_file()]
    missing = [name for name in names if not (lists / f"{name}.txt").is_file()]
    if missing or not names:
        present = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
        raise InputError(f"{lists}: no {', '.join(missing or SPLITS)}.txt; there are {present or 'no lists'}")
    lines = {name: (lists / f"{name}.txt").read_text().splitlines() for name in names}
    return {name: [line.split()[0] for line in lines[name] if line.strip()] for name in names}


def _read_image(path: Path, split: Split, *, zero_based: bool, ignore_difficult: bool) -> LabelledImage:
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, but {split.name} lists it") from None
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not an XML file, or cut off: {error}") from None
    image_path = _find_image(split.image_folder, path, root)
    width, height = read_image_size(image_path)
    said = tuple(_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if said not in ((width, height), (0, 0)) and not any(map(math.isnan, said)):  # some tools write no size, or 0
        raise InputError(
            f"{path}: the size is {said[0]:g} x {said[1]:g}, but {image_path} has {width} x {height} pixels"
        )
    objects = []
    for number, node in enumerate(root.iter("object"), start=1):
        try:
            box = _read_box(node, width, height, zero_based=zero_based)
        except InputError as error:
            split.problems.append(f"{path}: object {number}: {error}")
            continue
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        name = (node.findtext("name") or "").strip()
        objects.append(LabelledObject(name, box, is_crowd=difficult and ignore_difficult))
    return LabelledImage(image_path.name, width, height, objects)


def _find_image(folder: Path, path: Path, root: ElementTree.Element) -> Path:
    """The image that the annotation names, else the one of the annotation's own name."""
    named = folder / Path((root.findtext("filename") or "").strip()).name
    candidates = [named, *(folder / (path.stem + suffix) for suffix in IMAGE_SUFFIXES)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise InputError(f"{path}: neither {named.name} nor {path.stem}.jpg is in {folder}")
    return found


def _read_box(node: ElementTree.Element, width: int, height: int, *, zero_based: bool) -> tuple[float, ...]:
    if not (node.findtext("name") or "").strip():
        raise InputError("it has no name")
    edges = [_number(node.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, edges)):
        raise InputError("its bndbox is not four numbers")
    shift = 0 if zero_based else 1
    x0, y0, x1, y1 = edges[0] - shift, edges[1] - shift, edges[2], edges[3]
    shown = ", ".join(f"{edge:g}" for edge in edges)
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"its box {shown} is empty")
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        hint = "" if zero_based or min(edges) < 0 or min(edges[:2]) >= 1 else " (boxes that count from 0: --zero-based)"
        raise InputError(f"its box {shown} reaches outside the {width} x {height} pixels{hint}")
    return x0, y0, x1 - x0, y1 - y0


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
