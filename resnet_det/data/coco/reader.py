"""THE reader of COCO annotation files: everything that trains, evaluates, draws, checks or mends data takes what it
returns, so that all of them use the same objects and say the same of those that they leave out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.data.coco.annotations import AnnotationColumns
from resnet_det.data.coco.classes import choose_classes
from resnet_det.data.coco.data import CROWD_ADVICE, CocoData
from resnet_det.data.coco.entries import read_categories, read_images
from resnet_det.data.coco.file import SECTIONS, Content, read_content, take_content
from resnet_det.data.coco.problems import Finding
from resnet_det.errors import InputError


def read_coco(
    annotation_file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str] | None = None,
    *,
    areas: bool = True,
    crowd_as_objects: bool = False,
    classes: Sequence[str] = (),
) -> CocoData:
    """Read, normalise and judge a COCO annotation file.

    Args:
        image_folder: where sizes that the file does not say are read; None: they stay 0.
        areas: read the areas of the objects, which evaluation needs.
        crowd_as_objects: crowd regions are ordinary objects.
        classes: names of those that are taken, in the order that they shall have; empty: all, by their ids.

    Raises:
        InputError: the file is missing, is not JSON, is not in COCO's format, or has none of ``classes``.
    """
    content = read_content(annotation_file, areas=areas)
    try:
        data = judge(content, image_folder, crowd_as_objects=crowd_as_objects, classes=classes)
    except InputError as error:
        raise InputError(f"{annotation_file}: {error}") from None
    data.path = Path(annotation_file)
    return data


def judge_content(
    content: dict[str, Any],
    image_folder: str | os.PathLike[str] | None = None,
    *,
    crowd_as_objects: bool = False,
) -> CocoData:
    """The same of a file that has been read as JSON; it stays as it is."""
    return judge(take_content(content), image_folder, crowd_as_objects=crowd_as_objects)


def judge(
    content: Content,
    image_folder: str | os.PathLike[str] | None,
    *,
    crowd_as_objects: bool,
    classes: Sequence[str] = (),
) -> CocoData:
    """What is usable of ``content``, whose annotations are normalised in place, and what is wrong with it."""
    images, image_index, findings = read_images(content.images, image_folder)
    categories, category_index, found = read_categories(content.categories)
    columns = AnnotationColumns(content, images, categories)
    if classes:
        categories, category_index = choose_classes(columns, categories, category_index, classes)
    findings += found + columns.findings
    if not content.has_annotations:
        findings.append(Finding("no-annotations", "", np.zeros(0, np.int64), lambda _: "it has no annotations"))
    if crowd_as_objects:
        columns.treat_crowds_as_objects()
    index, entries = np.arange(len(columns.entries)), columns.entries
    if not columns.usable.all():
        index = np.flatnonzero(columns.usable)
        entries = [entries[place] for place in index]
    data = CocoData(
        images=images,
        categories=categories,
        annotations=entries,
        image_index=image_index,
        category_index=category_index,
        index=index,
        image=columns.image[index],
        category=columns.category[index],
        box=columns.box[index],
        crowd=columns.crowd[index],
        is_labelled=np.bincount(columns.image[columns.image >= 0], minlength=len(images)) > 0,
        findings=findings,
        num_listed={section: len(getattr(content, section)) for section in SECTIONS},
        has_annotations=content.has_annotations,
    )
    data.findings += _find_odd_classes(data)
    return data


def _find_odd_classes(data: CocoData) -> list[Finding]:
    """Classes that nothing can be learned of, though there are objects of others."""
    if not len(data.annotations):
        return []
    count = len(data.categories)
    objects = np.bincount(data.category[~data.crowd], minlength=count)
    crowds = np.bincount(data.category[data.crowd], minlength=count)
    texts = {}
    for row in np.flatnonzero((objects == 0) & (crowds > 0)).tolist():
        name = data.categories[row]["name"]
        texts[int(data.category_index[row])] = f"all {crowds[row]} annotations of {name!r} are crowds; {CROWD_ADVICE}"
    unused = {
        int(data.category_index[row]): f"{data.categories[row]['name']!r} is the root of Roboflow's categories"
        for row in np.flatnonzero((objects == 0) & (crowds == 0)).tolist()
        if data.categories[row].get("supercategory") == "none"
    }
    return [
        Finding(kind, "categories", np.array(sorted(found), dtype=np.int64), found.__getitem__)
        for kind, found in (("only-crowds", texts), ("unused-root", unused))
        if found
    ]
