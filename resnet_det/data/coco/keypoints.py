"""The keypoints of a data set: how many, their names, and which ones a mirrored image swaps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from resnet_det.data.coco import CocoData
from resnet_det.errors import InputError

DEFAULT_SIGMA = 0.05  # for keypoints that are not COCO's 17, whose own are 0.025 to 0.107
NUM_COCO_KEYPOINTS = 17
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
# Of the limbs on each side, and of those in the middle or across; R, G, B.
_SIDE_COLOURS = {"l": (51, 153, 255), "r": (255, 128, 0), "": (102, 204, 102)}


@dataclass(frozen=True)
class Keypoints:
    """What the categories of a set say of keypoints; without names they are called by their numbers, from 1."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of places, from 0
    is_named: bool = True

    def __len__(self) -> int:
        return len(self.names)


def find_keypoints(data: CocoData) -> Keypoints | None:
    """The keypoints of whichever category has them, or else of the first object that has any.

    Raises:
        InputError: categories have different numbers of keypoints.
    """
    known = {row: int(count) for row, count in enumerate(data.keypoint_counts) if count > 0}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{data.class_names[row]!r} has {count}" for row, count in known.items())
        raise InputError(f"categories with different numbers of keypoints: {told}; a keypoint head has one number")
    if known:
        category = data.categories[next(iter(known))]
        names = tuple(map(str, category["keypoints"]))
        return Keypoints(names, read_skeleton(category.get("skeleton"), len(names)))
    for row in range(len(data.annotations)):
        points = data.keypoints(row) if "keypoints" in data.annotations[row] else None
        if points:
            return Keypoints(tuple(str(number + 1) for number in range(len(points) // 3)), is_named=False)
    return None


def read_skeleton(value: object, count: int) -> tuple[tuple[int, int], ...]:
    """COCO's skeleton, pairs of keypoints counted from 1, as pairs of places from 0; others are left out.

    Where a pair has a 0 and none the number of keypoints, they are counted from 0.
    """
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2] if isinstance(value, list) else []
    pairs = [pair for pair in pairs if all(type(end) in (int, float) and 0 <= end <= count for end in pair)]
    ends = {end for pair in pairs for end in pair}
    first = 0 if 0 in ends and count not in ends else 1
    return tuple((int(a) - first, int(b) - first) for a, b in pairs if min(a, b) >= first)


def colour_limbs(keypoints: Keypoints) -> list[tuple[str, str, tuple[int, int, int]]]:
    """Detectron2's ``keypoint_connection_rules``: for each limb two names and a colour (R, G, B), by its side."""
    rules = []
    for limb in keypoints.skeleton:
        first, second = (keypoints.names[place] for place in limb)
        sides = {match.group()[0].lower() for match in map(_find_side, (first, second)) if match is not None}
        rules.append((first, second, _SIDE_COLOURS[sides.pop() if len(sides) == 1 else ""]))
    return rules


def mirror_name(name: str) -> str | None:
    """The name of the same keypoint on the other side; None for a name without a side.

    The side is "left" or "right" in any case anywhere in the name, or a single l or r that stands apart: "l_eye",
    "eye-R", "L Eye", "lEye", "eyeL".
    """
    match = _find_side(name)
    if match is None:
        return None
    word = match.group()
    other = _OTHER[word.lower()]
    other = other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return name[: match.start()] + other + name[match.end() :]


def _find_side(name: str) -> re.Match[str] | None:
    """The part of a name that tells the side."""
    match = re.search("left|right", name, re.IGNORECASE)
    match = match or re.search(r"(?<![A-Za-z0-9])[lrLR](?![A-Za-z0-9])", name)
    return match or re.search(r"^[lr](?=[A-Z0-9])|^[LR](?=[A-Z][a-z])|(?<=[a-z0-9])[LR]$", name)


def find_flip_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of keypoints that a mirrored image swaps, the one that comes first first."""
    pairs = []
    for place, name in enumerate(names):
        other = mirror_name(name)
        if other in names[place + 1 :]:
            pairs.append((name, other))
    return pairs


def find_lone_sides(names: Sequence[str]) -> list[str]:
    """Names that tell a side, while none is that of the other side."""
    paired = {name for pair in find_flip_pairs(names) for name in pair}
    return [name for name in names if name not in paired and mirror_name(name) is not None]
