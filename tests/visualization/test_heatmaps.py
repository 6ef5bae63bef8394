"""Maps of numbers as colours."""

from __future__ import annotations

import cv2
import numpy as np

from resnet_det.visualization.heatmaps import colour_map, draw_box, overlay_map


def test_the_least_is_dark_and_the_greatest_yellow():
    values = np.array([[-3.0, 1.0], [2.0, 5.0]])
    picture = colour_map(values, (40, 20))
    assert picture.shape == (20, 40, 3)
    light = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    assert light[0, 0] < light[0, 39] < light[19, 0] < light[19, 39]
    assert picture[19, 39, 2] > 200 > 100 > picture[19, 39, 0], "yellow"
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 4, "cells stay cells"
    assert (colour_map(np.full((2, 2), 7.0), (4, 4)) == colour_map(np.zeros((2, 2)), (4, 4))).all()


def test_where_nothing_is_the_image_stays_grey():
    image = np.random.randint(0, 255, (40, 60, 3), dtype=np.uint8)
    values = np.zeros((4, 6))
    values[0, 0] = 1
    picture = overlay_map(image, values).astype(int)
    assert (np.ptp(picture[20:, 30:], axis=2) == 0).all()
    assert np.ptp(picture[2, 2]) > 50


def test_a_box_is_drawn_on_a_copy():
    image = np.zeros((40, 60, 3), np.uint8)
    picture = draw_box(image, np.array([10.2, 5.0, 50.0, 30.0]))
    assert image.max() == 0
    assert picture[5, 30].max() == 255
    assert picture[20, 30].max() == 0
