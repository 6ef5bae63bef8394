"""What labelme, VIA, Label Studio and CSV files become: known boxes and masks, and a count of what is left out."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import judge_content
from resnet_det.data.formats.csv_boxes import read_csv
from resnet_det.data.formats.label_studio import decode_brush, read_label_studio
from resnet_det.data.formats.labelme import read_labelme
from resnet_det.data.formats.labels import describe_losses, to_coco, write_coco
from resnet_det.data.formats.shapes import clip_polygon, encode_labels, make_outline, outline_ellipse, read_point
from resnet_det.data.formats.via import read_via
from resnet_det.errors import InputError

WIDTH, HEIGHT = 64, 48
SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def annotations_of(splits, classes):
    """(class name, box, segmentation) of each object as COCO has it, which the reader of COCO must find right."""
    content = to_coco([image for split in splits for image in split.images], classes)
    data = judge_content(content)
    data.judge_masks()
    assert data.problems() == []
    assert [
        str(finding.kind) for finding in data.all_findings() if finding.kind not in ("no-masks", "empty-mask")
    ] == []
    names = {category["id"]: category["name"] for category in content["categories"]}
    return [(names[a["category_id"]], a["bbox"], a.get("segmentation")) for a in content["annotations"]]


def save_labelme(path, shapes, **changes):
    content = {"version": "5.4", "shapes": shapes, "imagePath": "a.png", "imageData": None}
    path.write_text(json.dumps(content | {"imageHeight": HEIGHT, "imageWidth": WIDTH} | changes))


def shape(label, points, kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, **more}


def test_labelme_reads_what_has_an_area_and_counts_the_rest(folder):
    save_labelme(
        folder / "a.json",
        [
            shape("cat", SQUARE),
            shape("dog", [[30, 20], [25, 5]], "rectangle"),
            shape("dog", [[25, 5], [30, 5], [30, 20], [25, 20]], "rectangle"),  # newer releases
            shape("cat", [[1, 1], [5, 1], [5, 5]], group_id=3),
            shape("cat", [[40, 40], [45, 40], [45, 45]], group_id=3),
            shape("dog", [[30, 30], [33, 34]], "circle"),
            shape("nose", [[3, 3]], "point"),
            shape("nose", [[3, 3], [4, 4]], "line"),
            shape("_background_", SQUARE),
            shape("cat", [[1, 1], [2, 2]]),
            shape("", SQUARE),
            shape("cat", SQUARE, "sphere"),
            "no object",
        ],
    )
    splits, classes = read_labelme(folder)
    (split,) = splits
    assert classes.names == ["cat", "dog"]
    found = annotations_of(splits, classes)
    assert [(name, box) for name, box, _ in found[:4]] == [
        ("cat", [10, 10, 10, 10]),
        ("dog", [25, 5, 5, 15]),
        ("dog", [25, 5, 5, 15]),
        ("cat", [1, 1, 44, 44]),
    ]
    assert [mask for _, _, mask in found[:4]] == [
        [[10, 10, 20, 10, 20, 20, 10, 20]],
        None,
        None,
        [[1, 1, 5, 1, 5, 5], [40, 40, 45, 40, 45, 45]],
    ]
    assert found[4][1] == pytest.approx([25, 25, 10, 10], abs=0.1)
    assert to_coco(split.images, classes)["annotations"][4]["area"] == pytest.approx(25 * math.pi, rel=0.02)
    assert split.unread == {
        "shapes of type point, which have no area": 1,
        "shapes of type line, which have no area": 1,
        "shapes with the label _background_": 1,
    }
    assert [text.partition("a.json: ")[2] for text in split.left_out] == [
        "shape 10: a polygon of 2 points; at least 3 would be right",
        "shape 11: it has no label",
        "shape 12: its shape_type is 'sphere'; polygon, rectangle, circle, mask are read",
        "shape 13: it is 'no object'; an object with label, points and shape_type would be right",
    ]
    with pytest.raises(InputError, match="all: 1 shapes of type point"):
        write_coco(splits, classes, folder / "out", strict=True)
    write_coco(splits, classes, folder / "out")
    assert any(line.startswith("4 left out, such as") for line in describe_losses(split))


def test_masks_of_labelme_are_pictures_of_their_boxes(folder):
    pixels = np.zeros((3, 4), dtype=bool)
    pixels[1:, 1:3] = True
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    save_labelme(folder / "a.json", [shape("cat", [[10, 20], [13, 22]], "mask", mask=text)])
    splits, classes = read_labelme(folder)
    ((_, box, mask),) = annotations_of(splits, classes)
    assert box == [11, 21, 2, 2]
    assert mask_util.decode(mask).sum() == 4
    save_labelme(folder / "a.json", [shape("cat", [[62, 20], [65, 22]], "mask", mask=text)])
    assert "does not fit into the image at 62, 20" in read_labelme(folder)[0][0].left_out[0]


def test_images_of_labelme_are_found_or_left_out_with_their_objects(folder):
    (folder / "train").mkdir()
    (folder / "val").mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.png").rename(folder / ("train" if name == "a" else "val") / f"{name}.png")
    save_labelme(folder / "train" / "a.json", [shape("cat", SQUARE)], imagePath="..\\there\\a.png")
    save_labelme(folder / "train" / "c.json", [shape("cat", SQUARE)] * 2, imagePath="c.png", imageData="iVBO")
    save_labelme(folder / "val" / "b.json", [shape("cat", SQUARE)], imagePath="gone.png", imageWidth=63)
    (folder / "val" / "other.json").write_text("[]")
    train, val = read_labelme(folder)[0]
    assert [(split.name, len(split.images)) for split in (train, val)] == [("train", 1), ("val", 0)]
    assert "no image c.png in" in train.left_out[0]
    assert "only inside the JSON file" in train.left_out[0]
    assert train.left_out[0].endswith("; 2 objects left out with it")
    assert "the size is 63 x 48, but" in val.left_out[0]
    assert "other.json: no list of shapes" in val.notes[0]
    with pytest.raises(InputError, match="no JSON file of labelme"):
        read_labelme(folder / "val" / "other.json")


def test_shapes_that_reach_outside_are_clipped_and_counted(folder):
    save_labelme(
        folder / "a.json",
        [
            shape("cat", [[-10, 10], [10, 10], [10, 20], [-10, 20]]),
            shape("cat", [[60, 40], [70, 50]], "rectangle"),
            shape("cat", [[70, 10], [80, 10], [80, 20]]),
        ],
    )
    splits, classes = read_labelme(folder)
    found = annotations_of(splits, classes)
    assert [box for _, box, _ in found] == [[0, 10, 10, 10], [60, 40, 4, 8]]
    assert splits[0].mended == {"objects that reach outside their image, which are clipped": 2}
    assert "it lies outside the image of 64 x 48 pixels" in splits[0].left_out[0]


def test_a_polygon_is_clipped_as_shapely_does_it():
    shapely = pytest.importorskip("shapely")
    generator = np.random.default_rng(0)
    for _ in range(50):
        points = generator.uniform(-40, 100, (3, 2))  # a triangle is always simple
        clipped = clip_polygon(points.tolist(), (WIDTH, HEIGHT))
        expected = shapely.Polygon(points).intersection(shapely.box(0, 0, WIDTH, HEIGHT)).area
        found = shapely.Polygon(clipped).area if len(clipped) > 2 else 0.0
        assert found == pytest.approx(expected, abs=1e-6)


def test_ellipses_are_exact_to_a_twentieth_of_a_pixel():
    for radii in ((3.0, 3.0), (200.0, 50.0)):
        outline = np.array(outline_ellipse((0, 0), radii))
        middle = (outline + np.roll(outline, 1, 0)) / 2
        gap = 1 - np.hypot(middle[:, 0] / radii[0], middle[:, 1] / radii[1])
        assert gap.max() * max(radii) <= 0.06
    turned = np.array(outline_ellipse((5, 5), (4, 1), 90))
    assert np.ptp(turned, axis=0) == pytest.approx([2, 8], abs=0.1)


def test_the_runs_of_all_numbers_are_those_of_each():
    labels = np.random.default_rng(0).integers(0, 5, (13, 7))
    labels[0, 0] = labels[-1, -1] = 4
    found = encode_labels(labels)
    assert sorted(found) == [1, 2, 3, 4]
    for number, mask in found.items():
        assert np.array_equal(mask_util.decode(mask), labels == number)
    assert encode_labels(np.zeros((3, 3), dtype=int)) == {}


def via_entry(name, regions):
    return {"filename": name, "size": 1, "regions": regions, "file_attributes": {}}


def via_region(attributes, **shape_attributes):
    return {"shape_attributes": shape_attributes, "region_attributes": attributes}


VIA_SQUARE = {"name": "polygon", "all_points_x": [10, 20, 20, 10], "all_points_y": [10, 10, 20, 20]}


def test_via_of_version_1_without_attributes_is_of_one_class(folder):
    """The layout of Matterport's balloons."""
    (folder / "train").mkdir()
    (folder / "a.png").rename(folder / "train" / "a.png")
    entries = {"a.png1": via_entry("a.png", {"0": via_region({}, **VIA_SQUARE)}), "b": via_entry("gone.png", {"0": {}})}
    (folder / "train" / "via_region_data.json").write_text(json.dumps(entries))
    splits, classes = read_via(folder / "train", ["balloon"])
    assert annotations_of(splits, classes) == [("balloon", [10, 10, 10, 10], [[10, 10, 20, 10, 20, 20, 10, 20]])]
    assert "gone.png: no image gone.png in" in splits[0].left_out[0]
    assert splits[0].left_out[0].endswith("1 objects left out with it")
    assert read_via(folder)[1].names == ["object"]


def test_via_projects_of_version_2(folder):
    regions = [
        via_region({"kind": "c"}, name="rect", x=30, y=20, width=5, height=6),
        via_region({"kind": {"c": False, "d": True}}, name="circle", cx=30, cy=30, r=5),
        via_region({"kind": "d"}, name="ellipse", cx=30, cy=30, rx=10, ry=2, theta=math.pi / 2),
        via_region({"kind": "d"}, name="point", cx=3, cy=3),
        via_region({"kind": "d"}, name="polyline", all_points_x=[1, 2], all_points_y=[1, 2]),
        via_region({"kind": {"c": True, "d": True}}, name="rect", x=30, y=20, width=5, height=6),
        via_region({}, name="rect", x=30, y=20, width=5, height=6),
        via_region({"kind": "c"}, name="rect", x=30, y=None, width=5, height=6),
        via_region({"kind": "c"}, name="polygon", all_points_x=[1, 2, 3], all_points_y=[1, 2]),
        None,
    ]
    project = {
        "_via_settings": {},
        "_via_img_metadata": {"a.png1": via_entry("a.png", regions), "b.png1": via_entry("b.png", [])},
        "_via_attributes": {"region": {"kind": {"type": "dropdown", "options": {"c": "cat", "d": "dog"}}}},
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "project.json").write_text(json.dumps(project))
    splits, classes = read_via(folder / "annotations" / "project.json")
    (split,) = splits
    assert (split.name, split.image_folder, len(split.images)) == ("project", folder, 2)
    found = annotations_of(splits, classes)
    assert [name for name, _, _ in found] == ["cat", "dog", "dog"]
    assert found[0][1:] == ([30, 20, 5, 6], None)
    assert found[1][1] == pytest.approx([25, 25, 10, 10], abs=0.1)
    assert found[2][1] == pytest.approx([28, 20, 4, 20], abs=0.2), "turned by a quarter"
    assert split.unread == {
        "regions of type point, which have no area": 1,
        "regions of type polyline, which have no area": 1,
    }
    assert [text.partition("a.png: ")[2] for text in split.left_out] == [
        "region 6: it has several classes: c, d",
        "region 7: its attribute 'kind' is None, so it has no class",
        "region 8: its y is None, not a number",
        "region 9: all_points_x and all_points_y are not two lists of one length",
        "region 10: it is None; an object with shape_attributes would be right",
    ]


def test_via_asks_which_attribute_has_the_class(folder):
    regions = [via_region({"colour": "red", "shape": "x"}, **VIA_SQUARE)]
    path = folder / "via.json"
    path.write_text(json.dumps({"a": via_entry("a.png", regions)}))
    with pytest.raises(InputError, match=r"several attributes: colour \(1 regions\), shape .*--attribute NAME"):
        read_via(path)
    assert read_via(path, attribute="shape")[1].names == ["x"]
    regions[0]["region_attributes"]["Label"] = "y"
    path.write_text(json.dumps({"a": via_entry("a.png", regions)}))
    assert read_via(path)[1].names == ["y"], "a usual name"
    path.write_text("{}")
    with pytest.raises(InputError, match=r"via.json: not a JSON file of VIA"):
        read_via(path)


def to_bits(number, count):
    return f"{number:0{count}b}"


def encode_brush(values):
    """The simplest code: runs of at most 16 equal values, the length in 4 bits, and lone values one by one."""
    bits = to_bits(len(values), 32) + to_bits(7, 5) + "".join(to_bits(size - 1, 4) for size in (3, 4, 8, 16))
    start = 0
    while start < len(values):
        run = next((n for n in range(1, 17) if start + n == len(values) or values[start + n] != values[start]), 16)
        if run > 1:
            bits += "1" + "01" + to_bits(run - 1, 4) + to_bits(values[start], 8)
        else:
            bits += "0" + "00" + to_bits(0, 3) + to_bits(values[start], 8)
        start += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def result(kind, value, **more):
    return {"type": kind, "value": value, "original_width": WIDTH, "original_height": HEIGHT, **more}


def percent(x, y):
    return [100 * x / WIDTH, 100 * y / HEIGHT]


def box_value(x, y, width, height, label, **more):
    left, top = percent(x, y)
    right, bottom = percent(width, height)
    return {"x": left, "y": top, "width": right, "height": bottom, "rectanglelabels": [label], **more}


def test_label_studio_reads_its_shapes(folder):
    pixels = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    pixels[5:9, 7:10, 3] = 255
    pixels[20, 20, 3] = 100  # the soft edge of a brush
    code = encode_brush(pixels.reshape(-1).tolist())
    assert np.array_equal(decode_brush(code), pixels.reshape(-1))
    x, y = percent(30, 30)
    results = [
        result("rectanglelabels", box_value(10, 10, 20, 8, "cat"), id="r"),
        result("rectanglelabels", box_value(30, 10, 20, 8, "cat", rotation=90)),
        result("polygonlabels", {"points": [percent(*point) for point in SQUARE], "polygonlabels": ["dog"]}),
        result(
            "ellipselabels",
            {"x": x, "y": y, "radiusX": 1000 / WIDTH, "radiusY": 500 / HEIGHT, "ellipselabels": ["dog"]},
        ),
        result("brushlabels", {"format": "rle", "rle": code, "brushlabels": ["cat"]}),
        result("rectangle", {"x": 0, "y": 0, "width": 50, "height": 50}, id="two"),  # <Rectangle> and <Labels>
        result("labels", {"x": 0, "y": 0, "width": 50, "height": 50, "labels": ["dog"]}, id="two"),
        result("keypointlabels", {"x": 5, "y": 5, "width": 1, "keypointlabels": ["nose"]}),
        {"type": "choices", "value": {"choices": ["sunny"]}},
        {"type": "relation", "from_id": "a", "to_id": "b"},
        result("rectanglelabels", {**box_value(1, 1, 5, 5, "cat"), "rectanglelabels": []}),
        result("rectanglelabels", box_value(1, 1, 5, 5, "cat"), image_rotation=90),
        result("brushlabels", {"rle": code[:40], "brushlabels": ["cat"]}),
    ]
    tasks = [
        {
            "id": 7,
            "data": {"image": "/data/upload/3/0123abcd-a.png"},
            "annotations": [{"was_cancelled": True, "result": []}, {"result": results}, {"result": []}],
        },
        {"id": 8, "data": {"picture": "/data/local-files/?d=some/where/b.png"}, "annotations": []},
        {"id": 9, "data": {"image": "s3://bucket/gone.png"}, "annotations": [{"result": results[:2]}]},
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    splits, classes = read_label_studio(folder / "export.json")
    (split,) = splits
    assert [image.file_name for image in split.images] == ["a.png", "b.png"]
    found = annotations_of(splits, classes)
    assert [name for name, _, _ in found] == ["cat", "cat", "dog", "dog", "cat", "dog"]
    assert np.allclose([box for _, box, _ in found], [
        [10, 10, 20, 8], [22, 10, 8, 20], [10, 10, 10, 10], [20, 25, 20, 10], [7, 5, 3, 4], [0, 0, 32, 24]
    ], atol=0.15)  # fmt: skip
    assert [type(mask) for _, _, mask in found] == [type(None), list, list, list, dict, type(None)]
    assert np.array_equal(mask_util.decode(found[4][2]), pixels[:, :, 3] == 255)
    assert split.unread == {
        "annotations that were cancelled": 1,
        "further annotations of a task, of which the first counts": 1,
        "keypoints": 1,
        "results of type choices, which mark no region": 1,
        "results of type relation, which mark no region": 1,
    }
    assert [text.partition("task ")[2] for text in split.left_out] == [
        "7: region 9: it has no label",
        "7: region 10: the image was turned by 90 degrees in Label Studio; 0 would be right",
        "7: region 11: its rle is no run-length code of Label Studio",
        f"9: no image gone.png in {folder}, {folder.parent}; 2 objects left out with it",
    ]


def test_label_studio_json_min(folder):
    regions = [{**box_value(10, 10, 20, 8, "cat"), "original_width": WIDTH, "original_height": HEIGHT}]
    (folder / "min.json").write_text(json.dumps([{"image": "/data/upload/a.png", "id": 1, "label": regions}]))
    splits, classes = read_label_studio(folder)
    assert annotations_of(splits, classes)[0][0] == "cat"
    (folder / "min.json").write_text("[{}]")
    with pytest.raises(InputError, match="no JSON export of Label Studio"):
        read_label_studio(folder)


@pytest.mark.parametrize(
    "header", ["filename,width,height,class,xmin,ymin,xmax,ymax", "Filename,Width,Height,Label,x1,y1,x2,y2"]
)
def test_csv_files_of_roboflow_and_tensorflow(folder, header):
    rows = [
        f"a.png,{WIDTH},{HEIGHT},dog,10,20,30,40",
        f"a.png,{WIDTH},{HEIGHT},cat,30,40,10,60",
        f"a.png,{WIDTH},{HEIGHT},cat,3,x,10,6",
        f"a.png,{WIDTH},{HEIGHT},,3,4,10,6",
        "gone.png,1,1,cat,3,4,10,6",
    ]
    (folder / "train").mkdir()
    (folder / "train" / "_annotations.csv").write_text("\ufeff" + "\n".join([header, *rows]), encoding="utf-8")
    for name in ("a.png", "b.png"):
        (folder / name).rename(folder / "train" / name)
    (folder / "valid").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "valid" / "c.png")
    (folder / "valid" / "_annotations.csv").write_text(f"{header}\nc.png,63,48,dog,1,2,3,4\n")
    splits, classes = read_csv(folder)
    train, valid = splits
    assert (train.name, valid.name, classes.names) == ("train", "valid", ["cat", "dog"])
    assert annotations_of([train], classes) == [("dog", [10, 20, 20, 20], None), ("cat", [10, 40, 20, 8], None)]
    assert sorted(train.mended.values()) == [1, 1], "swapped corners, and clipped"
    assert [text.partition("csv:")[2].partition(" in /")[0] for text in train.left_out] == [
        "4: its ymin is 'x', not a number",
        "5: it has no class",
        "6: no image gone.png",
    ]
    assert "1 images in" in train.notes[0]
    assert "b.png" in train.notes[0]
    assert "the size is 63 x 48, but" in valid.left_out[0]
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no CSV file whose first line has the columns filename, class"):
        read_csv(folder / "empty")


def test_images_in_the_folder_of_their_split(folder):
    """The layout of a well-known tutorial: train_labels.csv beside train/."""
    (folder / "train").mkdir()
    (folder / "a.png").rename(folder / "train" / "a.png")
    (folder / "train_labels.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,3,4\n")
    (split,), _ = read_csv(folder)
    assert (split.name, split.image_folder, split.num_objects) == ("train_labels", folder / "train", 1)


def test_a_row_with_an_image_alone_is_one_without_objects(folder):
    (folder / "boxes.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.png,,,,,\nb,cat,1,2,3,4\n")
    splits, classes = read_csv(folder / "boxes.csv", ["cat", "dog"])
    assert [(image.file_name, len(image.objects)) for image in splits[0].images] == [("a.png", 0), ("b.png", 1)]
    assert (classes.names, splits[0].left_out) == (["cat", "dog"], [])


def test_outlines_are_clipped_to_their_image():
    outside = [(-5.0, -5.0), (10.0, -5.0), (-5.0, 10.0)]  # its box meets the image, its area hardly does
    mended = Counter()
    assert make_outline("x", [outside], (WIDTH, HEIGHT), mended).box == pytest.approx((0, 0, 5, 5))
    assert mended == {"objects that reach outside their image, which are clipped": 1}
    corner = [(-9.0, 1.0), (1.0, -9.0), (-9.0, -9.0)]  # only its box meets the image
    with pytest.raises(InputError, match="it lies outside the image"):
        make_outline("x", [corner], (WIDTH, HEIGHT), mended)


def test_the_tool_says_what_was_not_read(folder, run_tool_here):
    save_labelme(folder / "a.json", [shape("cat", SQUARE), shape("nose", [[3, 3]], "point"), shape("", SQUARE)])
    run = run_tool_here("prepare_dataset.py", "labelme", folder, "--output", folder / "out")
    assert run.returncode == 0, run.stderr
    assert f"{folder}/out/all.json {folder}: 1 images, 1 objects\n        1 cat\n" in run.stdout
    assert "1 left out, such as" in run.stdout
    assert "1 shapes of type point, which have no area: not read" in run.stdout
    again = run_tool_here("prepare_dataset.py", "labelme", folder, "--strict", "--output", folder / "new")
    assert again.returncode == 2
    assert "it has no label" in again.stderr


@pytest.mark.parametrize("point", [[1, 2, 3], [1], [None, 1], ["a", 2], 3, [1, float("nan")]])
def test_a_point_is_two_numbers(point):
    assert read_point([1, "2.5"]) == (1, 2.5)
    with pytest.raises(InputError, match=r"a point is .*; two numbers would be right"):
        read_point(point)
