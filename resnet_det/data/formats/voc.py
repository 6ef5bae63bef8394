"""Data sets in Pascal VOC's XML, in the folders that VOC, labelImg and its friends have them in."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from resnet_det.data.formats.find import find_folder
from resnet_det.data.formats.labels import (
    IMAGE_SUFFIXES,
    Classes,
    LabelledImage,
    LabelledObject,
    Split,
    take_classes,
)
from resnet_det.errors import InputError
from resnet_det.images.size import read_image_size

SPLITS = ("train", "val", "test")
ANNOTATION_FOLDERS = ("annotations", "annots", "annotation", "xml", "xmls", "labels")  # in any case
IMAGE_FOLDERS = ("jpegimages", "images", "imgs", "image")
ROUNDING_PX = 2  # beyond the image that is clipped


def read_voc(
    folder: str | os.PathLike[str],
    split_names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    *,
    zero_based: bool = False,
    ignore_difficult: bool = False,
) -> tuple[list[Split], Classes]:
    """Read splits of a folder with VOC's XML files, and everything that is wrong with them.

    VOC's boxes count pixels from 1, both ends included: (1, 1, 1, 1) is the first pixel. XML files are in a folder
    Annotations (or annots, ...) beside JPEGImages (or images, ...), or beside their images; a folder whose sub-folders
    have both (Roboflow's train, valid, test) has these as splits.

    Args:
        split_names: lists of ImageSets/Main; if not given, those of train, val and test that are there. Without
            ImageSets all annotations are one split, "all".
        class_names: the classes in their order; if not given, all that occur, by alphabet.
        zero_based: boxes are edges counted from 0, with the right and bottom ones excluded, as labelImg writes them.
        ignore_difficult: objects marked "difficult" become crowds, which are neither trained on nor evaluated. Else
            they are ordinary ones: Detectron2's loader of VOC trains on them, too.

    Returns:
        The splits and the classes.

    Raises:
        InputError: there are no XML files, or a split is not there.
    """
    folder = Path(folder)
    splits = []
    for name, (xml_folder, images, ids) in _find_splits(folder, split_names).items():
        split = Split(name, images)
        for image_id in ids:
            path = xml_folder / f"{image_id}.xml"
            try:
                image = _read_image(path, split, zero_based=zero_based, ignore_difficult=ignore_difficult)
            except InputError as error:
                split.left_out.append(str(error))
                continue
            split.images.append(image)
        splits.append(split)
    return splits, take_classes(splits, class_names)


def _find_splits(folder: Path, split_names: Sequence[str]) -> dict[str, tuple[Path, Path, list[str]]]:
    """Of each split the folders of its annotations and images, and the ids of the images."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    xml_folder = find_folder(folder, ANNOTATION_FOLDERS)
    if xml_folder is None:  # XML files beside the images, here or in a folder for each split
        if any(folder.glob("*.xml")):
            return {"all": (folder, folder, _ids_of(folder))}
        parts = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(path.glob("*.xml"))]
        if not parts:
            raise InputError(
                f"{folder}: neither a folder Annotations (or annots, annotations, ...) nor XML files in it or in its "
                "sub-folders, so this is not Pascal VOC's layout"
            )
        return {path.name: (path, path, _ids_of(path)) for path in parts}
    images = find_folder(folder, IMAGE_FOLDERS) or (xml_folder if _has_images(xml_folder) else folder)
    return {name: (xml_folder, images, ids) for name, ids in _read_ids(folder, xml_folder, split_names).items()}


def _has_images(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())


def _ids_of(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.xml"))


def _read_ids(folder: Path, xml_folder: Path, split_names: Sequence[str]) -> dict[str, list[str]]:
    lists = folder / "ImageSets" / "Main"
    if not split_names and not lists.is_dir():
        return {"all": _ids_of(xml_folder)}
    names = split_names or [name for name in SPLITS if (lists / f"{name}.txt").is_file()]
    missing = [name for name in names if not (lists / f"{name}.txt").is_file()]
    if missing or not names:
        present = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
        raise InputError(f"{lists}: no {', '.join(missing or SPLITS)}.txt; there are {present or 'no lists'}")
    lines = {name: (lists / f"{name}.txt").read_text(encoding="utf-8-sig").splitlines() for name in names}
    return {name: [_to_id(line.split()[0]) for line in lines[name] if line.strip()] for name in names}


def _to_id(word: str) -> str:
    """What a list names: an id, or the file name of the image."""
    path = Path(word)
    return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, ".xml") else path.name


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
            box = _read_box(node, width, height, split, zero_based=zero_based)
        except InputError as error:
            split.left_out.append(f"{path}: object {number}: {error}")
            continue
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        name = (node.findtext("name") or "").strip()
        objects.append(LabelledObject(name, box, is_crowd=difficult and ignore_difficult))
    return LabelledImage(image_path.name, width, height, objects)


def _find_image(folder: Path, path: Path, root: ElementTree.Element) -> Path:
    """The image that the annotation names, else the one of the annotation's own name."""
    said = (root.findtext("filename") or "").strip().replace("\\", "/")
    named = folder / Path(said).name
    suffixes = [case for suffix in IMAGE_SUFFIXES for case in (suffix, suffix.upper())]
    candidates = [named, *(folder / f"{named.name}{suffix}" for suffix in suffixes if said)]
    candidates += [folder / (path.stem + suffix) for suffix in suffixes]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        wanted = dict.fromkeys(name for name in (named.name if said else "", f"{path.stem}.jpg") if name)
        raise InputError(f"{path}: no image {' or '.join(wanted)} in {folder}")
    return found


def _read_box(
    node: ElementTree.Element, width: int, height: int, split: Split, *, zero_based: bool
) -> tuple[float, ...]:
    if not (node.findtext("name") or "").strip():
        raise InputError("it has no name")
    edges = [_number(node.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, edges)):
        raise InputError("its bndbox is not four numbers")
    shown = ", ".join(f"{edge:g}" for edge in edges)
    if edges[0] > edges[2] or edges[1] > edges[3]:
        split.mended["boxes whose corners were swapped"] += 1
        edges = [min(edges[::2]), min(edges[1::2]), max(edges[::2]), max(edges[1::2])]
    shift = 0 if zero_based else 1
    x0, y0, x1, y1 = edges[0] - shift, edges[1] - shift, edges[2], edges[3]
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"its box {shown} is empty")
    hint = "" if zero_based or min(edges) < 0 or min(edges[:2]) >= 1 else " (boxes that count from 0: --zero-based)"
    beyond = max(-x0, -y0, x1 - width, y1 - height)
    if beyond > ROUNDING_PX:
        raise InputError(f"its box {shown} reaches outside the {width} x {height} pixels{hint}")
    if beyond > 0:
        split.mended[f"boxes just outside their image, which are clipped{hint}"] += 1
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    return x0, y0, x1 - x0, y1 - y0


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
