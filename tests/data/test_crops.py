"""Objects cut out of the images of COCO files: where the cuts are, and what is left out and said."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torchvision
from PIL import Image

from resnet_det.classification import load_image_set
from resnet_det.data.formats.crops import write_crops
from resnet_det.data.formats.export import describe_export, read_sets
from resnet_det.errors import InputError


@pytest.fixture
def cells(tmp_path):
    """Makes a set of two images of one name in two folders, with a box each, and more (image, category, box)."""

    def make(boxes, names=("red cell", "white cell"), **of_the_last):
        generator = np.random.default_rng(0)
        for name in ("x/a.png", "y/a.png"):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
        boxes = [(1, 1, [5, 5, 20, 20]), (2, 2, [0, 0, 30, 30]), *boxes]
        content = {
            "images": [
                {"id": number, "file_name": name, "width": 60, "height": 40}
                for number, name in enumerate(("x/a.png", "y/a.png"), 1)
            ],
            "annotations": [
                {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 1, "iscrowd": 0}
                for number, (image, category, box) in enumerate(boxes, 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        }
        content["annotations"][-1] |= of_the_last
        (tmp_path / "train.json").write_text(json.dumps(content))
        return read_sets([(str(tmp_path / "train.json"), str(tmp_path / "images"))])

    return make


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_boxes_are_cut_out_with_what_is_around_them(cells, tmp_path):
    sets = cells([(1, 2, [50, 10.5, 10, 20])])
    (counts,) = write_crops(sets, tmp_path / "out", context=0.25, min_size=10)
    assert counts == {"red cell": 1, "white cell": 2}
    first, second = (pixels_of(tmp_path / "images" / name) for name in ("x/a.png", "y/a.png"))
    root = tmp_path / "out" / "train"
    assert np.array_equal(pixels_of(root / "red cell" / "x" / "a-0.png"), first[0:30, 0:30])
    assert np.array_equal(pixels_of(root / "white cell" / "x" / "a-1.png"), first[5:36, 47:60]), "not beyond the image"
    assert np.array_equal(pixels_of(root / "white cell" / "y" / "a-0.png"), second[0:38, 0:38])
    theirs = torchvision.datasets.ImageFolder(str(root))
    ours = load_image_set(root)
    assert [(entry["file_name"], entry["label"]) for entry in ours.dicts] == theirs.samples


def test_small_objects_and_crowds_are_left_out_and_counted(cells, tmp_path):
    sets = cells([(1, 1, [1, 1, 30, 15.9]), (1, 2, [1, 1, 20, 20])], iscrowd=1)
    (counts,) = write_crops(sets, tmp_path / "out")
    assert counts == {"red cell": 1, "white cell": 1}
    told = list(describe_export(sets[0]))
    assert "1 objects with a side of less than 16 pixels: left out" in told
    assert "1 crowd regions: left out" in told


def test_only_what_is_inside_the_image_counts_as_the_size(cells, tmp_path):
    sets = cells([(1, 1, [50, 5, 20, 20]), (1, 2, [42, 5, 20, 20])])
    (counts,) = write_crops(sets, tmp_path / "out")
    assert counts == {"red cell": 1, "white cell": 2}
    told = list(describe_export(sets[0]))
    assert "1 objects with a side of less than 16 pixels: left out" in told
    assert "2 boxes that reach outside their image: clipped" in told


@pytest.mark.parametrize("fault", ["damaged", "other size"])
def test_an_image_that_cannot_be_used_is_named_with_its_objects(cells, tmp_path, fault):
    sets = cells([(1, 1, [1, 1, 30, 30])])
    bad = tmp_path / "images" / "x" / "a.png"
    if fault == "damaged":
        bad.write_bytes(bad.read_bytes()[:200])
    else:
        Image.new("RGB", (40, 60)).save(bad)
    (counts,) = write_crops(sets, tmp_path / "out")
    assert counts == {"red cell": 0, "white cell": 1}
    message = "not a readable image" if fault == "damaged" else "40x60 pixels, and 60x40 in the annotation file"
    told = list(describe_export(sets[0]))
    assert told[0].startswith(f"1 images that cannot be used: {bad}: {message}")
    assert told[1] == "2 objects of these images: left out"
    with pytest.raises(InputError, match=message):
        write_crops(sets, tmp_path / "strict", strict=True)


def test_names_that_are_no_folders_are_changed_and_two_of_one_refused(cells, tmp_path):
    write_crops(cells([], names=("red/cell", ".white")), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "train").iterdir()) == ["_white", "red_cell"]
    with pytest.raises(InputError, match="'a/b', 'a_b' would share the folder a_b"):
        write_crops(cells([], names=("a/b", "a_b")), tmp_path / "other")


def test_what_cannot_give_crops_is_refused(cells, tmp_path):
    for context in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=rf"--context is {context:g}; a number of at least 0 would be right"):
            write_crops(cells([]), tmp_path / "out", context=context)
    with pytest.raises(InputError, match="--min-size is 0; at least 1 would be right"):
        write_crops(cells([]), tmp_path / "out", min_size=0)
    with pytest.raises(InputError, match=r"no object is left of it; 2 objects with a side of less than 50 pixels"):
        write_crops(cells([]), tmp_path / "out", min_size=50)
