"""Keypoints and the lines between them."""

from __future__ import annotations

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from resnet_det.data.coco.keypoints import Keypoints, colour_limbs, read_skeleton
from resnet_det.visualization import Skeleton, detections_from_annotations, draw_detections, make_skeleton
from resnet_det.visualization.drawing import KEYPOINT_THRESHOLD
from resnet_det.visualization.gallery import make_shape

RED, GREEN = (0, 0, 255), (0, 255, 0)  # BGR
SKELETON = Skeleton(((0, 1), (1, 2)), (RED, GREEN))


def test_a_skeleton_is_made_of_detectron2s_metadata():
    rules = [("nose", "neck", (255, 0, 0)), ("neck", "tail", (0, 255, 0)), ("neck", "wing", (0, 0, 255))]
    assert make_skeleton(["nose", "neck", "tail"], rules) == SKELETON
    assert make_skeleton(None, None) == Skeleton()
    metadata = MetadataCatalog.get("keypoints_coco_2017_val")
    coco = make_skeleton(metadata.keypoint_names, metadata.keypoint_connection_rules)
    assert (5, 7) in [tuple(sorted(limb)) for limb in coco.limbs]  # the left upper arm
    assert len(coco.limbs) == len(coco.colours) > 10


def draw(keypoints, **more):
    box = {"bbox": [100, 100, 300, 300], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    objects = [{**box, "keypoints": keypoints, **more}, box]
    image = np.full((500, 500, 3), 90, dtype=np.uint8)
    return draw_detections(image, detections_from_annotations(objects, 500, 500), ["bird"], SKELETON)


def test_limbs_are_drawn_in_their_colours_between_points_that_are_shown():
    picture = draw([150, 150, 2, 250, 150, 1, 250, 300, 2])
    assert tuple(picture[150, 200]) == RED
    assert tuple(picture[225, 250]) == GREEN
    assert tuple(picture[150, 250]) == (0, 0, 0), "points lie above limbs"
    picture = draw([150, 150, 2, 250, 150, 1, 250, 300, 0])
    assert tuple(picture[150, 200]) == RED
    assert tuple(picture[225, 250]) == (90, 90, 90), "the end of this limb is not labelled"


def test_predicted_keypoints_below_the_threshold_are_not_shown():
    low = KEYPOINT_THRESHOLD / 2
    picture = draw([150, 150, 0.9, 250, 150, 0.5, 250, 300, low], score=0.9)
    assert tuple(picture[150, 200]) == RED
    assert tuple(picture[225, 250]) == (90, 90, 90)


def test_objects_without_a_mask_or_keypoints_take_nothing_from_others():
    box = {"bbox": [10, 10, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    with_mask = {**box, "segmentation": [[10, 10, 30, 10, 30, 30]], "keypoints": [12, 12, 2]}
    detections = detections_from_annotations([box, with_mask], 50, 50)
    assert [mask.any() for mask in detections.mask] == [False, True]
    assert detections.data["keypoints"][:, :, 2].tolist() == [[0], [2]]


def test_shapes_of_the_report_have_points_and_limbs():
    points = np.array([[20, 40, 2], [60, 40, 1], [60, 80, 0]], dtype=float)
    shape = make_shape([0, 0, 80, 80], "tp", "a", 0.5, height=100, width=100, keypoints=points, skeleton=SKELETON)
    assert shape.points == ((10, 20), (30, 20))
    assert shape.limbs == "M10.0 20.0L30.0 20.0"


def test_colours_tell_the_side():
    keypoints = Keypoints(("nose", "left_eye", "right_eye"), ((0, 1), (0, 2), (1, 2)))
    (*_, left), (*_, right), (*_, across) = colour_limbs(keypoints)
    assert len({left, right, across}) == 3
    middle = Keypoints(("a", "b"), ((0, 1),))
    assert colour_limbs(middle) == [("a", "b", across)]


def test_skeletons_counted_from_0_are_told_from_those_from_1():
    assert read_skeleton([[1, 2], [2, 3]], 3) == ((0, 1), (1, 2))
    assert read_skeleton([[0, 1], [1, 2]], 3) == ((0, 1), (1, 2))
    assert read_skeleton([[0, 1], [1, 3], [9, 1], "x", [1]], 3) == ((0, 2),), "what is neither is left out"
    assert read_skeleton(None, 3) == ()
