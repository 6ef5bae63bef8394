"""The one reader: each form in which tools write a field, what it becomes, and what is said of it."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import judge_content, read_coco
from resnet_det.data.coco.keypoints import find_flip_pairs, find_keypoints, find_lone_sides, mirror_name
from resnet_det.data.coco.masks import count_rle_pixels
from resnet_det.errors import InputError

SQUARE = [10, 20, 30, 20, 30, 40, 10, 40]


def make_content(**changes):
    """One image with two objects of one class; ``changes`` are of the first annotation."""
    box = {"bbox": [10, 20, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [SQUARE]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, **box, **changes},
            {"id": 2, "image_id": 1, "category_id": 1, **copy.deepcopy(box), "bbox": [40, 20, 20, 20]},
        ],
        "categories": [{"id": 1, "name": "box"}],
    }


def kinds_of(data):
    data.judge_masks()
    data.judge_keypoints()
    data.area  # noqa: B018
    return {finding.kind for finding in data.all_findings()}


def test_without_the_size_of_its_image_an_object_has_the_area_of_its_box():
    content = make_content(area=None, bbox=[10, 20, 20, 30])
    for key in ("height", "width"):
        del content["images"][0][key]
    assert judge_content(content).area.tolist() == [600, 400]


def encode(height=60, width=80):
    return mask_util.merge(mask_util.frPyObjects([SQUARE], height, width))


def as_text(runs):
    return {**runs, "counts": runs["counts"].decode()}


@pytest.mark.parametrize(
    ("changes", "column", "expected", "kinds"),
    [
        ({"image_id": "1"}, "image", 0, {"other-form"}),
        ({"image_id": 1.0}, "image", 0, set()),
        ({"category_id": "1"}, "category", 0, {"other-form"}),
        ({"bbox": ["10", "20", "20", "20.5"]}, "box", [10, 20, 20, 20.5], {"other-form"}),
        ({"bbox": {"x": 10, "y": 20, "width": 20, "height": 9}}, "box", [10, 20, 20, 9], {"other-form"}),
        ({"bbox": []}, "box", [10, 20, 20, 20], {"box-from-mask"}),
        ({"bbox": None, "segmentation": as_text(encode())}, "box", [10, 20, 20, 20], {"box-from-mask"}),
        ({"iscrowd": None}, "crowd", False, {"other-form"}),
        ({"iscrowd": "0"}, "crowd", False, {"other-form"}),
        ({"iscrowd": "1"}, "crowd", True, {"other-form"}),
        ({"iscrowd": False}, "crowd", False, set()),
        ({"iscrowd": True}, "crowd", True, set()),
        ({"ignore": 0}, "crowd", False, set()),
        ({"ignore": 1}, "crowd", True, {"ignore"}),
        ({"area": None}, "area", 400, {"missing-area"}),
        ({"area": [12.0]}, "area", 12, {"other-form"}),
        ({"area": "12"}, "area", 12, {"other-form"}),
        ({"area": float("nan")}, "area", 400, {"missing-area"}),
        ({"id": None}, "index", 0, {"missing-id"}),
    ],
)
def test_a_value_in_another_form_is_read_and_said(changes, column, expected, kinds):
    content = make_content(**changes)
    before = repr(content)
    data = judge_content(content)
    assert getattr(data, column)[0].tolist() == expected
    assert kinds_of(data) == kinds
    assert data.problems() == []
    assert repr(content) == before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_id": [1]}, "its image_id is [1]; the id of a listed image would be right"),
        ({"category_id": {"id": 1}}, "its category_id is {'id': 1}"),
        ({"category_id": 7}, "no category has the id 7; known are 1"),
        ({"bbox": [1, 2, 3]}, "its bbox is [1, 2, 3]; [x, y, width, height] would be right"),
        ({"bbox": [1, 2, 3, "wide"]}, "its bbox is [1, 2, 3, 'wide']"),
        ({"bbox": None, "segmentation": None}, "its bbox is None"),
        ({"bbox": [1, 2, float("nan"), 4]}, "box with NaN or infinity"),
        ({"iscrowd": 2}, "its iscrowd is 2; 0 or 1 would be right"),
        ({"id": 2}, "its id is that of annotations[0], too"),
        ({"id": [2]}, "its id is [2]; a whole number would be right"),
    ],
)
def test_what_cannot_be_read_is_one_error(changes, text):
    (problem,) = judge_content(make_content(**changes)).problems()
    assert problem.startswith("1 of 2 annotations: ")
    assert text in problem


@pytest.mark.parametrize(
    ("box", "kind"),
    [([10, 20, 0, 20], "box-without-area"), ([10, 20, 5, -5], "box-without-area"), ([90, 1, 5, 5], "box-outside")],
)
def test_an_object_that_nothing_can_find_is_left_out_and_counted(box, kind):
    data = judge_content(make_content(bbox=box))
    assert [entry.id for entry in data.annotations] == [2]
    assert data.left_out() == {f"objects: {kind}": 1}
    assert str(data.count_use()) == f"1 images, 1 objects, 1 classes, 1 masks; not used: 1 objects: {kind}"


@pytest.mark.parametrize(
    ("segmentation", "expected", "kind"),
    [
        ([SQUARE], [SQUARE], ""),
        (SQUARE, [SQUARE], "other-form"),
        ([[[10, 20], [30, 20], [30, 40], [10, 40]]], [SQUARE], "other-form"),
        ([SQUARE, [1, 2, 3, 4]], [SQUARE], "polygon-too-short"),
        ([[1, 2, 3, 4]], None, "polygon-too-short"),
        ([[1, 2, 3, 4, 5, 6, 7]], None, "polygon-too-short"),
        ([], None, "empty-mask"),
        ([[]], None, "empty-mask"),
        ({}, None, "empty-mask"),
        (None, None, "empty-mask"),
        ("", None, "empty-mask"),
        ("[[1,2,3]]", None, "malformed-mask"),
        ([[1, 2, 3, 4, 5, "6"]], None, "malformed-mask"),
        ([[1, 2, 3, 4, 5, float("inf")]], None, "malformed-mask"),
        ({"size": [60, 80]}, None, "malformed-mask"),
        ({"size": [80, 60], "counts": "0"}, None, "rle-size"),
        ({"size": [60, 80], "counts": "0"}, None, "malformed-mask"),
        ({"size": [60, 80], "counts": "é"}, None, "malformed-mask"),
        ({"size": [60, 80], "counts": [10, 5]}, None, "malformed-mask"),
        (as_text(encode()), as_text(encode()), ""),
        ([as_text(encode())], as_text(encode()), "other-form"),
    ],
)
def test_masks_in_each_form(segmentation, expected, kind):
    data = judge_content(make_content(segmentation=segmentation))
    assert data.mask(0) == expected
    assert kinds_of(data) - {kind} == set()
    assert (kind in kinds_of(data)) == bool(kind)
    assert len(data.annotations) == 2  # the box is used all the same
    assert data.count_use().masks == 1 + (expected is not None)


def test_run_lengths_are_summed_as_pycocotools_decodes_them():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 300, 2).tolist()
        mask = np.asfortranarray(rng.random((height, width)) < rng.random() ** 3, dtype=np.uint8)
        assert count_rle_pixels(mask_util.encode(mask)["counts"].decode()) == height * width


def test_sizes_that_are_not_said_are_read_from_the_images(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    content = make_content()
    for value in (None, 0, "missing"):
        content["images"][0] |= {"height": value, "width": value}
        if value == "missing":
            del content["images"][0]["height"], content["images"][0]["width"]
        data = judge_content(content, tmp_path)
        assert data.sizes.tolist() == [[60, 80]]
        assert kinds_of(data) == {"missing-size"}
    assert judge_content(content).sizes.tolist() == [[0, 0]]
    content["images"][0] |= {"height": 60.0, "width": "80"}
    assert judge_content(content).sizes.tolist() == [[60, 80]]


def test_a_path_with_backslashes_is_the_file_it_means(tmp_path):
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (80, 60)).save(tmp_path / "sub" / "a.png")
    content = make_content()
    content["images"][0]["file_name"] = "sub\\a.png"
    data = judge_content(content, tmp_path)
    assert data.images[0]["file_name"] == "sub/a.png"
    assert kinds_of(data) == {"other-form"}


def test_names_of_categories_are_texts_of_their_own():
    content = make_content()
    content["categories"] = [{"id": 1}, {"id": 2, "name": 5}, {"id": 3, "name": "a"}, {"id": 4, "name": "a"}]
    content["categories"].append({"id": 0, "name": "shapes", "supercategory": "none"})
    data = judge_content(content)
    assert data.class_names == ["shapes", "1", "5", "a (id 3)", "a (id 4)"]
    assert kinds_of(data) == {"other-form", "duplicate-category-name", "unused-root"}


def test_ids_of_any_types_are_sorted_and_found(tmp_path):
    content = make_content(image_id="a")
    content["images"] += [{**content["images"][0], "id": "a"}, {**content["images"][0], "id": "2"}]
    content["annotations"][1]["image_id"] = 2
    path = tmp_path / "ids.json"
    path.write_text(json.dumps(content))
    data = read_coco(path)
    assert [image["id"] for image in data.images] == [1, "2", "a"]
    assert data.image.tolist() == [2, 1]


def test_a_class_of_crowds_alone_stops_training_unless_they_are_objects():
    content = make_content(iscrowd=1)
    content["annotations"][1]["iscrowd"] = 1
    data = judge_content(content)
    assert data.problems() == []
    assert (
        "all 2 annotations of 'box' are crowds; set RESNET_DET.DATA.CROWD_AS_OBJECTS True"
        in data.problems(trains=True)[0]
    )
    data = judge_content(content, crowd_as_objects=True)
    assert (data.crowd.tolist(), data.annotations[0].iscrowd, data.problems(trains=True)) == ([False, False], 0, [])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_eye", "right_eye"),
        ("Left A", "Right A"),
        ("RIGHT_A", "LEFT_A"),
        ("eyeL", "eyeR"),
        ("lEye", "rEye"),
        ("L_Eye", "R_Eye"),
        ("l_a", "r_a"),
        ("hand-r", "hand-l"),
        ("nose", None),
        ("lip", None),
        ("ear", None),
        ("LIP", None),
        ("shoulder", None),
    ],
)
def test_sides_are_found_in_the_usual_spellings(name, other):
    assert mirror_name(name) == other


def test_flip_pairs_and_names_without_their_other_side():
    assert find_flip_pairs(["nose", "L_Eye", "R_Eye", "earL", "earR"]) == [("L_Eye", "R_Eye"), ("earL", "earR")]
    assert find_lone_sides(["nose", "L_Eye", "R_Eye", "left_ear"]) == ["left_ear"]


def test_keypoints_come_from_whichever_category_has_them():
    content = make_content(category_id=2, keypoints=[[11, 22, 2], [12, 30, 1]])
    content["categories"].append({"id": 2, "name": "pose", "keypoints": ["a", "b"], "skeleton": [[1, 2], [1, 9]]})
    data = judge_content(content)
    assert data.keypoints(0) == [11, 22, 2, 12, 30, 1]
    keypoints = find_keypoints(data)
    assert (keypoints.names, keypoints.skeleton) == (("a", "b"), ((0, 1),))
    del content["categories"][1]["keypoints"]
    assert find_keypoints(judge_content(content)).names == ("1", "2")
    content["categories"][0]["keypoints"], content["categories"][1]["keypoints"] = ["a"], ["a", "b"]
    with pytest.raises(InputError, match="'box' has 1, 'pose' has 2; a keypoint head has one number"):
        find_keypoints(judge_content(content))


@pytest.mark.parametrize("keypoints", [[1, 2], [1, 2, 2, 3, 4, 2], "abc", [1, 2, None]])
def test_keypoints_of_another_length_are_left_out_and_counted(keypoints):
    content = make_content(keypoints=keypoints)
    content["categories"][0]["keypoints"] = ["a"]
    data = judge_content(content)
    assert data.keypoints(0) is None
    assert data.left_out() == {"keypoints: keypoints-length": 1}
