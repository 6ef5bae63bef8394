"""Everything that an inspection of a data set can find, by kind, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tabulate

SEVERITIES = ("error", "warning", "note")  # stops or falsifies training and evaluation; suspicious; worth knowing
KINDS = {
    "json": ("error", "annotation file is not JSON in COCO format"),
    "malformed-entry": ("error", "entry lacks something, or has it in a form that cannot be read"),
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
    "huge-image": ("error", "image has more pixels than are read"),
    "box-not-finite": ("error", "box with NaN or infinity"),
    "only-crowds": ("error", "class with crowd regions alone, which are neither trained on nor evaluated"),
    "duplicate-box": ("error", "box of the same class within 1 px of another"),
    "box-without-area": ("warning", "box with zero or negative width or height: the object is left out"),
    "box-outside": ("warning", "box lies outside its image: the object is left out"),
    "malformed-mask": ("warning", "segmentation that is neither polygons nor a run-length code: the mask is left out"),
    "polygon-too-short": ("warning", "polygon with fewer than 3 points, or half a point: it is left out"),
    "rle-size": ("warning", "run-length mask has another size than its image: the mask is left out"),
    "keypoints-length": (
        "warning",
        "keypoints are not [x, y, visibility] for each of the category's: they are left out",
    ),
    "ignore": ("warning", "object marked ignore: neither trained on nor counted, as a crowd region"),
    "other-form": ("warning", "value in another form than COCO's, read all the same"),
    "box-from-mask": ("warning", "annotation without a box, which is taken from its mask"),
    "missing-id": ("warning", "annotation without an id, which gets a new one"),
    "missing-size": ("warning", "image without a size, which is read from its file"),
    "box-partly-outside": ("warning", "box reaches more than 1 px outside its image"),
    "near-duplicate-box": ("warning", "box of the same class nearly covers another"),
    "empty-mask": ("warning", "no mask, where others have one: not in the loss of masks"),
    "mask-off-box": ("warning", "mask's bounding box is clearly another than the box"),
    "keypoints-visibility": ("warning", "keypoint visibility is not 0, 1 or 2"),
    "keypoints-outside": ("warning", "labelled keypoints outside the image"),
    "missing-area": ("warning", "annotation without area: that of its mask, else of its box, is taken"),
    "duplicate-category-name": ("warning", "category of the name of another: it is told apart by its id"),
    "unused-root": ("warning", "category without annotations, of supercategory none: a class of its own all the same"),
    "exif-rotation": ("warning", "some readers turn the image by its EXIF tag, others do not"),
    "cmyk-image": ("warning", "colours for print, converted to RGB: readers convert them differently"),
    "16-bit-image": ("warning", "more than 8 bits per channel, scaled down to 8: other readers clip them"),
    "signed-image": ("warning", "values below 0: RESNET_DET.INPUT.WINDOW has to say what is black and white"),
    "animated-image": (
        "warning",
        "several pictures in one file: the first one is used (of a TIFF file, name#1 is the second)",
    ),
    "identical-images": ("warning", "same image file in two annotation files"),
    "near-duplicate-images": ("warning", "nearly the same picture in two annotation files"),
    "other-class": ("note", "object of a class that was not chosen: it is left out"),
    "missing-class": ("note", "class that was chosen, and is not there"),
    "no-annotations": ("note", "annotation file without annotations: to predict on alone"),
    "no-masks": ("note", "no object has a mask: MODEL.MASK_ON False would be right"),
    "many-channels": ("note", "other channels than grey and RGB: for INPUT.FORMAT CHANNELS"),
    "grey-image": ("note", "grey image, read as three equal channels"),
    "unlabelled-image": ("note", "image without annotations"),
    "class-not-labelled": ("note", "labelled image without a class that nearly all others have"),
    "unusual-size": ("note", "box of a very unusual size for its class: another class?"),
}
# What of an entry is not used because of the problem.
LEFT_OUT = {
    "box-without-area": "objects",
    "box-outside": "objects",
    "other-class": "objects",
    "malformed-mask": "masks",
    "polygon-too-short": "polygons",
    "rle-size": "masks",
    "keypoints-length": "keypoints",
}
MAX_NAMED = 3  # examples in a message


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


@dataclass(frozen=True, eq=False)
class Finding:
    """One kind of problem of any number of entries, without a text for each.

    Args:
        index: the entries' places in the list ``section``; empty for the file as a whole.
        describe: what is wrong with the entry at such a place, and what would be right.
    """

    kind: str
    section: str
    index: np.ndarray
    describe: Callable[[int], str]

    def __len__(self) -> int:
        return max(len(self.index), not self.section)

    @property
    def is_error(self) -> bool:
        return KINDS[self.kind][0] == "error"

    def to_problems(self) -> list[Problem]:
        if not self.section:
            return [Problem(self.kind, self.describe(-1))]
        return [Problem(self.kind, self.describe(place), self.section, place) for place in self.index.tolist()]

    def summarize(self, total: int) -> str:
        """One line: how many of ``total`` entries, what is wrong with them, and examples."""
        if not self.section:
            return self.describe(-1)
        examples = "; ".join(
            f"{self.section}[{place}]: {self.describe(place)}" for place in self.index[:MAX_NAMED].tolist()
        )
        return f"{len(self.index)} of {total} {self.section}: {KINDS[self.kind][1]} ({examples})"


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
