"""Annotation files: the same data set dicts and metadata as by Detectron2, and data sets by name."""

from __future__ import annotations

import json
import pickle
from itertools import count
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import coco as theirs
from detectron2.structures import BoxMode
from pycocotools import mask as mask_util

from resnet_det.data import (
    judge_content,
    load_coco_json,
    load_dataset_dicts,
    prepare_dataset,
    read_coco,
    register_coco,
)
from resnet_det.data.coco.json_files import parse_json
from resnet_det.data.demo import CROWD_EVERY, write_split
from resnet_det.data.loading.dicts import find_coco_loader
from resnet_det.data.loading.serialized import SerializedDicts, serialize
from resnet_det.errors import InputError

fresh_names = (f"annotation_file_{number}" for number in count())


def load_both(path, folder):
    """Ours and Detectron2's, each with its metadata."""
    results = []
    for load in (load_coco_json, theirs.load_coco_json):
        name = next(fresh_names)
        dicts = load(str(path), str(folder), name)
        metadata = MetadataCatalog.get(name)
        results.append((dicts, metadata.thing_classes, metadata.thing_dataset_id_to_contiguous_id))
    return results


def make_odd_content():
    """A file with everything that the format allows, and mistakes that Detectron2 passes over."""
    mask = np.zeros((48, 64), dtype=np.uint8, order="F")
    mask[5:20, 8:30] = 1
    runs = mask_util.encode(mask)
    common = {"bbox": [1.5, 2, 30.25, 20], "category_id": 7, "iscrowd": 0, "area": 1.0}
    segmentations = [
        [[1.5, 2, 30, 2.25, 30, 20]],
        [[1, 2, 3, 4], [5, 6, 50, 6, 50, 40, 5, 40]],  # the first has two corners
        {"size": [48, 64], "counts": [100, 20, 2952]},
        {"size": [48, 64], "counts": runs["counts"].decode()},
        [],
        None,
    ]
    annotations = [
        {**common, "id": 100 - number, "image_id": 30 - 10 * (number % 3), "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations)
    ]
    annotations += [
        {**common, "id": 1, "image_id": 10, "keypoints": [3, 4, 2, 0, 0, 0], "num_keypoints": 1},
        {**common, "id": 2, "image_id": 10, "keypoints": [], "category_id": 3},
        {**common, "id": 2**70, "image_id": 20, "iscrowd": 1, "extra": {"a": [1]}},
        {"id": 4, "image_id": 20, "category_id": 90, "bbox": [0, 0, 5, 5], "ignore": 0},
    ]
    return {
        "info": {"year": 2017},
        "images": [
            {"id": image_id, "file_name": f"{image_id}.jpg", "height": 48, "width": 64, "license": 3}
            for image_id in (30, 10, 40, 20)
        ],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "b"}, {"id": 3, "name": "ä"}, {"id": 7, "name": "c", "supercategory": "x"}],
    }


def test_demo_data_are_loaded_as_by_detectron2(tmp_path):
    for split in ("train", "val"):
        write_split(tmp_path, split, CROWD_EVERY, seed=1)
    for kind in ("instances_train", "instances_val", "keypoints_train"):
        ours, expected = load_both(tmp_path / "annotations" / f"{kind}.json", tmp_path / "train")
        assert ours == expected
        assert sum(len(entry["annotations"]) for entry in ours[0]) > 50


@pytest.mark.parametrize("kind", ["instances_train2017", "instances_val2017", "person_keypoints_train2017"])
def test_coco_is_loaded_as_by_detectron2(shared_data, kind):
    ours, expected = load_both(shared_data("coco_mini") / f"coco/annotations/{kind}.json", "images")
    assert ours == expected


def test_blood_cells_are_loaded_as_by_detectron2(shared_data):
    files = sorted(shared_data("bccd").rglob("*.json"))
    assert files
    for path in files:
        ours, expected = load_both(path, "images")
        assert ours == expected


@pytest.mark.parametrize("indent", [None, 1])
def test_everything_that_the_format_allows(tmp_path, indent, caplog):
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(make_odd_content(), indent=indent), encoding="utf-8")
    ours, expected = load_both(path, tmp_path)
    assert ours == expected
    assert ours[1] == ["ä", "c", "b"]
    assert [entry["image_id"] for entry in ours[0]] == [10, 20, 30, 40]
    assert ours[0][0]["annotations"][-2]["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]
    messages = [record.message for record in caplog.records if record.name.startswith("resnet_det")]
    assert [text.split(": ")[1].split(",")[0] for text in messages] == [
        "the ids of its categories are not 1",
        "1 of 10 annotations",
    ]
    assert "polygon 1 of 2 has 4 numbers" in messages[1]
    assert load_coco_json(path, tmp_path) == theirs.load_coco_json(str(path), str(tmp_path))


def test_files_that_are_no_strict_json_are_read_too(tmp_path):
    content = make_odd_content()
    content["annotations"][0]["area"] = float("nan")
    path = tmp_path / "nan.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "NaN" in path.read_text()
    ours, expected = load_both(path, tmp_path)
    assert ours == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(id=1), r"1 of 10 annotations: annotation id used before \(annotations\[6\]"),
        (lambda a: a.update(bbox=[], segmentation=None), r"1 of 10 .* \(annotations\[0\]: its bbox is \[\]; \[x, y, "),
        (lambda a: a.update(category_id=4), "1 of 10 .*no category has the id 4; known are 3, 7, 90"),
        (lambda a: a.update(image_id=4), "1 of 10 .*no image has the id 4; known are 10, 20, 30, 40"),
    ],
)
def test_what_detectron2_stops_at_is_named(tmp_path, change, message):
    content = make_odd_content()
    change(content["annotations"][0])
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"wrong\.json: {message}"):
        load_coco_json(path, tmp_path, next(fresh_names))


@pytest.mark.parametrize("text", ["", "[1, 2", '{"images": []}', "[]", '{"images": [], "annotations": 3}'])
def test_files_that_are_not_in_coco_format_are_named(tmp_path, text):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"wrong\.json: not (a JSON file, or cut off|in COCO format)"):
        load_coco_json(path, tmp_path)
    with pytest.raises(InputError, match="no such annotation file"):
        load_coco_json(tmp_path / "none.json", tmp_path)


def test_checks_find_the_same_in_what_is_not_parsed_yet(tmp_path):
    content = make_odd_content()
    content["annotations"][1]["bbox"] = [1, 2, 3]
    content["annotations"][2].pop("category_id")
    content["annotations"][5]["iscrowd"] = "2"
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    problems = read_coco(path).problems()
    assert problems == judge_content(content).problems()
    assert [line.split(":")[0] for line in problems] == ["1 of 10 annotations"] * 3


@pytest.mark.parametrize(
    "text", ["[1e400]", "[NaN, -Infinity]", '["\\ud800"]', "[123456789012345678901234567890, -0.0]"]
)
def test_json_is_read_as_by_python(tmp_path, text):
    assert repr(parse_json(text.encode(), tmp_path)) == repr(json.loads(text))


def test_numbers_are_the_same_to_the_last_bit(tmp_path):
    numbers = np.concatenate([np.random.uniform(0, 700, 5000), np.exp(np.random.normal(0, 99, 5000))]).tolist()
    text = json.dumps(numbers + [round(number, 2) for number in numbers])
    assert parse_json(text.encode(), tmp_path) == json.loads(text)


def test_serialised_dicts_are_equal_new_and_shared():
    dicts = [{"image_id": 3, "height": 4, "width": 5, "box": np.arange(3.0)}, {"mode": BoxMode.XYWH_ABS}, {}]
    serialized = SerializedDicts(iter(dicts))
    assert len(serialized) == 3
    assert repr(list(serialized)) == repr(dicts)
    assert serialized[0] is not serialized[0]
    assert (serialized.heights.tolist(), serialized.widths.tolist()) == ([4, 0, 0], [5, 0, 0])
    with pytest.raises(IndexError, match="3 of 3"):
        serialized[3]
    assert repr(list(pickle.loads(pickle.dumps(serialized)))) == repr(dicts)
    assert list(SerializedDicts([])) == []
    assert serialize(serialized) is serialized


def test_processes_that_are_not_forked_get_no_copy():
    serialized = SerializedDicts([{"numbers": list(range(1000)), "place": place} for place in range(200)])
    assert serialized.num_bytes > 400_000
    assert len(bytes(ForkingPickler.dumps(serialized))) < 10_000
    assert serialized._block.is_shared()
    assert serialized[199]["place"] == 199


def test_data_sets_of_detectron2_are_known_by_their_function():
    loader = find_coco_loader("coco_2017_val")
    assert loader.name == "coco_2017_val"
    assert loader.annotation_file.endswith("coco/annotations/instances_val2017.json")
    assert loader.image_folder.endswith("coco/val2017")
    assert find_coco_loader("lvis_v1_val") is None
    assert find_coco_loader("no such set") is None
    name = next(fresh_names)
    DatasetCatalog.register(name, lambda: [{"file_name": "a", "width": 3, "height": 4, "mark": 1}])
    assert find_coco_loader(name) is None
    assert load_dataset_dicts(name)[0]["mark"] == 1


@pytest.fixture
def odd_set(tmp_path):
    """A set registered by us, and one by Detectron2, of a file with images without objects and with crowds alone."""
    content = make_odd_content()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == 20)
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    names = next(fresh_names), next(fresh_names)
    register_coco(names[0], str(path), str(tmp_path))
    theirs.register_coco_instances(names[1], {}, str(path), str(tmp_path))
    return names


@pytest.mark.parametrize("arguments", [{}, {"filter_empty": False}, {"min_keypoints": 1}])
def test_images_are_left_out_as_by_detectron2(odd_set, arguments):
    for names in (odd_set[0], odd_set[1], odd_set):
        expected = get_detection_dataset_dicts(names, **arguments)
        assert list(load_dataset_dicts(names, **arguments)) == expected
    assert find_coco_loader(odd_set[1]).name == odd_set[1]


def test_proposals_are_loaded_with_the_images(odd_set, tmp_path):
    boxes = [np.random.uniform(0, 40, (5, 4)) for _ in range(4)]
    proposals = {"ids": [10, 20, 30, 40], "boxes": boxes, "objectness_logits": [np.random.randn(5) for _ in range(4)]}
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(proposals))
    expected = get_detection_dataset_dicts(odd_set[0], proposal_files=[str(path)])
    found = load_dataset_dicts(odd_set[0], proposal_files=[str(path)])
    assert repr(list(found)) == repr(expected)
    assert len(found[0]["proposal_boxes"]) == 5


def test_a_set_without_objects_is_named(coco_files):
    path, images = coco_files
    content = json.loads(path.read_text())
    content["annotations"] = []
    path.write_text(json.dumps(content))
    name = next(fresh_names)
    register_coco(name, str(path), str(images))
    prepare_dataset(name)
    with pytest.raises(InputError, match=f"{name} have 2 images, and none with objects"):
        load_dataset_dicts(name)
