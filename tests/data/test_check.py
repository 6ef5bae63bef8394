"""Damaged data sets: one clear error each."""

from __future__ import annotations

import json

import pytest

from resnet_det.data import count_classes, prepare_dataset, read_coco, register_coco
from resnet_det.data.coco.image_files import check_images
from resnet_det.errors import InputError


def damage(coco_files, change):
    path, _ = coco_files
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def problems_of(path, images):
    data = read_coco(path, images)
    return [*data.problems(), *check_images(data, images)]


def test_sound_data_have_no_problems(coco_files):
    path, images = coco_files
    assert problems_of(path, images) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.json: no such annotation file \(folder exists"):
        read_coco(tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ['{"images": [', "", "not json at all"])
def test_broken_json_is_named_with_its_place(coco_files, text):
    path, _ = coco_files
    path.write_text(text)
    with pytest.raises(InputError, match=r"not a JSON file, or cut off: .*line 1 column"):
        read_coco(path)


def test_json_of_another_kind_is_told_apart(coco_files):
    path, _ = coco_files
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="not in COCO format: no list under images, annotations, categories"):
        read_coco(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].clear(), "it has no images"),
        (lambda c: c["categories"].clear(), "it has no categories"),
        (lambda c: c["images"][0].update(height="high"), "1 of 2 images: entry lacks something"),
        (
            lambda c: c["annotations"][1].pop("bbox"),
            "annotations[1]: its bbox is missing; [x, y, width",
        ),
        (lambda c: c["annotations"][0].update(image_id=77), "annotations[0]: no image has the id 77; known are 1, 2"),
        (lambda c: c["annotations"][0].update(category_id=77), "1 of 2 annotations: annotation of a category that is"),
        (lambda c: c["annotations"][1].update(id=1), "annotations[1]: its id is that of annotations[0], too"),
        (lambda c: c["images"][1].update(id=1), "1 of 2 images: image id used before (images[1]: its id is that of"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotations[0]: its bbox is [1, 2, 3]; [x, y, width"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 3]), "box with NaN or infinity"),
        (lambda c: c["images"][1].update(file_name="c.png"), "1 of 2 images are not in"),
    ],
)
def test_each_fault_is_found(coco_files, change, message):
    damage(coco_files, change)
    path, images = coco_files
    problems = problems_of(path, images)
    assert any(message in problem for problem in problems), problems


def test_a_missing_image_folder_is_named(coco_files, tmp_path):
    assert problems_of(coco_files[0], tmp_path / "no") == [f"no image folder {tmp_path / 'no'}"]


def test_images_in_subfolders_are_found(coco_files):
    path, images = coco_files
    (images / "sub").mkdir()
    (images / "b.png").rename(images / "sub" / "b.png")
    damage(coco_files, lambda c: c["images"][1].update(file_name="sub/b.png"))
    assert problems_of(path, images) == []


def test_preparing_names_the_set_and_lists_all_its_problems(coco_files):
    path, images = coco_files
    damage(coco_files, lambda c: (c["annotations"][0].update(image_id=77), c["annotations"][1].update(bbox=None)))
    register_coco(path.stem, str(path), str(images))
    with pytest.raises(
        InputError, match=rf"data set {path.stem} .*\n  - 1 of 2 annotations: .*\n  - 1 of 2 annotations: "
    ):
        prepare_dataset(path.stem)


def test_an_unknown_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"no data set 'coco_2071_train'; known are .*coco_2017_train"):
        prepare_dataset("coco_2071_train")


def test_a_taken_name_is_an_error(coco_files):
    with pytest.raises(InputError, match="the name 'coco_2017_val' is taken"):
        register_coco("coco_2017_val", *map(str, coco_files))


def test_classes_are_counted_and_must_agree(coco_files):
    path, images = coco_files
    register_coco(path.stem, str(path), str(images))
    prepare_dataset(path.stem)
    assert count_classes([path.stem]) == 2
    with pytest.raises(InputError, match="do not have the same classes"):
        count_classes([path.stem, "coco_2017_val"])


def test_what_the_heads_need_must_be_there(coco_files):
    path, images = coco_files
    register_coco(path.stem, str(path), str(images))
    with pytest.raises(InputError, match=r"none of its 2 annotations has a mask .*: set MODEL.MASK_ON False"):
        prepare_dataset(path.stem, tasks=["masks"])
    with pytest.raises(InputError, match=r"no object has keypoints, which MODEL.KEYPOINT_ON asks for"):
        prepare_dataset(path.stem, tasks=["keypoints"])
