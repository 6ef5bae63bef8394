"""Counts and areas against plain loops, their agreement against formulas, and what the tool writes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest

from resnet_det.benchmark.random_results import HEIGHT, WIDTH, random_results
from resnet_det.errors import InputError
from resnet_det.evaluation.agreement import measure_agreement
from resnet_det.evaluation.count_files import count_files


def write(folder, name, content, results):
    paths = folder / f"{name}.json", folder / f"{name}_results.json"
    for path, data in zip(paths, (content, results), strict=True):
        path.write_text(json.dumps(data))
    return paths


@pytest.fixture
def val(tmp_path):
    return write(tmp_path, "val", *random_results(31, num_images=30))


@pytest.fixture
def test_set(tmp_path):
    return write(tmp_path, "test", *random_results(32, num_images=15))


def read_table(path):
    with path.open(newline="") as file:
        return {(row["image"], row["class"]): row for row in csv.DictReader(file)}


def area(annotation):
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(mask_util.frPyObjects(segmentation, HEIGHT, WIDTH))
    return float(mask_util.area(segmentation))


def test_every_image_and_class_has_a_row_with_counts_and_areas_of_masks(test_set, tmp_path, run_tool_here):
    annotations, results = test_set
    options = ["--annotations", annotations, "--score-threshold", 0.4, "--pixel-size", 0.5]
    run = run_tool_here("count_objects.py", "--results", results, *options, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    content, found = json.loads(annotations.read_text()), json.loads(results.read_text())
    table = read_table(tmp_path / "out" / "counts.csv")
    assert len(table) == 15 * 5
    for image in content["images"]:
        for category in content["categories"]:
            row = table[image["file_name"], category["name"]]
            key = image["id"], category["id"]
            objects = [one for one in content["annotations"] if (one["image_id"], one["category_id"]) == key]
            hidden = any(one["iscrowd"] for one in objects)
            shown = [one for one in found if (one["image_id"], one["category_id"]) == key and one["score"] >= 0.4]
            total = sum(map(area, shown))
            assert int(row["count"]) == len(shown)
            assert float(row["total_area_px2"]) == total
            assert float(row["total_area_um2"]) == pytest.approx(total / 4)
            assert (
                row["mean_area_um2"] == ""
                if not shown
                else float(row["mean_area_um2"]) == pytest.approx(total / 4 / len(shown))
            )
            assert row["true_count"] == ("" if hidden else str(len(objects)))
            assert hidden or float(row["true_total_area_px2"]) == sum(map(area, objects))
    assert any(row["true_count"] == "" for row in table.values())
    assert "areas: of masks" in run.stdout
    assert "counts of an image and class with crowd regions" in run.stdout


def test_the_error_is_that_of_the_table_at_a_threshold_of_other_images(val, test_set, tmp_path, run_tool_here):
    annotations, results = test_set
    options = ["--annotations", annotations, "--threshold-from", *val]
    run = run_tool_here("count_objects.py", "--results", results, *options, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert f"score threshold: best F1 of each class on {val[0]}" in run.stdout
    assert "optimistic" not in run.stdout
    numbers = json.loads((tmp_path / "out" / "counts.json").read_text())
    table = read_table(tmp_path / "out" / "counts.csv")
    content, found = json.loads(val[0].read_text()), json.loads(val[1].read_text())
    chosen = count_files(val[1], val[0])
    assert [one["score_threshold"] for one in numbers["classes"]] == chosen.thresholds
    assert len(set(chosen.thresholds)) > 3
    assert len(found) > len(content["annotations"])
    for one in numbers["classes"]:
        rows = [row for (_, name), row in table.items() if name == one["name"] and row["true_count"] != ""]
        differences = [int(row["count"]) - int(row["true_count"]) for row in rows]
        assert one["count"]["pairs"] == len(rows)
        assert one["count"]["bias"] == pytest.approx(sum(differences) / len(rows))
        areas = [abs(float(row["total_area_px2"]) - float(row["true_total_area_px2"])) for row in rows]
        assert one["total_area_px2"]["mae"] == pytest.approx(sum(areas) / len(rows))
        both = [row for row in rows if row["mean_area_px2"] and row["true_mean_area_px2"]]
        assert one["mean_area_px2"]["pairs"] == len(both)
    page = (tmp_path / "out" / "counts.html").read_text()
    assert page.count('<svg class="chart"') == 5 * 4
    assert f"<p>Score threshold: best F1 of each class on {val[0]}.</p>" in page
    for one in numbers["classes"]:
        assert f"{one['count']['bias']:+.2f}</td>" in page


def test_the_page_is_no_wider_than_a_phone(test_set, tmp_path, run_tool_here, browse):
    annotations, results = test_set
    options = ["--annotations", annotations, "--output", tmp_path / "out"]
    assert run_tool_here("count_objects.py", "--results", results, *options).returncode == 0
    page = browse(tmp_path / "out" / "counts.html", 390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_agreement_by_its_formulas():
    true, measured = np.array([4, 7, 0, 12, 7]), np.array([5, 7, 1, 9, 4])
    found = measure_agreement(true, measured)
    assert (found.pairs, found.true_mean) == (5, 6)
    assert found.bias == pytest.approx((1 + 0 + 1 - 3 - 3) / 5)
    assert found.mae == pytest.approx(8 / 5)
    assert found.relative_error == pytest.approx(8 / 30)
    assert found.r2 == pytest.approx(1 - 20 / (4 + 1 + 36 + 36 + 1))
    deviation = np.sqrt(((np.array([1, 0, 1, -3, -3]) + 0.8) ** 2).sum() / 4)
    assert (found.low, found.high) == pytest.approx((-0.8 - 1.96 * deviation, -0.8 + 1.96 * deviation))
    exact = measure_agreement(true, true)
    assert (exact.bias, exact.mae, exact.relative_error, exact.r2, exact.low, exact.high) == (0, 0, 0, 1, 0, 0)
    single = measure_agreement(true[:1], measured[:1])
    assert (single.bias, single.mae) == (1, 1)
    assert np.isnan([single.r2, single.low]).all()
    assert np.isnan(measure_agreement(true[:0], true[:0]).bias)
    assert np.isnan(measure_agreement(np.zeros(3), np.ones(3)).relative_error)
    assert np.isnan(measure_agreement(np.full(3, 0.1), np.ones(3)).r2)  # whose mean is not exactly 0.1


def test_a_threshold_of_the_counted_images_is_called_optimistic(test_set):
    annotations, results = test_set
    assert "so the numbers are optimistic" in count_files(results, annotations).source
    assert "optimistic" not in count_files(results, annotations, score_threshold=0.5).source


def count_right(objects, found):
    """How many detections of one class are right at IoU 0.5: the best takes the free object that it overlaps most."""
    taken = set()
    for one in sorted(found, key=lambda one: -one["score"]):
        rivals = {
            place: mask_util.iou([one["bbox"]], [other["bbox"]], [0]).item()
            for place, other in enumerate(objects)
            if other["image_id"] == one["image_id"] and place not in taken
        }
        best = max(rivals, key=rivals.get, default=None)
        if best is not None and rivals[best] >= 0.5:
            taken.add(best)
    return len(taken)


def test_the_threshold_of_each_class_has_the_best_f1_of_all(tmp_path):
    content, results = random_results(36, num_images=10)
    rng = np.random.default_rng(0)
    content["annotations"] = [one for one in content["annotations"] if not one["iscrowd"]]
    results = [{**one, "score": float(rng.random())} for one in results]
    for one in [*content["annotations"], *results]:
        one.pop("segmentation", None)
    annotations, path = write(tmp_path, "chosen", content, results)
    counting = count_files(path, annotations)
    for category, threshold in zip(counting.truth.categories, counting.thresholds, strict=True):
        objects = [one for one in content["annotations"] if one["category_id"] == category["id"]]
        found = [one for one in results if one["category_id"] == category["id"]]

        def f1(cut, objects=objects, found=found):
            shown = [one for one in found if one["score"] >= cut]
            return 2 * count_right(objects, shown) / (len(shown) + len(objects))

        values = [f1(one["score"]) for one in found]
        assert f1(threshold) == pytest.approx(max(values))
        assert max(values) > min(values)


def test_classes_that_are_not_found_are_named(val, test_set, caplog):
    content, results = (json.loads(path.read_text()) for path in val)
    name = content["categories"][1]["name"]
    results = [row for row in results if row["category_id"] != content["categories"][1]["id"]]
    val[1].write_text(json.dumps(results))
    counting = count_files(test_set[1], test_set[0], threshold_from=val)
    told = f"; the median of the other classes for {name}, of which no object was found"
    assert counting.source.endswith(told)
    assert told in caplog.text
    thresholds = dict(zip(counting.truth.class_names, counting.thresholds, strict=True))
    taken = thresholds.pop(name)
    assert taken == pytest.approx(np.median(list(thresholds.values())))


def test_masks_without_boxes_are_counted_on_images_without_annotations(test_set, tmp_path):
    content, results = (json.loads(path.read_text()) for path in test_set)
    masks = [{key: value for key, value in row.items() if key != "bbox"} for row in results]
    annotations, path = write(tmp_path, "images", {**content, "annotations": []}, masks)
    counting = count_files(path, annotations, score_threshold=0.3)
    assert counting.by_mask
    assert counting.found.area_px2.sum() == sum(area(row) for row in results if row["score"] >= 0.3)


def test_polygons_of_images_without_a_size_have_no_area(test_set):
    content, results = (json.loads(path.read_text()) for path in test_set)
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    results = [{**row, "segmentation": square} for row in results]
    for key in ("height", "width"):
        content["images"][0].pop(key)
    for path, data in zip(test_set, (content, results), strict=True):
        path.write_text(json.dumps(data))
    name = content["images"][0]["file_name"]
    with pytest.raises(InputError, match=rf"1 of 15 images have no height and width .*\(such as {name}\)"):
        count_files(test_set[1], test_set[0], score_threshold=0.0)


@pytest.mark.parametrize("value", ["nan", "50", "-0.1", "high"])
def test_a_score_threshold_is_a_score(test_set, tmp_path, run_tool_here, value):
    flags = ["--annotations", test_set[0], "--results", test_set[1], "--output", tmp_path / "out"]
    run = run_tool_here("count_objects.py", *flags, f"--score-threshold={value}")
    assert run.returncode == 2
    assert f"'{value}'; a score from 0 to 1 would be right, such as 0.5" in run.stderr


def test_boxes_are_measured_where_one_side_has_no_masks(tmp_path):
    content, results = random_results(33, num_images=4)
    results = [{key: value for key, value in row.items() if key != "segmentation"} for row in results]
    annotations, path = write(tmp_path, "boxes", content, results)
    counting = count_files(path, annotations, score_threshold=0.0)
    assert not counting.by_mask
    assert counting.found.area_px2.sum() == pytest.approx(sum(row["bbox"][2] * row["bbox"][3] for row in results))
    objects = [one["bbox"] for one in content["annotations"] if not one["iscrowd"]]
    assert counting.true.area_px2.sum() == pytest.approx(sum(box[2] * box[3] for box in objects))


def make_folder(folder, content, results, *, kept=0.0, format_="jsonl", bad=()):
    """What tools/predict.py writes."""
    (folder / "records").mkdir(parents=True)
    (folder / "results").mkdir()
    manifest = {"confidence_threshold": kept, "detector": {}, "format": format_, "inputs": {"units": 1}}
    manifest["classes"] = content["categories"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "records" / "000000.json").write_text("{}")
    lines = []
    for image in content["images"]:
        row = {"file_name": image["file_name"], "shard": None, "height": HEIGHT, "width": WIDTH, "error": None}
        found = [one for one in results if one["image_id"] == image["id"] and one["score"] >= kept]
        row["detections"] = [{key: value for key, value in one.items() if key != "image_id"} for one in found]
        if image["file_name"] in bad:
            row |= {"error": "damaged", "detections": [], "height": None, "width": None}
        lines.append(json.dumps(row))
    (folder / "results" / "000000.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_of_predictions_needs_no_annotations(tmp_path, run_tool_here, caplog):
    content, results = random_results(34, num_images=5)
    empty, bad = content["images"][1], content["images"][2]["file_name"]
    results = [row for row in results if row["image_id"] != empty["id"]]
    folder = make_folder(tmp_path / "predictions", content, results, bad=[bad])
    run = run_tool_here("count_objects.py", "--results", folder, "--score-threshold", 0.3, "--output", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    table = read_table(tmp_path / "out" / "counts.csv")
    assert len(table) == 4 * 5
    assert {row["count"] for (image, _), row in table.items() if image == empty["file_name"]} == {"0"}
    assert bad not in {image for image, _ in table}
    assert "1 images could not be read: left out" in caplog.text
    assert set(next(iter(table.values()))) == {"image", "class", "count", "total_area_px2", "mean_area_px2"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["counts.csv", "counts.json"]
    shown = [row for row in results if row["score"] >= 0.3 and row["image_id"] != content["images"][2]["id"]]
    assert sum(int(row["count"]) for row in table.values()) == len(shown)


def test_annotated_images_without_predictions_are_left_out_and_named(tmp_path, caplog):
    content, results = random_results(35, num_images=6)
    part = {**content, "images": content["images"][:4]}
    folder = make_folder(tmp_path / "predictions", part, results)
    annotations, _ = write(tmp_path, "all", content, [])
    counting = count_files(folder, annotations, score_threshold=0.3)
    assert len(counting.truth.images) == 4
    assert "no predictions of 2 of 6 images of the annotations (such as " in caplog.text
    assert content["images"][4]["file_name"] in caplog.text


def test_what_cannot_be_counted_is_said(tmp_path, val, test_set):
    annotations, results = test_set
    with pytest.raises(InputError, match=r"results do not name their images and classes: give --annotations"):
        count_files(results, None, score_threshold=0.5)
    with pytest.raises(InputError, match=r"--threshold-from .*: the same annotations"):
        count_files(results, annotations, threshold_from=test_set)
    content = json.loads(annotations.read_text())
    nothing = tmp_path / "images.json"
    nothing.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(InputError, match=r"nothing to choose a score threshold by: give --score-threshold, or --thr"):
        count_files(results, nothing)
    folder = make_folder(tmp_path / "folder", content, json.loads(results.read_text()), kept=0.5)
    with pytest.raises(InputError, match=r"only detections with a score of at least 0.5, and those from 0.2 on are to"):
        count_files(folder, None, score_threshold=0.2)
    other = json.loads(val[0].read_text())
    other["categories"][0]["name"] = "another"
    val[0].write_text(json.dumps(other))
    with pytest.raises(InputError, match=r"--threshold-from .*: it has no class class 20, whose threshold is wanted"):
        count_files(results, annotations, threshold_from=val)
    bad = [image["file_name"] for image in content["images"]]
    with pytest.raises(InputError, match=r"unreadable: it has no images"):
        count_files(make_folder(tmp_path / "unreadable", content, [], bad=bad), None, score_threshold=0.5)
    with pytest.raises(InputError, match=r"unreadable: no image is left to count"):
        count_files(tmp_path / "unreadable", annotations, score_threshold=0.5)
    twice = {**content, "images": [*content["images"], content["images"][0]]}
    with pytest.raises(InputError, match=r"twice"):
        count_files(make_folder(tmp_path / "twice", twice, []), None, score_threshold=0.5)
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(InputError, match=r"no detection finds an object, so that no score threshold is the best"):
        count_files(tmp_path / "none.json", annotations)
