"""Wrong results files, each with its own error; and sound ones without any."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from evaluation_data import random_keypoints

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content, read_coco
from resnet_det.errors import InputError
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.results_check import check_results, read_results
from resnet_det.evaluation.results_forms import normalise_results


@pytest.fixture(scope="module")
def sound():
    return random_results(11, num_images=30)


def change(results, **values):
    """The results with some values replaced; each is made from the row."""
    return [row | {key: make(row) for key, make in values.items()} for row in copy.deepcopy(results)]


def corners(row):
    x, y, width, height = row["bbox"]
    return [x, y, x + width, y + height]


IDS = [2, 3, 7, 11, 20]  # of the categories

WRONG = {
    "some unknown images": (
        lambda rows: rows[:-3] + change(rows[-3:], image_id=lambda _: 5),
        r"3 of 600 results have an image_id that the annotations do not have \(such as 5\)",
    ),
    "another data set": (
        lambda rows: change(rows, image_id=lambda row: row["image_id"] + 100_000),
        r"of another data set: 600 of 600 results are for images that are not among the 30 of the annotations",
    ),
    "a list as category": (
        lambda rows: change(rows, category_id=lambda row: [row["category_id"]]),
        r"600 of 600 results have a category_id that is no id \(the first: number 0, counted from 0, category_id \[",
    ),
    "true as category": (
        lambda rows: change(rows, category_id=lambda _: True),
        r"600 of 600 results have a category_id that is no id .*category_id True",
    ),
    "box of three numbers": (
        lambda rows: [rows[0] | {"bbox": [1, 2, 3]}, *rows[1:]],
        r"1 of 600 results has a bbox that is not \[x, y, width, height\] \(the first: number 0, .*bbox \[1, 2, 3\]",
    ),
    "box of null": (lambda rows: [rows[0] | {"bbox": None}, *rows[1:]], r"1 of 600 .* bbox None\)"),
    "box as text": (lambda rows: [*rows[:3], rows[3] | {"bbox": "1 2 3 4"}], r"1 of 4 .*number 3, .* bbox 1 2 3 4\)"),
    "NaN": (
        lambda rows: [*rows[:4], rows[4] | {"score": float("nan")}, *rows[5:]],
        r"1 of 600 results has a score that is no finite number \(the first: number 4, counted from 0, score nan\)",
    ),
    "score as words": (lambda rows: change(rows, score=lambda _: "high"), r"600 of 600 results have a score"),
    "corners": (lambda rows: change(rows, bbox=corners), r"bbox as corners \[x1, y1, x2, y2\]: read as \[x, y, width"),
    "fractions": (
        lambda rows: change(rows, bbox=lambda row: (np.array(row["bbox"]) / [640, 480, 640, 480]).tolist()),
        r"bbox in fractions of the image; pixels",
    ),
    "negative width": (
        lambda rows: [rows[0] | {"bbox": [50, 50, -10, 20]}, *rows[1:]],
        r"1 of 600 results has a negative width or height \(the first: number 0, .*bbox \[50, 50, -10, 20\]",
    ),
    "NaN in a box": (
        lambda rows: [*rows[:2], rows[2] | {"bbox": [1, 2, float("nan"), 4]}],
        r"1 of 3 results has a bbox that is not \[x, y, width, height\] \(the first: number 2",
    ),
    "larger images": (
        lambda rows: change(rows, bbox=lambda row: [4 * value for value in row["bbox"]]),
        r"boxes reach out of their images: made for images of another size",
    ),
    "indices from 0": (
        lambda rows: change(rows, category_id=lambda row: IDS.index(row["category_id"])),
        r"category_id: indices, counted from 0, instead of ids: 0, 1, 2, where the annotations have 2, 3, 7",
    ),
    "indices from 1": (
        lambda rows: change(rows, category_id=lambda row: IDS.index(row["category_id"]) + 1),
        r"category_id: indices, counted from 1, instead of ids",
    ),
    "unknown categories": (
        lambda rows: [*rows[:-2], *change(rows[-2:], category_id=lambda _: 77)],
        r"2 of 600 results have a category_id that the annotations do not have \(such as 77; theirs are 2, 3, 7\)",
    ),
    "class names": (
        lambda rows: change(rows, category_id=lambda row: f"class {row['category_id']}"),
        r"category_id: class names \(such as class \d+, .*ids such as 2, 3, 7 are right",
    ),
    "no score": (
        lambda rows: [*rows[:7], {k: v for k, v in rows[7].items() if k != "score"}],
        r"1 of 8 results has no score \(the first: number 7, counted from 0\); a list of objects with image_id",
    ),
    "annotations": (lambda _: {"images": [], "annotations": []}, r"an annotation file, not results"),
    "results of an evaluation": (lambda _: {"bbox": {"AP": 1}}, r"an object with bbox ...; a list of objects"),
    "numbers": (lambda _: [1, 2], r"not in COCO's result format; a list of objects with image_id"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_apart(sound, name, tmp_path):
    content, results = sound
    make, message = WRONG[name]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make(results)))
    with pytest.raises(InputError, match=message) as error:
        read_results(path, make_ground_truth(judge_content(content)), ["bbox"])
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image_id": lambda row: str(row["image_id"])}, "in 600 of 600, image_id is a str"),
        ({"image_id": lambda row: f"{row['image_id']:012d}"}, "in 600 of 600, image_id is the name of an image file"),
        ({"image_id": lambda row: f"{row['image_id']:012d}.jpg"}, "image_id is the name of an image file"),
        ({"image_id": lambda row: f"data/val/{row['image_id']:012d}.jpg"}, "image_id is the name of an image file"),
        ({"image_id": lambda row: f"C:\\val\\{row['image_id']:012d}.jpg"}, "image_id is the name of an image file"),
        ({"category_id": lambda row: str(row["category_id"])}, "category_id is a str"),
        ({"category_id": lambda row: float(row["category_id"])}, None),
        ({"score": lambda row: str(row["score"])}, "score is not made of numbers"),
        ({"bbox": lambda row: list(map(str, row["bbox"]))}, "bbox is not made of numbers"),
    ],
)
def test_results_in_another_form_are_read_all_the_same(sound, changes, text, tmp_path, caplog):
    content, results = copy.deepcopy(sound)
    for image in content["images"]:
        image["file_name"] = f"{image['id']:012d}.jpg"
    truth = make_ground_truth(judge_content(content))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(results, **changes)))
    rows = read_results(path, truth, ["bbox"])
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        (row["image_id"], row["category_id"]) for row in results
    ]
    np.testing.assert_allclose([row["score"] for row in rows], [row["score"] for row in results])
    assert text is None or text in caplog.text


def test_categories_whose_ids_are_texts_are_known_by_them(sound, tmp_path):
    content, results = copy.deepcopy(sound)
    for entry in (*content["annotations"], *results):
        entry["category_id"] = f"class {entry['category_id']}"
    for category in content["categories"]:
        category["id"] = f"class {category['id']}"
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert read_results(path, make_ground_truth(judge_content(content)), ["bbox"]) == results


def test_categories_that_are_shifted_unnoticed_by_their_ids_are_found_by_what_they_lie_on(sound):
    content, results = copy.deepcopy(sound)
    for entry in (*content["annotations"], *results):
        entry["category_id"] = IDS.index(entry["category_id"]) + 1
    for category in content["categories"]:
        category["id"] = IDS.index(category["id"]) + 1
    truth = make_ground_truth(judge_content(content))
    check_results(results, truth, ["bbox"])
    without_first = [row | {"category_id": row["category_id"] - 1} for row in results if row["category_id"] > 1]
    with pytest.raises(InputError, match=r"indices, counted from 0, instead of ids.*nearly all classes would agree"):
        check_results(without_first, truth, ["bbox"])


def test_polygons_and_keypoints_as_lists_of_points_are_read(sound, tmp_path, caplog):
    content, results = sound
    truth = make_ground_truth(judge_content(content))
    for mask in ([1, 1, 9, 1, 9, 9], [[[1, 1], [9, 1], [9, 9]]]):
        (tmp_path / "r.json").write_text(json.dumps(change(results[:1], segmentation=lambda _, mask=mask: mask)))
        assert read_results(tmp_path / "r.json", truth, ["segm"])[0]["segmentation"] == [[1, 1, 9, 1, 9, 9]]
    assert "segmentation is in another form than COCO's" in caplog.text
    content, results = random_keypoints(1, num_keypoints=4, num_images=3)
    truth = make_ground_truth(judge_content(content))
    nested = change(results, keypoints=lambda row: np.reshape(row["keypoints"], (-1, 3)).tolist())
    (tmp_path / "r.json").write_text(json.dumps(nested))
    assert read_results(tmp_path / "r.json", truth, ["keypoints"]) == results
    missing = [results[0] | {"keypoints": None}, *results[1:]]
    with pytest.raises(InputError, match=r"1 of \d+ results has keypoints that are not"):
        check_results(missing, truth, ["keypoints"])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            {"size": [100, 100], "counts": "abc"},
            r"a mask of \[100, 100\] \(height, width\) for image \d+, which is \[480",
        ),
        ({"size": None, "counts": "abc"}, r"number 0, counted from 0: a mask of None \(height, width\) for image"),
        ({"size": 5, "counts": "abc"}, r"number 0, counted from 0: a mask of 5 \(height, width\) for image"),
        ("abc", r"number 0, counted from 0: segmentation is neither run lengths"),
        (None, r"number 0, counted from 0: segmentation is neither run lengths"),
        ([], r"number 0, counted from 0: its segmentation is \[\]"),
        ([[1, 2, 3, 4]], r"number 0, counted from 0: polygon 1 of 1 has 4 numbers"),
        ({"size": [480, 640], "counts": "\x01zz~"}, r"number 0, counted from 0: its run-length code is neither"),
        ({"size": [480, 640], "counts": [5, 10]}, r"number 0, .*the counts of its run-length code do not sum up"),
    ],
)
def test_wrong_masks_are_named(sound, mask, message):
    content, results = sound
    with pytest.raises(InputError, match=message):
        check_results(change(results, segmentation=lambda _: mask), make_ground_truth(judge_content(content)), ["segm"])
    boxes = [{key: value for key, value in row.items() if key != "segmentation"} for row in results]
    with pytest.raises(InputError, match="600 of 600 results have no segmentation"):
        check_results(boxes, make_ground_truth(judge_content(content)), ["segm"])


def test_wrong_keypoints_are_named():
    content, results = random_keypoints(1, num_keypoints=5)
    results[3]["keypoints"].pop()
    with pytest.raises(InputError, match=r"1 of \d+ results has keypoints that are not \[x, y, score, ...\].*number 3"):
        check_results(results, make_ground_truth(judge_content(content)), ["keypoints"])


@pytest.mark.parametrize("text", ["[{", "", "\x00"])
def test_files_that_are_no_json_are_named(sound, text, tmp_path):
    path = tmp_path / "r.json"
    with pytest.raises(InputError, match=r"r.json: no such file"):
        read_results(path, make_ground_truth(judge_content(sound[0])))
    path.write_text(text)
    with pytest.raises(InputError, match=r"r.json: not a JSON file, or cut off"):
        read_results(path, make_ground_truth(judge_content(sound[0])))


def test_scores_outside_0_to_1_are_worth_a_warning(sound, caplog):
    content, results = sound
    check_results(change(results, score=lambda row: 100 * row["score"]), make_ground_truth(judge_content(content)))
    assert "Scores reach from" in caplog.text


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_the_published_results_are_sound(shared_data, iou_type, caplog):
    folder = shared_data("coco_eval_fixture")
    truth = make_ground_truth(read_coco(folder / "instances_val2014_100.json"))
    assert read_results(folder / f"instances_val2014_fake{iou_type}100_results.json", truth, [iou_type])
    assert not caplog.text


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("number", [1, 3, 600])
def test_random_results_are_sound(seed, number, caplog):
    content, results = random_results(seed, num_images=30)
    truth = make_ground_truth(judge_content(content))
    check_results(results[:number], truth, ["bbox", "segm"])
    rng = np.random.default_rng(seed)
    guessed = change(results[:number], category_id=lambda _: int(rng.choice(IDS)))  # of a model that has learnt nothing
    check_results(guessed, truth, ["bbox"])
    clipped = change(results[:number], bbox=lambda row: [0, 0, 640, 480] if rng.random() < 0.5 else row["bbox"])
    check_results(clipped, truth, ["bbox"])
    check_results([], truth, ["bbox"])
    assert not caplog.text


def test_classes_that_are_all_wrong_and_cannot_be_indices_are_left_as_they_are(sound, tmp_path):
    content, results = copy.deepcopy(sound)
    for entry in content["categories"]:
        entry["id"] += 90
    for annotation in content["annotations"]:
        annotation["category_id"] += 90
    ids = sorted(entry["id"] for entry in content["categories"])
    path = tmp_path / "results.json"
    path.write_text(json.dumps(change(results, category_id=lambda row: ids[(row["category_id"] + 1) % len(ids)])))
    rows = read_results(path, make_ground_truth(judge_content(content)), ["bbox"])
    assert len(rows) == len(results)


@pytest.mark.parametrize(
    ("known", "given", "found"),
    [
        (["train/a.png"], "a.png", 1),
        (["train/a.png"], "/data/train/a.png", 1),
        (["train/a.png"], "train/a", 1),
        (["a.png"], "C:\\data\\val\\a.png", 1),
        (["../images/a.png"], "/data/images/a.png", 1),
        (["images/a.png"], "../a.png", 1),
        (["/mnt/data/train/a.png"], "/home/me/data/train/a.png", 1),
        (["/data/train/a.png"], "C:\\data\\Train\\a.png", 1),
        (["train\\a.png"], "train/a.png", 1),
        (["train/a.png"], "val/a.png", None),
        (["train/a.png", "val/a.png"], "/data/val/a.png", 2),
        (["train/a.png", "val/a.png"], "val\\a.png", 2),
        (["train/a.png", "val/a.png"], "a.png", None),
        (["x/train/a.png", "train/a.png"], "train/a.png", 2),
        (["x/train/a.png", "y/train/a.png"], "/data/y/train/a.png", 2),
        (["x/train/a.png", "y/train/a.png"], "train/a.png", None),
    ],
)
def test_an_image_is_found_by_the_end_of_its_path(known, given, found):
    content = {
        "images": [
            {"id": number, "file_name": name, "height": 40, "width": 40} for number, name in enumerate(known, 1)
        ],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 16], "area": 128, "iscrowd": 0}],
    }
    truth = make_ground_truth(judge_content(content))
    row = {"image_id": given, "category_id": 1, "bbox": [0, 0, 8, 8], "score": 0.9}
    assert normalise_results([row], truth)[0]["image_id"] == (found or given)
