"""Which image is in which fold, and the mean over folds."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from resnet_det.cross_validation.folds import assign_groups, split_images, write_folds
from resnet_det.cross_validation.summary import average_folds
from resnet_det.errors import InputError


@pytest.fixture
def files(tmp_path):
    """Twelve images of five patients, with an object each, and the folder that they lie in."""
    folder = tmp_path / "images"
    folder.mkdir()
    images, annotations = [], []
    for number, patient in enumerate("aaaabbbccdde"):
        name = f"patient-{patient}_{number:02d}.png"
        Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / name)
        images.append(
            {"id": 100 + number, "file_name": name, "height": 8, "width": 8, "slide": ord(patient), "dye": "H"}
        )
        box = {"bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0, "score_of_reader": 3}
        annotations.append({"id": number + 1, "image_id": 100 + number, "category_id": 1 + (patient == "e"), **box})
    categories = [{"id": 1, "name": "cell"}, {"id": 2, "name": "mitosis"}]
    content = {"info": {"year": 2018}, "images": images, "annotations": annotations, "categories": categories}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(content))
    return path, folder


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("group_by", ["", "slide", r"^(patient-\w)_", "patient-[a-e]"])
def test_each_image_is_tested_once_and_no_group_is_in_both_parts(files, tmp_path, group_by):
    split = split_images(*files, 3, seed=7, group_by=group_by)
    folds = write_folds(split, tmp_path / "folds")
    whole = json.loads(files[0].read_text())
    tested = []
    for fold in folds:
        train, test = (json.loads(path.read_text()) for path in (fold.train, fold.test))
        names = [{image["file_name"] for image in part["images"]} for part in (train, test)]
        assert names[0] | names[1] == {image["file_name"] for image in whole["images"]}
        assert not names[0] & names[1]
        if group_by:
            patients = [{name[8] for name in of_part} for of_part in names]
            assert not patients[0] & patients[1]
        for part in (train, test):
            ids = {image["id"] for image in part["images"]}
            assert part["annotations"] == [one for one in whole["annotations"] if one["image_id"] in ids]
            assert (part["categories"], part["info"]) == (whole["categories"], whole["info"])
        assert (fold.train_images, fold.test_images) == (len(names[0]), len(names[1]))
        assert fold.test_groups == len({name[8] for name in names[1]} if group_by else names[1])
        tested += sorted(names[1])
    assert sorted(tested) == sorted(image["file_name"] for image in whole["images"])
    assert [fold.test_images for fold in folds] == [4, 4, 4]
    assert split_images(*files, 3, seed=7, group_by=group_by).fold == split.fold


def test_annotations_are_those_that_the_reader_uses(files, tmp_path, caplog):
    def edit(content):
        content["annotations"][0]["image_id"] = "100"  # read all the same
        content["annotations"][1]["bbox"] = [1, 1, -4, 4]

    change(files[0], edit)
    caplog.clear()
    folds = write_folds(split_images(*files, 3, seed=7), tmp_path / "folds")
    tested = [one["id"] for fold in folds for one in json.loads(fold.test.read_text())["annotations"]]
    assert sorted(tested) == [1, *range(3, 13)]
    assert "annotations[1]" in caplog.text


def test_other_seeds_give_other_folds(files):
    assert len({tuple(split_images(*files, 3, seed=seed).fold) for seed in range(5)}) == 5


def test_groups_of_any_size_are_balanced():
    rng = np.random.default_rng(0)
    for seed in range(20):
        sizes = {f"p{number}": int(size) for number, size in enumerate(rng.integers(1, 30, 25))}
        fold_of = assign_groups(sizes, 5, seed)
        filled = Counter()
        for name, fold in fold_of.items():
            filled[fold] += sizes[name]
        assert sorted(filled) == [0, 1, 2, 3, 4]
        # The fullest fold was the emptiest when it got its last group.
        assert max(filled.values()) - min(filled.values()) <= max(sizes.values())


def test_a_class_of_one_group_is_found(files):
    assert split_images(*files, 3, seed=0, group_by="slide").rare_classes == ["mitosis"]


def test_a_crowd_region_makes_no_class_known_in_another_group(files):
    def edit(content):
        content["annotations"][4].update(iscrowd=1, category_id=2)  # tested in the same fold as the object

    change(files[0], edit)
    assert split_images(*files, 3, seed=0, group_by="slide").rare_classes == ["mitosis"]


def test_groups_may_be_whole_numbers_as_fractions(files):
    def edit(content):
        for image in content["images"]:
            image["slide"] = float(image["slide"])

    before = split_images(*files, 3, seed=0, group_by="slide")
    change(files[0], edit)
    assert split_images(*files, 3, seed=0, group_by="slide").groups == before.groups


@pytest.mark.parametrize(
    ("options", "edit", "message"),
    [
        ({"num_folds": 1}, None, r"--folds 1: 2 or more"),
        (
            {"num_folds": 6, "group_by": "slide"},
            None,
            r"--folds 6: there are 5 groups by --group-by slide, and each fold",
        ),
        ({"num_folds": 13}, None, r"--folds 13: there are 12 groups, and each fold needs one"),
        (
            {"group_by": "patient-([a-d])"},
            None,
            r"no image of \S+all.json has such a key, and as a pattern it does not match 1 of 12 images "
            r"\(such as patient-e_11.png\)",
        ),
        ({"group_by": "patient-("}, None, r"--group-by patient-\(: neither a key of the images of \S+ nor a pattern"),
        (
            {"group_by": "slide"},
            lambda content: content["images"][3].pop("slide"),
            r"--group-by slide: a whole number or a text is missing in 1 of 12 images \(such as patient-a_03.png\)",
        ),
        (
            {"group_by": "slide"},
            lambda content: content["images"][3].update(slide=True),
            r"a whole number or a text is missing in 1 of 12 images",
        ),
        ({"group_by": "dye"}, None, r"--folds 3: there is 1 group by --group-by dye, and each fold"),
        (
            {},
            lambda content: content["images"].append({**content["images"][2], "id": 999}),
            r"1 image listed more than once by file_name \(such as patient-a_02.png\): one could be",
        ),
        (
            {"group_by": "slide"},
            lambda content: content["annotations"].append(
                {**content["annotations"][0], "id": 99, "category_id": 2, "iscrowd": 1}
            ),
            r"all.json: the training images of fold 2 have only crowd regions of mitosis, which",
        ),
        (
            {"group_by": "slide"},
            lambda content: content.update(annotations=content["annotations"][:4]),
            r"all.json: the training images of fold 1 have no objects, which cannot be trained on; objects in more",
        ),
        ({}, lambda content: content.pop("annotations"), r"it has no annotations, so that nothing can be learned"),
        (
            {},
            lambda content: content["images"][0].update(file_name="gone.png"),
            r"1 of 12 images are not in \S+images \(such as gone.png\)",
        ),
    ],
)
def test_what_cannot_be_split_is_said(files, options, edit, message):
    if edit is not None:
        change(files[0], edit)
    with pytest.raises(InputError, match=message):
        split_images(*files, **{"num_folds": 3, "seed": 0, **options})


def test_an_id_that_is_there_twice_is_an_error(files):
    change(files[0], lambda content: content["images"][1].update(id=100))
    with pytest.raises(InputError, match="100"):
        split_images(*files, 3, seed=0)


def test_the_interval_is_that_of_nadeau_and_bengio():
    values = [40.0, 50.0, 42.0, 47.0, 51.0]
    mean = average_folds(values, 0.25)
    deviation = np.std(values, ddof=1)
    half = stats.t.ppf(0.975, 4) * deviation * np.sqrt(1 / 5 + 1 / 4)
    assert mean.interval.value == pytest.approx(46)
    assert (mean.interval.low, mean.interval.high) == pytest.approx((46 - half, 46 + half))
    assert mean.deviation == pytest.approx(deviation)
    part = average_folds([40.0, float("nan"), 42.0], 0.5)
    half = stats.t.ppf(0.975, 1) * np.sqrt(2) * np.sqrt(1 / 2 + 1 / 2)
    assert (part.interval.value, part.interval.low) == pytest.approx((41, 41 - half))
    assert (mean.folds, part.folds) == (5, 2)
    alone = average_folds([40.0, float("nan")], 1.0)
    assert alone.interval.value == 40
    assert not alone.interval.is_known
    assert np.isnan(average_folds([float("nan")] * 2, 1.0).interval.value)


def test_the_interval_holds_the_mean_of_folds_that_share_their_training_images():
    """A toy whose error has a part that all folds share and one of each fold's own, in the proportions that Nadeau and
    Bengio assume: correlation n_test / (n_test + n_train)."""
    rng = np.random.default_rng(1)
    folds, correlation = 5, 1 / 5
    held = 0
    for _ in range(2000):
        errors = np.sqrt(correlation) * rng.normal() + np.sqrt(1 - correlation) * rng.normal(size=folds)
        interval = average_folds((50 + errors).tolist(), 1 / (folds - 1)).interval
        held += interval.low <= 50 <= interval.high
    assert held / 2000 == pytest.approx(0.95, abs=0.015)
