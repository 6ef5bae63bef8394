"""CSV files with a box in each row, as Roboflow writes them and TensorFlow's tutorials have them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from resnet_det.data.formats.find import Found, check_size, find_files, find_image, image_folders, leave_out, read_each
from resnet_det.data.formats.labels import IMAGE_SUFFIXES, Classes, LabelledObject, Split, place_images, take_classes
from resnet_det.data.formats.shapes import make_box, read_numbers
from resnet_det.errors import InputError

EDGES = ("xmin", "ymin", "xmax", "ymax")
# The columns that are read, and what others call them; in any case.
COLUMNS = {
    "filename": ("filename", "file_name", "image", "image_path", "path", "image_id", "file"),
    "class": ("class", "label", "class_name", "name", "category"),
    "xmin": ("xmin", "x_min", "x1"),
    "ymin": ("ymin", "y_min", "y1"),
    "xmax": ("xmax", "x_max", "x2"),
    "ymax": ("ymax", "y_max", "y2"),
}
SIZE = ("width", "height")


def read_csv(
    source: str | os.PathLike[str], class_names: Sequence[str] = (), *, images: str | os.PathLike[str] | None = None
) -> tuple[list[Split], Classes]:
    """Read CSV files: one, or all in a folder and below it, each of which is a split.

    The first line names the columns: filename, class, xmin, ymin, xmax and ymax; width and height are compared with the
    image if they are there. Boxes are edges counted from 0, with the right and bottom ones excluded. A row with an
    image alone is one without objects.

    Args:
        class_names: the classes in their order; if not given, all that occur, by alphabet.
        images: where the images are; if not given, beside the file, or in a folder "images" near it.

    Raises:
        InputError: there are no such files.
    """
    what = f"CSV file whose first line has the columns {', '.join(COLUMNS)}"
    files = find_files(Path(source), ".csv", lambda file: _find_columns(file) is not None, what)
    splits = []
    for name, file in files.items():
        split = Split(name, file.parent)
        folders = image_folders(file, Path(images) if images else None)
        found = list(_read_images(file, folders, split))
        place_images(split, found)
        _note_others(split, found)
        splits.append(split)
    return splits, take_classes(splits, class_names)


def _find_columns(file: Path) -> dict[str, str] | None:
    """What the file calls the columns that are read; None if one is not there."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    present = {name.strip().lower(): name for name in header}
    known = {
        column: next((present[name] for name in names if name in present), None) for column, names in COLUMNS.items()
    }
    return None if None in known.values() else known | {side: present[side] for side in SIZE if side in present}


def _read_images(file: Path, folders: Sequence[Path], split: Split) -> Iterator[Found]:
    columns = _find_columns(file)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for row in reader:
            values = {column: (row.get(name) or "").strip() for column, name in columns.items()}
            rows.setdefault(values["filename"], []).append((reader.line_num, values))
    for name, listed in rows.items():
        try:
            path = find_image(name, folders)
            size = check_size(path, [_to_number(listed[0][1].get(side)) for side in SIZE])
        except InputError as error:
            leave_out(split, f"{file}:{listed[0][0]}", error, len(listed))
            continue
        placed = [(f"{file}:{row}", values) for row, values in listed if any(values[key] for key in ("class", *EDGES))]
        yield path, size, read_each(placed, partial(_read_row, size=size, split=split), split)


def _read_row(values: Mapping[str, str], size: tuple[int, int], split: Split) -> LabelledObject:
    if not values["class"]:
        raise InputError("it has no class")
    x0, y0, x1, y1 = read_numbers(values, EDGES)
    if x1 < x0 or y1 < y0:
        split.mended["boxes whose corners were swapped"] += 1
    return make_box(values["class"], [(x0, y0), (x1, y1)], size, split.mended)


def _to_number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _note_others(split: Split, found: Sequence[Found]) -> None:
    """Say how many images beside those of the file no row names: without objects, or of another split."""
    named = {path.resolve() for path, _, _ in found}
    folders = {path.parent for path, _, _ in found}
    others = [
        path
        for folder in sorted(folders)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.resolve() not in named
    ]
    if others:
        split.notes.append(
            f"{len(others)} images in {folders.pop()} have no row, such as {others[0].name}: not in this split"
        )
