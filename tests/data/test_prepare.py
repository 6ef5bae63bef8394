"""VOC's and YOLO's layouts become COCO files with known boxes; what is wrong in them is named, and nothing written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from detectron2.data.datasets import load_coco_json
from PIL import Image

from resnet_det.data import read_coco, read_coco_json
from resnet_det.data.coco.image_files import check_images
from resnet_det.data.formats.labels import (
    LabelledImage,
    count_objects,
    describe_losses,
    mask_area,
    polygon_area,
    write_coco,
)
from resnet_det.data.formats.voc import read_voc
from resnet_det.data.formats.yolo import read_yolo
from resnet_det.errors import InputError
from resnet_det.images.size import read_image_size

WIDTH, HEIGHT = 64, 48


def problems_of(path, images):
    data = read_coco(path, images)
    return [*data.problems(), *check_images(data, images)]


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)


def voc_object(name, *edges, difficult=0):
    tags = "".join(f"<{t}>{e}</{t}>" for t, e in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{tags}</bndbox></object>"


def voc_xml(name, *objects, width=WIDTH):
    size = f"<size><width>{width}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{name}.png</filename>\n{size}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Two images to train on and one to test on."""
    folder = tmp_path / "voc"
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    objects = {
        "a": [voc_object("dog", 1, 1, 64, 48), voc_object("cat", 11, 6, 30, 20, difficult=1)],
        "b": [],
        "c": [voc_object("cat", 5.5, 2, 10, 3)],
    }
    for name, items in objects.items():
        save_image(folder / "JPEGImages" / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(name, *items))
    (folder / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (folder / "ImageSets" / "Main" / "test.txt").write_text("c 1\n")
    return folder


def boxes(path):
    return [(a["image_id"], a["category_id"], *a["bbox"]) for a in json.loads(path.read_text())["annotations"]]


def test_voc_boxes_count_from_one_with_both_ends(voc, tmp_path):
    splits, names = read_voc(voc)
    train, test = write_coco(splits, names, tmp_path / "out")
    assert names.names == ["cat", "dog"]
    assert (train.name, test.name) == ("train.json", "test.json")
    assert boxes(train) == [(1, 2, 0, 0, 64, 48), (1, 1, 10, 5, 20, 15)]
    assert boxes(test) == [(1, 1, 4.5, 1, 5.5, 2)]
    content = read_coco_json(train)
    assert problems_of(train, voc / "JPEGImages") == []
    assert content["images"][1] == {"id": 2, "file_name": "b.png", "height": HEIGHT, "width": WIDTH}
    assert [a["area"] for a in content["annotations"]] == [64 * 48, 300]
    assert count_objects(splits[0], names.names) == {"cat": 1, "dog": 1}
    assert len(load_coco_json(str(train), str(voc / "JPEGImages"))) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.json", "train.json"]


def test_voc_boxes_of_labelimg_are_edges(voc, tmp_path):
    (voc / "Annotations" / "a.xml").write_text(voc_xml("a", voc_object("dog", 0, 3, 64, 48)))
    (mended,) = read_voc(voc)[0][0].mended
    assert "just outside their image, which are clipped (boxes that count from 0: --zero-based)" in mended
    splits, names = read_voc(voc, ["train"], zero_based=True)
    assert boxes(write_coco(splits, names, tmp_path / "out")[0]) == [(1, 1, 0, 3, 64, 45)]


def test_difficult_objects_are_ordinary_or_crowds(voc):
    for ignore in (False, True):
        objects = read_voc(voc, ignore_difficult=ignore)[0][0].images[0].objects
        assert [item.is_crowd for item in objects] == [False, ignore]


def test_voc_classes_can_be_given_in_their_order(voc):
    splits, names = read_voc(voc, class_names=["dog", "cat"])
    assert names.names == ["dog", "cat"]
    assert [split.problems for split in splits] == [[], []]
    splits, names = read_voc(voc, class_names=["dog"])
    assert splits[0].unread == {"objects of 'cat', which is not among the classes given": 1}
    assert [item.class_name for item in splits[0].images[0].objects] == ["dog"]
    with pytest.raises(InputError, match="train: 1 objects of 'cat', which is not among the classes given"):
        write_coco(splits, names, voc / "out", strict=True)


def test_voc_without_lists_is_one_split(voc):
    for path in (voc / "ImageSets" / "Main").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"no train, val, test.txt; there are no lists"):
        read_voc(voc)
    (voc / "ImageSets" / "Main").rmdir()
    (split,), _ = read_voc(voc)
    assert (split.name, len(split.images)) == ("all", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"a.xml: not an XML file, or cut off: .*line 1"),
        (voc_xml("a", voc_object("dog", 70, 5, 71, 9)), r"a.xml: object 1: its box 70, 5, 71, 9 reaches"),
        (
            voc_xml("a", voc_object("dog", 5, 5, 67, 9)),
            r"object 1: its box 5, 5, 67, 9 reaches outside the 64 x 48 pix",
        ),
        (voc_xml("a", voc_object("dog", 5, "x", 6, 9)), r"object 1: its bndbox is not four numbers"),
        (voc_xml("a", voc_object("", 5, 5, 6, 9)), r"object 1: it has no name"),
        (voc_xml("a", width=65), r"a.xml: the size is 65 x 48, but .*a.png has 64 x 48 pixels"),
    ],
)
def test_voc_problems_are_named_and_nothing_is_written(voc, tmp_path, text, message):
    (voc / "Annotations" / "a.xml").write_text(text)
    splits, names = read_voc(voc)
    with pytest.raises(InputError, match=message):
        write_coco(splits, names, tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_missing_files_of_voc_are_named(voc):
    (voc / "JPEGImages" / "a.png").unlink()
    (voc / "Annotations" / "b.xml").unlink()
    missing_image, missing_xml = read_voc(voc)[0][0].left_out
    assert "a.xml: no image a.png or a.jpg in" in missing_image
    assert "b.xml: no such file, but train lists it" in missing_xml


@pytest.fixture
def yolo(tmp_path):
    """One image to train on and two to evaluate, one of them without objects."""
    folder = tmp_path / "yolo"
    for name in ("train/a", "val/b", "val/c"):
        save_image(folder / "images" / f"{name}.png")
    for split in ("train", "val"):
        (folder / "labels" / split).mkdir(parents=True)
    (folder / "labels" / "train" / "a.txt").write_text("1 0.5 0.25 0.25 0.5\n\n0 0 0 0.5 0 0.5 0.5\n")
    (folder / "labels" / "val" / "b.txt").write_text("0 0 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("train: images/train\nval: ../images/val\nnames: {0: cat, 1: dog}\n")
    return folder


def test_yolo_boxes_and_polygons(yolo, tmp_path):
    splits, names = read_yolo(yolo / "data.yaml")
    train, val = write_coco(splits, names, tmp_path / "out")
    assert names.names == ["cat", "dog"]
    assert boxes(train) == [(1, 2, 24, 0, 16, 24), (1, 1, 0, 0, 32, 24)]
    assert boxes(val) == [(1, 1, 0, 12, 16, 24)], "what reaches outside is clipped"
    polygon = json.loads(train.read_text())["annotations"][1]
    assert polygon["segmentation"] == [[0, 0, 32, 0, 32, 24]]
    assert polygon["area"] == 32 * 24 / 2
    content = read_coco_json(val)
    assert problems_of(val, splits[1].image_folder) == []
    assert [image["file_name"] for image in content["images"]] == ["b.png", "c.png"]


def test_yolo_without_yaml_takes_names_and_the_folders_as_splits(yolo):
    (yolo / "data.yaml").unlink()
    with pytest.raises(InputError, match="say the classes, in their order: --names"):
        read_yolo(yolo)
    splits, names = read_yolo(yolo, ["x", "y"])
    assert [(split.name, len(split.images)) for split in splits] == [("train", 1), ("val", 2)]
    assert [item.class_name for item in splits[0].images[0].objects] == ["y", "x"]
    assert names.names == ["x", "y"]
    assert splits[0].notes == []
    (yolo / "classes.txt").write_text("p\nq\n")
    splits, names = read_yolo(yolo, ["x", "y"])
    assert (names.names, splits[0].notes) == (["x", "y"], [])
    splits, names = read_yolo(yolo)
    assert (names.names, splits[0].notes) == (["p", "q"], [f"classes from {yolo / 'classes.txt'}: p, q"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "the class is 2; it must be a number from 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "the class is -1; it must be"),
        ("0 0.5 1.5 0.1 0.1", "1.5 is outside 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "nan is outside 0 to 1"),
        ("0 0.5 0.5 0.1", "3 numbers after the class; a box has 4"),
        ("0 0.1 0.2 0.3 0.4 0.5 0.6 0.7", "7 numbers after the class"),
        ("0 a b c d", "not numbers: a b c d"),
        ("0 0.5 0.5 0 0.1", "the box is empty"),
    ],
)
def test_yolo_problems_are_named_with_their_line(yolo, tmp_path, line, message):
    path = yolo / "labels" / "train" / "a.txt"
    path.write_text(f"1 0.5 0.5 0.2 0.2\n{line}\n")
    splits, names = read_yolo(yolo)
    with pytest.raises(InputError) as error:
        write_coco(splits, names, tmp_path / "out", strict=True)
    assert f"{path}:2: {message}" in str(error.value)
    assert not (tmp_path / "out").exists()
    assert len(boxes(write_coco(splits, names, tmp_path / "out")[0])) == 1  # one bad line does not stop a set
    assert any(message in text for text in describe_losses(splits[0]))


def test_many_problems_are_counted_and_the_first_listed(yolo, tmp_path):
    (yolo / "labels" / "train" / "a.txt").write_text("7 0.5 0.5 0.1 0.1\n" * 25)
    with pytest.raises(InputError) as error:
        write_coco(*read_yolo(yolo), tmp_path / "out")
    message = str(error.value)
    assert message.startswith("problems: 25; nothing written:")
    assert message.endswith("and 15 more")
    assert message.count("the class is 7") == 10


def test_broken_images_and_lonely_labels_are_named(yolo):
    (yolo / "images" / "train" / "a.png").write_bytes(b"no image")
    (yolo / "labels" / "val" / "d.txt").write_text("")
    train, val = read_yolo(yolo)[0]
    assert "a.png: not an image" in train.left_out[0]
    assert "d.txt: there is no image for it" in val.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat\n", "not a yaml file"),
        ("train: images/train\n", "names must be a list"),
        ("names: [cat, cat]\ntrain: images/train\n", "names has a class twice"),
        ("names: [cat]\ntrain: images/nowhere\n", "train: no folder"),
        ("names: [cat]\n", "none of train, val, test is there"),
    ],
)
def test_a_wrong_data_yaml_is_named(yolo, text, message):
    (yolo / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_yolo(yolo)


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image_size(tmp_path / "a.jpg") == (HEIGHT, WIDTH)


def test_the_area_of_a_polygon_does_not_depend_on_its_sense():
    assert polygon_area([0, 0, 4, 0, 4, 3]) == polygon_area([4, 3, 4, 0, 0, 0]) == 6


def test_the_tool_prints_what_training_takes_and_the_counts(voc, yolo, tmp_path, run_tool_here):
    for arguments, line in (
        (
            ["voc", voc],
            f"{tmp_path}/voc_out/train.json {voc}/JPEGImages: 2 images, 2 objects\n        1 cat\n        1 dog\n",
        ),
        (
            ["yolo", yolo],
            f"{tmp_path}/yolo_out/val.json {yolo}/images/val: 2 images, 1 objects\n        1 cat\n        0 dog\n",
        ),
    ):
        run = run_tool_here("prepare_dataset.py", *arguments, "--output", tmp_path / f"{arguments[0]}_out")
        assert run.returncode == 0, run.stderr
        assert line in run.stdout


def test_swapped_corners_and_rounding_are_mended_and_counted(voc, yolo):
    (voc / "Annotations" / "a.xml").write_text(
        voc_xml(
            "a", *(voc_object("dog", *edges) for edges in [(9, 5, 3, 2), (9, 2, 3, 5), (3, 5, 9, 2), (5, 5, 65, 9)])
        )
    )
    (split, _), _ = read_voc(voc)
    assert [item.box for item in split.images[0].objects] == [*[(2, 1, 7, 4)] * 3, (4, 4, 60, 5)]
    assert sorted(split.mended.values()) == [1, 3]
    path = yolo / "labels" / "train" / "a.txt"
    path.write_text("\ufeff1.000000 0.5 0.5 1.0004 0.2\n0 -0.0012 0.5 0.1 0.1\n", encoding="utf-8")
    (split, _), _ = read_yolo(yolo)
    assert [item.class_name for item in split.images[0].objects] == ["dog", "cat"]
    assert split.mended == {
        "lines whose class has a decimal point": 1,
        "lines with shares just outside 0 to 1, which are clipped": 2,
    }


@pytest.mark.parametrize(
    ("folders", "is_beside"),
    [
        (("annotations", "images"), False),
        (("annots", "images"), False),
        (("ANNOTATIONS", "jpegimages"), False),
        ((), True),
    ],
)
def test_voc_in_the_folders_of_labelimg_and_its_friends(voc, folders, is_beside):
    shutil.rmtree(voc / "ImageSets")
    if is_beside:
        for path in [*(voc / "Annotations").iterdir(), *(voc / "JPEGImages").iterdir()]:
            path.rename(voc / path.name)
        (voc / "Annotations").rmdir(), (voc / "JPEGImages").rmdir()
    else:
        (voc / "Annotations").rename(voc / folders[0])
        (voc / "JPEGImages").rename(voc / folders[1])
    (split,), _ = read_voc(voc)
    assert (len(split.images), split.num_objects, split.problems) == (3, 3, [])


def test_voc_of_roboflow_has_a_folder_for_each_split(voc):
    shutil.rmtree(voc / "ImageSets")
    for name, number in (("train", "a"), ("valid", "b")):
        (voc / name).mkdir()
        (voc / "Annotations" / f"{number}.xml").rename(voc / name / f"{number}.xml")
        (voc / "JPEGImages" / f"{number}.png").rename(voc / name / f"{number}.png")
    shutil.rmtree(voc / "Annotations")
    splits, _ = read_voc(voc)
    assert [(split.name, len(split.images), split.problems) for split in splits] == [("train", 1, []), ("valid", 1, [])]


def test_lists_of_voc_may_name_files(voc):
    lists = voc / "ImageSets" / "Main"
    expected = [image.file_name for image in read_voc(voc)[0][0].images]
    path = lists / "train.txt"
    path.write_text("".join(f"{line}.png\n" for line in path.read_text().split()))
    assert [image.file_name for image in read_voc(voc)[0][0].images] == expected


@pytest.mark.parametrize(
    ("extra", "line", "expected"),
    [
        ("kpt_shape: [2, 3]", "0.25 0.25 2 0.5 0.5 0", [16, 12, 2, 0, 0, 0]),
        ("kpt_shape: [2, 2]", "0.25 0.25 0 0", [16, 12, 2, 0, 0, 0]),
    ],
)
def test_yolo_poses_are_boxes_with_keypoints(yolo, tmp_path, extra, line, expected):
    text = (yolo / "data.yaml").read_text()
    (yolo / "data.yaml").write_text(f"{text}{extra}\nflip_idx: [1, 0]\n")
    (yolo / "labels" / "train" / "a.txt").write_text(f"1 0.5 0.5 0.25 0.5 {line}\n")
    splits, classes = read_yolo(yolo)
    content = json.loads(write_coco(splits, classes, tmp_path / "out")[0].read_text())
    (annotation,) = content["annotations"]
    assert (annotation["bbox"], annotation["keypoints"]) == ([24, 12, 16, 24], expected)
    assert content["categories"][1]["keypoints"] == ["left_1", "right_1"]
    assert "segmentation" not in annotation
    (yolo / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.25 0.5 0.1 0.2 0.3\n")
    with pytest.raises(InputError, match=r"7 numbers after the class; a box and 2 keypoints of . numbers"):
        write_coco(*read_yolo(yolo), tmp_path / "new")


def test_splits_of_yolo_are_folders_lists_or_several_of_them(yolo, monkeypatch, tmp_path):
    names = "names: [cat, dog]\n"
    (yolo / "both.txt").write_text("./images/train/a.png\nimages\\val\\b.png\n")
    (yolo / "data.yaml").write_text(names + "train: both.txt\nval: [images/train, images/val]\n")
    train, val = read_yolo(yolo)[0]
    assert [image.file_name for image in train.images] == ["train/a.png", "val/b.png"]
    assert (len(val.images), val.image_folder) == (3, yolo / "images")
    (yolo / "data.yaml").write_text(names + "path: C:\\data\\mine\nvalid: images/val\n")
    (split,), _ = read_yolo(yolo)
    assert "path: C:/data/mine has no images/val; that below" in split.notes[0]
    monkeypatch.chdir(yolo)
    (tmp_path / "elsewhere.yaml").write_text(names + "train: images/train\n")
    assert len(read_yolo(tmp_path / "elsewhere.yaml")[0][0].images) == 1


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_yolo_takes_the_classes_from_a_file_of_names(yolo, name):
    (yolo / "data.yaml").unlink()
    (yolo / name).write_text("cat\ndog\n")
    splits, classes = read_yolo(yolo)
    assert classes.names == ["cat", "dog"]
    assert splits[0].num_objects == 2


def test_darknet_and_cvat_have_obj_data(yolo):
    """CVAT's YOLO 1.1 writes paths below a folder data/ that is not there."""
    for path in (yolo / "images" / "train" / "a.png", yolo / "labels" / "train" / "a.txt"):
        (yolo / "obj_train_data").mkdir(exist_ok=True)
        path.rename(yolo / "obj_train_data" / path.name)
    (yolo / "data.yaml").unlink()
    (yolo / "obj.names").write_text("cat\ndog\n")
    (yolo / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    (yolo / "train.txt").write_text("data/obj_train_data/a.png\n")
    (split,), classes = read_yolo(yolo)
    assert (split.name, split.num_objects, split.left_out, classes.names) == ("train", 2, [], ["cat", "dog"])


def test_a_split_that_is_not_there_is_left_out(yolo):
    (yolo / "data.yaml").write_text(
        "train: ../images/train\nval: images/val\ntest: ../test/images\nnames: [cat, dog]\n"
    )
    splits, _ = read_yolo(yolo)
    assert [split.name for split in splits] == ["train", "val"]
    assert "test: no folder" in splits[0].left_out[0]


def test_labels_of_darknet_are_beside_their_images(yolo):
    for path in (yolo / "images" / "train" / "a.png", yolo / "labels" / "train" / "a.txt"):
        (yolo / "obj").mkdir(exist_ok=True)
        path.rename(yolo / "obj" / path.name)
    (yolo / "data.yaml").write_text("train: obj\nnames: [cat, dog]\n")
    (split,), _ = read_yolo(yolo)
    assert (split.num_objects, split.notes) == (2, [])


def test_the_area_of_a_polygon_is_exact_and_of_several_that_of_their_union():
    image = LabelledImage("a.png", 30, 20, [])
    corner, shifted = [0, 0, 4, 0, 4, 2.5, 0, 2.5], [2, 0, 8, 0, 8, 4, 2, 4]
    assert mask_area([corner], image) == 10
    assert mask_area([[0, 0, 6, 0, 6, 4, 0, 4], shifted], image) == 32
