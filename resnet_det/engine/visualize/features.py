"""Pictures of feature maps, and of where the scores of detections come from."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import tqdm
from detectron2.structures import Instances

from resnet_det.analysis.features import Explanation, explain_detection, map_activations, share_inside
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.visualize.filters import Filter
from resnet_det.engine.visualize.predictions import Summary, read_images
from resnet_det.images.pages import stem_of
from resnet_det.visualization.album import PICTURE_FORMATS, Album
from resnet_det.visualization.drawing import side_by_side
from resnet_det.visualization.heatmaps import colour_map, draw_box, overlay_map

PANEL_PX = 360  # the longer side of an image in these pictures


def draw_features(
    predictor: Predictor,
    paths: Sequence[Path],
    output: Path,
    *,
    shown: Filter,
    num_detections: int,
    level: str | None = None,
    picture_format: str = PICTURE_FORMATS[0],
) -> Summary:
    """Write for each image <name>-features, the mean activation of each stage and level, and for each of its best
    ``num_detections`` detections <name>-detection-<n>, where on a feature map its score comes from.

    Args:
        level: the feature map to explain by; if not given, the one from which the score is taken.

    Raises:
        InputError: see :func:`resnet_det.analysis.features.explain_detection`.
    """
    album, summary = Album(output, picture_format), Summary()
    start = time.perf_counter()
    for path, image in read_images(tqdm.tqdm(paths, unit="image", desc="features", leave=False), summary):
        inputs = predictor.prepare(image)
        small = _shrink(predictor.image_input.to_picture(image))
        size = (small.shape[1], small.shape[0])
        panels = {f"{path.name}, {image.shape[1]} x {image.shape[0]}": small}
        for feature in map_activations(predictor.model, inputs):
            channels, height, width = feature.shape
            panels[f"{feature.level}: {channels} x {height} x {width}"] = colour_map(feature.values.numpy(), size)
        note = "mean absolute activation: dark is little, yellow is much"
        album.add_picture(
            side_by_side(panels, columns=5),
            f"{stem_of(path)}-features",
            title=f"{path.name}: features",
            counts={},
            note=note,
        )
        detections = shown.of_instances(predictor.predict([image])[0])[:num_detections]
        for number in range(len(detections)):
            _draw_detection(predictor, album, path, number, detections[number], inputs, small, level)
        summary.num_images += 1
    summary.written = album.paths
    summary.seconds = time.perf_counter() - start
    summary.page = album.write_page("What the network sees", f"{summary.num_images} images")
    return summary


def _draw_detection(
    predictor: Predictor,
    album: Album,
    path: Path,
    number: int,
    detection: Instances,
    inputs: dict,
    small: np.ndarray,
    level: str | None,
) -> None:
    class_id, score = int(detection.pred_classes[0]), float(detection.scores[0])
    size = tuple(inputs["image"].shape[1:])
    scale = torch.tensor([size[1] / inputs["width"], size[0] / inputs["height"]] * 2)
    box = detection.pred_boxes.tensor[0] * scale
    explanation = explain_detection(predictor.model, inputs, box, class_id, level=level)
    name = predictor.class_names[class_id]
    drawn = detection.pred_boxes.tensor[0].numpy() * small.shape[1] / inputs["width"]
    panels = {f"{name} {score:.2f}": draw_box(small, drawn)}
    for title, values in (("Grad-CAM", explanation.grad_cam), ("HiResCAM", explanation.local)):
        share = share_inside(values, box, size)
        inside = "nothing raises the score" if math.isnan(share) else f"{share:.0%} in the box"
        title = f"{title}, {explanation.level}: {inside}"
        panels[title] = draw_box(overlay_map(small, values.numpy()), drawn)
    album.add_picture(
        side_by_side(panels),
        f"{stem_of(path)}-detection-{number + 1}",
        title=f"{path.name}: {name}",
        counts=Counter([name]),
        best_score=score,
        note=_note(explanation, box, size),
    )


def _note(explanation: Explanation, box: torch.Tensor, size: tuple[int, int]) -> str:
    area = share_inside(torch.ones(size), box, size)
    return f"logit {explanation.logit:.1f} by {explanation.level}; the box is {area:.0%} of the image"


def _shrink(image: np.ndarray) -> np.ndarray:
    scale = PANEL_PX / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
