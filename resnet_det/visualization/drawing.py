"""Boxes, masks, keypoints and labels, drawn with supervision (OpenCV) on (H, W, 3) uint8 images in BGR order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import supervision as sv
from detectron2.structures import BoxMode, Instances

from resnet_det.masks import BoxMask, BoxMasks
from resnet_det.visualization.skeleton import NO_SKELETON, Skeleton, draw_keypoints_

KEYPOINT_THRESHOLD = 0.05  # keypoint scores below this are not shown (Detectron2's value)
TITLE_HEIGHT_PX, TITLE_SCALE = 28, 0.55
GAP_PX = 8
MIN_PANEL_PX = 480  # smaller pictures are enlarged, so that labels can be read
MASK_OPACITY = 0.35
LABEL_PADDING_PX = 2
MAX_SPREAD_LABELS = 20
MAX_LABELLED_SHARE = 0.2  # of the picture; where labels would cover more, nobody would see what they are of
COLOURS = sv.ColorPalette.DEFAULT  # of classes


def detections_from_instances(instances: Instances, min_score: float = 0.0) -> sv.Detections:
    """Predictions of a Detectron2 model (on the CPU) with at least ``min_score``, best first.

    Keypoints, where there are any, are in ``data["keypoints"]``: (n, k, 3) with x, y in pixels and 1 for shown or 0.
    Masks that are in their boxes stay so, in ``data["masks"]``.
    """
    scores = instances.scores.numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= min_score]
    is_sorted = np.array_equal(order, np.arange(len(order)))  # as a model has it; then no masks are copied
    instances = instances[: len(order)] if is_sorted else instances[order.tolist()]
    data, masks = {}, None
    if instances.has("pred_masks") and isinstance(instances.pred_masks, BoxMasks):
        data["masks"] = list(instances.pred_masks)
    elif instances.has("pred_masks"):
        masks = instances.pred_masks.numpy().astype(bool, copy=False)
    if instances.has("pred_keypoints"):
        keypoints = instances.pred_keypoints.numpy().copy()
        keypoints[:, :, 2] = keypoints[:, :, 2] > KEYPOINT_THRESHOLD
        data["keypoints"] = keypoints
    return sv.Detections(
        xyxy=instances.pred_boxes.tensor.numpy(),
        mask=masks,
        confidence=instances.scores.numpy(),
        class_id=instances.pred_classes.numpy(),
        data=data,
    )


def detections_from_annotations(annotations: Sequence[Mapping[str, Any]], height: int, width: int) -> sv.Detections:
    """Objects of a Detectron2 dataset dict or of COCO results (``category_id`` counted from 0), of an image of that
    size.

    Each has ``bbox`` with ``bbox_mode``, ``category_id``, and may have ``segmentation``, ``keypoints`` and ``score``.
    Some may have a mask or keypoints, and others none.
    """
    if not annotations:
        return sv.Detections.empty()
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
    masks, keypoints = None, None
    if any("segmentation" in a for a in annotations):
        masks = np.zeros((len(annotations), height, width), dtype=bool)
        for row, annotation in enumerate(annotations):
            if "segmentation" in annotation:
                masks[row] = decode_mask(annotation["segmentation"], height, width)
    if any("keypoints" in a for a in annotations):
        points = [np.reshape(a.get("keypoints", ()), (-1, 3)) for a in annotations]
        keypoints = np.zeros((len(annotations), max(map(len, points)), 3))
        for row, (annotation, own) in enumerate(zip(annotations, points, strict=True)):
            keypoints[row, : len(own)] = own
            if "score" in annotation:  # what is predicted has scores in place of visibilities
                keypoints[row, :, 2] = keypoints[row, :, 2] > KEYPOINT_THRESHOLD
    scores = [a["score"] for a in annotations if "score" in a]
    return sv.Detections(
        xyxy=np.asarray(boxes, dtype=float).reshape(-1, 4),
        mask=masks,
        confidence=np.asarray(scores, dtype=float) if len(scores) == len(annotations) else None,
        class_id=np.asarray([a["category_id"] for a in annotations], dtype=int),
        data={} if keypoints is None else {"keypoints": keypoints},
    )


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """COCO polygons or run lengths as a (height, width) bool mask."""
    if isinstance(segmentation, list):
        runs = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = mask_util.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    return mask_util.decode(runs).astype(bool)


def draw_detections(
    image: np.ndarray, detections: sv.Detections, class_names: Sequence[str], skeleton: Skeleton = NO_SKELETON
) -> np.ndarray:
    """A copy of ``image``, enlarged if small, with masks, boxes, keypoints and labels in one colour for each class."""
    labels = [class_names[class_id] for class_id in detections.class_id] if len(detections) else []
    if detections.confidence is not None:
        labels = [f"{label} {score:.2f}" for label, score in zip(labels, detections.confidence, strict=True)]
    return draw_labelled(image, detections, labels, skeleton=skeleton)


def draw_labelled(
    image: np.ndarray,
    detections: sv.Detections,
    labels: Sequence[str],
    palette: sv.ColorPalette = COLOURS,
    *,
    skeleton: Skeleton = NO_SKELETON,
) -> np.ndarray:
    """The same with any ``labels``, in the colours that ``palette`` has for the class ids."""
    scale = max(1, -(-MIN_PANEL_PX // max(image.shape[:2])))
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) if scale > 1 else image.copy()
    if not len(detections):
        return canvas
    detections = _scaled(detections, scale, image.shape[:2])
    thickness = sv.calculate_optimal_line_thickness((canvas.shape[1], canvas.shape[0]))
    masks = detections.mask if detections.mask is not None else detections.data.get("masks", ())
    draw_masks_(canvas, masks, [palette.by_idx(class_id).as_bgr() for class_id in detections.class_id])
    canvas = sv.BoxAnnotator(color=palette, thickness=thickness).annotate(canvas, detections)
    draw_keypoints_(canvas, detections.data.get("keypoints", ()), skeleton, thickness=max(2, thickness))
    draw_labels_(canvas, detections, labels, palette)
    return canvas


def draw_labels_(
    canvas: np.ndarray, detections: sv.Detections, labels: Sequence[str], palette: sv.ColorPalette = COLOURS
) -> None:
    """Write the labels on top of their boxes, and inside the picture.

    Few labels are moved apart; many would end up far from their boxes. Where they would hide the objects, none is
    written.
    """
    height, width = canvas.shape[:2]
    scale = min(0.5, sv.calculate_optimal_text_scale((width, height)))
    sizes = np.array([cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0] for label in labels])
    sizes += 2 * LABEL_PADDING_PX
    if sizes.prod(1).sum() > MAX_LABELLED_SHARE * width * height:
        return
    boxes = detections.xyxy.copy()
    boxes[:, 0] = np.clip(boxes[:, 0], 0, np.maximum(width - sizes[:, 0], 0))
    boxes[:, 1] = np.clip(boxes[:, 1], sizes[:, 1], height)
    labeller = sv.LabelAnnotator(
        color=palette,
        text_scale=scale,
        text_thickness=1,
        text_padding=LABEL_PADDING_PX,
        text_color=sv.ColorPalette([_text_colour(colour) for colour in palette.colors]),
        smart_position=len(labels) <= MAX_SPREAD_LABELS,
    )
    labeller.annotate(canvas, sv.Detections(boxes, class_id=detections.class_id), list(labels))


def _text_colour(ground: sv.Color) -> sv.Color:
    """Black on light colours, white on dark ones (luma of ITU-R BT.601)."""
    return sv.Color.BLACK if 0.299 * ground.r + 0.587 * ground.g + 0.114 * ground.b > 110 else sv.Color.WHITE


def draw_masks_(
    canvas: np.ndarray, masks: np.ndarray | Sequence[BoxMask], colours: Sequence[tuple[int, int, int]]
) -> None:
    """Blend ``canvas`` with masks, smaller ones on top of larger ones, and draw their outlines.

    Why not supervision's MaskAnnotator and PolygonAnnotator: they go over the whole picture several times for each
    mask. Here each is cut out first, and what is filled is its outline, so that it takes a tenth of the time.

    Args:
        canvas: (H, W, 3) uint8.
        masks: (N, H, W) bool, or N in their boxes.
        colours: of the masks, in the order of the channels.
    """
    if not len(masks):
        return
    places = []
    for index, mask in enumerate(masks):
        cut, x, y = _cut_out(mask, *canvas.shape[:2])
        if not cut.size:
            continue
        contours, _ = cv2.findContours(cut, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y))
        places.append((cv2.countNonZero(cut), index, contours))
    places.sort(key=lambda place: -place[0])
    filled = canvas.copy()
    for _, index, contours in places:
        cv2.fillPoly(filled, contours, colours[index])  # with holes: what two outlines are around is outside
    cv2.addWeighted(filled, MASK_OPACITY, canvas, 1 - MASK_OPACITY, 0, dst=canvas)
    for _, index, contours in places:
        cv2.polylines(canvas, contours, isClosed=True, color=colours[index], thickness=1)


def _cut_out(mask: np.ndarray | BoxMask, height: int, width: int) -> tuple[np.ndarray, int, int]:
    """What a mask of an image of this size has anything in, as uint8, and its x and y."""
    if isinstance(mask, BoxMask):
        left, top, right, bottom = mask.window(height, width)
        return mask.crop(left, top, right, bottom).view(np.uint8), left, top
    pixels = mask.view(np.uint8)
    x, y, width, height = cv2.boundingRect(pixels)
    return pixels[y : y + height, x : x + width], x, y


def _scaled(detections: sv.Detections, scale: int, size: tuple[int, int]) -> sv.Detections:
    """Of an image whose height and width were ``size``."""
    if scale == 1:
        return detections
    mask = detections.mask
    if mask is not None:
        mask = mask.repeat(scale, axis=1).repeat(scale, axis=2)
    data = dict(detections.data)
    if "keypoints" in data:
        data["keypoints"] = data["keypoints"] * np.array([scale, scale, 1])
    if "masks" in data:
        data["masks"] = [_enlarged(one, scale, *size) for one in data["masks"]]
    return sv.Detections(detections.xyxy * scale, mask, detections.confidence, detections.class_id, data=data)


def _enlarged(mask: BoxMask, scale: int, height: int, width: int) -> BoxMask:
    """Its pixels in an image of this size, each ``scale`` times as large."""
    box = mask.window(height, width)
    return BoxMask(mask.crop(*box).repeat(scale, axis=0).repeat(scale, axis=1), np.array(box, float) * scale)


def side_by_side(panels: Mapping[str, np.ndarray], columns: int | None = None) -> np.ndarray:
    """Pictures of equal height, each under its title, in rows of ``columns``; if not given, in one row."""
    cells = [_titled(title, panel) for title, panel in panels.items()]
    columns = columns or len(cells)
    rows = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, GAP_PX), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.vstack(rows)[:-GAP_PX, :-GAP_PX]


def _titled(title: str, panel: np.ndarray) -> np.ndarray:
    """A picture under its title, with a gap on its right."""
    (width, _), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, TITLE_SCALE, 1)
    scale = TITLE_SCALE * min(1, (panel.shape[1] - 8) / max(width, 1))
    cell = np.pad(panel, ((TITLE_HEIGHT_PX, 0), (0, GAP_PX), (0, 0)), constant_values=255)
    place = (4, TITLE_HEIGHT_PX - 9)
    cv2.putText(cell, title, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return cell
