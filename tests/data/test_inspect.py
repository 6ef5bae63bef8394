"""The inspection finds every planted fault, nothing else, and its cleaned copies have no errors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import tifffile
from data.faults import make_set, plant_all
from detectron2.data.datasets import load_coco_json
from PIL import Image

from resnet_det.data import judge_content
from resnet_det.data.coco.problems import KINDS, Problem, count_errors, format_counts, format_problems
from resnet_det.data.inspection.clean import clean_content, read_rgb, write_clean_sets
from resnet_det.data.inspection.masks import inspect_keypoints
from resnet_det.data.inspection.sets import inspect_data, inspect_sets
from resnet_det.errors import InputError
from resnet_det.outputs import make_new_folder


@pytest.fixture
def made_sets(tmp_path):
    return [make_set(tmp_path / split, seed) for seed, split in enumerate(("train", "val"))]


@pytest.fixture
def coco_mini_sets(shared_data, tmp_path):
    """A copy of coco_mini, to be damaged."""
    root = shutil.copytree(shared_data("coco_mini") / "coco", tmp_path / "coco")
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [(root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017") for split in ("train", "val")]


@pytest.fixture(params=["made_sets", "coco_mini_sets"])
def sets(request):
    return request.getfixturevalue(request.param)


def list_problems(one):
    return Counter((p.kind, p.section, one.content[p.section][p.index]["id"]) for p in one.problems)


def test_sound_sets_have_no_problems(sets):
    assert [one.problems for one in inspect_sets(sets)] == [[], []]


def test_every_planted_fault_is_found_and_nothing_else(sets):
    planters = plant_all(*sets)
    planted = [Counter(planter.planted) for planter in planters]
    assert sum(map(len, planted)) > 25
    # All that can be found in a file that can be read; notes on whole sets have tests of their own.
    elsewhere = {"json", "class-not-labelled", "unusual-size", "only-crowds", "unused-root", "duplicate-category-name"}
    elsewhere |= {"ignore", "other-form", "box-from-mask", "missing-id", "missing-size", "no-annotations", "no-masks"}
    elsewhere |= {"huge-image", "other-class", "missing-class", "signed-image", "many-channels"}
    assert {kind for counts in planted for kind, _, _ in counts} == set(KINDS) - elsewhere
    assert [list_problems(one) for one in inspect_sets(sets)] == planted


def test_a_cleaned_copy_has_no_errors_and_the_originals_stay(sets, tmp_path):
    plant_all(*sets)
    files = [path for _, folder in sets for path in folder.iterdir()] + [path for path, _ in sets]
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in files}
    inspected = inspect_sets(sets)
    assert count_errors(inspected[0].problems) == 15
    out = tmp_path / "clean"
    make_new_folder(out)
    lines = list(write_clean_sets(inspected, out))
    cleaned = [(out / path.name, out / "images" / folder.name) for path, folder in sets]
    again = inspect_sets(cleaned)
    assert [problem for one in again for problem in one.problems if problem.severity == "error"] == []
    left = {problem.kind for one in again for problem in one.problems}
    assert not left & {"box-partly-outside", "exif-rotation", "cmyk-image", "missing-area"}
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in files} == before
    for expected in (
        "1  boxes clipped to their image",
        "2  annotations dropped: box-without-area",
        "2  annotations dropped: duplicate-box",  # one of them came with an image listed twice
        "1  annotations with a new id",
        "1  images dropped: truncated-image",
        "1  images rewritten as 8-bit RGB: 16-bit-image",
        "1  images rewritten as 8-bit RGB: animated-image",
    ):
        assert any(line.strip() == expected for line in lines), (expected, lines)
    # Of 12 damaged images, 4 files and 2 second entries are dropped; Detectron2 reads what is left.
    assert len(again[0].content["images"]) == len(inspected[0].content["images"]) - 6
    assert len(load_coco_json(str(cleaned[0][0]), str(cleaned[0][1]))) == len(again[0].content["images"])


def test_images_are_linked_where_nothing_is_wrong_and_rewritten_as_annotated_where_something_is(made_sets, tmp_path):
    path, images = made_sets[0]
    before = np.asarray(Image.open(images / "1.jpg")).astype(int)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(images / "1.jpg").save(images / "1.jpg", exif=exif, quality=95)  # its entry says how it is stored
    shown = np.asarray(Image.open(images / "3.jpg")).astype(int)
    Image.open(images / "3.jpg").rotate(90, expand=True).save(images / "3.jpg", exif=exif, quality=95)
    list(write_clean_sets(inspect_sets([(path, images)]), tmp_path / "new"))
    new = tmp_path / "new" / "images"
    assert (new / "4.jpg").samefile(images / "4.jpg")
    for name, expected in (("1.jpg", before), ("3.jpg", shown)):
        with Image.open(new / name) as image:
            assert image.size == (320, 240)
            assert not image.getexif()
            assert np.abs(np.asarray(image).astype(int) - expected).mean() < 3, name


def test_sixteen_bits_become_eight_by_the_bits_in_use(tmp_path):
    values = np.array([[0, 1024, 4095]], dtype=np.uint16)
    for factor in (1, 16):
        Image.fromarray(values * factor).save(tmp_path / "a.png")
        pixels, suffix = read_rgb(tmp_path / "a.png", as_stored=False)
        assert np.asarray(pixels)[0, :, 0].tolist() == [0, 64, 255]
        assert suffix == "PNG"


def test_values_below_0_are_told_and_stacks_are_copied_whole(tmp_path):
    (tmp_path / "images").mkdir()
    values = (np.arange(30 * 40).reshape(30, 40) - 100).astype(np.int16)
    tifffile.imwrite(tmp_path / "images" / "ct.tif", values)
    tifffile.imwrite(tmp_path / "images" / "stack.tif", np.stack([values, values * 2]), photometric="minisblack")
    tifffile.imwrite(
        tmp_path / "images" / "five.tif", np.stack([values] * 5, 2), planarconfig="contig", photometric="minisblack"
    )
    names = ["ct.tif", "stack.tif#0", "stack.tif#1", "five.tif"]
    images = [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names, 1)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    sets = inspect_sets([(tmp_path / "a.json", tmp_path / "images")] * 2)
    found = {problem.kind: problem.message for problem in sets[0].problems if problem.kind != "unlabelled-image"}
    assert found == {"signed-image": "values from -100 on", "many-channels": "5 channels"}
    pairs = [problem for problem in sets[1].problems if problem.kind == "identical-images"]
    assert [problem.index for problem in pairs] == [0, 1, 2, 3], "each page is compared by itself"
    make_new_folder(tmp_path / "clean")
    list(write_clean_sets(sets[:1], tmp_path / "clean"))
    assert {path.name for path in (tmp_path / "clean" / "images").iterdir()} == {"ct.tif", "stack.tif", "five.tif"}
    assert np.array_equal(tifffile.imread(tmp_path / "clean" / "images" / "stack.tif")[1], values * 2)


def test_an_image_listed_twice_gets_the_annotations_of_both_entries_once(made_sets, tmp_path):
    path, images = made_sets[0]
    content = json.loads(path.read_text())
    content["images"].append(content["images"][5] | {"id": 900, "file_name": "./6.jpg"})
    first, second, _ = [a for a in content["annotations"] if a["image_id"] == 6]
    content["annotations"].append(first | {"id": 901, "image_id": 900})  # there already
    second["image_id"] = 900
    path.write_text(json.dumps(content))
    lines = list(write_clean_sets(inspect_sets([(path, images)]), tmp_path / "new"))
    cleaned = json.loads((tmp_path / "new" / path.name).read_text())
    assert [a["id"] for a in cleaned["annotations"] if a["image_id"] == 6] == [16, 17, 18]
    assert [line.split(None, 1) for line in lines[1:]] == [
        ["1", "annotations dropped: duplicate-box"],
        ["1", "images dropped: file-listed-twice"],
    ]


def test_sets_of_the_same_names_are_kept_apart(tmp_path):
    sets = []
    for seed, split in enumerate(("train", "val")):
        path, images = make_set(tmp_path / split, seed)
        sets.append((path.rename(path.parent / "all.json"), images.rename(path.parent / "images")))
    list(write_clean_sets(inspect_sets(sets), tmp_path / "new"))
    for number, (path, images) in enumerate(sets, 1):
        assert json.loads((tmp_path / "new" / f"{number}_all.json").read_text()) == json.loads(path.read_text())
        assert (tmp_path / "new" / "images" / f"{number}_images" / "1.jpg").samefile(images / "1.jpg")


def test_a_folder_in_use_is_no_place_for_cleaned_copies(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="not an empty folder; name a new one"):
        make_new_folder(tmp_path)


def test_unusual_labels_are_noted(made_sets):
    path, images = made_sets[0]
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["category_id"] = 3 if annotation["id"] % 3 else 7
    content["annotations"] = [a for a in content["annotations"] if (a["image_id"], a["category_id"]) != (9, 7)]
    small = next(a for a in content["annotations"] if a["image_id"] == 20)
    small |= {"bbox": [4, 4, 6, 7], "segmentation": None}
    path.write_text(json.dumps(content))
    (one,) = inspect_sets([(path, images)])
    assert list_problems(one) == Counter(
        [("class-not-labelled", "images", 9)]
        + [(kind, "annotations", small["id"]) for kind in ("unusual-size", "empty-mask")]
    )


def test_a_broken_file_does_not_keep_the_others_from_being_inspected(made_sets):
    made_sets[0][0].write_text('{"images": [')
    broken, sound = inspect_sets(made_sets)
    assert [problem.kind for problem in broken.problems] == ["json"]
    assert "cut off" in broken.problems[0].message
    assert (sound.problems, len(sound.content["images"])) == ([], 48)


@pytest.mark.parametrize(
    "entry", [None, 3, [], {}, {"id": []}, {"id": 1, "image_id": {}, "category_id": 1, "bbox": [1, 2, 3, "4"]}]
)
def test_entries_of_any_kind_are_told_and_do_not_stop_the_inspection(entry):
    content = {"images": [entry], "annotations": [entry], "categories": [entry]}
    found = {(problem.kind, problem.section) for problem in inspect_data(judge_content(content))}
    kind = "other-form" if isinstance(entry, dict) and entry.get("id") == 1 else "malformed-entry"
    assert found == {("malformed-entry", "images"), ("malformed-entry", "annotations"), (kind, "categories")}
    cleaned = clean_content(content, inspect_data(judge_content(content)))[0]
    assert (cleaned["images"], cleaned["annotations"]) == ([], [])
    problems = [Problem("malformed-entry", "is wrong", "annotations", 0)]
    assert len(list(format_problems(problems, content, 5))) == 1


@pytest.mark.parametrize(("offset", "kinds"), [(1.0, set()), (1.5, {"box-partly-outside"}), (70, {"box-outside"})])
def test_a_box_may_reach_outside_by_one_pixel(coco_files, offset, kinds):
    content = json.loads(coco_files[0].read_text())
    content["annotations"][0]["bbox"] = [44 + offset, 4, 20, 16]  # the image is 64 wide
    assert {problem.kind for problem in inspect_data(judge_content(content))} == kinds
    content["annotations"][0]["bbox"] = [-offset, 4, 20, 16]
    assert {problem.kind for problem in inspect_data(judge_content(content))} == kinds


@pytest.mark.parametrize(("x", "kinds"), [(-19.5, {"box-partly-outside"}), (-20, {"box-outside"})])
def test_a_box_with_half_a_pixel_in_the_image_is_not_outside(coco_files, x, kinds):
    content = json.loads(coco_files[0].read_text())
    content["annotations"][0]["bbox"] = [x, 4, 20, 16]
    assert {problem.kind for problem in inspect_data(judge_content(content))} == kinds


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        ({}, {"duplicate-box"}),
        ({"bbox": [5, 5, 20, 16]}, {"duplicate-box"}),
        ({"bbox": [5.5, 4, 18.5, 16]}, {"near-duplicate-box"}),
        ({"bbox": [9, 4, 20, 16]}, set()),
        ({"category_id": 2}, set()),
        ({"image_id": 2}, set()),
        ({"iscrowd": 1}, set()),
    ],
)
def test_boxes_are_duplicates_within_one_pixel_in_the_same_image_and_class(coco_files, change, kinds):
    content = json.loads(coco_files[0].read_text())
    content["annotations"].append(content["annotations"][0] | {"id": 3} | change)
    assert {problem.kind for problem in inspect_data(judge_content(content))} == kinds


def test_pairs_of_boxes_are_those_of_comparing_all_with_all():
    boxes = np.random.default_rng(0).integers([0, 0, 6, 6], [24, 24, 40, 40], (500, 4)).tolist()
    content = {
        "images": [{"id": 1, "file_name": "a", "width": 99, "height": 99}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1, "bbox": b, "area": 1} for i, b in enumerate(boxes)],
    }
    expected = set()
    for later, (x, y, w, h) in enumerate(boxes):
        for left, top, width, height in boxes[:later]:
            shared_w = min(x + w, left + width) - max(x, left)
            shared_h = min(y + h, top + height) - max(y, top)
            shared = max(shared_w, 0) * max(shared_h, 0)
            near = max(abs(x - left), abs(y - top), abs(x + w - left - width), abs(y + h - top - height)) <= 1
            if near or shared / (w * h + width * height - shared) >= 0.8:
                expected.add(later)
    assert 50 < len(expected) < 300
    assert {problem.index for problem in inspect_data(judge_content(content))} == expected


def test_lines_are_limited_and_counts_are_full():
    content = {"images": [{"id": 5, "file_name": "a.png"}], "annotations": [], "categories": []}
    problems = [Problem("grey-image", "it is grey", "images", 0)] * 1234 + [Problem("wrong-size", "x", "images", 0)]
    lines = list(format_problems(problems, content, 2))
    assert lines == [
        "error    wrong-size  a.png, image 5: x",
        "note     grey-image  a.png, image 5: it is grey",
        "note     grey-image  a.png, image 5: it is grey",
        "note     grey-image  ... and 1,232 more",
    ]
    assert re.search(r"note +grey-image +1,234  grey image", format_counts(problems))
    assert format_counts(problems).endswith("1 error, 0 warnings, 1,234 notes")


@pytest.mark.parametrize("name", ["annotations", "images"])
def test_a_missing_file_or_folder_is_wrong_usage(coco_files, tmp_path, name):
    pair = [coco_files[0], coco_files[1]]
    pair[name == "images"] = tmp_path / "no"
    with pytest.raises(InputError, match=f"--{name} .*no: no such f"):
        inspect_sets([tuple(pair)])


def test_the_keypoint_files_of_coco_mini_have_what_its_readme_says(shared_data):
    root = shared_data("coco_mini") / "coco"
    pairs = [(root / "annotations" / f"person_keypoints_{s}2017.json", root / f"{s}2017") for s in ("train", "val")]
    counts = [Counter(problem.kind for problem in one.problems) for one in inspect_sets(pairs)]
    assert counts == [{"unlabelled-image": 44}, {"unlabelled-image": 40}]


def test_the_annotation_faults_of_bccd_are_found(shared_data):
    """All that its README lists, but for red cells unlabelled among labelled ones and most overlapping pictures."""
    root = shared_data("bccd") / "bccd"
    sets = inspect_sets([(root / "annotations" / f"bccd_{s}.json", root / "images") for s in ("train", "val", "test")])
    found = {kind: set() for kind in KINDS}
    for one in sets:
        names = {image["id"]: image["file_name"] for image in one.content["images"]}
        for p in one.problems:
            entry = one.content[p.section][p.index]
            name = entry["file_name"] if p.section == "images" else names[entry["image_id"]]
            extra = re.findall("no ([A-Z]+) labelled", p.message)
            found[p.kind].add((int(name[-9:-4]), *extra))
    assert found["near-duplicate-box"] == {(n,) for n in (20, 100, 251, 403, 104, 331, 284, 13)}
    no_red = {n for n, *cell in found["class-not-labelled"] if cell == ["RBC"]}
    assert no_red == {134, 150, 224, 250, 258, 267, 268, 322, 147, 152, 330, 350, 249, 303, 327}
    no_white = {n for n, *cell in found["class-not-labelled"] if cell == ["WBC"]}
    assert no_white == {171, 178, 327, 228} | {133, 135}  # these two have one, labelled as a platelet
    assert found["unusual-size"] == {(133,), (135,), (113,)}
    assert found["near-duplicate-images"] == {(37,)}
    assert sum(count_errors(one.problems) for one in sets) == 0


@pytest.mark.parametrize(("x", "kinds"), [(64, set()), (65, set()), (65.5, {"keypoints-outside"})])
def test_a_keypoint_may_lie_outside_by_one_pixel(coco_files, x, kinds):
    content = json.loads(coco_files[0].read_text())
    content["categories"][0] |= {"keypoints": ["tip"], "skeleton": []}
    one = next(a for a in content["annotations"] if a["category_id"] == content["categories"][0]["id"])
    one |= {"keypoints": [x, 10, 2], "num_keypoints": 1}
    assert {problem.kind for problem in inspect_keypoints(judge_content(content))} == kinds
