"""The inspection of whole data sets: everything that is wrong with them, not the first thing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_det.data.check import read_coco_json
from resnet_det.data.inspect_boxes import inspect_boxes
from resnet_det.data.inspect_entries import AnnotationTable, inspect_entries, make_table
from resnet_det.data.inspect_images import compare_sets, inspect_images
from resnet_det.data.inspect_labels import inspect_labels
from resnet_det.data.inspect_masks import inspect_keypoints, inspect_masks
from resnet_det.data.problems import Problem
from resnet_det.errors import InputError


@dataclass
class InspectedSet:
    """An annotation file, its image folder, and what is wrong with them.

    Args:
        content: the file's, with empty lists if it cannot be used.
    """

    annotation_file: Path
    image_folder: Path
    content: dict[str, Any] = field(default_factory=lambda: {"images": [], "annotations": [], "categories": []})
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_usable(self) -> bool:
        return all(problem.kind != "json" for problem in self.problems)


def inspect_sets(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]], *, workers: int | None = None
) -> list[InspectedSet]:
    """Inspect the sets of ``pairs`` (annotation file, image folder) and compare their images with each other's.

    Args:
        workers: threads that read images; None for one per CPU.

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
        problems, sound, table = inspect_content(one.content)
        entries = [one.content["images"][index] for index in sound["images"]]
        found = inspect_images(entries, one.image_folder, workers=workers, with_hashes=len(sets) > 1)
        findings.append((sound["images"], [entry["file_name"] for entry in entries], found))
        one.problems += problems
        one.problems += inspect_labels(one.content, sound, table)
        one.problems += [
            Problem(kind, message, "images", index)
            for index, image in zip(sound["images"], found, strict=True)
            for kind, message in image.faults
        ]
    for (i, (_, names, earlier)), (j, (places, _, later)) in itertools.combinations(enumerate(findings), 2):
        sets[j].problems += compare_sets(sets[i].annotation_file.name, earlier, later, names, places)
    return sets


def inspect_content(content: dict[str, Any]) -> tuple[list[Problem], dict[str, list[int]], AnnotationTable]:
    """Problems that can be told without the images; the places of the well-formed entries; their annotations."""
    problems, sound = inspect_entries(content)
    table = make_table(content, sound)
    problems += inspect_boxes(content["annotations"], table)
    problems += inspect_masks(content["annotations"], table)
    problems += inspect_keypoints(content, table)
    return problems, sound, table
