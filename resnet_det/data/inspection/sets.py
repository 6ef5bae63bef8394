"""The inspection of whole data sets: everything that is wrong with them, not the first thing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_det.data.coco import CocoData, Problem, judge_content, read_coco_json
from resnet_det.data.coco.entries import find_repeated
from resnet_det.data.inspection.boxes import inspect_boxes
from resnet_det.data.inspection.images import compare_sets, inspect_images
from resnet_det.data.inspection.labels import inspect_labels
from resnet_det.data.inspection.masks import inspect_keypoints, inspect_masks
from resnet_det.errors import InputError


@dataclass
class InspectedSet:
    """An annotation file, its image folder, and what is wrong with them.

    Args:
        content: the file's, with empty lists if it cannot be used.
        data: what the reader made of it.
    """

    annotation_file: Path
    image_folder: Path
    content: dict[str, Any] = field(default_factory=lambda: {"images": [], "annotations": [], "categories": []})
    problems: list[Problem] = field(default_factory=list)
    data: CocoData | None = None

    @property
    def is_usable(self) -> bool:
        return all(problem.kind != "json" for problem in self.problems)


def inspect_sets(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    *,
    workers: int | None = None,
    crowd_as_objects: bool = False,
    max_pixels: int = 0,
) -> list[InspectedSet]:
    """Inspect the sets of ``pairs`` (annotation file, image folder) and compare their images with each other's.

    Args:
        workers: threads that read images; None for one per CPU.
        crowd_as_objects: crowd regions are ordinary objects.
        max_pixels: the most of an image that are read; 0: Pillow's limit.

    Raises:
        InputError: a file or folder is not there.
    """
    sets = [InspectedSet(Path(annotations), Path(images)) for annotations, images in pairs]
    for one in sets:
        if not one.annotation_file.is_file():
            raise InputError(f"--annotations {one.annotation_file}: no such file")
        if not one.image_folder.is_dir():
            raise InputError(f"--images {one.image_folder}: no such folder")
    findings = []
    for one in sets:
        try:
            one.content = read_coco_json(one.annotation_file)
        except InputError as error:
            one.problems.append(Problem("json", str(error)))
        one.data = judge_content(one.content, one.image_folder, crowd_as_objects=crowd_as_objects)
        found = inspect_images(
            one.data.images, one.image_folder, workers=workers, with_hashes=len(sets) > 1, max_pixels=max_pixels
        )
        places = one.data.image_index.tolist()
        findings.append((places, [image["file_name"] for image in one.data.images], found))
        one.problems += inspect_data(one.data)
        one.problems += inspect_labels(one.data)
        one.problems += [
            Problem(kind, message, "images", index)
            for index, image in zip(places, found, strict=True)
            for kind, message in image.faults
        ]
    for (i, (_, names, earlier)), (j, (places, _, later)) in itertools.combinations(enumerate(findings), 2):
        sets[j].problems += compare_sets(sets[i].annotation_file.name, earlier, later, names, places)
    return sets


def inspect_data(data: CocoData) -> list[Problem]:
    """Problems that can be told without the images: what the reader has found, and what else is suspicious."""
    data.judge_masks()
    data.judge_keypoints()
    data.area  # noqa: B018 (judged when it is first asked for)
    problems = [problem for finding in data.all_findings() for problem in finding.to_problems()]
    names = zip(data.image_index.tolist(), (os.path.normpath(image["file_name"]) for image in data.images), strict=True)
    ids = dict(zip(data.image_index.tolist(), (image["id"] for image in data.images), strict=True))
    for index, first in find_repeated(sorted(names)):
        message = f"the file is that of image {ids[first]}, too; one entry should have all annotations"
        problems.append(Problem("file-listed-twice", message, "images", index))
    return problems + inspect_boxes(data) + inspect_masks(data) + inspect_keypoints(data)
