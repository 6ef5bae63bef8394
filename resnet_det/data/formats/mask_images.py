"""Masks as images: a file for each object, a number for each object, or a number or colour for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from resnet_det.data.formats.find import IMAGE_FOLDERS, Found, find_folder, find_image_of
from resnet_det.data.formats.labels import IMAGE_SUFFIXES, Classes, LabelledObject, Split, place_images, take_classes
from resnet_det.data.formats.mask_classes import PixelClasses, read_pixel_classes
from resnet_det.data.formats.shapes import encode, encode_labels, make_mask
from resnet_det.errors import InputError
from resnet_det.images.pages import list_pages, split_page
from resnet_det.images.size import read_image_size

MASK_FOLDERS = ("masks", "mask", "labels", "annotations", "segmentationobject", "segmentationclass")  # in any case
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
ENDINGS = ("", "_mask", "_masks", "_label", "_seg")  # of a mask's name after its image's
DEFAULT_CLASS = "object"
VOID = 255  # in VOC's masks: borders, which are neither
Reader = Callable[[Path, tuple[int, int], Split], list[LabelledObject]]


def read_masks(
    source: str | os.PathLike[str], class_names: Sequence[str] = (), *, pixels: str = ""
) -> tuple[list[Split], Classes]:
    """Read masks that are images, and become run lengths, exact to the pixel.

    A folder for each image with ``images/`` and ``masks/`` has a file for each object (Kaggle's DSB 2018), whose pixels
    above half of the highest value are the object. ``JPEGImages`` with ``SegmentationObject`` and ``SegmentationClass``
    are VOC's. In ``images/`` with ``masks/``, of the same names, ``pixels`` says what a pixel's value means. 0 is the
    background. Sub-folders are splits.

    Args:
        class_names: with ``pixels`` "classes", the classes with their values, such as "road=1" or "car=#00ff00"; else
            the class of all objects.
        pixels: "objects" or "classes": each value, a number or colour, is an object, or a class, whose connected parts
            are its objects.

    Raises:
        InputError: the folder has none of these layouts, or it cannot be told what pixels mean.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    voc = find_folder(source, ("segmentationobject",))
    each = {} if voc else _find_object_folders(source)
    if each or voc:
        if pixels:
            raise InputError(f"--pixels is not for this layout: it is {'a file for each object' if each else 'VOC'}")
        splits = _read_voc(source, voc, class_names) if voc else _read_each(each, class_names)
        return splits, take_classes(splits, class_names if voc else ())
    pairs = _find_pairs(source)
    masks = [mask for listed in pairs.values() for _, mask in listed if mask is not None]
    if not masks:
        raise InputError(
            f"{source}: no masks: neither folders with images and masks (a file for each object), nor JPEGImages and "
            "SegmentationObject, nor images and masks with files of the same names"
        )
    if pixels not in ("objects", "classes"):
        raise InputError(f"{_describe(masks[0])}; say what they mean: --pixels objects or --pixels classes")
    classes = read_pixel_classes(source, class_names) if pixels == "classes" else None
    if classes is not None and not classes.values:
        raise InputError(f"{_describe(masks[0])}; say the classes: --names road=1 car=2, or car=#00ff00")
    name = _one_class(class_names) if classes is None else ""
    splits = []
    for split_name, listed in pairs.items():
        split = Split(split_name, source)
        read = _make_reader(classes, name, split)
        place_images(split, list(_read_pairs(listed, read, split)))
        splits.append(split)
    return splits, take_classes(splits, [*classes.values] if classes else ())


def _one_class(class_names: Sequence[str]) -> str:
    if len(class_names) > 1:
        raise InputError(
            f"--names {' '.join(class_names)}: these masks tell no classes; one name for all would be right"
        )
    return class_names[0] if class_names else DEFAULT_CLASS


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)


# A file for each object


def _find_object_folders(source: Path) -> dict[str, list[Path]]:
    """For each split the folders of its images, which have images/ and masks/ in them; {} for another layout."""

    def of_images(folder: Path) -> list[Path]:
        return [
            path
            for path in sorted(folder.iterdir())
            if path.is_dir() and (path / "images").is_dir() and (path / "masks").is_dir()
        ]

    def is_each(folders: Sequence[Path]) -> bool:
        """Not so where masks are called as their images: then the folders are splits."""
        return any(mask is None for folder in folders for _, mask in _pair(folder / "images", folder / "masks"))

    direct = of_images(source)
    if direct:
        return {"all": direct} if is_each(direct) else {}
    parts = {path.name: of_images(path) for path in sorted(source.iterdir()) if path.is_dir()}
    return {name: folders for name, folders in parts.items() if is_each(folders)}


def _read_each(parts: dict[str, list[Path]], class_names: Sequence[str]) -> list[Split]:
    name = _one_class(class_names)
    splits = []
    for split_name, folders in parts.items():
        split = Split(split_name, folders[0].parent)
        found: list[Found] = []
        for folder in folders:
            images = _files(folder / "images", IMAGE_SUFFIXES)
            try:
                if len(images) != 1:
                    raise InputError(f"{len(images) or 'no'} images in it; one would be right")
                size = read_image_size(images[0])
            except InputError as error:
                split.left_out.append(f"{folder / 'images'}: {error}")
                continue
            objects = []
            for mask in _files(folder / "masks", MASK_SUFFIXES):
                label = name if mask.parent == folder / "masks" else mask.parent.name  # masks/<class>/
                try:
                    objects.append(make_mask(label, encode(_read_foreground(mask, size))))
                except InputError as error:
                    split.left_out.append(f"{mask}: {error}")
            found.append((images[0], size, objects))
        place_images(split, found)
        splits.append(split)
    return splits


def _read_foreground(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels above half of the highest value."""
    values = _open(path, size, exact=False)
    values = values[:, :, :3].max(2) if values.ndim == 3 else values
    return values > values.max() / 2


# A number or colour for each object or class


def _find_pairs(source: Path) -> dict[str, list[tuple[Path, Path | None]]]:
    """For each split its images and their masks, None for an image without one."""
    images, masks = find_folder(source, IMAGE_FOLDERS), find_folder(source, MASK_FOLDERS)
    if images is None or masks is None:  # train/images, train/masks
        parts = [path for path in sorted(source.iterdir()) if path.is_dir()]
        inside = {path.name: (find_folder(path, IMAGE_FOLDERS), find_folder(path, MASK_FOLDERS)) for path in parts}
        return {name: _pair(*both) for name, both in inside.items() if None not in both}
    parts = [path for path in sorted(images.iterdir()) if path.is_dir() and (masks / path.name).is_dir()]
    return {path.name: _pair(path, masks / path.name) for path in parts} or {"all": _pair(images, masks)}


def _pair(images: Path, masks: Path) -> list[tuple[Path, Path | None]]:
    known: dict[str, Path] = {}
    for path in _files(masks, (*MASK_SUFFIXES, ".jpg", ".jpeg")):
        known.setdefault(str(path.relative_to(masks).with_suffix("")), path)
    stems = {path: str(path.relative_to(images).with_suffix("")) for path in _files(images, IMAGE_SUFFIXES)}
    return [
        (path, next((known[stem + ending] for ending in ENDINGS if stem + ending in known), None))
        for path, stem in stems.items()
    ]


def _read_pairs(pairs: Sequence[tuple[Path, Path | None]], read: Reader, split: Split) -> Iterator[Found]:
    for path, mask in pairs:
        try:
            if mask is None:
                raise InputError(f"{path}: no mask of this name")
            pages = _pair_pages(path, mask)
        except InputError as error:
            split.left_out.append(str(error))
            continue
        for page, its_mask in pages:
            try:
                size = read_image_size(page)
                objects = read(its_mask, size, split)
            except InputError as error:
                split.left_out.append(str(error))
                continue
            yield page, size, objects


def _pair_pages(path: Path, mask: Path) -> list[tuple[Path, Path]]:
    """The pages of a stack with those of its mask, or the two files as they are."""
    pages, masks = (list(map(Path, list_pages(one))) for one in (path, mask))
    if len(pages) != len(masks):
        raise InputError(
            f"{mask}: {len(masks)} pictures, but its image {path} has {len(pages)}; as many would be right"
        )
    return list(zip(pages, masks, strict=True))


def _make_reader(classes: PixelClasses | None, name: str, split: Split) -> Reader:
    if classes is None:
        return lambda mask, size, _: [make_mask(name, one) for one in encode_labels(_read_values(mask, size)).values()]
    split.notes += ["objects are the connected parts of each class: those that touch are one"]
    split.notes += [classes.note] if classes.note else []
    return lambda mask, size, split: _read_classes(mask, size, classes, split)


def _read_classes(path: Path, size: tuple[int, int], classes: PixelClasses, split: Split) -> list[LabelledObject]:
    values = _read_values(path, size, by_colour=classes.by_colour)
    objects = []
    for name, value in classes.values.items():
        _, parts = cv2.connectedComponents((values == value).astype(np.uint8), connectivity=8)
        objects += [make_mask(name, one) for one in encode_labels(parts).values()]
    known = [0, *classes.ignored, *classes.values.values()]
    for value in np.setdiff1d(values, known).tolist():
        split.unread[f"masks with {classes.show(value)}, which is no class"] += 1
    return objects


def _read_values(path: Path, size: tuple[int, int], *, by_colour: bool = False) -> np.ndarray:
    """(H, W) whole numbers: the values, or the colours as red << 16 | green << 8 | blue.

    Raises:
        InputError: it is no image, has another size than its image, or is a JPEG file, which does not keep values.
    """
    values = _open(path, size, exact=True, by_colour=by_colour)
    if values.ndim == 2:
        return values.astype(np.int64)
    if values.shape[2] < 3:  # grey with opacity
        return values[:, :, 0].astype(np.int64)
    red, green, blue = values[:, :, :3].astype(np.int64).transpose(2, 0, 1)
    return red << 16 | green << 8 | blue


def _open(path: Path, size: tuple[int, int], *, exact: bool, by_colour: bool = False) -> np.ndarray:
    try:
        file, page = split_page(path)
        with Image.open(file) as image:
            if exact and image.format == "JPEG":
                raise InputError(f"{path}: JPEG does not keep the values of pixels; PNG would be right")
            if page is not None:
                image.seek(page)
            elif getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{path}: {image.n_frames} pictures in one file; one would be right")
            values = np.asarray(image.convert("RGB") if by_colour else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image: {error}") from None
    if values.shape[1::-1] != size:
        raise InputError(
            f"{path}: the mask is {values.shape[1]} x {values.shape[0]}, but its image {size[0]} x {size[1]}"
        )
    return values


def _describe(path: Path) -> str:
    """What values a mask has."""
    with Image.open(path) as image:
        is_colour = image.mode in ("RGB", "RGBA")
        size = image.size
    first = Path(list_pages(path)[0])
    values = np.unique(_read_values(first, size)) if path.suffix.lower() in MASK_SUFFIXES else []
    shown = ", ".join(f"#{value:06x}" if is_colour else str(value) for value in list(values)[:10])
    return f"the pixels of {path} are {shown}{', ...' if len(values) > 10 else ''}"


# VOC


def _read_voc(source: Path, object_folder: Path, class_names: Sequence[str]) -> list[Split]:
    """JPEGImages with SegmentationObject and SegmentationClass; splits are the lists of ImageSets/Segmentation."""
    images, class_folder = find_folder(source, IMAGE_FOLDERS), find_folder(source, ("segmentationclass",))
    if images is None or class_folder is None:
        raise InputError(f"{source}: SegmentationObject, but not both of JPEGImages and SegmentationClass")
    classes = read_pixel_classes(source, class_names, is_voc=True)
    lists = sorted((source / "ImageSets" / "Segmentation").glob("*.txt"))
    stems = {path.stem: path.read_text(encoding="utf-8-sig").split() for path in lists}
    stems = stems or {"all": [path.stem for path in _files(object_folder, MASK_SUFFIXES)]}
    names = {value: name for name, value in classes.values.items()}
    splits = []
    for split_name, listed in stems.items():
        split = Split(split_name, images, notes=[classes.note] if classes.note else [])
        found: list[Found] = []
        for stem in listed:
            mask, image = object_folder / f"{stem}.png", find_image_of(stem, [images])
            try:
                if image is None:
                    raise InputError(f"{mask}: no image {stem}.jpg in {images}")
                size = read_image_size(image)
                numbers = _read_values(mask, size)
                kinds = _read_values(class_folder / f"{stem}.png", size)
            except InputError as error:
                split.left_out.append(str(error))
                continue
            numbers[numbers == VOID] = 0
            objects = []
            for number, mask_code in encode_labels(numbers).items():
                value = int(np.bincount(kinds[numbers == number]).argmax())
                if value in names:
                    objects.append(make_mask(names[value], mask_code))
                else:
                    split.unread[f"objects of class {value}, which has no name"] += 1
            found.append((image, size, objects))
        place_images(split, found)
        splits.append(split)
    return splits
