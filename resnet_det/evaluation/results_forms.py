"""Results in the forms in which tools write them, as COCO has them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import takewhile
from pathlib import PureWindowsPath
from typing import Any

from resnet_det.data.coco.fields import References, is_number, read_box, read_number
from resnet_det.data.coco.masks import Read, read_keypoints, read_mask
from resnet_det.evaluation.ground_truth import GroundTruth

logger = logging.getLogger(__name__)


def normalise_results(results: Any, truth: GroundTruth) -> Any:
    """Results with the ids of ``truth`` and with numbers as numbers; what cannot be told stays as it is, and is logged.

    Ids may be of another type ("1", 1.0), images may be named by their files (ultralytics: "img_000"), scores and boxes
    may be numeric texts, polygons and keypoints lists of points.
    """
    if not isinstance(results, list) or not all(isinstance(row, dict) for row in results):
        return results
    references = {"image_id": References(truth.image_places), "category_id": References(truth.category_places)}
    files = _index_files(truth)
    find_file = cache(lambda value: _find_file(value, files, truth))
    said: Counter[str] = Counter()
    normalised = []
    for row in results:
        changes: dict[str, Any] = {}
        for key, known in references.items():
            value = row.get(key)
            if value is None or isinstance(value, bool) or (type(value) in (int, str) and value in known.rows):
                continue
            place, is_odd = known.find(value)
            is_name = place < 0 and key == "image_id" and isinstance(value, str)
            by_name = find_file(value) if is_name else None
            if by_name is not None:
                changes[key] = truth.images[by_name]["id"]
                said["image_id is the name of an image file, in place of its id"] += 1
            elif place >= 0:
                changes[key] = (truth.images if key == "image_id" else truth.categories)[place]["id"]
                said[f"{key} is a {type(value).__name__}"] += is_odd
        for key, read in (("score", read_number), ("bbox", read_box)):
            value = row.get(key)
            is_plain = is_number(value) if key == "score" else isinstance(value, list) and all(map(is_number, value))
            if value is None or is_plain:
                continue
            found = read(value)
            if found is not None and found != value:
                changes[key] = found
                said[f"{key} is not made of numbers"] += 1
        for key, read in _LISTS.items():
            found = read(row[key]) if isinstance(row.get(key), list) else None
            if found is not None and found.kind == "other-form":
                changes[key] = found.value
                said[f"{key} is in another form than COCO's"] += 1
        normalised.append({**row, **changes} if changes else row)
    for text, count in (+said).items():
        logger.warning("Results: in %d of %d, %s; read all the same", count, len(results), text)
    return normalised


# Polygons and keypoints, as those of annotations are read.
_LISTS: dict[str, Callable[[list[Any]], Read]] = {
    "segmentation": lambda value: read_mask(value, 0, 0),
    "keypoints": lambda value: read_keypoints(value, None),
}


def _find_file(value: str, files: dict[str, list[int]], truth: GroundTruth) -> int | None:
    """The place of the one image whose path goes with ``value``, on any system; either may begin further down.

    Paths go together unless the folders that the files are in have other names. Of several images, it is the one with
    whose path the most folders agree.
    """
    ranks, folders = {}, _folders(value)
    for place in files.get(PureWindowsPath(value).name, ()):
        known = truth.images[place]["file_name"]
        pairs = list(zip(folders, _folders(known), strict=False))
        agreeing = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        if agreeing or not pairs:
            ranks[place] = agreeing, value == known
    most = max(ranks.values(), default=None)
    best = [place for place, rank in ranks.items() if rank == most]
    return best[0] if len(best) == 1 else None


def _folders(path: str) -> list[str]:
    """Names of the folders in which a file is, from the innermost; in lower case, as on systems that do not care."""
    whole = PureWindowsPath(path.lower())
    return [part for part in reversed(whole.parts[bool(whole.anchor) : -1]) if part != ".."]


def _index_files(truth: GroundTruth) -> dict[str, list[int]]:
    """The places of images by the name of their file, with and without suffix."""
    files: dict[str, list[int]] = {}
    for place, image in enumerate(truth.images):
        path = PureWindowsPath(image["file_name"])
        for name in {path.name, path.stem}:
            files.setdefault(name, []).append(place)
    return files
