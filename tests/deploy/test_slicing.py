"""Sliced prediction with a detector that knows the objects: it finds what of each is in the pixels it is given."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from resnet_det.deploy.merging import Found
from resnet_det.deploy.slicing import MIN_SHARED_PX, Slicing, place_slices
from resnet_det.masks import cut_out

MIN_PIXELS = 4  # of an object, that the detector finds


class KnowingDetector:
    """Finds each object in an image whose pixels are the numbers of the objects (0: none), as cut as it is there.

    Attributes:
        batches: how many images it was given at once.
    """

    def __init__(self, classes, scores=None, *, masks=True, min_share=0.0):
        """Args:
        classes, scores: of the objects 1, 2, ...
        min_share: of an image's longer side that an object must have to be found.
        """
        self.classes, self.masks, self.min_share = classes, masks, min_share
        self.scores = scores or [0.9] * len(classes)
        self.batches = []

    def __call__(self, images):
        self.batches.append(len(images))
        return [self.find(image) for image in images]

    def find(self, image):
        found = [(number, cut_out(image == number)) for number in range(1, len(self.classes) + 1)]
        found = [(number, mask) for number, mask in found if mask.cells.sum() >= MIN_PIXELS]
        found = [(n, mask) for n, mask in found if max(mask.cells.shape) >= self.min_share * max(image.shape)]
        numbers = np.array([number for number, _ in found], int)
        boxes = np.array([mask.box for _, mask in found], np.float32).reshape(-1, 4)
        # A piece is found less surely than a whole object.
        scores = np.array([self.scores[n - 1] * (1 - 1 / (10 + mask.cells.sum())) for n, mask in found], np.float32)
        centres = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, numbers[:, None]], 1)[:, None]
        classes = np.array(self.classes, int)[numbers - 1]
        masks = [mask for _, mask in found] if self.masks else None
        return Found(boxes, scores, classes, centres.astype(np.float32), masks)


def draw(height, width, *objects):
    """An image in which the pixels of the objects (x0, y0, x1, y1) have their numbers."""
    image = np.zeros((height, width), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(objects, 1):
        image[y0:y1, x0:x1] = number
    return image


def check(image, found, numbers, classes):
    """What was found are the objects of these numbers, each once, with its box and mask to the pixel."""
    expected = {}
    for number in numbers:
        rows, columns = np.nonzero(image == number)
        expected[number] = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(expected.values())
    by_box = {box: number for number, box in expected.items()}
    for place, box in enumerate(map(tuple, found.boxes.tolist())):
        assert found.classes[place] == classes[by_box[box] - 1]
        if found.masks is not None:
            assert np.array_equal(found.masks[place].paste(*image.shape), image == by_box[box])
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 64), (200, 333), (1000, 20), (7, 500)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.9])
def test_slices_cover_the_image_and_overlap(height, width, overlap):
    slices = place_slices(height, width, 64, overlap)
    seen = np.zeros((height, width), int)
    for left, top, right, bottom in slices:
        assert (right - left, bottom - top) == (min(64, width), min(64, height))
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    shared = max(round(64 * overlap), MIN_SHARED_PX)
    for axis in (0, 1):
        starts = sorted(set(slices[:, axis]))
        assert all(after - before <= 64 - shared for before, after in itertools.pairwise(starts))
        length = (width, height)[axis]
        assert len(starts) == (1 if length <= 64 else -(-(length - shared) // (64 - shared))), "no more than needed"


OBJECTS = {
    "inside": (5, 5, 25, 30),
    "on a seam": (50, 20, 70, 40),
    "on a corner": (45, 45, 75, 75),
    "at the border": (0, 100, 12, 120),
    "in the last corner": (215, 130, 230, 150),
    "longer than a slice": (20, 85, 220, 97),
    "larger than a slice": (100, 5, 210, 81),
}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
@pytest.mark.parametrize("takes_whole", [True, False])
def test_each_object_comes_out_once_and_whole(masks, overlap, takes_whole):
    image = draw(151, 231, *OBJECTS.values())
    classes = [0, 1, 0, 1, 0, 1, 1]
    detect = KnowingDetector(classes, masks=masks)
    found = Slicing(64, overlap, takes_whole=takes_whole, batch_size=3, longest=300, shortest=300).detect(image, detect)
    check(image, found, range(1, len(OBJECTS) + 1), classes)
    slices = len(place_slices(151, 231, 64, overlap))
    assert detect.batches == [3] * (slices // 3) + [slices % 3] * (slices % 3 > 0) + [1] * takes_whole


@pytest.mark.parametrize("place", range(30, 75, 3))
@pytest.mark.parametrize("masks", [True, False])
def test_objects_that_touch_stay_apart_wherever_the_seams_are(place, masks):
    """Two of one class, one above the other and side by side, with a seam through them."""
    image = draw(100, 200, (place, 10, place + 30, 25), (place, 25, place + 30, 40), (place, 60, place + 15, 80),
                 (place + 15, 60, place + 40, 80))  # fmt: skip
    found = Slicing(64, 0.2, takes_whole=False).detect(image, KnowingDetector([0] * 4, masks=masks))
    check(image, found, [1, 2, 3, 4], [0] * 4)


def test_a_small_object_before_a_large_one_stays():
    image = draw(200, 200, (10, 10, 190, 190), (80, 80, 95, 95))
    detect = KnowingDetector([0, 0], masks=False)
    check(image, Slicing(64, 0.2, shortest=200, longest=200).detect(image, detect), [1, 2], [0, 0])


def test_a_diagonal_of_many_slices_is_one_object():
    """Its pieces have boxes that agree nowhere; their masks do."""
    rows, columns = np.mgrid[:300, :300]
    image = (abs(rows - columns) < 8).astype(np.uint8)
    check(image, Slicing(64, 0.25, takes_whole=False).detect(image, KnowingDetector([2])), [1], [2, 2])


def test_a_piece_taken_for_another_class_is_left_out():
    image = draw(64, 110, (40, 20, 60, 40))

    class Mistaken(KnowingDetector):
        def find(self, image):
            found = super().find(image)
            found.classes[(found.boxes[:, 0] == 0) | (found.boxes[:, 2] == image.shape[1])] = 1
            return found

    found = Slicing(64, 0.3, takes_whole=False).detect(image, Mistaken([0]))
    check(image, found, [1], [0])


def test_the_whole_image_is_asked_for_what_is_longer_than_a_slice():
    image = draw(128, 256, (4, 4, 250, 120), (6, 6, 20, 20))

    class Far(KnowingDetector):
        """Finds both where they are large, and once more what is small, in the wrong place."""

        def find(self, image):
            found = super().find(image)
            if image.shape == (64, 128):
                found.boxes[found.boxes[:, 2] < 20] += 40
            return found

    found = Slicing(64, 0.2, shortest=64, longest=128).detect(image, Far([0, 1], masks=False))
    check(image, found, [1, 2], [0, 1])


def test_what_slices_do_not_know_is_found_on_the_whole_alone():
    """A detector that knows an object only when it sees its border all around."""
    image = draw(300, 400, (30, 30, 330, 250))

    class Strict(KnowingDetector):
        def find(self, image):
            found = super().find(image)
            height, width = image.shape
            inside = (found.boxes[:, :2] > 0).all(1) & (found.boxes[:, 2:] < [width, height]).all(1)
            return found.take(np.flatnonzero(inside))

    assert len(Slicing(64, 0.2, takes_whole=False).detect(image, Strict([0]))) == 0
    found = Slicing(64, 0.2, shortest=150, longest=200).detect(image, Strict([0]))
    np.testing.assert_allclose(found.boxes, [[30, 30, 330, 250]], atol=2)
    mask = found.masks[0].paste(300, 400)
    assert (mask & (image == 1)).sum() / (mask | (image == 1)).sum() > 0.97
    assert found.masks[0].cells.size < 200 * 150, "a mask is kept as small as it was found"


def test_keypoints_are_those_of_the_best_piece_in_pixels_of_the_image():
    image = draw(64, 200, (30, 10, 190, 50))
    found = Slicing(64, 0.2, takes_whole=False).detect(image, KnowingDetector([0]))
    assert found.boxes.tolist() == [[30, 10, 190, 50]]
    slices = place_slices(64, 200, 64, 0.2)
    pieces = [(max(left, 30), min(right, 190)) for left, _, right, _ in slices]
    left, right = max(pieces, key=lambda piece: piece[1] - piece[0])
    assert found.keypoints[0].tolist() == [[(left + right) / 2, 30, 1]]


@pytest.mark.parametrize("height", [1, 5])
@pytest.mark.parametrize("shortest", [0, 80])
def test_a_very_thin_image(height, shortest):
    image = draw(height, 900, (0, 0, 9, height), (55, 0, 75, height), (100, 0, 300, height))
    found = Slicing(64, 0.2, shortest=shortest, longest=100).detect(image, KnowingDetector([0, 0, 1]))
    check(image, found, [1, 2, 3], [0, 0, 1])


def test_empty_images_and_slices_give_nothing():
    found = Slicing(64, 0.2).detect(draw(100, 300), KnowingDetector([0]))
    assert (len(found), found.boxes.shape, found.masks) == (0, (0, 4), [])
    image = draw(100, 300, (280, 80, 290, 95))
    check(image, Slicing(64, 0.2).detect(image, KnowingDetector([0])), [1], [0])


def test_limits_are_told(caplog):
    objects = [(20 * n, 5, 20 * n + 10, 15) for n in range(10)]
    image = draw(64, 200, *objects)
    detect = KnowingDetector([0] * 10, [0.5 + n / 100 for n in range(10)])
    found = Slicing(64, 0.2, takes_whole=False, max_detections=4, slice_limit=4).detect(image, detect)
    check(image, found, [10, 9, 8, 7], [0] * 10)
    assert "of 4 slices have as many detections as TEST.DETECTIONS_PER_IMAGE lets through (4)" in caplog.text
    assert "10 detections on an image: RESNET_DET.TEST.SLICE_DETECTIONS keeps the best 4" in caplog.text
