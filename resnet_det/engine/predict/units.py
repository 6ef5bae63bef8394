"""One unit of work: its images through the detector, batch by batch, and what is found into its file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_det.engine.predict.detector import Runs
from resnet_det.engine.predict.folder import BAD_NAME, PredictionFolder
from resnet_det.engine.predict.inputs import TarUnit, Unit
from resnet_det.engine.predict.reading import Item, Reader
from resnet_det.engine.predict.results import WRITERS, Row, make_detections, make_row
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """See :func:`~resnet_det.engine.predict.arguments.build_predict_parser`."""

    batch_size: int = 4
    num_workers: int = 1
    confidence_threshold: float = 0.5
    format: str = "jsonl"
    shard_size: int = 1000


def predict_unit(
    detector: Runs,
    unit: Unit,
    place: int,
    folder: PredictionFolder,
    reader: Reader,
    options: Options,
    advance: Callable[[], None],
) -> dict[str, Any]:
    """Write the results of a unit, and mark it as finished.

    Args:
        place: of the unit among all.
        advance: called after each image.

    Returns:
        Its record: numbers of images, of detections, and of other members of a tar file, and the bad images.
    """
    record: dict[str, Any] = {"images": 0, "detections": 0, "others": 0, "bad": []}
    if isinstance(unit, TarUnit):
        record = {"shard": unit.path, **record}

    def take_images() -> Iterator[Item]:
        for item in reader.read(unit):
            if item.is_other:
                record["others"] += 1
            elif not item.file_name:  # the tar file itself is damaged
                _note_bad(record, "", item.shard, item.error)
            else:
                yield item

    with folder.write_results(place) as path, WRITERS[options.format](path) as writer:
        for row in predict_rows(detector, take_images(), options.batch_size, options.confidence_threshold):
            writer.write(row)
            record["images"] += 1
            record["detections"] += len(row["detections"])
            if row["error"] is not None:
                _note_bad(record, row["file_name"], row["shard"], row["error"])
            advance()
    folder.finish(place, record)
    return record


def predict_rows(detector: Runs, items: Iterable[Item], batch_size: int, min_score: float) -> Iterator[Row]:
    """The row of each item, in order. Batches are the same in each run: ``batch_size`` images that can be read, one
    after the other."""
    waiting: list[Item] = []
    num_images = 0
    for item in items:
        waiting.append(item)
        num_images += item.image is not None
        if num_images == batch_size:
            yield from _predict_batch(detector, waiting, min_score)
            waiting, num_images = [], 0
    yield from _predict_batch(detector, waiting, min_score)


def _predict_batch(detector: Runs, items: Sequence[Item], min_score: float) -> Iterator[Row]:
    good = [item for item in items if item.image is not None]
    try:
        outputs = iter(detector.run([item.image for item in good]) if good else ())
    except InputError as error:
        if len(good) > 1:  # one of them is of no use to the detector: which?
            for item in items:
                yield from _predict_batch(detector, [item], min_score)
            return
        outputs, good = iter(()), []
        reason = str(error)
    for item in items:
        if item.image is None:
            yield make_row(item)
        elif not good:
            yield make_row(item, error=reason)
        else:
            instances = next(outputs)["instances"]
            found = make_detections(instances, detector.class_names, detector.category_ids, min_score)
            yield make_row(item, found)


def _note_bad(record: dict[str, Any], file_name: str, shard: str | None, error: str) -> None:
    record["bad"].append({"file_name": file_name, "shard": shard, "error": error})
    where = ": ".join(filter(None, (shard, file_name)))
    logger.warning("%s: %s; passed over, and listed in %s", where, error, BAD_NAME)
