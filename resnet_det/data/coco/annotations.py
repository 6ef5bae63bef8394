"""The list of annotations as columns: ids, references, boxes and flags, normalised and judged.

A column is judged as a whole; entries are looked at one by one only where its values are not all as COCO has them, so
that a file of the size of COCO's is judged in a tenth of the time that it takes to read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from pycocotools import mask as mask_util

from resnet_det.data.coco.entries import find_repeated
from resnet_det.data.coco.fields import References, id_order, id_text, is_absent, read_box, read_flag, read_id
from resnet_det.data.coco.file import Annotation, AnnotationWithArea, Content
from resnet_det.data.coco.masks import read_mask
from resnet_det.data.coco.problems import Finding

_RIGHT_BOX = "[x, y, width, height] would be right"


class AnnotationColumns:
    """The annotations of a file.

    Attributes:
        entries: as in the file, normalised in place.
        usable: (n,) bool: what nothing stands against.
        image, category: (n,) rows of the usable images and categories; -1 for none.
        box: (n, 4) x, y, width, height in pixels.
        crowd: (n,) bool.
        findings: what is wrong.
    """

    def __init__(self, content: Content, images: Sequence[dict], categories: Sequence[dict]) -> None:
        """Args:
        images, categories: the usable ones.
        """
        entries = content.annotations
        self.findings: list[Finding] = []
        self.usable = np.ones(len(entries), dtype=bool)
        broken = {}
        if not set(map(type, entries)) <= {Annotation, AnnotationWithArea}:
            broken = {place: entry for place, entry in enumerate(entries) if not isinstance(entry, Annotation)}
        self.entries = (
            [entry if isinstance(entry, Annotation) else AnnotationWithArea() for entry in entries]
            if broken
            else entries
        )
        self._set_aside("malformed-entry", {p: f"it is {e!r:.40}; an object would be right" for p, e in broken.items()})
        self.sizes = np.array([(i["width"], i["height"]) for i in images] or [(0, 0)], dtype=float)
        self.image = self._read_references("image_id", images, content.images)
        self.category = self._read_references("category_id", categories, content.categories)
        self.box = self._read_boxes()
        self.crowd = self._read_crowds()
        self._judge_boxes()
        self._read_ids()

    def _note(self, kind: str, texts: dict[int, str]) -> None:
        """Take a problem into the findings, with a text for each place."""
        if texts:
            self.findings.append(Finding(kind, "annotations", np.array(sorted(texts), np.int64), texts.__getitem__))

    def _set_aside(self, kind: str, texts: dict[int, str]) -> None:
        """The same, and leave the entries out."""
        self._note(kind, texts)
        self.usable[list(texts)] = False

    def _column(self, key: str) -> list[Any]:
        return [getattr(entry, key) for entry in self.entries]

    def _read_ids(self) -> None:
        ids = self._column("id")
        missing, odd, wrong = {}, {}, {}
        if not set(map(type, ids)) <= {int, str}:
            fresh = itertools.count(1 + max((value for value in ids if type(value) is int), default=0))
            for place in np.flatnonzero(self.usable).tolist():
                value = ids[place]
                if type(value) is int:
                    continue
                found = read_id(value)
                if is_absent(value):
                    found = next(fresh)
                    missing[place] = f"it gets {found}"
                elif found is None:
                    wrong[place] = f"its id is {value!r:.40}; a whole number would be right"
                elif type(value) is float:
                    odd[place] = f"its id is {value!r}; {found} would be right"
                ids[place] = self.entries[place].id = found
            self._note("missing-id", missing)
            self._note("other-form", odd)
            self._set_aside("malformed-entry", wrong)
        if self.usable.all() and len(set(ids)) == len(ids):
            return
        places = np.flatnonzero(self.usable).tolist()
        repeated = find_repeated((place, ids[place]) for place in places)
        texts = {p: f"its id is that of annotations[{first}], too; each needs its own" for p, first in repeated}
        self._note("duplicate-annotation-id", texts)

    def _read_references(self, key: str, listed: Sequence[dict], all_listed: Sequence[Any]) -> np.ndarray:
        """(n,) rows of ``listed``, the usable ones of ``all_listed``."""
        values = self._column(key)
        references = References(entry["id"] for entry in listed)
        if set(map(type, values)) <= {int, str}:
            rows = np.fromiter(map(references.rows.get, values, itertools.repeat(-1)), np.int64, len(values))
            left = np.flatnonzero(rows < 0)
        else:
            rows, left = np.full(len(values), -1), np.arange(len(values))
        odd, wrong, unknown = {}, {}, {}
        what = key.removesuffix("_id")
        for place in left[self.usable[left]].tolist():
            value = values[place]
            rows[place], is_odd = references.find(value)
            if rows[place] >= 0:
                setattr(self.entries[place], key, listed[rows[place]]["id"])
            if is_odd:
                odd[place] = f"its {key} is {value!r:.40}, which is taken for {listed[rows[place]]['id']!r}"
            elif rows[place] < 0 and read_id(value) is None:
                wrong[place] = f"its {key} is {value!r:.40}; the id of a listed {what} would be right"
            elif rows[place] < 0:
                unknown[place] = f"no {what} has the id {value!r:.40}; known are {_span(references.rows)}"
        self._note("other-form", odd)
        self._set_aside("malformed-entry", wrong)
        self.usable[list(unknown)] = False
        if unknown:  # of an entry that cannot be read, its annotations are not the fault
            ids = (read_id(entry.get("id")) for entry in all_listed if isinstance(entry, dict))
            broken = {id_text(value) for value in ids if value is not None}
            self._note(f"unknown-{what}-id", {p: t for p, t in unknown.items() if id_text(values[p]) not in broken})
        return rows

    def _read_boxes(self) -> np.ndarray:
        boxes = self._column("bbox")
        is_plain = set(map(type, boxes)) <= {list} and set(map(len, boxes)) <= {4}
        if is_plain and set(map(type, itertools.chain.from_iterable(boxes))) <= {int, float}:
            return np.fromiter(itertools.chain.from_iterable(boxes), float, 4 * len(boxes)).reshape(-1, 4)
        column = np.full((len(boxes), 4), np.nan)
        odd, wrong, made = {}, {}, {}
        for place in np.flatnonzero(self.usable).tolist():
            value = boxes[place]
            box = read_box(value)
            if box is None and is_absent(value):
                box = self._box_of_mask(place)
                if box is not None:
                    made[place] = f"its bbox is {'missing' if value is UNSET else repr(value)}: {box} by its mask"
            if box is None:
                wrong[place] = f"its bbox is {'missing' if value is UNSET else repr(value)[:60]}; {_RIGHT_BOX}"
                continue
            if value is not box and place not in made and value != box:
                odd[place] = f"its bbox is {value!r:.60}; {box} would be right"
            self.entries[place].bbox = column[place] = box
        self._note("other-form", odd)
        self._note("box-from-mask", made)
        self._set_aside("malformed-entry", wrong)
        return column

    def _box_of_mask(self, place: int) -> list[float] | None:
        """The box round a mask; None if there is none that can be used."""
        width, height = self.sizes[self.image[place]].astype(int).tolist()
        mask = read_mask(parse(self.entries[place].segmentation), height, width).value
        if mask is None:
            return None
        if isinstance(mask, dict):
            return mask_util.toBbox(mask).tolist()
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in mask])
        low, high = points.min(0), points.max(0)
        return [*low.tolist(), *(high - low).tolist()]

    def _read_crowds(self) -> np.ndarray:
        crowd = self._read_flags("iscrowd")
        ignored = self._read_flags("ignore")
        if ignored.any():
            places = np.flatnonzero(ignored & self.usable).tolist()
            self._note("ignore", dict.fromkeys(places, "its ignore is 1: it is taken as a crowd region"))
            for place in places:
                self.entries[place].iscrowd = 1
        return crowd | ignored

    def _read_flags(self, key: str) -> np.ndarray:
        values = self._column(key)
        if set(map(type, values)) <= {int, bool, msgspec.UnsetType} and set(values) <= {0, 1, UNSET}:
            return np.fromiter(map({0: False, 1: True, UNSET: False}.get, values), bool, len(values))
        flags = np.zeros(len(values), dtype=bool)
        odd, wrong = {}, {}
        for place in np.flatnonzero(self.usable).tolist():
            value = values[place]
            flag = read_flag(value)
            if flag is None:
                wrong[place] = f"its {key} is {value!r:.40}; 0 or 1 would be right"
                continue
            if value is not UNSET and type(value) not in (int, bool):
                odd[place] = f"its {key} is {value!r:.40}, which is taken for {flag}"
                setattr(self.entries[place], key, flag)
            flags[place] = flag
        self._note("other-form", odd)
        self._set_aside("malformed-entry", wrong)
        return flags

    def treat_crowds_as_objects(self) -> None:
        for place in np.flatnonzero(self.crowd):
            self.entries[place].iscrowd = 0
        self.crowd[:] = False

    @np.errstate(invalid="ignore", over="ignore")  # NaN and infinity are among what is looked for
    def _judge_boxes(self) -> None:
        box, usable = self.box, self.usable.copy()
        finite = np.isfinite(box).all(1)
        flat = (box[:, 2:] <= 0).any(1)
        size = self.sizes[self.image] if len(self.image) else np.zeros((0, 2))
        far = (((box[:, :2] >= size) & (size > 0)).any(1) | (box[:, :2] + box[:, 2:] <= 0).any(1)) & ~flat
        for kind, places, advice in (
            ("box-not-finite", usable & ~finite, "numbers of pixels would be right"),
            ("box-without-area", usable & finite & flat, "width and height above 0 would be right"),
            ("box-outside", usable & finite & far, ""),
        ):
            if not places.any():
                continue

            def describe(place: int, advice: str = advice) -> str:
                right = advice or "its image is {:.0f}x{:.0f}".format(*self.sizes[self.image[place]])
                return f"box {describe_box(self.box[place])}: {right}"

            self.findings.append(Finding(kind, "annotations", np.flatnonzero(places), describe))
            self.usable &= ~places


def parse(value: Any) -> Any:
    """A field that may be there as the bytes in the file; None if it is not there."""
    if isinstance(value, msgspec.Raw):
        return _decode(value)
    return None if value is UNSET else value


_decode = msgspec.json.Decoder().decode


def describe_box(box: np.ndarray) -> str:
    return f"[{', '.join(f'{value:.6g}' for value in box)}]"


def _span(ids: Any) -> str:
    listed = sorted(ids, key=id_order)
    return ", ".join(map(str, listed)) if len(listed) <= 6 else f"{len(listed)}, from {listed[0]} to {listed[-1]}"
