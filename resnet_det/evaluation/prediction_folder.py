"""The folder that tools/predict.py writes, and what is in it as COCO results."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resnet_det.data.coco.json_files import parse_json, paused_garbage_collection, read_json
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
RESULTS_NAME = "results"
RECORDS_NAME = "records"
_USUAL_THRESHOLD = 0.05  # Detectron2's


def unit_name(place: int) -> str:
    """The stem of the files of a unit, counted from 0."""
    return f"{place:06d}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the predictions in ``folder`` were asked for.

    Raises:
        InputError: its manifest.json is none of tools/predict.py.
    """
    path = folder / MANIFEST_NAME
    manifest = read_json(path)
    is_ours = isinstance(manifest, dict) and {"confidence_threshold", "detector", "format"} <= manifest.keys()
    if not (is_ours and isinstance(manifest.get("inputs"), dict) and isinstance(manifest["detector"], dict)):
        raise InputError(f"{path}: was not written by tools/predict.py; name a folder of its predictions")
    return manifest


def list_result_files(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """The manifest of a folder of predictions, and its result files, in order.

    Raises:
        InputError: it is none, or not all of it is there.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise InputError(
            f"{folder}: a folder without {MANIFEST_NAME}, which tools/predict.py writes; give a file of results"
        )
    manifest = read_manifest(folder)
    names = [unit_name(place) for place in range(manifest["inputs"]["units"])]
    missing = [name for name in names if not (folder / RECORDS_NAME / f"{name}.json").is_file()]
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of {len(names)} units are not predicted yet; the same call of tools/predict.py "
            "goes on with them"
        )
    return manifest, [folder / RESULTS_NAME / f"{name}.{manifest['format']}" for name in names]


def read_predictions(folder: Path) -> list[dict[str, Any]]:
    """The detections in a folder of predictions as COCO results; ``image_id`` is the name of the file.

    Raises:
        InputError: it is none, or not all of it is there.
    """
    manifest, files = list_result_files(folder)
    threshold = manifest["confidence_threshold"]
    if threshold > _USUAL_THRESHOLD:
        logger.warning(
            "%s: has only detections with a score of at least %g; AP counts those below it, too "
            "(tools/predict.py --confidence-threshold 0 keeps them)",
            folder,
            threshold,
        )
    results, names, num_bad = [], set(), 0
    with paused_garbage_collection():
        for path in files:
            for row in read_rows(path):
                num_bad += row["error"] is not None
                if row["file_name"] in names:
                    raise InputError(f"{path}: {row['file_name']} is there twice: images are told by their file names")
                names.add(row["file_name"])
                for found in row["detections"]:
                    entry = {key: value for key, value in found.items() if value is not None and key != "category"}
                    results.append({"image_id": row["file_name"], **entry})
    if num_bad:
        logger.warning("%s: %d images could not be read, and have no detections", folder, num_bad)
    return results


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The images in a result file, JSON lines or Parquet, in order."""
    if path.suffix == ".parquet":
        for group in import_pyarrow()[1].ParquetFile(path).iter_batches():
            yield from group.to_pylist()
        return
    with path.open("rb") as file:
        for line in file:
            yield parse_json(line, path)


def import_pyarrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet.

    Raises:
        InputError: pyarrow is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError("Parquet files need pyarrow: pip install 'resnet_det[parquet]'") from None
