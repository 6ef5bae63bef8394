"""Pictures of detections: a 640x480 image with 30 masks, boxes, scores and labels.

Beside Detectron2's Visualizer. Both start with what a model returns, and end with an array. The image and the objects
are made up.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import Visualizer

from resnet_det.benchmark.compare import Comparison, compare
from resnet_det.errors import InputError
from resnet_det.visualization import detections_from_instances, draw_detections

HEIGHT_PX, WIDTH_PX = 480, 640
NUM_CLASSES = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--objects", type=int, default=30, metavar="N", help="in the picture (default: 30)")


def run(args: argparse.Namespace) -> Iterator[Comparison]:
    """
    Raises:
        InputError: there are no objects to draw.
    """
    if args.objects < 1:
        raise InputError(f"--objects {args.objects}: 1 or more")
    image, instances = make_scene(args.objects)
    metadata = MetadataCatalog.get("resnet_det_benchmark_draw")
    metadata.thing_classes = class_names = [f"class {index}" for index in range(NUM_CLASSES)]

    def draw_theirs() -> np.ndarray:
        return Visualizer(image[:, :, ::-1], metadata).draw_instance_predictions(instances).get_image()

    def draw_ours() -> np.ndarray:
        return draw_detections(image, detections_from_instances(instances), class_names)

    yield compare(
        f"A picture of {args.objects} objects with masks, {WIDTH_PX}x{HEIGHT_PX} pixels",
        {"Detectron2": draw_theirs, "resnet_det": draw_ours},
        pairs=args.pairs,
        item="picture",
        compare_outputs=False,
    )


def make_scene(num_objects: int, seed: int = 0) -> tuple[np.ndarray, Instances]:
    """An image (480, 640, 3) uint8, and what a model could have found on it: ellipses of 20 to 200 pixels."""
    random = np.random.default_rng(seed)
    image = cv2.resize(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), (WIDTH_PX, HEIGHT_PX))
    masks = np.zeros((num_objects, HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    boxes = []
    for mask in masks:
        centre, axes = random.integers((40, 40), (WIDTH_PX - 40, HEIGHT_PX - 40)), random.integers(10, 100, 2)
        cv2.ellipse(mask, centre.tolist(), axes.tolist(), float(random.uniform(0, 180)), 0, 360, 1, -1)
        x, y, width, height = cv2.boundingRect(mask)
        boxes.append([x, y, x + width, y + height])
    instances = Instances((HEIGHT_PX, WIDTH_PX))
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    instances.scores = torch.linspace(0.99, 0.5, num_objects)
    instances.pred_classes = torch.from_numpy(random.integers(0, NUM_CLASSES, num_objects))
    instances.pred_masks = torch.from_numpy(masks).bool()
    return image, instances
