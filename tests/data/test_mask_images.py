"""Masks that are images become run lengths, exact to the pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import read_coco
from resnet_det.data.formats.labels import write_coco
from resnet_det.data.formats.mask_images import read_masks
from resnet_det.errors import InputError

WIDTH, HEIGHT = 40, 30


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def make_pixels(*boxes):
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for x, y, width, height in boxes:
        pixels[y : y + height, x : x + width] = True
    return pixels


IMAGE = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
FIRST, SECOND = make_pixels((3, 4, 5, 6), (20, 4, 2, 2)), make_pixels((10, 12, 8, 9))
FIRST[6, 5] = False  # a hole


def masks_of(split):
    return [(item.class_name, mask_util.decode(item.mask).astype(bool)) for item in split.images[0].objects]


def assert_masks(split, *expected):
    found = masks_of(split)
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, mask), (_, pixels) in zip(found, expected, strict=True):
        assert np.array_equal(mask, pixels)


def test_a_file_for_each_object(tmp_path):
    """The layout of Kaggle's DSB 2018."""
    folder = tmp_path / "stage1_train"
    save(folder / "x" / "images" / "x.png", IMAGE)
    save(folder / "x" / "masks" / "1.png", FIRST.astype(np.uint8) * 255)
    save(folder / "x" / "masks" / "2.png", np.where(SECOND, 240, 9).astype(np.uint8))  # edges that are not 0 and 255
    save(folder / "x" / "masks" / "3.png", SECOND[:-1].astype(np.uint8))
    save(folder / "x" / "masks" / "4.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    (folder / "x" / "masks" / "5.png").write_bytes(b"no image")
    save(folder / "y" / "images" / "y.png", IMAGE)
    (folder / "y" / "masks").mkdir()
    (folder / "z" / "images").mkdir(parents=True)
    (folder / "z" / "masks").mkdir()
    for source, name in ((folder, "all"), (tmp_path, "stage1_train")):
        splits, classes = read_masks(source, ["nucleus"])
        (split,) = splits
        assert (split.name, classes.names) == (name, ["nucleus"])
        assert [image.file_name for image in split.images] == ["x/images/x.png", "y/images/y.png"]
        assert_masks(split, ("nucleus", FIRST), ("nucleus", SECOND))
        messages = [
            "3.png: the mask is 40 x 29, but its image 40 x 30",
            "4.png: its mask has no pixels",
            "5.png: not an image",
            "z/images: no images in it; one would be right",
        ]
        assert all(one in text for one, text in zip(messages, split.left_out, strict=True))
    with pytest.raises(InputError, match="problems: 4; nothing written"):  # more than there are objects
        write_coco(splits, classes, tmp_path / "out")
    for number in (4, 5):
        (folder / "x" / "masks" / f"{number}.png").unlink()
    (path,) = write_coco(*read_masks(tmp_path), tmp_path / "out")
    data = read_coco(path, folder)
    assert (data.count_use().masks, data.problems()) == (2, [])
    assert data.area.tolist() == [FIRST.sum(), SECOND.sum()]
    with pytest.raises(InputError, match="--pixels is not for this layout: it is a file for each object"):
        read_masks(folder, pixels="objects")
    with pytest.raises(InputError, match="one name for all would be right"):
        read_masks(folder, ["a", "b"])


def test_two_images_with_masks_of_neither_are_left_out(tmp_path):
    for folder, names in (("x", "ab"), ("y", "c")):
        for name in names:
            save(tmp_path / folder / "images" / f"{name}.png", IMAGE)
        save(tmp_path / folder / "masks" / "1.png", FIRST)
    (split,), _ = read_masks(tmp_path)
    assert [image.file_name for image in split.images] == ["c.png"]
    assert "x/images: 2 images in it; one would be right" in split.left_out[0]


def test_a_folder_of_masks_for_each_class(tmp_path):
    save(tmp_path / "x" / "images" / "x.png", IMAGE)
    save(tmp_path / "x" / "masks" / "cat" / "1.png", FIRST)
    save(tmp_path / "x" / "masks" / "dog" / "1.png", SECOND)
    splits, classes = read_masks(tmp_path)
    assert classes.names == ["cat", "dog"]
    assert_masks(splits[0], ("cat", FIRST), ("dog", SECOND))


@pytest.mark.parametrize("kind", ["8 bit", "16 bit", "palette", "colours"])
def test_a_value_for_each_object(tmp_path, kind):
    numbers = FIRST * 1 + SECOND * (700 if kind == "16 bit" else 255)
    values = numbers.astype(np.uint16 if kind == "16 bit" else np.uint8)
    image = Image.fromarray(values)
    if kind == "palette":
        image.putpalette([9] * 768)  # the numbers count, not the colours
    if kind == "colours":
        colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        colours[FIRST], colours[SECOND] = (0, 0, 7), (200, 10, 3)
        image = Image.fromarray(colours)
    save(tmp_path / "images" / "train" / "a.jpg", IMAGE)
    (tmp_path / "masks" / "train").mkdir(parents=True)
    image.save(tmp_path / "masks" / "train" / "a_mask.png")
    save(tmp_path / "images" / "train" / "b.jpg", IMAGE)
    shown = "#000000, #000007, #c80a03" if kind == "colours" else f"0, 1, {numbers.max()}"
    with pytest.raises(InputError, match=rf"a_mask.png are {shown}; say what they mean: --pixels objects or"):
        read_masks(tmp_path)
    splits, classes = read_masks(tmp_path, pixels="objects")
    assert (splits[0].name, classes.names) == ("train", ["object"])
    assert_masks(splits[0], ("object", FIRST), ("object", SECOND))
    assert "b.jpg: no mask of this name" in splits[0].left_out[0]


def test_masks_that_do_not_keep_values_are_left_out(tmp_path):
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "masks" / "a.jpg", FIRST.astype(np.uint8))
    save(tmp_path / "images" / "b.png", IMAGE)
    frames = [Image.fromarray(FIRST.astype(np.uint8))] * 2
    frames[0].save(tmp_path / "masks" / "b.tif", save_all=True, append_images=frames[1:])
    save(tmp_path / "images" / "c.png", IMAGE)
    save(tmp_path / "masks" / "c.png", FIRST.astype(np.uint8))
    (split,), _ = read_masks(tmp_path, pixels="objects")
    assert "a.jpg: JPEG does not keep the values of pixels" in split.left_out[0]
    assert "b.tif: 2 pictures, but its image" in split.left_out[1]
    assert len(split.images) == 1


def test_a_value_for_each_class(tmp_path):
    """Connected parts are the objects; also those that touch at a corner alone."""
    numbers = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    numbers[2:5, 2:5], numbers[5:7, 5:7], numbers[20:25, 20:30], numbers[10, 10] = 1, 1, 1, 9
    numbers[15:18, 3:6] = 2
    for split in ("train", "val"):
        save(tmp_path / split / "images" / "a.png", IMAGE)
        save(tmp_path / split / "masks" / "a.png", numbers)
    with pytest.raises(InputError, match="0, 1, 2, 9; say the classes: --names"):
        read_masks(tmp_path, pixels="classes")
    splits, classes = read_masks(tmp_path, ["road", "car"], pixels="classes")
    assert ([split.name for split in splits], classes.names) == (["train", "val"], ["road", "car"])
    corner, field = make_pixels((2, 2, 3, 3), (5, 5, 2, 2)), make_pixels((20, 20, 10, 5))
    assert_masks(splits[0], ("road", corner), ("road", field), ("car", make_pixels((3, 15, 3, 3))))
    assert splits[0].unread == {"masks with the value 9, which is no class": 1}
    assert "connected parts" in splits[0].notes[0]
    splits, classes = read_masks(tmp_path, ["car=2"], pixels="classes")
    assert [name for name, _ in masks_of(splits[0])] == ["car"]
    (tmp_path / "class_names.txt").write_text("_background_\nroad\ncar\n")
    assert read_masks(tmp_path, pixels="classes")[1].names == ["road", "car"]


def test_a_colour_for_each_class(tmp_path):
    colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    colours[FIRST], colours[SECOND] = (255, 0, 0), (0, 128, 0)
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "masks" / "a.png", colours)
    parts = [make_pixels((3, 4, 5, 6)) & FIRST, make_pixels((20, 4, 2, 2))]
    (split,), classes = read_masks(tmp_path, ["cat=#FF0000"], pixels="classes")
    assert_masks(split, *(("cat", part) for part in parts))
    assert split.unread == {"masks with the colour #008000, which is no class": 1}
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog:0,128,0::\n"
    )
    (split,), classes = read_masks(tmp_path, pixels="classes")
    assert classes.names == ["cat", "dog"]
    assert_masks(split, *(("cat", part) for part in parts), ("dog", SECOND))
    (tmp_path / "labelmap.txt").write_text("cat:255,0::\n")
    with pytest.raises(InputError, match=r"name:red,green,blue:: would be right"):
        read_masks(tmp_path, pixels="classes")


@pytest.mark.parametrize("names", [["a=#12345"], ["a=1", "b=1"], ["a=1", "b=#000001"], ["a=x"], ["=3"]])
def test_classes_that_cannot_be_read_are_named(tmp_path, names):
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "masks" / "a.png", FIRST.astype(np.uint8))
    with pytest.raises(InputError, match="--names"):
        read_masks(tmp_path, names, pixels="classes")


def test_objects_of_voc_have_their_class_from_its_mask(tmp_path):
    """labelme2voc writes class_names.txt; without it the classes are VOC's."""
    numbers, kinds = FIRST * 1 + SECOND * 2, FIRST * 1 + SECOND * 15
    numbers[0, 0] = kinds[0, 0] = 255
    save(tmp_path / "JPEGImages" / "a.jpg", IMAGE)
    for folder, values in (("SegmentationObject", numbers), ("SegmentationClass", kinds)):
        save(tmp_path / folder / "a.png", values.astype(np.uint8))
    splits, _ = read_masks(tmp_path)
    assert_masks(splits[0], ("aeroplane", FIRST), ("person", SECOND))
    (tmp_path / "class_names.txt").write_text("_background_\ncat\n")
    splits, classes = read_masks(tmp_path)
    assert classes.names == ["cat"]
    assert_masks(splits[0], ("cat", FIRST))
    assert splits[0].unread == {"objects of class 15, which has no name": 1}
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    splits, _ = read_masks(tmp_path)
    assert splits[0].name == "train"
    assert "no image b.jpg" in splits[0].left_out[0]


def test_other_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_masks(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no masks: neither folders with images and masks"):
        read_masks(tmp_path)


def test_the_tool_takes_pixels_and_names(tmp_path, run_tool_here):
    save(tmp_path / "images" / "a.png", IMAGE)
    save(tmp_path / "masks" / "a.png", FIRST.astype(np.uint8))
    arguments = ["masks", tmp_path, "--pixels", "objects", "--names", "cell", "--output", tmp_path / "out"]
    run = run_tool_here("prepare_dataset.py", *arguments)
    assert run.returncode == 0, run.stderr
    (annotation,) = json.loads((tmp_path / "out" / "all.json").read_text())["annotations"]
    assert annotation["bbox"] == [3, 4, 19, 6]
    assert np.array_equal(mask_util.decode(annotation["segmentation"]), FIRST)
