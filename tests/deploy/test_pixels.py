"""Resizing, masks and keypoints in NumPy are those of Pillow, Detectron2 and pycocotools."""

from __future__ import annotations

import detectron2.data.transforms as T
import numpy as np
import pycocotools.mask
import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import keypoints
from PIL import Image

from resnet_det.deploy.pixels import choose_size, heatmaps_to_keypoints, resize
from resnet_det.masks import BoxMask, encode_rle

SIZES = [(480, 640), (641, 427), (31, 997), (5, 3), (333, 333)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("shortest", "longest"), [(800, 1333), (64, 100), (333, 333), (0, 0)])
def test_sizes_are_detectron2s(shape, shortest, longest):
    transform = T.ResizeShortestEdge([shortest, shortest], longest).get_transform(np.zeros((*shape, 3), np.uint8))
    expected = shape if isinstance(transform, T.NoOpTransform) else (transform.new_h, transform.new_w)
    assert choose_size(*shape, shortest, longest) == expected


@pytest.mark.parametrize("shape", [(480, 640, 3), (37, 53, 3), (64, 48)])
@pytest.mark.parametrize("factor", [0.07, 0.4, 0.99, 1.0, 1.7])
def test_resizing_is_pillows(shape, factor):
    image = np.random.randint(0, 256, shape, np.uint8)
    height, width = (max(1, round(side * factor)) for side in shape[:2])
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.BILINEAR))
    np.testing.assert_array_equal(resize(image, height, width), expected)


@pytest.mark.parametrize("side", [28, 14])
def test_masks_are_pasted_as_detectron2_does(side):
    boxes = np.array([[3.2, 4.7, 50.1, 33.3], [-8, -5, 20, 200], [60, 30, 61, 31], [10.5, 10.5, 10.6, 40]], np.float32)
    masks = np.random.rand(len(boxes), side, side).astype(np.float32)
    expected = paste_masks_in_image(torch.from_numpy(masks), torch.from_numpy(boxes), (48, 64), threshold=0.5)
    for mask, box, whole in zip(masks, boxes, expected.numpy(), strict=True):
        found = BoxMask(mask, box).paste(48, 64)
        assert (found != whole).sum() <= 1, "a pixel may be at the threshold"


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (40, 30), (200, 301)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_cocos(shape, share):
    mask = np.random.rand(*shape) < share
    encoded = encode_rle(mask)
    expected = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encoded == {"size": list(expected["size"]), "counts": expected["counts"].decode()}


def test_keypoints_are_detectron2s():
    boxes = np.array([[3.2, 4.7, 50.1, 33.3], [0, 0, 120, 200.5], [60, 30, 60.2, 31]], np.float32)
    heatmaps = np.random.randn(len(boxes), 5, 56, 56).astype(np.float32)
    expected = keypoints.heatmaps_to_keypoints(torch.from_numpy(heatmaps), torch.from_numpy(boxes))
    expected = expected.numpy()[:, :, [0, 1, 3]]
    found = heatmaps_to_keypoints(heatmaps, boxes)
    np.testing.assert_allclose(found[..., :2], expected[..., :2], atol=1e-3)
    np.testing.assert_allclose(found[..., 2], expected[..., 2], rtol=1e-3)
