"""From inputs and a detector to a folder of predictions."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from resnet_det.engine.predict.detector import Runs, find_num_threads, open_detector
from resnet_det.engine.predict.folder import PredictionFolder, check_folder
from resnet_det.engine.predict.inputs import Listing, Unit, list_inputs
from resnet_det.engine.predict.progress import Progress
from resnet_det.engine.predict.reading import Reader
from resnet_det.engine.predict.units import Options, predict_unit
from resnet_det.evaluation.prediction_folder import import_pyarrow
from resnet_det.images import settings
from resnet_det.images.pillow import allow_pixels
from resnet_det.processes import end_with_parent

logger = logging.getLogger(__name__)


@dataclass
class Counts:
    """What is in units.

    Attributes:
        images: that were predicted, or could not be read.
        detections: with a score of at least the threshold.
        bad: images that could not be read; of them a tar file that is damaged.
        others: members of tar files that are no images.
    """

    images: int = 0
    detections: int = 0
    bad: int = 0
    others: int = 0

    def add(self, record: dict[str, Any]) -> None:
        self.images += record["images"]
        self.detections += record["detections"]
        self.bad += len(record["bad"])
        self.others += record["others"]


@dataclass(frozen=True)
class Summary:
    """What a call has done, as its first process tells it.

    Attributes:
        all: what the whole folder has.
        new: what all processes have added since this one began.
        seconds: that took.
        bad: images that could not be read, with their ``file_name``, ``shard`` and ``error``.
    """

    all: Counts
    new: Counts
    seconds: float
    bad: list[dict[str, Any]]


def predict(args: argparse.Namespace, cfg: CfgNode) -> Summary | None:
    """Do what the flags of :func:`build_predict_parser` say; with RANK and WORLD_SIZE set, as one of several processes.

    Returns:
        The summary in the first process, once all units are finished; None in others, which do not wait.

    Raises:
        InputError: an input or the detector cannot be used, or the folder holds something else.
    """
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(signal.SIGTERM)
    check_folder(Path(args.output))
    if args.format == "parquet":
        import_pyarrow()
    settings.set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    listing = list_inputs(args.inputs, args.shard_size)
    opened = open_detector(args, cfg, args.threads or find_num_threads(Path(args.output)))
    settings.set_image_input(opened.detector.image_input)
    manifest = make_manifest(args, listing, opened.detector, opened.description)
    folder = PredictionFolder(Path(args.output), manifest)
    if rank == 0:
        _tell_inputs(listing, folder)
    options = Options(args.batch_size, args.num_workers, args.confidence_threshold, args.format, args.shard_size)
    if cfg.RESNET_DET.TEST.SLICE:  # slices are what makes a batch; images are large, and few of them are read ahead
        options = replace(options, batch_size=1, num_workers=min(args.num_workers, 2))
    return predict_units(
        opened.detector,
        listing.units,
        folder,
        options,
        rank=rank,
        world_size=world_size,
    )


def make_manifest(
    args: argparse.Namespace, listing: Listing, detector: Runs, description: dict[str, Any]
) -> dict[str, Any]:
    """All that results depend on."""
    return {
        "inputs": {
            "given": args.inputs,
            "images": listing.num_images,
            "tar shards": listing.num_shards,
            "units": len(listing.units),
            "sha256 of the names": listing.sha256,
        },
        "confidence_threshold": args.confidence_threshold,
        "format": args.format,
        "shard_size": args.shard_size,
        "batch_size": args.batch_size,
        "max_image_pixels": settings.max_pixels,
        "classes": [
            {"id": category_id, "name": name}
            for category_id, name in zip(detector.category_ids, detector.class_names, strict=True)
        ],
        "detector": description,
    }


def predict_units(
    detector: Runs,
    units: Sequence[Unit],
    folder: PredictionFolder,
    options: Options,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Summary | None:
    """Predict on the units that are not finished: first on each ``world_size``-th, then on those that other processes
    have not come to yet. The first process waits for what others are at, and takes it over if they end without.

    Returns:
        See :func:`predict`.
    """
    started = time.perf_counter()
    before = folder.list_finished()
    progress = Progress(units, folder.list_finished, shown=rank == 0, shard_size=options.shard_size)
    reader = Reader(options.num_workers, 2 * options.batch_size + options.num_workers)
    own = list(range(rank, len(units), world_size))
    others = [place for place in range(len(units)) if place % world_size != rank]
    rounds = [(own, False), (others[::-1], False), (range(len(units)), True)]
    try:
        with allow_pixels(settings.max_pixels):  # here, as it is not to be raised and lowered in threads
            for places, wait in rounds[: 3 if rank == 0 else 2]:
                for place in places:
                    with folder.claim(place, wait=wait) as is_mine:
                        if is_mine:
                            record = predict_unit(
                                detector, units[place], place, folder, reader, options, progress.advance
                            )
                            progress.end_unit(place, record["images"])
    finally:
        progress.close()
        reader.close()
    return _sum_up(folder, len(units), before, time.perf_counter() - started) if rank == 0 else None


def _sum_up(folder: PredictionFolder, num_units: int, before: Container[int], seconds: float) -> Summary:
    everything, new = Counts(), Counts()
    for place in range(num_units):
        record = folder.read_record(place)
        everything.add(record)
        if place not in before:
            new.add(record)
    return Summary(everything, new, seconds, folder.finish_all())


def _tell_inputs(listing: Listing, folder: PredictionFolder) -> None:
    finished = len(folder.list_finished())
    parts = [f"{listing.num_images:,} image files"] * bool(listing.num_images)
    parts += [f"{listing.num_shards:,} tar shards"] * bool(listing.num_shards)
    text = f"{' and '.join(parts)} in {len(listing.units):,} units"
    text += f", of which {finished:,} are finished" if finished else ""
    text += f"; {listing.num_others:,} files are neither, by their suffix" if listing.num_others else ""
    text += f"; {listing.num_repeated:,} named again are taken once" if listing.num_repeated else ""
    logger.info("%s. The same call goes on where this one is interrupted", text)
