"""What the reader returns: the usable objects of a COCO annotation file, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from pycocotools import mask as mask_util

from resnet_det.data.coco.annotations import parse
from resnet_det.data.coco.fields import read_number
from resnet_det.data.coco.file import Annotation
from resnet_det.data.coco.masks import Read, have_three_points, read_keypoints, read_mask
from resnet_det.data.coco.problems import LEFT_OUT, Finding
from resnet_det.errors import InputError

CROWD_ADVICE = (
    "set RESNET_DET.DATA.CROWD_AS_OBJECTS True to treat crowd regions as objects (tools: --crowd-as-objects), as "
    "CVAT's brush masks are meant; tools/check_dataset.py --fix with that flag writes a file without crowds"
)


@dataclass(frozen=True)
class Usage:
    """How much of a data set is used; crowd regions are no objects.

    Args:
        keypoints: labelled ones.
        left_out: how many images, objects, masks, polygons and keypoints are not used, by the reason.
    """

    images: int
    objects: int
    classes: int
    masks: int
    keypoints: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{self.images:,} images", f"{self.objects:,} objects", f"{self.classes:,} classes"]
        counts += [f"{self.masks:,} masks"] * bool(self.masks)
        counts += [f"{self.keypoints:,} labelled keypoints"] * bool(self.keypoints)
        unused = [f"{count:,} {what}" for what, count in self.left_out.items()]
        return ", ".join(counts) + (f"; not used: {', '.join(unused)}" if unused else "")


_decode_polygons = msgspec.json.Decoder(list[list[int | float]]).decode


@dataclass(eq=False)
class CocoData:
    """Images and categories in the order of their ids, usable annotations in the order of the file.

    Args:
        images: entries with id, file_name, and height and width in pixels (0 where not known).
        categories: entries with id and name; no two have the same.
        annotations: the entries, with ids, box and flags as COCO has them.
        image_index, category_index, index: the places of all these in the file's lists.
        image, category: (n,) rows of ``images`` and ``categories``.
        box: (n, 4) x, y, width, height in pixels.
        crowd: (n,) bool: regions that are neither trained on nor counted.
        is_labelled: (images,) bool: which have annotations in the file, usable or not.
        findings: what is wrong, but for masks and keypoints, which are judged when they are read.
        num_listed: how many images, annotations and categories the file has, usable or not.
        has_annotations: False for the file of a test set, which has no list of them.
    """

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[Annotation]
    image_index: np.ndarray
    category_index: np.ndarray
    index: np.ndarray
    image: np.ndarray
    category: np.ndarray
    box: np.ndarray
    crowd: np.ndarray
    is_labelled: np.ndarray
    findings: list[Finding]
    num_listed: dict[str, int]
    has_annotations: bool = True
    path: Path | None = None
    _texts: dict[str, dict[int, str]] = field(default_factory=dict)  # of masks and keypoints: kind -> place -> text
    _no_masks: Finding | None = None

    @property
    def class_names(self) -> list[str]:
        return [category["name"] for category in self.categories]

    @cached_property
    def sizes(self) -> np.ndarray:
        """(images, 2): height and width in pixels; 0 where not known."""
        return np.array([(image["height"], image["width"]) for image in self.images], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _sizes(self) -> list[list[int]]:
        return self.sizes.tolist()

    @cached_property
    def keypoint_counts(self) -> np.ndarray:
        """(categories,): how many keypoints each has by its entry; -1 where that does not say."""
        named = [category.get("keypoints") for category in self.categories]
        return np.array([len(names) if isinstance(names, list) and names else -1 for names in named], dtype=np.int64)

    @cached_property
    def area(self) -> np.ndarray:
        """(n,) in pixels; where the file does not say, that of the mask, else of the box."""
        values = [entry.area for entry in self.annotations]
        if set(map(type, values)) <= {int, float}:
            area = np.array(values, dtype=float)
        else:
            read = [read_number(value) for value in values]
            area = np.array([np.nan if value is None else value for value in read], dtype=float)
            for row in np.flatnonzero([type(value) not in (int, float) for value in values] & (area >= 0)).tolist():
                self._note(row, "other-form", f"its area is {values[row]!r:.40}; {area[row]:g} would be right")
        for row in np.flatnonzero(~(np.isfinite(area) & (area >= 0))).tolist():
            said = "missing" if values[row] is UNSET else repr(values[row])[:40]
            area[row] = self.measure_area(row)
            self._note(row, "missing-area", f"its area is {said}: {area[row]:g} by its mask or box")
        return area

    def measure_area(self, row: int) -> float:
        """Area in pixels of an object's mask, else of its box."""
        mask = self.mask(row)
        if mask is None:
            return float(self.box[row, 2] * self.box[row, 3])
        if isinstance(mask, list):
            height, width = self.sizes[self.image[row]].tolist()
            if not height:
                return float(self.box[row, 2] * self.box[row, 3])
            mask = mask_util.merge(mask_util.frPyObjects(mask, height, width))
        return float(mask_util.area(mask))

    def mask(self, row: int) -> list[list[float]] | dict[str, Any] | None:
        """Polygons or compressed run lengths of an object; None if it has no mask that can be used."""
        raw = self.annotations[row].segmentation
        if type(raw) is msgspec.Raw:  # what nearly all are comes first: polygons, whose types msgspec checks
            try:
                polygons = _decode_polygons(raw)
            except msgspec.ValidationError:
                pass
            else:
                if have_three_points(polygons):
                    return polygons
        value = parse(raw)
        if not value:
            return None
        height, width = self._sizes[self.image[row]]
        return self._judged(row, read_mask(value, height, width))

    def keypoints(self, row: int) -> list[float] | None:
        """[x, y, visibility, ...] of an object; None if it has no keypoints that can be used."""
        count = int(self.keypoint_counts[self.category[row]])
        return self._judged(row, read_keypoints(parse(self.annotations[row].keypoints), None if count < 0 else count))

    def _judged(self, row: int, read: Read) -> Any:
        if read.kind:
            self._note(row, read.kind, read.message)
        return read.value

    def _note(self, row: int, kind: str, text: str) -> None:
        texts, place = self._texts.setdefault(kind, {}), int(self.index[row])
        if text not in texts.get(place, ""):
            texts[place] = f"{texts[place]}; {text}" if place in texts else text

    def judge_masks(self) -> np.ndarray:
        """Read all masks once, for what is wrong with them. (n,) bool: which objects have one."""
        has_mask = np.array([self.mask(row) is not None for row in range(len(self.annotations))], dtype=bool)
        if has_mask.any():
            wrong = {place for kind in LEFT_OUT for place in self._texts.get(kind, ())}
            for row in np.flatnonzero(~has_mask & ~self.crowd).tolist():
                if int(self.index[row]) not in wrong:
                    said = parse(self.annotations[row].segmentation)
                    self._note(row, "empty-mask", f"its segmentation is {said!r}")
        elif any("segmentation" in entry for entry in self.annotations):
            empty = np.zeros(0, dtype=np.int64)
            self._no_masks = Finding("no-masks", "", empty, lambda _: "no segmentation has a mask: boxes alone")
        return has_mask

    def judge_keypoints(self) -> np.ndarray:
        """Read all keypoints once, for what is wrong with them. (n,): how many labelled ones each object has."""
        found = [self.keypoints(row) for row in range(len(self.annotations))]
        return np.array([sum(v > 0 for v in points[2::3]) if points else 0 for points in found], dtype=np.int64)

    def has_masks(self) -> bool:
        """Whether any object has a mask that can be used. Reads no more than it takes to find one."""
        return any(self.mask(row) is not None for row in np.flatnonzero(~self.crowd).tolist())

    def has_run_lengths(self) -> bool:
        """Whether the mask of any object is a run-length code. Parses nothing."""
        return any(_is_run_length(self.annotations[row].segmentation) for row in np.flatnonzero(~self.crowd).tolist())

    def all_findings(self) -> list[Finding]:
        """What is wrong, with what is known by now of masks and keypoints."""
        read = [
            Finding(kind, "annotations", np.array(sorted(texts), dtype=np.int64), texts.__getitem__)
            for kind, texts in self._texts.items()
        ]
        return self.findings + read + ([self._no_masks] if self._no_masks else [])

    def left_out(self) -> Counter[str]:
        """How many objects, masks, polygons and keypoints are not used, by the reason, as far as they were read."""
        counts: Counter[str] = Counter()
        for finding in self.all_findings():
            if finding.kind in LEFT_OUT:
                counts[f"{LEFT_OUT[finding.kind]}: {finding.kind}"] += len(finding)
        if self.crowd.any():
            counts["objects: crowd region"] = int(self.crowd.sum())
        return counts

    def problems(self, *, trains: bool = False) -> list[str]:
        """One line for each kind of problem that keeps the file from being used.

        Args:
            trains: to train on it, so that classes of crowds alone are among them.
        """
        lines = [f"it has no {what}" for what in ("images", "categories") if not getattr(self, what)]
        lines += [
            finding.summarize(self.num_listed.get(finding.section, 0))
            for finding in self.findings
            if finding.is_error and (trains or finding.kind != "only-crowds")
        ]
        return lines

    def raise_problems(self, where: str, *, trains: bool = False, more: Sequence[str] = ()) -> None:
        """
        Raises:
            InputError: there are any; all are listed.
        """
        problems = [*more, *self.problems(trains=trains)]
        if problems:
            raise InputError.from_problems(where, problems)

    def describe_warnings(self) -> Iterator[str]:
        """One line for each kind of what is not as in COCO's format, or left out."""
        for finding in self.all_findings():
            if not finding.is_error:
                yield finding.summarize(self.num_listed.get(finding.section, 0))

    def count_use(self, chosen: np.ndarray | None = None) -> Usage:
        """How many images, objects, masks and keypoints are used, and how many are not; all are read.

        Args:
            chosen: (images,) bool: those that are used. If these are not all, of what is left out of them only crowd
                regions are told.
        """
        has_mask, keypoints = self.judge_masks(), self.judge_keypoints()
        num_images, objects, left_out = len(self.images), ~self.crowd, dict(self.left_out())
        if chosen is not None and not chosen.all():
            num_images, objects = int(chosen.sum()), objects & chosen[self.image]
            num_crowds = int((self.crowd & chosen[self.image]).sum())
            left_out = {"images: not evaluated": len(self.images) - num_images}
            if num_crowds:
                left_out["objects: crowd region"] = num_crowds
        return Usage(
            images=num_images,
            objects=int(objects.sum()),
            classes=len(self.categories),
            masks=int((has_mask & objects).sum()),
            keypoints=int(keypoints[objects].sum()),
            left_out=left_out,
        )


def _is_run_length(value: Any) -> bool:
    if isinstance(value, msgspec.Raw):
        return bytes(memoryview(value)[:2]).startswith((b"{", b"[{"))
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
