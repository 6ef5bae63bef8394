"""What is drawn, and where."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import supervision as sv
import torch
from detectron2.structures import Boxes, BoxMode, Instances

from resnet_det.visualization import (
    detections_from_annotations,
    detections_from_instances,
    draw_detections,
    side_by_side,
)
from resnet_det.visualization.drawing import MASK_OPACITY, decode_mask, draw_labels_, draw_masks_


def make_instances():
    instances = Instances((60, 80))
    instances.pred_boxes = Boxes(torch.tensor([[5.0, 5.0, 30.0, 40.0], [40.0, 10.0, 70.0, 50.0], [1.0, 1.0, 9.0, 9.0]]))
    instances.scores = torch.tensor([0.6, 0.9, 0.1])
    instances.pred_classes = torch.tensor([0, 1, 1])
    masks = torch.zeros(3, 60, 80, dtype=torch.bool)
    masks[0, 10:30, 10:25] = True
    instances.pred_masks = masks
    return instances


def test_predictions_come_best_first_and_above_the_threshold():
    detections = detections_from_instances(make_instances(), min_score=0.5)
    assert detections.confidence.tolist() == [np.float32(0.9), np.float32(0.6)]
    assert detections.class_id.tolist() == [1, 0]
    assert detections.mask[1].sum() == 300


def test_weak_keypoints_are_not_shown():
    instances = make_instances()[:1]
    instances.pred_keypoints = torch.tensor([[[1.0, 2.0, 0.9], [3.0, 4.0, 0.01]]])
    assert detections_from_instances(instances).data["keypoints"][0, :, 2].tolist() == [1, 0]


def test_annotations_of_every_kind_are_read():
    square = {"bbox": [2, 3, 10, 10], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    polygon = {**square, "segmentation": [[2, 3, 12, 3, 12, 13, 2, 13]]}
    runs = {**square, "segmentation": {"size": [20, 30], "counts": [2 * 20 + 3, 10, 547]}}
    detections = detections_from_annotations([polygon, runs], 20, 30)
    assert detections.xyxy.tolist() == [[2, 3, 12, 13]] * 2
    assert [int(mask.sum()) for mask in detections.mask] == [100, 10]
    assert detections_from_annotations([square], 20, 30).mask is None
    assert len(detections_from_annotations([], 20, 30)) == 0


def test_a_compressed_mask_equals_its_polygon():
    import pycocotools.mask as mask_util

    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:9, 5:20] = 1
    encoded = mask_util.encode(np.asfortranarray(mask))
    assert np.array_equal(decode_mask(encoded, 20, 30), mask.astype(bool))
    assert np.array_equal(decode_mask({**encoded, "counts": encoded["counts"].decode()}, 20, 30), mask.astype(bool))


def test_drawing_marks_the_boxes_and_leaves_the_image_alone():
    image = np.full((600, 800, 3), 90, dtype=np.uint8)
    before = image.copy()
    detections = detections_from_instances(make_instances(), min_score=0.5)
    detections.xyxy *= 10
    detections.mask = detections.mask.repeat(10, axis=1).repeat(10, axis=2)
    picture = draw_detections(image, detections, ["cat", "dog"])
    assert np.array_equal(image, before)
    assert picture.shape == image.shape
    assert (picture[200, 400] != 90).any(), "left edge of the second box"
    assert (picture[200, 200] != 90).any(), "inside of the first mask"
    assert (picture[560, 20] == 90).all(), "far from everything"


def test_masks_with_holes_and_islands_are_filled_to_the_pixel():
    picture = np.random.randint(0, 256, (150, 200, 3), dtype=np.uint8)
    noise = cv2.GaussianBlur(np.random.rand(6, 150, 200).transpose(1, 2, 0), (0, 0), 5).transpose(2, 0, 1)
    masks = noise > np.linspace(0.49, 0.53, 6)[:, None, None]
    masks[2] = False
    colours = [(250, 10, 20), (20, 240, 30), (0, 0, 0), (30, 40, 230), (220, 220, 0), (0, 200, 210)]
    flat, outlines = picture.copy(), np.zeros((150, 200), dtype=bool)
    for index in np.argsort(-masks.sum(axis=(1, 2))):
        flat[masks[index]] = colours[index]
        outlines |= masks[index] & (cv2.erode(masks[index].astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    outlines[[0, -1]] = outlines[:, [0, -1]] = True
    expected = MASK_OPACITY * flat + (1 - MASK_OPACITY) * picture
    drawn = picture.copy()
    draw_masks_(drawn, masks, colours)
    assert np.abs(drawn - expected)[~outlines].max() <= 1
    assert 0.2 < outlines.mean() < 0.8
    assert (np.abs(drawn - expected)[outlines].max(axis=1) > 5).mean() > 0.5, "outlines are not blended"


def test_labels_stay_inside_the_picture():
    for count in (4, 25):
        canvas = np.full((600, 900, 3), 128, dtype=np.uint8)
        corners = np.random.uniform((0, 0), (900, 600), (count, 2))
        corners[:4] = [[0, 0], [899, 0], [899, 599], [-5, 450]]
        detections = sv.Detections(np.hstack([corners, corners + 5]), class_id=np.arange(count))
        labelled = canvas.copy()
        draw_labels_(labelled, detections, ["a long label 0.99"] * count)
        changed = (labelled != canvas).any(axis=2)
        for rows in (slice(0, 12), slice(-12, None)):
            assert changed[rows, -60:].mean() > 0.5, "the label of a box in the corner"


@pytest.mark.parametrize(("count", "is_labelled"), [(40, True), (400, False)])
def test_labels_that_would_hide_the_objects_are_left_out(count, is_labelled):
    corners = np.stack(np.divmod(np.arange(count), 25), 1) * 24.0 + 20
    detections = sv.Detections(np.concatenate([corners, corners + 12], 1), class_id=np.zeros(count, int))
    canvas = np.zeros((640, 640, 3), np.uint8)
    draw_labels_(canvas, detections, ["nucleus"] * count)
    assert canvas.any() == is_labelled


def test_predictions_in_any_order_give_the_same_picture():
    instances = make_instances()
    image = np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8)
    pictures = [
        draw_detections(image, detections_from_instances(instances[order], 0.5), ["cat", "dog"])
        for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1])
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_small_images_are_enlarged():
    picture = draw_detections(
        np.zeros((60, 80, 3), np.uint8), detections_from_instances(make_instances()), ["cat", "dog"]
    )
    assert picture.shape == (360, 480, 3)


def test_panels_stand_side_by_side_under_their_titles():
    panel = np.zeros((50, 40, 3), np.uint8)
    picture = side_by_side({"ground truth": panel, "predictions": panel})
    assert picture.shape == (78, 88, 3)
    assert picture[:28].min() < 100 < picture[:28].max()
