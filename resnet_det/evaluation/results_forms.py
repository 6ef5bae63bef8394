"""Results in the forms in which tools write them, as COCO has them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable
from pathlib import PurePath
from typing import Any

from resnet_det.data.coco.fields import References, is_number, read_box, read_number
from resnet_det.evaluation.ground_truth import GroundTruth

logger = logging.getLogger(__name__)


def normalise_results(results: Any, truth: GroundTruth) -> Any:
    """Results with the ids of ``truth`` and with numbers as numbers; what cannot be told stays as it is, and is logged.

    Ids may be of another type ("1", 1.0), images may be named by their files (ultralytics: "img_000"), scores and boxes
    may be numeric texts.
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
            if value is None or (type(value) in (int, str) and value in known.rows):
                continue
            place, is_odd = known.find(value)
            if place < 0 and key == "image_id" and isinstance(value, str) and by_file.get(value) is not None:
                changes[key] = truth.images[by_file[value]]["id"]
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
        normalised.append({**row, **changes} if changes else row)
    for text, count in (+said).items():
        logger.warning("Results: in %d of %d, %s; read all the same", count, len(results), text)
    return normalised


def _index_files(truth: GroundTruth) -> dict[Hashable, int | None]:
    """The place of each image by its file name, with and without folders and suffix; None where two have the same."""
    places: dict[Hashable, int | None] = {}
    for place, image in enumerate(truth.images):
        path = PurePath(image["file_name"])
        for name in {str(path), path.name, path.stem, str(path.with_suffix(""))}:
            places[name] = None if name in places else place
    return places
