"""The demo data: the same bytes everywhere, and annotations that say what is in the pictures."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO

from resnet_det.data.demo import SPLITS, make_demo_data
from resnet_det.data.demo.shapes import SHAPES
from resnet_det.data.loading.register import find_flip_pairs, prepare_dataset

# Of all files, in the order of their names. A change of the data is a change of every number measured on them.
SHA256 = "143db5406adbca5a64b9d2d48254d63077286def44d24ab78a0c69876c598165"


def load(demo_data, kind, split):
    return json.loads((demo_data / "annotations" / f"{kind}_{split}.json").read_text())


def test_the_same_bytes_on_every_machine(demo_data):
    digest = hashlib.sha256()
    for path in sorted(demo_data.rglob("*.*")):
        digest.update(path.relative_to(demo_data).as_posix().encode())
        digest.update(path.read_bytes())
    assert digest.hexdigest() == SHA256


@pytest.mark.parametrize("split", SPLITS)
def test_masks_boxes_and_areas_agree(demo_data, split):
    coco = COCO(str(demo_data / "annotations" / f"instances_{split}.json"))
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == annotation["area"]
        x, y, width, height = annotation["bbox"]
        assert [x, y, x + width - 1, y + height - 1] == [columns[0], rows[0], columns[-1], rows[-1]]


def test_the_data_are_as_varied_as_promised(demo_data):
    content = load(demo_data, "instances", "train")
    objects = [a for a in content["annotations"] if not a["iscrowd"]]
    assert len(content["images"]) == 480
    assert len({(image["height"], image["width"]) for image in content["images"]}) > 300
    assert {a["category_id"] for a in objects} == set(range(1, len(SHAPES) + 1))
    sides = [max(a["bbox"][2:]) for a in objects]
    assert min(sides) <= 16
    assert 140 <= max(sides) <= 162
    assert sum(len(a["segmentation"]) > 1 for a in objects) > 10, "occlusion cuts some in two"
    crowds = [a for a in content["annotations"] if a["iscrowd"]]
    assert len(crowds) >= 15
    assert all(isinstance(a["segmentation"]["counts"], list) for a in crowds)


@pytest.mark.parametrize("split", SPLITS)
def test_keypoints_lie_in_their_boxes_and_are_marked_hidden_where_covered(demo_data, split):
    content = load(demo_data, "keypoints", split)
    assert [category["name"] for category in content["categories"]] == ["arrow", "fish"]
    visibilities = set()
    for annotation in content["annotations"]:
        x0, y0, width, height = annotation["bbox"]
        points = np.reshape(annotation["keypoints"], (4, 3))
        assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
        for x, y, v in points[points[:, 2] == 2]:
            assert x0 - 1 <= x <= x0 + width, v
            assert y0 - 1 <= y <= y0 + height
        visibilities |= set(points[:, 2].tolist())
    assert visibilities == {0, 1, 2}


def test_pictures_have_the_sizes_that_the_annotations_say(demo_data):
    for image in load(demo_data, "instances", "val")["images"]:
        with Image.open(demo_data / "val" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


def test_making_them_again_keeps_what_is_there(demo_data):
    marker = demo_data / "val" / "000001.bmp"
    before = marker.stat().st_mtime_ns
    assert make_demo_data(demo_data) == demo_data
    assert marker.stat().st_mtime_ns == before


def test_an_interrupted_call_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_det.data.demo.data.SPLITS", {"train": (2, 1), "val": (1, 2)})
    monkeypatch.setattr("resnet_det.data.demo.data._write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_detectron2_loads_them_by_name(demo_data, monkeypatch):
    for name in ("resnet_det_demo_val", "resnet_det_demo_keypoints_val"):
        kind = "keypoints" if "keypoints" in name else "instances"
        metadata = MetadataCatalog.get(name)
        monkeypatch.setitem(metadata.__dict__, "json_file", str(demo_data / "annotations" / f"{kind}_val.json"))
        monkeypatch.setitem(metadata.__dict__, "image_root", str(demo_data / "val"))
        prepare_dataset(name)
        expected = [shape.name for shape in SHAPES if kind == "instances" or shape.keypoints]
        assert metadata.thing_classes == expected
        assert name in DatasetCatalog
    assert metadata.keypoint_flip_map == [("left", "right")]


def test_flip_pairs_are_found_by_name():
    assert find_flip_pairs(["nose", "left_eye", "right_eye", "left_ear"]) == [("left_eye", "right_eye")]


@pytest.mark.parametrize("is_there", [True, False])
def test_another_process_may_be_faster(tmp_path, monkeypatch, is_there):
    folder = tmp_path / "demo"

    def rename(_, target):
        if is_there:
            target.mkdir()
        raise OSError("not empty" if is_there else "no space")

    monkeypatch.setattr("resnet_det.data.demo.data.write_split", lambda *_: None)
    monkeypatch.setattr(Path, "rename", rename)
    with nullcontext() if is_there else pytest.raises(OSError, match="no space"):
        assert make_demo_data(folder) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["demo"] * is_there
