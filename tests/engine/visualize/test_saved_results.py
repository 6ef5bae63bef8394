"""Saved results beside the ground truth, by class and by type of error; training data before and after augmentation."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from resnet_det.data import register_coco
from resnet_det.engine.visualize import build_visualize_parser, setup_visualize_cfg, visualize
from resnet_det.engine.visualize.results import draw_results
from resnet_det.errors import InputError


@pytest.fixture
def truth(small_data):
    return json.loads(open(small_data["val"][0]).read())


def result(**changes):
    return {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "score": 0.9, **changes}


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_saved_results_are_drawn_beside_the_ground_truth(run, tmp_path):
    path = write(tmp_path / "results.json", [result(), result(score=0.1)])
    summary = run("--results", path, "--num-images", "3")
    assert len(summary.written) == 3
    assert cv2.imread(str(summary.written[0])).shape[1] > 2 * 480
    page = summary.page.read_text()
    assert page.count("<figure>") == 3
    assert "1 disc" in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not a JSON file, or cut off"),
        ('{"bbox": 1}', "results"),
        (json.dumps([result(image_id=999)]), "999"),
        (json.dumps([result(category_id=99)]), "99"),
    ],
)
def test_wrong_results_are_told_apart(run, tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        run("--results", path)


def test_results_are_filtered_by_class_and_by_type_of_error(run, truth, tmp_path):
    objects = [a for a in truth["annotations"] if a["image_id"] == 1 and not a["iscrowd"]]
    names = {category["id"]: category["name"] for category in truth["categories"]}
    first, second = objects[0], objects[1]
    other = next(key for key in names if key not in {first["category_id"], second["category_id"]})
    rows = [
        result(bbox=first["bbox"], category_id=first["category_id"]),  # right
        result(bbox=first["bbox"], category_id=first["category_id"], score=0.8),  # twice
        result(bbox=second["bbox"], category_id=other, score=0.7),  # another class
    ]
    path = write(tmp_path / "results.json", rows)

    def pages(*args):
        summary = run("--results", path, *args)
        return [p.name for p in summary.written], summary.page.read_text()

    written, page = pages("--error-type", "Dupe", "correct")
    assert written == ["000001.png"]
    assert f"2 {names[first['category_id']]}" in page
    assert pages("--error-type", "loc")[0] == []
    page = pages("--error-type", "cls")[1]
    assert f"1 {names[other]}" in page
    assert "1 cls, " in page
    assert "000001.png" in pages("--error-type", "miss")[0]
    assert pages("--error-type", "dupe", "--confidence-threshold", "0.85")[0] == []
    written, page = pages("--classes", names[other])
    with_class = {a["image_id"] for a in truth["annotations"] if a["category_id"] == other} | {1}
    assert len(written) == len(with_class)


def test_an_own_set_needs_no_config(small_data, tmp_path):
    path = write(tmp_path / "r.json", [result()])
    args = ["--results", str(path), "--annotations", small_data["val"][0], "--images", small_data["val"][1]]
    parsed = build_visualize_parser().parse_args([*args, "--output", str(tmp_path / "o")])
    assert len(visualize(parsed, setup_visualize_cfg(parsed)).written) == 4


def test_an_unreadable_image_of_the_set_is_passed_over(coco_files, tmp_path, caplog):
    annotations, images = coco_files
    register_coco(annotations.stem, annotations, images)
    (images / "a.png").write_bytes(b"nothing")
    rows = [result(image_id=2, category_id=2, bbox=[8, 6, 30, 30])]
    summary = draw_results(
        annotations.stem, write(tmp_path / "r.json", rows), tmp_path / "o", min_score=0.5, num_images=10
    )
    assert [path.name for path in summary.written] == ["b.png"]
    assert [path.name for path in summary.unreadable] == ["a.png"]
    assert "a.png: not a readable image" in caplog.text


def test_masks_and_keypoints_are_drawn_too(coco_files, tmp_path):
    annotations, images = coco_files
    register_coco(annotations.stem, annotations, images)
    row = result(image_id=1, bbox=[4, 4, 20, 16], score=0.0)
    kinds = {
        "boxes": {},
        "masks": {"segmentation": [[4, 4, 24, 4, 24, 20, 4, 20]]},
        "keypoints": {"keypoints": [10, 10, 2, 20, 15, 1]},
    }
    pictures = {}
    for name, more in kinds.items():
        path = write(tmp_path / "r.json", [row | more])
        summary = draw_results(annotations.stem, path, tmp_path / name, min_score=0.0, num_images=1)
        assert "1 right, 0 wrong, 0 missed" in summary.page.read_text()
        pictures[name] = cv2.imread(str(summary.written[0])).astype(int)
    scale, left, top = 8, 64 * 8 + 8, 28  # the panel on the right, enlarged
    for name, (x, y) in {"masks": (14, 16), "keypoints": (20, 15)}.items():
        differs = np.abs(pictures[name] - pictures["boxes"]).max(axis=2)
        assert differs[top + scale * y, left + scale * x] > 5, name
        assert differs[top + scale * 40, left + scale * 40] == 0
    # Right detections are green, and the object that they found is, too.
    edge = pictures["boxes"][top + scale * 12, [scale * 4, left + scale * 4]]
    assert np.abs(edge - (0x8B, 0xC0, 0)).max() <= 2


@pytest.mark.parametrize("name", ["bccd", "coco_mini"])
def test_results_of_real_data(shared_data, name, tmp_path):
    folder = shared_data(name)
    files = {
        "bccd": ("bccd/annotations/bccd_test.json", "bccd/images"),
        "coco_mini": ("coco/annotations/instances_val2017.json", "coco/val2017"),
    }[name]
    annotations, images = (folder / part for part in files)
    content = json.loads(annotations.read_text())
    rows = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5 + 0.4 * (i % 2)}
        for i, a in enumerate(content["annotations"])
        if not a["iscrowd"]
    ]
    path = write(tmp_path / "r.json", rows)
    args = ["--results", path, "--annotations", annotations, "--images", images, "--output", tmp_path / "o"]
    parsed = build_visualize_parser().parse_args([*map(str, args), "--num-images", "4", "--error-type", "correct"])
    summary = visualize(parsed, setup_visualize_cfg(parsed))
    assert len(summary.written) == 4
    first = json.loads(annotations.read_text())["images"][0]
    assert cv2.imread(str(summary.written[0])).shape[1] >= 2 * first["width"]


def test_training_data_before_and_after_augmentation(run):
    jitter = ["RESNET_DET.DATA.LSJ.ENABLED", "True", "RESNET_DET.DATA.LSJ.SIZE", "128", "SEED", "5"]
    summary = run("--dataset", "vis_val", "--num-images", "2", "--num-augmented", "3", opts=jitter)
    assert [path.name for path in summary.written] == ["000001.png", "000002.png"]
    first = cv2.imread(str(summary.written[0]))
    again = run("--dataset", "vis_val", "--num-images", "2", "--num-augmented", "3", opts=jitter, output="again")
    assert np.array_equal(first, cv2.imread(str(again.written[0]))), "the same seed"
    fewer = run("--dataset", "vis_val", "--num-images", "1", "--num-augmented", "1", opts=jitter, output="fewer")
    assert cv2.imread(str(fewer.written[0])).shape[1] < first.shape[1]
    other = run("--dataset", "vis_val", "--num-augmented", "3", opts=[*jitter[:-1], "6"], output="other")
    assert not np.array_equal(first, cv2.imread(str(other.written[0]))), "another seed"


def test_training_data_with_run_length_masks_under_a_config_of_polygons(run, small_data, tmp_path):
    content = json.loads(Path(small_data["val"][0]).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in content["annotations"]:
        if not annotation["iscrowd"]:
            codes = pycocotools.mask.frPyObjects(annotation["segmentation"], *sizes[annotation["image_id"]])
            code = pycocotools.mask.merge(codes)
            annotation["segmentation"] = {**code, "counts": code["counts"].decode()}
    path = str(write(tmp_path / "codes.json", content))
    summary = run("--dataset", "vis_val", opts=["RESNET_DET.DATA.COCO", [["vis_val", path, small_data["val"][1]]]])
    assert len(summary.written) == 4


def test_training_data_with_other_keypoints_than_the_config_has(run, small_data, tmp_path):
    content = json.loads(Path(small_data["val"][0]).read_text())
    for category in content["categories"]:
        category.update(keypoints=["nose", "left_eye", "right_eye"], skeleton=[])
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation.update(keypoints=[x, y, 2, x + width / 2, y, 2, x, y + height / 2, 1], num_keypoints=3)
    path = str(write(tmp_path / "three.json", content))
    opts = ["RESNET_DET.DATA.COCO", [["vis_val", path, small_data["val"][1]]], "MODEL.KEYPOINT_ON", "True"]
    assert len(run("--dataset", "vis_val", opts=opts).written) == 4


def test_training_data_without_the_keypoints_that_the_config_asks_for(run, small_data, tmp_path):
    content = json.loads(Path(small_data["val"][0]).read_text())
    for annotation in content["annotations"]:
        annotation.pop("keypoints", None)
        annotation.pop("num_keypoints", None)
    path = str(write(tmp_path / "none.json", content))
    opts = ["RESNET_DET.DATA.COCO", [["vis_val", path, small_data["val"][1]]], "MODEL.KEYPOINT_ON", "True"]
    with pytest.raises(InputError, match="no object has keypoints"):
        run("--dataset", "vis_val", opts=opts)


def test_training_data_by_class(run, truth):
    names = {category["id"]: category["name"] for category in truth["categories"]}
    wanted = truth["annotations"][0]["category_id"]
    images = {a["image_id"] for a in truth["annotations"] if a["category_id"] == wanted}
    summary = run("--dataset", "vis_val", "--classes", names[wanted])
    assert len(summary.written) == len(images)
    with pytest.raises(InputError, match="no data set 'nowhere'"):
        run("--dataset", "nowhere")


def test_the_config_is_not_needed_to_have_the_data(tmp_path, small_data):
    register_coco("vis_own", *small_data["val"])
    path = write(tmp_path / "r.json", [result()])
    assert len(draw_results("vis_own", path, tmp_path / "o", min_score=0.5, num_images=10).written) == 4
    DatasetCatalog.remove("vis_own")
    MetadataCatalog.remove("vis_own")
