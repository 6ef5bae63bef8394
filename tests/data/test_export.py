"""COCO files become YOLO's and VOC's layouts, and come back as they were but for what the formats do not have."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import read_coco
from resnet_det.data.formats.export import describe_export, read_sets
from resnet_det.data.formats.labels import write_coco
from resnet_det.data.formats.outlines import join_outlines, trace_outlines
from resnet_det.data.formats.voc import read_voc
from resnet_det.data.formats.voc_export import write_voc
from resnet_det.data.formats.yolo import read_yolo
from resnet_det.data.formats.yolo_export import write_yolo
from resnet_det.errors import InputError

WIDTH, HEIGHT = 64, 48
PIXELS = np.zeros((HEIGHT, WIDTH), dtype=bool)
PIXELS[5:20, 8:30] = True
PIXELS[10:12, 10:15] = False  # a hole
PIXELS[30:33, 40:50] = True  # another part
BOX = [8, 5, 42, 28]


def run_lengths(pixels):
    code = mask_util.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {**code, "counts": code["counts"].decode()}


@pytest.fixture
def coco(tmp_path):
    """Two images of one name in two folders, with every kind of mask, a crowd, and boxes that are no whole numbers."""
    for name in ("x/a.png", "y/a.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    annotations = [
        {"bbox": [10.25, 5.5, 20, 10], "segmentation": [[10.25, 5.5, 30.25, 5.5, 20, 15.5]], "category_id": 7},
        {"bbox": [1, 1, 40, 40], "segmentation": [[1, 1, 9, 1, 9, 9], [30, 30, 41, 30, 41, 41]], "category_id": 3},
        {"bbox": BOX, "segmentation": run_lengths(PIXELS), "category_id": 7},
        {"bbox": [5, 6, 7, 8], "category_id": 7},
        {"bbox": [5, 6, 20, 8], "category_id": 7, "iscrowd": 1},
        {"bbox": [60, 40, 8, 8], "category_id": 7, "segmentation": [[60, 40, 68, 40, 68, 48, 60, 48]]},
    ]
    content = {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(("x/a.png", "y/a.png"), 5)
        ],
        "annotations": [
            {"id": number, "image_id": 5 if number < 6 else 6, "area": 1, "iscrowd": 0, **one}
            for number, one in enumerate(annotations, 1)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    }
    (tmp_path / "instances_train.json").write_text(json.dumps(content))
    return tmp_path / "instances_train.json", tmp_path / "images"


def summarize(path, images):
    """(file name, class, box, crowd) of all objects, in the order of the file."""
    data = read_coco(path, images)
    assert data.problems() == []
    return [
        (data.images[image]["file_name"], data.class_names[category], box, crowd)
        for image, category, box, crowd in zip(
            data.image.tolist(), data.category.tolist(), data.box.tolist(), data.crowd.tolist(), strict=True
        )
    ]


def test_boxes_through_yolo(coco, tmp_path):
    sets = read_sets([coco])
    path = write_yolo(sets, tmp_path / "yolo", "detect")
    assert yaml.safe_load(path.read_text()) == {"train": "images/train", "names": {0: "cat", 1: "dog"}}
    assert sets[0].file_names == ["x/a.png", "y/a.png"]
    assert (tmp_path / "yolo" / "labels" / "train" / "y" / "a.txt").read_text().count("\n") == 1
    splits, classes = read_yolo(path)
    (back,) = write_coco(splits, classes, tmp_path / "back")
    before = [item for item in summarize(*coco) if not item[3]]
    after = summarize(back, splits[0].image_folder)
    assert [item[:2] for item in after] == [item[:2] for item in before]
    expected = [list(item[2]) for item in before[:-1]] + [[60, 40, 4, 8]]  # clipped
    assert np.allclose([item[2] for item in after], expected, atol=1e-6)
    assert dict(line.split(" ", 1)[::-1] for line in describe_export(sets[0])) == {
        "crowd regions: left out, as the format has none": "1",
        "boxes that reach outside their image: clipped": "1",
        "masks: left out by --task detect": "4",
    }


def test_images_of_one_folder_have_their_labels_in_one(coco, tmp_path):
    annotations, images = coco
    content = json.loads(annotations.read_text())
    (images / "x" / "b.png").write_bytes((images / "x" / "a.png").read_bytes())
    content["images"][1]["file_name"] = "x/b.png"
    annotations.write_text(json.dumps(content))
    folder = write_yolo(read_sets([coco]), tmp_path / "yolo", "detect").parent / "labels" / "train"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.txt")} == {"x/a.txt", "x/b.txt"}


def test_masks_through_yolo_are_one_polygon(coco, tmp_path):
    sets = read_sets([coco])
    path = write_yolo(sets, tmp_path / "yolo", "segment")
    splits, classes = read_yolo(path)
    (back,) = write_coco(splits, classes, tmp_path / "back")
    before, after = read_coco(*coco), read_coco(back, splits[0].image_folder)
    rows = [row for row in range(len(before.annotations)) if not before.crowd[row]]
    for row_after, row in enumerate(rows):
        mask = before.mask(row)
        found = mask_util.merge(mask_util.frPyObjects(after.mask(row_after), HEIGHT, WIDTH))
        if mask is None:
            assert mask_util.area(found) == 56, "the box"
            continue
        expected = mask if isinstance(mask, dict) else mask_util.merge(mask_util.frPyObjects(mask, HEIGHT, WIDTH))
        if isinstance(mask, dict):
            filled = PIXELS.copy()
            filled[10:12, 10:15] = True
            expected = mask_util.encode(np.asfortranarray(filled.astype(np.uint8)))
        assert mask_util.iou([found], [expected], [0])[0, 0] == pytest.approx(1, abs=0.02), row
    counts = dict(sets[0].counts)
    assert counts["masks of several parts: joined by lines without width"] == 2
    assert counts["holes in masks: filled"] == 1
    assert counts["objects without a mask: the box is their outline"] == 1


def test_boxes_through_voc(coco, tmp_path):
    sets = read_sets([coco])
    write_voc(sets, tmp_path / "voc")
    assert sets[0].file_names == ["a.png", "a-2.png"]
    splits, classes = read_voc(tmp_path / "voc", ignore_difficult=True)
    assert (classes.names, splits[0].left_out, sorted(splits[0].mended)) == (["cat", "dog"], [], [])
    (back,) = write_coco(splits, classes, tmp_path / "back")
    before, after = summarize(*coco), summarize(back, tmp_path / "voc" / "JPEGImages")
    assert [item[1] for item in after] == [item[1] for item in before]
    assert [item[3] for item in after] == [item[3] for item in before]
    expected = [list(item[2]) for item in before[:-1]] + [[60, 40, 4, 8]]
    assert np.allclose([item[2] for item in after], expected, atol=1e-4)
    assert dict(line.split(" ", 1)[::-1] for line in describe_export(sets[0])) == {
        "crowd regions: marked difficult": "1",
        "masks: left out, as the format has none": "4",
        "boxes that reach outside their image: clipped": "1",
        "images with a new name, as another has theirs": "1",
    }


def test_poses_through_yolo(tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    names = ["nose", "left_eye", "right_eye"]
    points = [10, 5, 2, 0, 0, 0, 70, 12.5, 1]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "keypoints": points, "num_keypoints": 2},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]},
        ],
        "categories": [{"id": 1, "name": "cat", "keypoints": names}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    sets = read_sets([(tmp_path / "val.json", tmp_path)])
    path = write_yolo(sets, tmp_path / "yolo", "pose")
    written = yaml.safe_load(path.read_text())
    assert (written["kpt_shape"], written["flip_idx"]) == ([3, 3], [0, 2, 1])
    splits, classes = read_yolo(path)
    assert classes.keypoints == names
    first, second = splits[0].images[0].objects
    assert first.keypoints == pytest.approx((10, 5, 2, 0, 0, 0, 64, 12.5, 1))
    assert second.keypoints == (0,) * 9
    assert sets[0].counts["keypoints outside their image: clipped"] == 1
    with pytest.raises(InputError, match="no object has a mask; --task detect would be right"):
        write_yolo(sets, tmp_path / "other", "segment")


def test_outlines_go_along_the_edges_of_the_pixels():
    generator = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.9):
        pixels = generator.random((17, 23)) < share
        outlines, holes = trace_outlines(pixels)
        codes = mask_util.frPyObjects([np.ravel(outline).tolist() for outline in outlines], *pixels.shape)
        found = mask_util.decode(mask_util.merge(codes)).astype(bool)
        assert (found & pixels).sum() == pixels.sum()
        if not holes:
            assert np.array_equal(found, pixels)
    ring = np.zeros((5, 5), dtype=bool)
    ring[1:4, 1:4] = True
    ring[2, 2] = False
    assert trace_outlines(ring) == ([[(1, 1), (4, 1), (4, 4), (1, 4)]], 1)
    assert trace_outlines(np.zeros((3, 3), dtype=bool)) == ([], 0)


def test_joined_outlines_have_the_area_of_their_parts():
    parts = [
        [(0, 0), (4, 0), (4, 4), (0, 4)],
        [(10, 10), (12, 10), (12, 12), (10, 12)],
        [(6, 0), (8, 0), (8, 2), (6, 2)],
    ]
    joined = np.array(join_outlines(parts), dtype=float)
    x, y = joined.T
    assert abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2 == 16 + 4 + 4
    assert len(joined) == 4 + 4 + 4 + 2 * 2


def test_what_cannot_be_exported_is_an_error(coco, tmp_path, run_tool_here):
    file, images = coco
    with pytest.raises(InputError, match=r"--splits: the splits are train, train; one of"):
        read_sets([coco, coco])
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "fox"
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="do not have the same classes"):
        read_sets([coco, (tmp_path / "other.json", images)], ["train", "val"])
    with pytest.raises(InputError, match="the splits are unknown"):
        read_sets([(tmp_path / "other.json", images)])
    arguments = ["--annotations", file, "--images", images, "--output", tmp_path / "out"]
    run = run_tool_here("prepare_dataset.py", "to-yolo", *arguments)
    assert run.returncode == 0, run.stderr
    assert f"{tmp_path}/out/data.yaml train: 2 images, 5 objects\n" in run.stdout
    assert "1 crowd regions: left out" in run.stdout
    again = run_tool_here("prepare_dataset.py", "to-voc", *arguments)
    assert again.returncode == 2
    assert "is there, and not an empty folder" in again.stderr
