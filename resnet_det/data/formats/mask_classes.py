"""What the values of mask images mean: the classes, by number or colour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resnet_det.errors import InputError

NAME_FILES = ("class_names.txt", "classes.txt")  # labelme's: a line for each number from 0 on
BACKGROUND = ("_background_", "background", "__ignore__")
LABEL_MAP = "labelmap.txt"  # CVAT's: name:red,green,blue:parts:actions
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class PixelClasses:
    """The values of the classes in mask images.

    Args:
        values: by name; colours are red << 16 | green << 8 | blue.
        by_colour: whether they are colours.
        ignored: values of the background, besides 0.
        note: where the classes are from.
    """

    values: dict[str, int] = field(default_factory=dict)
    by_colour: bool = False
    ignored: tuple[int, ...] = ()
    note: str = ""

    def show(self, value: int) -> str:
        return f"the colour #{value:06x}" if self.by_colour else f"the value {value}"


def read_pixel_classes(folder: Path, class_names: Sequence[str], *, is_voc: bool = False) -> PixelClasses:
    """The classes as the user says them, else as a file in ``folder`` does; without any, there are none.

    Args:
        class_names: "name=number", "name=#rrggbb", or names of the numbers 1, 2, ...
        is_voc: VOC's twenty classes are taken if nothing else is told.

    Raises:
        InputError: they cannot be read.
    """
    if class_names:
        return _parse(class_names)
    label_map = folder / LABEL_MAP
    if label_map.is_file():
        return _read_label_map(label_map)
    file = next((folder / name for name in NAME_FILES if (folder / name).is_file()), None)
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        first = 0 if lines and lines[0] in BACKGROUND else 1
        named = {name: number for number, name in enumerate(lines, start=first) if name not in BACKGROUND}
        return PixelClasses(named, note=f"classes from {file}: {', '.join(named)}")
    if is_voc:
        named = {name: number for number, name in enumerate(VOC_CLASSES, start=1)}
        return PixelClasses(named, note="the classes are VOC's twenty; others: --names, in their order from 1")
    return PixelClasses()


def _parse(class_names: Sequence[str]) -> PixelClasses:
    values: dict[str, int] = {}
    colours = 0
    for number, text in enumerate(class_names, start=1):
        name, separator, value = text.rpartition("=")
        is_colour = re.fullmatch("#[0-9a-fA-F]{6}", value) is not None
        if separator and not (name and (is_colour or value.isdecimal())):
            raise InputError(f"--names {text}: name=number or name=#rrggbb would be right")
        colours += is_colour
        values[name if separator else text] = int(value[1:], 16) if is_colour else int(value) if separator else number
    if colours not in (0, len(values)) or len(set(values.values())) < len(class_names):
        raise InputError(f"--names {' '.join(class_names)}: each needs a value of its own, all numbers or all colours")
    return PixelClasses(values, by_colour=colours > 0)


def _read_label_map(path: Path) -> PixelClasses:
    values: dict[str, int] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, colour, *_ = [*line.split(":"), ""]
        numbers = colour.split(",")
        if len(numbers) != 3 or not all(number.strip().isdecimal() and int(number) < 256 for number in numbers):
            raise InputError(f"{path}: {line!r}; name:red,green,blue:: would be right")
        red, green, blue = map(int, numbers)
        values[name] = red << 16 | green << 8 | blue
    ignored = tuple(value for name, value in values.items() if name in BACKGROUND)
    named = {name: value for name, value in values.items() if name not in BACKGROUND}
    return PixelClasses(named, by_colour=True, ignored=ignored, note=f"classes from {path}: {', '.join(named)}")
