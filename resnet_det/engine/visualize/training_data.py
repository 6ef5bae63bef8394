"""Pictures of training data: as annotated, and as augmentation hands them to the model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
import tqdm
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from resnet_det.config import read_image_input
from resnet_det.data import build_mapper, prepare_dataset
from resnet_det.data.mapping.fast_image import read_bgr
from resnet_det.engine.visualize.filters import Filter, find_classes
from resnet_det.engine.visualize.predictions import Summary, pass_over
from resnet_det.errors import InputError
from resnet_det.images.image_input import CHANNELS, ImageInput
from resnet_det.images.pages import stem_of
from resnet_det.visualization import (
    detections_from_annotations,
    detections_from_targets,
    draw_detections,
    make_skeleton,
    side_by_side,
)
from resnet_det.visualization.album import PICTURE_FORMATS, Album


def draw_training_data(
    cfg: CfgNode,
    dataset_name: str,
    output: Path,
    *,
    num_images: int,
    num_augmented: int,
    classes: Collection[str] | None = None,
    picture_format: str = PICTURE_FORMATS[0],
) -> Summary:
    """Write pictures of the first images of a data set, as annotated beside ``num_augmented`` augmented versions, and
    gallery.html.

    What is random depends on cfg.SEED (0 where it is not set) and the position in the data set alone.

    Args:
        classes: names of those that are shown; the images are then those that have them. None: all.

    Raises:
        InputError: no such data set, or its annotations are not of the kind that can be drawn.
    """
    prepare_dataset(dataset_name)
    dicts = DatasetCatalog.get(dataset_name)
    class_names = MetadataCatalog.get(dataset_name).get("thing_classes")
    if class_names is None or not any("annotations" in entry for entry in dicts):
        raise InputError(f"--dataset {dataset_name}: no annotated objects in it")
    metadata = MetadataCatalog.get(dataset_name)
    skeleton = make_skeleton(metadata.get("keypoint_names"), metadata.get("keypoint_connection_rules"))
    shown = Filter(classes=find_classes(classes, class_names))
    mapper, image_input = build_mapper(cfg, True, dicts), read_image_input(cfg)
    album, summary = Album(output, picture_format), Summary()
    start = time.perf_counter()
    chosen = [
        (place, entry)
        for place, entry in enumerate(dicts)
        if classes is None or any(shown.has(annotation["category_id"]) for annotation in entry["annotations"])
    ]
    for place, entry in tqdm.tqdm(chosen[:num_images], unit="image", desc="draw", leave=False):
        path = Path(entry["file_name"])
        truth = [annotation for annotation in entry["annotations"] if shown.has(annotation["category_id"])]
        try:
            image = read_bgr(path)
        except InputError as error:
            pass_over(path, error, summary)
            continue
        annotated = draw_detections(image, detections_from_annotations(truth, *image.shape[:2]), class_names, skeleton)
        panels = {f"as annotated, {image.shape[1]} x {image.shape[0]}": annotated}
        with _seeded(max(cfg.SEED, 0), place):
            for number in range(1, num_augmented + 1):
                mapped = mapper(entry)
                augmented = to_bgr(mapped["image"].numpy(), image_input)
                targets = mapped["instances"]
                targets = targets[torch.tensor([shown.has(i) for i in targets.gt_classes], dtype=torch.bool)]
                drawn = draw_detections(augmented, detections_from_targets(targets), class_names, skeleton)
                title = f"augmented {number}, {augmented.shape[1]} x {augmented.shape[0]}"
                panels[title] = _to_height(drawn, annotated.shape[0])
        counts = Counter(class_names[annotation["category_id"]] for annotation in truth)
        album.add_picture(side_by_side(panels), stem_of(path), title=path.name, counts=counts)
    summary.written, summary.num_images = album.paths, len(album.paths)
    summary.seconds = time.perf_counter() - start
    subtitle = f"{dataset_name}: {len(album.paths)} of {len(chosen)} images"
    summary.page = album.write_page("Training data before and after augmentation", subtitle)
    return summary


def to_bgr(image: np.ndarray, image_input: ImageInput) -> np.ndarray:
    """What the model gets, (channels, H, W) in the config's INPUT.FORMAT, as a picture (H, W, 3) uint8 in BGR order."""
    picture = image.transpose(1, 2, 0)
    if image_input.format != CHANNELS:
        picture = picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture
        picture = picture[:, :, ::-1] if image_input.format == "RGB" else picture[:, :, :3]
    return image_input.to_picture(picture)


def _to_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


@contextmanager
def _seeded(*seeds: int) -> Iterator[None]:
    """Within it np.random, which all augmentation draws from, begins at ``seeds``."""
    before = np.random.get_state()
    np.random.seed(seeds)
    try:
        yield
    finally:
        np.random.set_state(before)
