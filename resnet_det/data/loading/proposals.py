"""Precomputed proposals of a data set, in Detectron2's and Detectron's files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from resnet_det.errors import InputError
from resnet_det.pickles import RefusedError, read_pickled_arrays

_OLD_NAMES = {"indexes": "ids", "scores": "objectness_logits"}  # Detectron's
# A number for the class: what a pickle does to it changes nothing here.
_BOX_MODE = {("detectron2.structures.boxes", "BoxMode"): lambda number: int(number)}


def add_proposals(dicts: Iterable[dict[str, Any]], proposal_file: str) -> Iterator[dict[str, Any]]:
    """Detectron2's ``load_proposals_into_dataset``, but nothing that is in the file is run.

    Args:
        proposal_file: a pickle of "ids", "boxes" (N, 4), "objectness_logits" (N,) and, if boxes are not XYXY_ABS,
            "bbox_mode".

    Raises:
        InputError: the file cannot be read, asks to run something, or has none for an image.
    """
    proposals = _read(proposal_file)
    places = {str(image_id): place for place, image_id in enumerate(proposals["ids"])}
    mode = BoxMode(proposals.get("bbox_mode", BoxMode.XYXY_ABS))
    for entry in dicts:
        place = places.get(str(entry["image_id"]))
        if place is None:
            raise InputError(f"{proposal_file}: no proposals for image {entry['image_id']}")
        logits = proposals["objectness_logits"][place]
        best_first = logits.argsort()[::-1]
        yield entry | {
            "proposal_boxes": proposals["boxes"][place][best_first],
            "proposal_objectness_logits": logits[best_first],
            "proposal_bbox_mode": mode,
        }


def _read(proposal_file: str) -> dict[str, Any]:
    try:
        content = read_pickled_arrays(PathManager.get_local_path(proposal_file), also=_BOX_MODE)
    except RefusedError as error:
        raise InputError(f"{proposal_file}: {error}. Proposals are arrays in plain containers") from None
    if not isinstance(content, dict):
        raise InputError(f"{proposal_file}: a pickled dict of ids, boxes and objectness_logits would be right")
    content = {_OLD_NAMES.get(key, key): value for key, value in content.items()}
    missing = [key for key in ("ids", "boxes", "objectness_logits") if key not in content]
    if missing:
        raise InputError(f"{proposal_file}: it has no {', '.join(missing)}")
    return content
