"""Which images are tested in which fold: groups, such as those of a patient or a slide, stay together."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnet_det.data.coco import CocoData, read_coco, read_coco_json
from resnet_det.data.coco.fields import read_id
from resnet_det.data.coco.image_files import check_images
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

MAX_NAMED = 3  # examples named in a message


@dataclass(frozen=True)
class Fold:
    """The files of a fold, and how much is in them."""

    number: int  # from 1
    train: Path
    test: Path
    train_images: int
    test_images: int
    test_groups: int


@dataclass(frozen=True, eq=False)
class Split:
    """Images by fold.

    Attributes:
        content: of the annotation file, as it is.
        groups: of each image of ``content``.
        fold: of each image, from 0.
        image_of: of each annotation the place of its image; -1 where it cannot be used.
        rare_classes: those with objects in a single group: no fold can both learn and test them.
    """

    content: dict[str, Any]
    groups: list[str]
    fold: list[int]
    image_of: list[int]
    rare_classes: list[str]


def split_images(
    annotations: Path, images: Path, num_folds: int, *, seed: int, group_by: str = "", **reading_rules: Any
) -> Split:
    """Put each image into one of ``num_folds`` folds, all of a group into the same.

    Groups are taken in random order, the largest first, each into the fold that has the fewest images by then.

    Args:
        group_by: a key that all images of the file have, or a pattern of their file names: the group is what its first
            parentheses match, or all of the match if it has none; "": each image is a group of its own.
        reading_rules: as of :func:`~resnet_det.data.coco.read_coco`.

    Raises:
        InputError: the files cannot be used, an image is listed twice, has no group, there are too few groups, or the
            training images of a fold have no objects, or only crowd regions of a class.
    """
    if num_folds < 2:
        raise InputError(f"--folds {num_folds}: 2 or more")
    data = read_coco(annotations, images, **reading_rules)
    problems = [] if data.has_annotations else ["it has no annotations, so that nothing can be learned"]
    problems += check_images(data, images) if not data.problems() else []
    data.raise_problems(str(annotations), trains=True, more=problems)
    for line in data.describe_warnings():
        logger.warning("%s: %s", annotations, line)
    content = read_coco_json(annotations)
    _check_listed_once(annotations, content["images"])
    groups = _find_groups(annotations, content["images"], group_by)
    sizes = Counter(groups)
    if len(sizes) < num_folds:
        raise InputError(
            f"--folds {num_folds}: there {'is' if len(sizes) == 1 else 'are'} {_count(len(sizes), 'group')}"
            + (f" by --group-by {group_by}" if group_by else "")
            + ", and each fold needs one at least"
        )
    fold_of = assign_groups(sizes, num_folds, seed)
    image_of = np.full(len(content["annotations"]), -1)
    image_of[data.index] = places = data.image_index[data.image]
    fold = np.array([fold_of[group] for group in groups])
    _check_training_parts(annotations, data, fold[places])
    seen = {
        (category, groups[place])
        for category, place, is_crowd in zip(data.category.tolist(), places, data.crowd, strict=True)
        if not is_crowd
    }
    counts = Counter(category for category, _ in seen)
    rare = [name for category, name in enumerate(data.class_names) if counts[category] == 1]
    return Split(content, groups, fold.tolist(), image_of.tolist(), rare)


def assign_groups(sizes: dict[str, int], num_folds: int, seed: int) -> dict[str, int]:
    """The fold, from 0, of each group, by its number of images."""
    names = sorted(sizes)
    shuffled = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    filled = [0] * num_folds
    fold_of = {}
    for name in sorted(shuffled, key=lambda name: -sizes[name]):
        fold_of[name] = filled.index(min(filled))
        filled[fold_of[name]] += sizes[name]
    return fold_of


def write_folds(split: Split, folder: Path) -> list[Fold]:
    """Write ``fold-N_train.json`` and ``fold-N_test.json`` to ``folder``: COCO files with what the annotation file has
    of their images, but for annotations that cannot be used. The ids stay."""
    folder.mkdir(parents=True, exist_ok=True)
    folds = []
    for number in range(1, max(split.fold) + 2):
        is_test = [fold == number - 1 for fold in split.fold]
        paths = {part: folder / f"fold-{number}_{part}.json" for part in ("train", "test")}
        parts = {"train": [not tested for tested in is_test], "test": is_test}
        for part, chosen in parts.items():
            kept = [image for image, is_chosen in zip(split.content["images"], chosen, strict=True) if is_chosen]
            annotations = [
                one
                for one, place in zip(split.content["annotations"], split.image_of, strict=True)
                if place >= 0 and chosen[place]
            ]
            temporary = paths[part].with_suffix(".tmp")
            content = {**split.content, "images": kept, "annotations": annotations}
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(paths[part])
        groups = {group for group, tested in zip(split.groups, is_test, strict=True) if tested}
        folds.append(
            Fold(number, paths["train"], paths["test"], is_test.count(False), is_test.count(True), len(groups))
        )
    return folds


def _check_training_parts(annotations: Path, data: CocoData, fold: np.ndarray) -> None:
    """What each training refuses, before the first; ``fold``, from 0, of each annotation of ``data``."""
    for number in range(fold.max(initial=0) + 1):
        trained = fold != number
        objects, crowds = (set(data.category[trained & chosen].tolist()) for chosen in (~data.crowd, data.crowd))
        names = [data.class_names[category] for category in sorted(crowds - objects)]
        if names or not objects:
            lacking = f"only crowd regions of {', '.join(names[:MAX_NAMED])}" if names else "no objects"
            raise InputError(
                f"{annotations}: the training images of fold {number + 1} have {lacking}, which cannot be trained on; "
                "objects in more groups, or another --seed, would be right"
            )


def _check_listed_once(annotations: Path, images: Sequence[dict[str, Any]]) -> None:
    for key in ("id", "file_name"):
        twice = [value for value, count in Counter(image[key] for image in images).items() if count > 1]
        if twice:
            raise InputError(
                f"{annotations}: {_count(len(twice), 'image')} listed more than once by {key} (such as "
                f"{', '.join(map(str, twice[:MAX_NAMED]))}): one could be trained on and tested in the same fold; "
                "tools/check_dataset.py finds and mends that"
            )


def _find_groups(annotations: Path, images: Sequence[dict[str, Any]], group_by: str) -> list[str]:
    if not group_by:
        return [str(image["file_name"]) for image in images]
    if any(group_by in image for image in images):
        found = [image.get(group_by) for image in images]
        what = f"{annotations}: --group-by {group_by}: a whole number or a text is missing in"
        ids = map(read_id, found)
        groups = [None if value is None else str(value) for value in ids]
    else:
        try:
            pattern = re.compile(group_by)
        except re.error as error:
            raise InputError(
                f"--group-by {group_by}: neither a key of the images of {annotations} nor a pattern ({error})"
            ) from None
        matches = [pattern.search(str(image["file_name"])) for image in images]
        what = f"--group-by {group_by}: no image of {annotations} has such a key, and as a pattern it does not match"
        groups = [match and match[1 if pattern.groups else 0] for match in matches]
    lacking = [str(image["file_name"]) for image, group in zip(images, groups, strict=True) if not group]
    if lacking:
        raise InputError(f"{what} {len(lacking)} of {len(images)} images (such as {', '.join(lacking[:MAX_NAMED])})")
    return groups


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
