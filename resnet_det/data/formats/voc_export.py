"""COCO annotation files as a data set in Pascal VOC's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from resnet_det.data.formats.export import ExportedSet, clip_box, place_images

DIGITS = 4  # of a pixel


def write_voc(sets: Sequence[ExportedSet], folder: Path) -> Path:
    """Write ``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/<split>.txt``.

    Boxes count pixels from 1, both ends included, as in VOC; those of COCO that are no whole numbers are not rounded,
    as VOC's own are not. Crowd regions are "difficult", which VOC does not count either. Masks and keypoints have no
    place in these files.

    Args:
        folder: new and empty.

    Returns:
        The folder of the lists.
    """
    taken: set[str] = set()
    lists = folder / "ImageSets" / "Main"
    for part in (folder / "Annotations", lists):
        part.mkdir(parents=True, exist_ok=True)
    for one in sets:
        place_images(one, folder / "JPEGImages", flat=True, taken=taken)
        ids = [Path(name).stem for name in one.file_names]
        for place, rows in one.objects_of():
            root = _write_image(one, place, rows)
            ElementTree.indent(root)
            ElementTree.ElementTree(root).write(folder / "Annotations" / f"{ids[place]}.xml", encoding="utf-8")
        (lists / f"{one.name}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return lists


def _write_image(one: ExportedSet, place: int, rows: Sequence[int]) -> ElementTree.Element:
    data = one.data
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", one.file_names[place])
    size = _add(root, "size")
    for side in ("width", "height"):
        _add(size, side, str(data.images[place][side]))
    _add(size, "depth", "3")
    _add(root, "segmented", "0")
    for row in rows:
        crowd = bool(data.crowd[row])
        for what, is_so in (
            ("crowd regions: marked difficult", crowd),
            ("masks: left out, as the format has none", data.mask(row) is not None),
            ("objects with keypoints: these are left out, as the format has none", data.keypoints(row) is not None),
        ):
            one.counts[what] += is_so
        item = _add(root, "object")
        _add(item, "name", data.class_names[data.category[row]])
        _add(item, "pose", "Unspecified")
        _add(item, "truncated", "0")
        _add(item, "difficult", str(int(crowd)))
        box = _add(item, "bndbox")
        x0, y0, x1, y1 = clip_box(one, row)
        for edge, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            _add(box, edge, f"{round(value, DIGITS):.12g}")
    return root


def _add(parent: ElementTree.Element, tag: str, text: str | None = None) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = text
    return child
