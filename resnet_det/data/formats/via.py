"""JSON files of the VGG Image Annotator (VIA): annotations of version 1 and 2, and projects of version 2."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from resnet_det.data.coco.json_files import read_json
from resnet_det.data.formats.find import Found, check_size, find_files, find_image, image_folders, leave_out, read_each
from resnet_det.data.formats.labels import Classes, LabelledObject, Split, place_images, take_classes
from resnet_det.data.formats.shapes import make_box, make_outline, outline_ellipse, read_numbers, read_points
from resnet_det.errors import InputError

NO_AREA = ("point", "polyline", "line")
USUAL_ATTRIBUTES = ("class", "label", "name", "type", "category", "object")  # that tell the class, in any case
DEFAULT_CLASS = "object"  # where regions have no attributes


def read_via(
    source: str | os.PathLike[str],
    class_names: Sequence[str] = (),
    *,
    images: str | os.PathLike[str] | None = None,
    attribute: str = "",
) -> tuple[list[Split], Classes]:
    """Read VIA's JSON files: one, or all in a folder and below it, each of which is a split.

    Rectangles, polygons, circles and ellipses are read; points and lines have no area, and are counted.

    Args:
        class_names: the classes in their order; if not given, all that occur, by alphabet. Where regions have no
            attributes, a single one is the class of all.
        images: where the images are; if not given, beside the file, or in a folder "images" near it.
        attribute: of the regions, which tells the class; if not given, the only one, or a usual one.

    Raises:
        InputError: there are no such files, or it cannot be told which attribute has the class.
    """
    files = find_files(Path(source), ".json", _is_via, "JSON file of VIA (annotations or a project of version 1 or 2)")
    contents = {name: read_json(file) for name, file in files.items()}
    entries = {name: _entries_of(content) for name, content in contents.items()}
    names = class_names if len(class_names) == 1 else [DEFAULT_CLASS]
    attribute = attribute or _find_attribute([one for listed in entries.values() for one in listed], source)
    splits = []
    for name, file in files.items():
        split = Split(name, file.parent)
        folders = image_folders(file, Path(images) if images else None)
        reader = _Reader(split, attribute, _options_of(contents[name], attribute), names[0])
        place_images(split, list(_read_images(file, entries[name], folders, reader)))
        if attribute:
            split.notes.append(f"the class is the attribute {attribute!r} of the regions")
        else:
            split.notes.append(f"regions have no attributes: all are of the class {names[0]!r}")
        splits.append(split)
    return splits, take_classes(splits, class_names)


def _is_via(file: Path) -> bool:
    try:
        return bool(_entries_of(read_json(file)))
    except InputError:
        return False


def _entries_of(content: Any) -> list[dict[str, Any]]:
    """The entries of the images; [] of a file that is none of VIA's."""
    if not isinstance(content, dict):
        return []
    listed = content.get("_via_img_metadata", content)
    entries = list(listed.values()) if isinstance(listed, dict) else []
    return entries if all(isinstance(entry, dict) and "filename" in entry for entry in entries) else []


def _regions_of(entry: Mapping[str, Any]) -> list[Any]:
    """Version 1 has them under numbers, version 2 in a list."""
    regions = entry.get("regions") or []
    return list(regions.values()) if isinstance(regions, dict) else list(regions)


def _find_attribute(entries: Sequence[Mapping[str, Any]], source: object) -> str:
    """The attribute of the regions that has the class; "" if they have none.

    Raises:
        InputError: there are several.
    """
    counts: Counter[str] = Counter()
    for entry in entries:
        for region in _regions_of(entry):
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            counts.update(attributes.keys() if isinstance(attributes, dict) else ())
    usual = [name for name in counts if name.lower() in USUAL_ATTRIBUTES]
    if len(counts) <= 1 or len(usual) == 1:
        return (usual or [*counts, ""])[0]
    told = ", ".join(f"{name} ({count} regions)" for name, count in counts.most_common())
    raise InputError(f"{source}: regions have several attributes: {told}; say which has the class: --attribute NAME")


def _options_of(content: Mapping[str, Any], attribute: str) -> dict[str, str]:
    """The texts of an attribute with choices, by the ids that regions have."""
    attributes = content.get("_via_attributes")
    region = attributes.get("region") if isinstance(attributes, dict) else None
    described = region.get(attribute) if isinstance(region, dict) else None
    options = described.get("options") if isinstance(described, dict) else None
    return {key: text for key, text in options.items() if isinstance(text, str) and text} if options else {}


class _Reader:
    """Reads the regions of the images of one file."""

    def __init__(self, split: Split, attribute: str, options: Mapping[str, str], default: str) -> None:
        self.split, self.attribute, self.options, self.default = split, attribute, options, default

    def read(self, region: Any, size: tuple[int, int]) -> LabelledObject | None:
        """One object; None for what is none, which is counted."""
        shape = region.get("shape_attributes") if isinstance(region, dict) else None
        if not isinstance(shape, dict):
            raise InputError(f"it is {region!r:.60}; an object with shape_attributes would be right")
        kind = shape.get("name")
        if kind in NO_AREA:
            self.split.unread[f"regions of type {kind}, which have no area"] += 1
            return None
        name = self._read_class(region.get("region_attributes"))
        if kind == "rect":
            x, y, width, height = read_numbers(shape, ("x", "y", "width", "height"))
            return make_box(name, [(x, y), (x + width, y + height)], size, self.split.mended)
        if kind in ("polygon", "polygone"):
            xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
            if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
                raise InputError("all_points_x and all_points_y are not two lists of one length")
            outline = read_points([[x, y] for x, y in zip(xs, ys, strict=True)])
        elif kind == "circle":
            x, y, radius = read_numbers(shape, ("cx", "cy", "r"))
            outline = outline_ellipse((x, y), (radius, radius))
        elif kind == "ellipse":
            x, y, *radii = read_numbers(shape, ("cx", "cy", "rx", "ry"))
            turned = read_numbers(shape, ("theta",))[0] if "theta" in shape else 0.0
            outline = outline_ellipse((x, y), tuple(radii), math.degrees(turned))
        else:
            raise InputError(f"its shape is {kind!r:.40}; rect, polygon, circle and ellipse are read")
        return make_outline(name, [outline], size, self.split.mended)

    def _read_class(self, attributes: Any) -> str:
        if not self.attribute:
            return self.default
        value = attributes.get(self.attribute) if isinstance(attributes, dict) else None
        if isinstance(value, dict):  # check boxes
            chosen = [key for key, is_chosen in value.items() if is_chosen]
            if len(chosen) > 1:
                raise InputError(f"it has several classes: {', '.join(chosen)}")
            value = chosen[0] if chosen else None
        text = str(value).strip() if isinstance(value, str | int | float) else ""
        if not text:
            raise InputError(f"its attribute {self.attribute!r} is {value!r}, so it has no class")
        return self.options.get(text, text)


def _read_images(
    file: Path, entries: Sequence[Mapping[str, Any]], folders: Sequence[Path], reader: _Reader
) -> Iterator[Found]:
    for entry in entries:
        where = f"{file}: {entry['filename']}"
        regions = _regions_of(entry)
        try:
            path = find_image(entry["filename"], folders)
            size = check_size(path)
        except InputError as error:
            leave_out(reader.split, where, error, len(regions))
            continue
        placed = [(f"{where}: region {number}", region) for number, region in enumerate(regions, start=1)]
        yield path, size, read_each(placed, partial(reader.read, size=size), reader.split)
