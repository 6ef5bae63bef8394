"""Everything that an inspection of a data set can find, by kind, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tabulate

SEVERITIES = ("error", "warning", "note")  # would stop or falsify training or evaluation; suspicious; worth knowing
KINDS = {
    "json": ("error", "annotation file is not JSON in COCO format"),
    "malformed-entry": ("error", "entry lacks something, or has it in another form than COCO"),
    "duplicate-image-id": ("error", "image id used before"),
    "duplicate-annotation-id": ("error", "annotation id used before"),
    "duplicate-category-id": ("error", "category id used before"),
    "unknown-image-id": ("error", "annotation of an image that is not listed"),
    "unknown-category-id": ("error", "annotation of a category that is not listed"),
    "file-listed-twice": ("error", "image file listed before"),
    "missing-image": ("error", "no such image file"),
    "unreadable-image": ("error", "file is not an image"),
    "truncated-image": ("error", "image file is cut off or damaged"),
    "wrong-size": ("error", "image has another size than the annotation file says"),
    "exif-size": ("error", "annotations belong to the image as stored, readers turn it by its EXIF tag"),
    "16-bit-image": ("error", "more than 8 bits per channel: readers clip them"),
    "box-not-finite": ("error", "box with NaN or infinity"),
    "box-without-area": ("error", "box with zero or negative width or height"),
    "box-outside": ("error", "box lies outside its image"),
    "duplicate-box": ("error", "box of the same class within 1 px of another"),
    "malformed-mask": ("error", "segmentation that is neither polygons nor a run-length code"),
    "polygon-too-short": ("error", "polygon with fewer than 3 points, or half a point"),
    "rle-size": ("error", "run-length mask has another size than its image"),
    "keypoints-length": ("error", "keypoints are not [x, y, visibility] for each of the category's"),
    "box-partly-outside": ("warning", "box reaches more than 1 px outside its image"),
    "near-duplicate-box": ("warning", "box of the same class nearly covers another"),
    "empty-mask": ("warning", "segmentation without points or pixels"),
    "mask-off-box": ("warning", "mask's bounding box is clearly another than the box"),
    "keypoints-visibility": ("warning", "keypoint visibility is not 0, 1 or 2"),
    "keypoints-outside": ("warning", "labelled keypoints outside the image"),
    "missing-area": ("warning", "annotation without area, which COCO evaluation needs"),
    "exif-rotation": ("warning", "some readers turn the image by its EXIF tag, others do not"),
    "cmyk-image": ("warning", "colours for print: readers convert them differently"),
    "identical-images": ("warning", "same image file in two annotation files"),
    "near-duplicate-images": ("warning", "nearly the same picture in two annotation files"),
    "grey-image": ("note", "grey image, read as three equal channels"),
    "unlabelled-image": ("note", "image without annotations"),
    "class-not-labelled": ("note", "labelled image without a class that nearly all others have"),
    "unusual-size": ("note", "box of a very unusual size for its class: another class?"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        kind: a key of ``KINDS``.
        message: what is wrong, and what would be right.
        section: the list of the annotation file that has the entry: images, annotations or categories.
        index: the entry's place in that list, from 0.
    """

    kind: str
    message: str
    section: str = ""
    index: int = -1

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]


def count_kinds(problems: Sequence[Problem]) -> Counter[str]:
    """How many there are of each kind, in the order of ``KINDS``."""
    counts = Counter(problem.kind for problem in problems)
    return Counter({kind: counts[kind] for kind in KINDS if counts[kind]})


def count_errors(problems: Sequence[Problem]) -> int:
    return sum(problem.severity == "error" for problem in problems)


def format_problems(problems: Sequence[Problem], content: dict[str, Any], max_lines: int) -> Iterator[str]:
    """One line for each problem, kind by kind; beyond ``max_lines`` of a kind, one line that says how many more."""
    wide = max((len(problem.kind) for problem in problems), default=0)
    file_names = {
        image["id"]: image.get("file_name")
        for image in content["images"]
        if isinstance(image, dict) and isinstance(image.get("id"), (int, str))
    }
    for kind, count in count_kinds(problems).items():
        ofkind = [problem for problem in problems if problem.kind == kind]
        for problem in ofkind[:max_lines]:
            where = _describe_entry(problem, content, file_names)
            yield f"{problem.severity:7}  {kind:{wide}}  {where}: {problem.message}"
        if count > max_lines:
            yield f"{KINDS[kind][0]:7}  {kind:{wide}}  ... and {count - max_lines:,} more"


def format_counts(problems: Sequence[Problem]) -> str:
    """A table of the kinds that were found, and a line with the sums."""
    counts = count_kinds(problems)
    sums = Counter(problem.severity for problem in problems)
    total = ", ".join(f"{sums[severity]:,} {severity}{'' if sums[severity] == 1 else 's'}" for severity in SEVERITIES)
    if not counts:
        return total
    rows = [(KINDS[kind][0], kind, f"{count:,}", KINDS[kind][1]) for kind, count in counts.items()]
    headers = ("severity", "kind", "count", "what it is")
    table = tabulate.tabulate(rows, headers, colalign=("left", "left", "right", "left"), disable_numparse=True)
    return f"{table}\n\n{total}"


def _describe_entry(problem: Problem, content: dict[str, Any], file_names: dict[Any, Any]) -> str:
    if not problem.section:
        return "file"
    entry = content[problem.section][problem.index]
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), (int, str)):
        return f"{problem.section}[{problem.index}]"
    if problem.section == "categories":
        return f"category {entry['id']}"
    if problem.section == "images":
        return f"{entry.get('file_name')}, image {entry['id']}"
    image_id = entry.get("image_id")
    file_name = file_names.get(image_id, "no file") if isinstance(image_id, (int, str)) else "no file"
    return f"{file_name}, image {image_id}, annotation {entry['id']}"
