"""What is written of each image, as JSON lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from detectron2.structures import Instances

from resnet_det.engine.predict.reading import Item
from resnet_det.evaluation.instances import make_results
from resnet_det.evaluation.prediction_folder import import_pyarrow

Row = dict[str, Any]


def make_row(item: Item, detections: Sequence[dict[str, Any]] = (), *, error: str | None = None) -> Row:
    """One image, with all that was found on it, or with the reason why it could not be read."""
    error = error or item.error
    height, width = (None, None) if error else item.image.shape[:2]
    row = {"file_name": item.file_name, "shard": item.shard, "height": height, "width": width}
    return row | {"error": error, "detections": list(detections)}


def make_detections(
    instances: Instances, class_names: Sequence[str], category_ids: Sequence[int], min_score: float
) -> list[dict[str, Any]]:
    """What was found on an image, best first, as COCO has results, with the name of the category.

    Numbers are float32 in the fewest digits that tell them.
    """
    scores = instances.scores.numpy()
    order = np.argsort(-scores, kind="stable")
    instances = instances[order[scores[order] >= min_score].tolist()]
    found = []
    for entry in make_results(instances, 0):
        place = entry["category_id"]
        detection = {"category_id": category_ids[place], "category": class_names[place]}
        detection |= {"bbox": _shorten(entry["bbox"]), "score": _shorten([entry["score"]])[0]}
        if "segmentation" in entry:
            detection["segmentation"] = entry["segmentation"]
        if "keypoints" in entry:
            detection["keypoints"] = _shorten(entry["keypoints"])
        found.append(detection)
    return found


def _shorten(values: Sequence[float]) -> list[float]:
    return np.asarray(values, np.float32).astype("U").astype(np.float64).tolist()


class JsonlWriter:
    """One line of JSON for each image."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii")

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")


class ParquetWriter:
    """One row for each image, its detections as a list of structs, with the fields of the JSON lines."""

    ROWS = 500  # of a row group

    def __init__(self, path: Path) -> None:
        self._arrow, self._parquet = import_pyarrow()
        self._schema = _make_schema(self._arrow)
        self._writer = self._parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Row] = []

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, row: Row) -> None:
        texts = {key: _to_unicode(row[key]) for key in ("file_name", "shard", "error")}
        self._rows.append({**row, **texts})
        if len(self._rows) == self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _make_schema(arrow: Any) -> Any:
    mask = arrow.struct([("size", arrow.list_(arrow.int32())), ("counts", arrow.string())])
    numbers = arrow.list_(arrow.float32())
    detection = [("category_id", arrow.int64()), ("category", arrow.string()), ("bbox", numbers)]
    detection += [("score", arrow.float32()), ("segmentation", mask), ("keypoints", numbers)]
    fields = [("file_name", arrow.string()), ("shard", arrow.string()), ("height", arrow.int32())]
    fields += [("width", arrow.int32()), ("error", arrow.string())]
    return arrow.schema([*fields, ("detections", arrow.list_(arrow.struct(detection)))])


def _to_unicode(text: str | None) -> str | None:
    """File names may have bytes that are no text: they are written as \\udc80 to \\udcff."""
    return text if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


WRITERS: dict[str, Callable[[Path], JsonlWriter | ParquetWriter]] = {"jsonl": JsonlWriter, "parquet": ParquetWriter}
