"""Masks in their boxes are those of the whole image, which need not be made."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances

from resnet_det.evaluation.instances import make_results
from resnet_det.masks import BoxMask, BoxMasks, cut_out
from resnet_det.visualization import detections_from_instances, draw_detections


def random_masks(count, height, width):
    masks = np.zeros((count, height, width), bool)
    for mask in masks:
        x, y = np.random.randint(0, width - 8), np.random.randint(0, height - 8)
        part = mask[y : y + np.random.randint(1, 40), x : x + np.random.randint(1, 60)]
        part[:] = np.random.rand(*part.shape) < 0.8
    masks[-1] = False
    masks[0, :, 3:6] = True  # columns from the head to the foot
    return masks


def make_instances(masks, kept):
    found = Instances(masks.shape[1:])
    found.pred_boxes = Boxes(torch.rand(len(masks), 4) * 20 + torch.tensor([0.0, 0.0, 20.0, 20.0]))
    found.scores, found.pred_classes = torch.rand(len(masks)), torch.arange(len(masks)) % 2
    found.pred_masks = torch.from_numpy(masks)
    boxed = Instances(masks.shape[1:], **found.get_fields())
    boxed.pred_masks = BoxMasks([cut_out(mask) for mask in masks], *masks.shape[1:])
    return found[kept], boxed[kept]


@pytest.mark.parametrize("kept", [slice(None), slice(1, 4), [3, 0], torch.tensor([True] * 3 + [False] * 4), []])
def test_results_are_those_of_whole_masks(kept):
    whole, boxed = make_instances(random_masks(7, 50, 70), kept)
    assert make_results(boxed.to("cpu"), 5) == instances_to_coco_json(whole, 5) == make_results(whole, 5)


@pytest.mark.parametrize("size", [(50, 70), (500, 600)], ids=["enlarged", "as it is"])
def test_they_are_drawn_as_whole_masks_are(size):
    whole, boxed = make_instances(random_masks(7, *size), slice(None))
    image = np.random.randint(0, 255, (*size, 3), dtype=np.uint8)
    drawn = [draw_detections(image, detections_from_instances(one), ["cat", "dog"]) for one in (whole, boxed)]
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("scale", [(1, 1), (3.7, 2.2), (30, 20)])
def test_a_larger_image_has_them_in_the_same_place(scale):
    cells = np.zeros((12, 10), bool)
    cells[2:10, 3:9] = True
    mask = BoxMask(cells, np.array([4.0, 3.0, 14.0, 15.0])).scaled_and_moved(scale, (5, 2))
    expected = np.zeros((700, 700), bool)
    left, right, top, bottom = (7 * scale[0] + 5, 13 * scale[0] + 5, 5 * scale[1] + 2, 13 * scale[1] + 2)
    expected[round(top) : round(bottom), round(left) : round(right)] = True
    pasted = mask.paste(700, 700)
    # Between cells it is bilinear, so that corners are round.
    assert (pasted ^ expected).sum() <= (0 if scale == (1, 1) else 0.04 * expected.sum() + 40)
    window = mask.crop(20, 10, 600, 650)
    assert np.array_equal(window, pasted[10:650, 20:600])
    assert np.array_equal(pycocotools.mask.decode(mask.to_rle(700, 700)), pasted)
    assert mask.area() == pytest.approx(expected.sum(), rel=0.15)


def test_many_masks_of_a_huge_image_take_little_memory():
    height, width = 9000, 12000
    corners = np.random.randint(0, 8900, (300, 2))
    masks = BoxMasks(
        [BoxMask(np.ones((40, 30), bool), np.array([x, y, x + 30, y + 40], float)) for x, y in corners], height, width
    )
    tracemalloc.start()
    rows = list(masks.to_rle())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6, "one of them takes 108 MB whole"
    boxes = pycocotools.mask.toBbox([{**row, "counts": row["counts"].encode()} for row in rows])
    assert boxes.tolist() == [[x, y, 30, 40] for x, y in corners.tolist()]
