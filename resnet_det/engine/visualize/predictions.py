"""Pictures and videos of what a detector finds on images, videos and cameras."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tqdm
from detectron2.structures import Instances

from resnet_det.data.mapping.fast_image import read_taken
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.visualize.coco_output import IMAGES_NAME, RESULTS_NAME, CocoOutput
from resnet_det.engine.visualize.filters import Filter
from resnet_det.engine.visualize.inputs import Frames
from resnet_det.errors import InputError
from resnet_det.images import settings
from resnet_det.images.pages import stem_of
from resnet_det.outputs import OutputFolder
from resnet_det.visualization import detections_from_instances, draw_detections, draw_panoptic
from resnet_det.visualization.album import PICTURE_FORMATS, Album
from resnet_det.visualization.video import VideoWriter

logger = logging.getLogger(__name__)


@dataclass
class Summary:
    """What was done.

    Attributes:
        written: pictures and videos.
        unreadable: files that could not be read, which were named in the log and passed over.
        num_images: that went through the model, frames included.
        seconds: that took, with reading, drawing and writing.
        page: gallery.html.
    """

    written: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    num_images: int = 0
    seconds: float = 0.0
    page: Path | None = None


@dataclass(frozen=True)
class Drawn:
    """A picture, and the objects on it."""

    picture: np.ndarray
    instances: Instances
    counts: Counter[str]

    @property
    def best_score(self) -> float | None:
        return float(self.instances.scores.max()) if len(self.instances) else None


def predict_and_draw(predictor: Predictor, images: Sequence[np.ndarray], shown: Filter) -> list[Drawn]:
    """What ``predictor`` finds on images as it takes them, which go through the model as one batch."""
    drawn = []
    for taken, output in zip(images, predictor.run(images), strict=True):
        image = settings.image_input.to_picture(taken)
        instances = shown.of_instances(output["instances"])
        counts = Counter(predictor.class_names[i] for i in instances.pred_classes.tolist())
        if "panoptic_seg" in output:
            segments, described = output["panoptic_seg"]
            described = [s for s in described if shown.has_segment(s)]
            names = predictor.class_names, predictor.stuff_names
            picture = draw_panoptic(image, segments.numpy(), described, *names)
            counts = Counter(names[not s["isthing"]][s["category_id"]] for s in described)
        else:
            picture = draw_detections(
                image, detections_from_instances(instances), predictor.class_names, predictor.skeleton
            )
        drawn.append(Drawn(picture, instances, counts))
    return drawn


def draw_inputs(
    predictor: Predictor,
    images: Sequence[Path],
    videos: Sequence[Path],
    output: Path,
    *,
    shown: Filter,
    batch_size: int,
    max_frames: int | None = None,
    picture_format: str = PICTURE_FORMATS[0],
) -> Summary:
    """Write to ``output`` a picture of each image and a video of each video, with gallery.html to look through them,
    and what is shown as COCO results.

    Raises:
        InputError: ``output`` cannot be written to.
    """
    OutputFolder(output, [RESULTS_NAME, IMAGES_NAME])  # before time is spent
    album, summary = Album(output, picture_format), Summary()
    coco = CocoOutput([*images, *videos], predictor.class_names, predictor.category_ids)
    start = time.perf_counter()
    with tqdm.tqdm(total=len(images), unit="image", desc="predict", leave=False) as progress:
        for batch in _batches(read_images(images, summary), batch_size):
            for (path, image), drawn in zip(
                batch, predict_and_draw(predictor, [image for _, image in batch], shown), strict=True
            ):
                coco.add(path, image.shape[:2], drawn.instances)
                album.add_picture(
                    drawn.picture, stem_of(path), title=path.name, counts=drawn.counts, best_score=drawn.best_score
                )
            summary.num_images += len(batch)
            progress.update(summary.num_images + len(summary.unreadable) - progress.n)
    for path in videos:
        _draw_video(predictor, path, album, coco, summary, shown, batch_size, max_frames)
    summary.seconds = time.perf_counter() - start
    coco.write(album.files)
    summary.written = album.paths
    subtitle = f"{len(coco)} detections with a score of at least {shown.min_score:g} on {summary.num_images} images"
    summary.page = album.write_page("What the detector found", subtitle)
    return summary


def _draw_video(
    predictor: Predictor,
    path: Path,
    album: Album,
    coco: CocoOutput,
    summary: Summary,
    shown: Filter,
    batch_size: int,
    max_frames: int | None,
) -> None:
    try:
        frames = Frames(path)
    except InputError as error:
        pass_over(path, error, summary)
        return
    target = album.new_path(path.stem, ".mp4")
    counts: Counter[str] = Counter()
    still = None
    with VideoWriter(target, frames.fps) as writer:
        for batch in _batches(with_progress(frames, path.name, max_frames), batch_size):
            for frame, drawn in zip(batch, predict_and_draw(predictor, batch, shown), strict=True):
                coco.add(path, frame.shape[:2], drawn.instances, frame=writer.num_frames)
                writer.write(drawn.picture)
                counts |= drawn.counts  # the most at once
                if still is None or (len(drawn.instances) and not still[1]):
                    still = drawn.picture, len(drawn.instances)
            summary.num_images += len(batch)
    if still is None:
        target.unlink(missing_ok=True)
        pass_over(path, "no frame of it can be read", summary)
        return
    note = f"at most at once, {writer.num_frames} frames"
    album.add_video(target, still[0], title=path.name, counts=counts, note=note)


def read_images(paths: Iterable[Path], summary: Summary) -> Iterator[tuple[Path, np.ndarray]]:
    """The images that can be read, as predictors take them; the others are named and passed over."""
    for path in paths:
        try:
            yield path, read_taken(path)
        except InputError as error:
            pass_over(path, error, summary)


def pass_over(path: Path, reason: object, summary: Summary) -> None:
    """Name a file that could not be read."""
    reason = str(reason).removeprefix(f"{path}: ")
    logger.error("%s: %s; passed over", os.fspath(path), reason)
    summary.unreadable.append(path)


def _batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def with_progress(frames: Frames, name: str, max_frames: int | None) -> Iterator[np.ndarray]:
    """The first ``max_frames`` frames (all if None), with a progress bar."""
    total = min(frames.count or max_frames or 0, max_frames or frames.count) or None
    limited = itertools.islice(iter(frames), max_frames)
    return iter(tqdm.tqdm(limited, total=total, unit="frame", desc=name, leave=False))
