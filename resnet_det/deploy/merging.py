"""What was found in overlapping parts of an image, as what is in the image: each object once, and whole.

Why not NMS, nor a union of all that overlap (sahi's GREEDYNMM, or supervision's InferenceSlicer): NMS keeps the piece
of an object whose score is best, and a union takes small objects into large ones they stand before, and leaves the
pieces of an object apart that is longer than twice the overlap. Here two detections are compared where both parts see
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from resnet_det.masks import BoxMask, cut_out

SAME = 0.5  # intersection over union from which two detections are of the same object
PIECE = 0.5  # share of a cut detection that lies in a whole one, from which it is a piece of that
DOUBT_PX = 2  # that a box may be wrong by, in pixels that the detector saw
EDGE_SHARE = 0.01  # of a part's side: a box that ends so close to its border is cut by it


@dataclass(frozen=True, eq=False)
class Found:
    """Detections in an image, in NumPy.

    Attributes:
        boxes: (n, 4) float32, XYXY in pixels of the image.
        scores: (n,) float32.
        classes: (n,) int64.
        keypoints: (n, K, 3) float32, x, y and score; None if the detector has none.
        masks: of each detection; None if the detector has none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    keypoints: np.ndarray | None = None
    masks: list[BoxMask] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, places: np.ndarray) -> Found:
        """Those at ``places``, whole numbers."""
        return Found(
            self.boxes[places],
            self.scores[places],
            self.classes[places],
            None if self.keypoints is None else self.keypoints[places],
            None if self.masks is None else [self.masks[place] for place in places],
        )

    def scaled_and_moved(self, scale: Sequence[float], offset: Sequence[float]) -> Found:
        """The same in an image that is ``scale`` (x, y) times as large, moved by ``offset`` (x, y) pixels."""
        boxes = self.boxes * np.tile(scale, 2) + np.tile(offset, 2)
        keypoints = self.keypoints
        if keypoints is not None:
            keypoints = (keypoints * [*scale, 1] + [*offset, 0]).astype(np.float32)
        masks = self.masks and [mask.scaled_and_moved(scale, offset) for mask in self.masks]
        return replace(self, boxes=boxes.astype(np.float32), keypoints=keypoints, masks=masks)


def concatenate(parts: Sequence[Found]) -> Found:
    """All of ``parts``, at least one, of one detector."""
    first = parts[0]
    return Found(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
        None if first.keypoints is None else np.concatenate([part.keypoints for part in parts]),
        None if first.masks is None else [mask for part in parts for mask in part.masks],
    )


def merge(parts: Sequence[Found], regions: np.ndarray, pixels: np.ndarray, height: int, width: int) -> Found:
    """The objects of an image, best first.

    1. A detection that no inner border cuts is whole. The best one takes the place of all others of its class that are
       of the same object, cut ones too.
    2. A cut detection that lies in a whole one of its class, or of any class with a higher score, is a piece of it, if
       that one was not seen from further away.
    3. Cut detections of one class that agree where two parts overlap are pieces of one object: their boxes and masks
       are united.
    4. A whole detection that was seen from further away than its pieces gets their united box and mask, if these are as
       far as it can tell the same.

    The score is the best of those of an object; keypoints are those of the detection that has it, or of the whole one.

    Args:
        parts: what was found in each region, in pixels of the image. Within one it is left as it is.
        regions: (n, 4) XYXY, whole numbers.
        pixels: (n,) how many pixels of the image, along a side, one is that the detector saw.
        height, width: of the image.
    """
    found = concatenate(parts)
    region = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    cut, seen = find_cut(found.boxes, regions[region], height, width), pixels[region]
    pairs = _Pairs(found, region, regions, cut)
    owner = np.arange(len(found))  # of each detection: the one that stands for its object
    order = np.argsort(-found.scores, kind="stable")
    whole = [place for place in order if not cut[place]]
    for place in whole:
        if owner[place] == place:
            for other in pairs.same_object(place):
                if owner[other] == other and (cut[other] or found.scores[other] <= found.scores[place]):
                    owner[other] = place
    for place in order[cut[order]]:
        if owner[place] == place:
            holders = [other for other in pairs.holders(place) if not cut[other] and owner[other] == other]
            holders = [other for other in holders if seen[other] <= seen[place]]
            owner[place] = max(holders, key=lambda other: found.scores[other], default=place)
    for place in order[cut[order]]:
        if owner[place] == place:
            _join_pieces(place, pairs, seen, owner)
    return _unite(found, seen, cut, owner)


def find_cut(boxes: np.ndarray, regions: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether each of ``boxes`` (n, 4) ends at a border of its region (n, 4) that is none of the image, (n,) bool."""
    near = EDGE_SHARE * np.tile(regions[:, 2:] - regions[:, :2], 2)
    inner = regions != [0, 0, width, height]
    distance = np.abs(boxes - regions)
    return (inner & (distance <= near)).any(1)


class _Pairs:
    """Detections of different regions that overlap: by how much, where both regions see them."""

    def __init__(self, found: Found, region: np.ndarray, regions: np.ndarray, cut: np.ndarray) -> None:
        self.found, self.cut = found, cut
        self._near: dict[int, list[tuple[int, float, float]]] = {}  # other, IoU, share of the first that is in it
        members = [np.flatnonzero(region == number) for number in range(len(regions))]
        self._areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
        if found.masks is not None:
            self._areas = np.array([mask.area() for mask in found.masks])
        for first in range(len(regions)):
            shared = _intersect(regions[first], regions[first + 1 :])
            for second in np.flatnonzero((shared[:, 2:] > shared[:, :2]).all(1)):
                self._compare(members[first], members[first + 1 + second], shared[second])

    def same_object(self, place: int) -> list[int]:
        """Those of the class of ``place`` that are of its object."""
        return [
            other
            for other, iou, _ in self._near.get(place, ())
            if iou >= SAME and self.found.classes[other] == self.found.classes[place]
        ]

    def holders(self, place: int) -> list[int]:
        """Those that ``place`` may be a piece of."""
        classes, scores = self.found.classes, self.found.scores
        return [
            other
            for other, _, share in self._near.get(place, ())
            if share >= PIECE and (classes[other] == classes[place] or scores[other] > scores[place])
        ]

    def _compare(self, firsts: np.ndarray, seconds: np.ndarray, shared: np.ndarray) -> None:
        """Note which of the ones overlap which of the others within ``shared``, XYXY."""
        boxes = self.found.boxes
        overlap = _intersect(boxes[firsts][:, None], _intersect(boxes[seconds][None], shared))
        for row, column in np.argwhere((overlap[:, :, 2:] > overlap[:, :, :2]).all(2)):
            first, second = firsts[row], seconds[column]
            common = self._intersection(first, second, overlap[row, column])
            if common == 0:
                continue
            # What a cut detection lacks is unknown: then only what both regions see of the other one counts.
            size = _area_within(self.found, first, shared) if self.cut[second] else self._areas[first]
            other_size = _area_within(self.found, second, shared) if self.cut[first] else self._areas[second]
            iou = common / max(size + other_size - common, 1e-9)
            self._near.setdefault(first, []).append((second, iou, common / max(self._areas[first], 1e-9)))
            self._near.setdefault(second, []).append((first, iou, common / max(self._areas[second], 1e-9)))

    def _intersection(self, first: int, second: int, window: np.ndarray) -> float:
        if self.found.masks is None:
            return float((window[2:] - window[:2]).prod())
        pixels = _to_pixels(window)
        return float((self.found.masks[first].crop(*pixels) & self.found.masks[second].crop(*pixels)).sum())


def _area_within(found: Found, place: int, window: np.ndarray) -> float:
    """Pixels of the mask, or of the box if there is none, within ``window`` XYXY, which has some of it."""
    box = _intersect(found.boxes[place], window)
    if found.masks is None:
        return float((box[2:] - box[:2]).prod())
    return float(found.masks[place].crop(*_to_pixels(box)).sum())


def _to_pixels(box: np.ndarray) -> list[int]:
    return [*np.floor(box[:2]).astype(int).tolist(), *np.ceil(box[2:]).astype(int).tolist()]


def _join_pieces(place: int, pairs: _Pairs, seen: np.ndarray, owner: np.ndarray) -> None:
    """Give all cut detections that agree with ``place``, directly or by way of others, one owner: ``place``, or a whole
    one seen from further away that has some of them; that one cannot tell where exactly it ends."""
    classes, group, holder = pairs.found.classes, [place], place
    for piece in group:
        for other in pairs.same_object(piece):
            if pairs.cut[other] and owner[other] == other and other not in group:
                group.append(other)
            elif seen[owner[other]] > seen[piece] and classes[owner[other]] == classes[place]:
                holder = owner[other]
    owner[group] = holder


def _unite(found: Found, pixels: np.ndarray, cut: np.ndarray, owner: np.ndarray) -> Found:
    """The detections that stand for an object; those that are cut, with the boxes and masks of all their pieces."""
    boxes, scores, masks = found.boxes.copy(), found.scores.copy(), None if found.masks is None else list(found.masks)
    kept = np.flatnonzero(owner == np.arange(len(owner)))
    pieces: dict[int, list[int]] = {}
    for place in np.flatnonzero(owner != np.arange(len(owner))):
        pieces.setdefault(owner[place], [owner[place]]).append(place)
    for place, group in pieces.items():
        same_class = [member for member in group if found.classes[member] == found.classes[place]]
        scores[place] = found.scores[same_class].max()
        if not cut[place]:
            group = [member for member in same_class if cut[member] and pixels[member] < pixels[place]]
        box = np.array([*found.boxes[group, :2].min(0), *found.boxes[group, 2:].max(0)]) if len(group) > 1 else None
        if box is None or (not cut[place] and abs(box - found.boxes[place]).max() > DOUBT_PX * pixels[place]):
            continue
        boxes[place] = box
        if masks is not None:  # which are more exact than boxes of pieces
            masks[place] = unite_masks([found.masks[member] for member in group])
            boxes[place] = find_bounds(masks[place], default=box)
    united = replace(found, boxes=boxes, scores=scores, masks=masks)
    return united.take(kept[np.argsort(-scores[kept], kind="stable")])


def unite_masks(masks: Sequence[BoxMask]) -> BoxMask:
    """One mask of several, in whole pixels."""
    box = np.array([mask.box for mask in masks])
    box = np.array([*np.floor(box[:, :2].min(0)), *np.ceil(box[:, 2:].max(0))])
    left, top, right, bottom = box.astype(int)
    cells = np.zeros((bottom - top, right - left), bool)
    for mask in masks:
        x0, y0, x1, y1 = mask.window(bottom, right)
        x0, y0 = max(x0, left), max(y0, top)
        cells[y0 - top : y1 - top, x0 - left : x1 - left] |= mask.crop(x0, y0, max(x0, x1), max(y0, y1))
    return BoxMask(cells, box)


def find_bounds(mask: BoxMask, default: np.ndarray) -> np.ndarray:
    """The box of what a mask in whole pixels has anything in, XYXY; ``default`` if that is nothing."""
    inside = cut_out(mask.cells)
    return inside.box + np.tile(mask.box[:2], 2) if inside.cells.size else default


def _intersect(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """What boxes (..., 4) XYXY share; right of its left side where that is nothing."""
    return np.concatenate([
        np.maximum(first[..., :2], second[..., :2]),
        np.minimum(first[..., 2:], second[..., 2:]),
    ], -1)  # fmt: skip
