"""Results in the forms in which tools write them, as COCO has them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import PurePath, PureWindowsPath
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
    by_file = _index_files(truth)
    said: Counter[str] = Counter()
    normalised = []
    for row in results:
        changes: dict[str, Any] = {}
        for key, known in references.items():
            value = row.get(key)
            if value is None or isinstance(value, bool) or (type(value) in (int, str) and value in known.rows):
                continue
            place, is_odd = known.find(value)
            by_name = _find_file(value, by_file, truth) if place < 0 and key == "image_id" else None
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


def _find_file(value: Any, places: dict[Hashable, int | None], truth: GroundTruth) -> int | None:
    """The place of an image by the path of its file, on any system; either path may begin further down."""
    if not isinstance(value, str):
        return None
    path = PureWindowsPath(value)
    place = places.get(value, places.get(path.name))
    if place is None:
        return None
    folders = zip(
        reversed(path.parts[:-1]), reversed(PureWindowsPath(truth.images[place]["file_name"]).parts[:-1]), strict=False
    )
    return place if all(given == known for given, known in folders) else None


def _index_files(truth: GroundTruth) -> dict[Hashable, int | None]:
    """The place of each image by its file name, with and without folders and suffix; None where two have the same."""
    places: dict[Hashable, int | None] = {}
    for place, image in enumerate(truth.images):
        path = PurePath(image["file_name"])
        for name in {str(path), path.name, path.stem, str(path.with_suffix(""))}:
            places[name] = None if name in places else place
    return places
