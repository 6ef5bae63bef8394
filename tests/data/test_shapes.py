"""Filling and tracing in whole numbers, compared with pycocotools."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as mask_util
import pytest
from scipy.ndimage import binary_fill_holes, label

from resnet_det.data.demo.shapes import SHAPES, coverage, outline_area_px, place, polygon_area, trace


def rasterise(polygons, height, width):
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, height, width))).astype(bool)


@pytest.mark.parametrize("seed", range(20))
def test_tracing_a_random_mask_gives_its_parts_without_holes(seed):
    random = np.random.RandomState(seed)
    mask = random.rand(17, 23) < random.uniform(0.2, 0.8)
    polygons = trace(mask)
    parts, count = label(mask)  # four neighbours, as tracing turns right at corners that touch
    filled = [binary_fill_holes(parts == part, np.ones((3, 3))) for part in range(1, count + 1)]
    assert sorted(map(polygon_area, polygons)) == sorted(int(part.sum()) for part in filled)
    for polygon in polygons:
        raster = rasterise([polygon], *mask.shape)
        assert any(np.array_equal(raster, part) for part in filled)


def test_tracing_a_rectangle_gives_its_corners():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    (polygon,) = trace(mask)
    assert set(zip(polygon[::2], polygon[1::2], strict=True)) == {(2, 1), (7, 1), (7, 4), (2, 4)}
    assert polygon_area(polygon) == 15


def test_tracing_nothing_gives_nothing():
    assert trace(np.zeros((4, 4), dtype=bool)) == []


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("degree", [0, 37, 200])
def test_filling_agrees_with_pycocotools(shape, degree):
    outline = place(shape.outline, (60, 50), 40, degree)
    covered = coverage(outline, 100, 120)
    assert covered.sum() / 4 == pytest.approx(outline_area_px(outline), rel=0.02)
    expected = rasterise([(outline / 64).ravel().tolist()], 100, 120)
    union, both = (expected | (covered >= 2)).sum(), (expected & (covered >= 2)).sum()
    assert both / union > 0.93


def test_what_lies_outside_the_image_is_cut_off():
    outline = place(SHAPES[0].outline, (0, 0), 20, 0)
    covered = coverage(outline, 30, 30)
    assert covered.shape == (30, 30)
    assert covered.sum() / 4 == pytest.approx(np.pi * 400 / 4, rel=0.05)
    assert coverage(place(SHAPES[0].outline, (-80, 0), 20, 0), 30, 30).sum() == 0


def test_keypoints_turn_with_the_outline():
    (tip,) = place(((0, -1000),), (50, 50), 20, 90)
    assert tip.tolist() == [70 * 64, 50 * 64]
