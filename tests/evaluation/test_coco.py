"""COCO's numbers against those of pycocotools, on published and on random results."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from evaluation_data import random_keypoints, run_pycocotools

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import judge_content, read_coco_json, register_coco
from resnet_det.data.coco.keypoints import DEFAULT_SIGMA
from resnet_det.errors import InputError
from resnet_det.evaluation import FastCOCOEvaluator
from resnet_det.evaluation.build import list_metrics
from resnet_det.evaluation.coco import METRICS, read_metrics, run_coco_evaluation, tabulate_classes
from resnet_det.evaluation.detections import make_detections
from resnet_det.evaluation.files import describe_software
from resnet_det.evaluation.ground_truth import make_ground_truth
from resnet_det.evaluation.success import SUCCESS_METRICS


def evaluate(content, results, iou_type, **options):
    truth = make_ground_truth(judge_content(content))
    detections = make_detections(results, truth)
    return run_coco_evaluation(truth, detections, iou_type, **options), truth, detections


def pycocotools_stats(content, results, iou_type, sigmas=()):
    evaluation = run_pycocotools(content, results, iou_type, sigmas=sigmas)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_the_published_results_give_the_published_numbers(shared_data, iou_type):
    folder = shared_data("coco_eval_fixture")
    expected = json.loads((folder / "expected.json").read_text())
    content = read_coco_json(folder / expected["ground_truth"])
    results = json.loads((folder / expected[iou_type]["results"]).read_text())
    metrics = read_metrics(evaluate(content, results, iou_type)[0])
    assert tuple(metrics) == METRICS[iou_type] == tuple(expected["metric_order"])
    for name, value in expected[iou_type]["stats"].items():
        assert metrics[name] / 100 == pytest.approx(value, abs=1e-9), name


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_results_with_crowds_give_the_numbers_of_pycocotools(iou_type, seed):
    content, results = random_results(seed, num_images=40)
    assert sum(a["iscrowd"] for a in content["annotations"]) > 5
    metrics = read_metrics(evaluate(content, results, iou_type)[0])
    expected = pycocotools_stats(content, results, iou_type)
    assert min(expected) > 0.01
    np.testing.assert_allclose(np.array(list(metrics.values())) / 100, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("num_keypoints", [17, 5])
def test_random_keypoints_give_the_numbers_of_pycocotools(num_keypoints):
    content, results = random_keypoints(3, num_keypoints=num_keypoints)
    sigmas = [] if num_keypoints == 17 else [0.05] * num_keypoints
    metrics = read_metrics(evaluate(content, results, "keypoints", kpt_oks_sigmas=sigmas)[0])
    expected = pycocotools_stats(content, results, "keypoints", sigmas)
    assert 0.05 < expected[0] < 0.95
    np.testing.assert_allclose(np.array(list(metrics.values())) / 100, expected, rtol=0, atol=1e-9)


def test_another_number_of_keypoints_than_of_sigmas_is_named():
    content, results = random_keypoints(3, num_keypoints=5)
    with pytest.raises(InputError, match=r"detections have 5 of them, but there are 3 sigmas; set TEST.KEYPOINT_OKS_"):
        evaluate(content, results, "keypoints", kpt_oks_sigmas=[0.1] * 3)
    expected = evaluate(content, results, "keypoints", kpt_oks_sigmas=[DEFAULT_SIGMA] * 5)[0].stats
    assert evaluate(content, results, "keypoints")[0].stats.tolist() == expected.tolist()


def test_each_class_has_its_counts_and_its_share_of_the_mean():
    content, results = random_results(4, num_images=30)
    content["categories"].append({"id": 999, "name": "unseen"})
    evaluation, truth, detections = evaluate(content, results, "bbox")
    table = tabulate_classes(evaluation, truth, detections)
    assert [result.name for result in table] == [
        c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])
    ]
    assert table[-1].objects == 0
    assert np.isnan(table[-1].ap)
    seen = table[:-1]
    metrics = read_metrics(evaluation)
    for key, name in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"), ("ar", "AR100")):
        assert np.mean([getattr(result, key) for result in seen]) == pytest.approx(metrics[name], abs=1e-9)
    plain = [a for a in content["annotations"] if not a["iscrowd"]]
    for result, category in zip(seen, sorted(c["id"] for c in content["categories"]), strict=False):
        own = [a for a in plain if a["category_id"] == category]
        assert (result.objects, result.images) == (len(own), len({a["image_id"] for a in own}))
        assert result.detections == sum(row["category_id"] == category for row in results)


def test_ids_of_any_type_and_an_annotation_with_id_0_give_the_same_numbers():
    content, results = random_results(5, num_images=20)
    expected = read_metrics(evaluate(content, results, "bbox")[0])
    first = min(a["id"] for a in content["annotations"])
    for annotation in content["annotations"]:
        annotation["id"] -= first
    for entry in content["images"]:
        entry["id"] = f"{entry['id']:09d}"
    for entry in (*content["annotations"], *results):
        entry["image_id"] = f"{entry['image_id']:09d}"
    assert read_metrics(evaluate(content, results, "bbox")[0]) == expected


def instances_of(results, category_ids):
    """COCO results of one image as a model gives them."""
    instances = Instances((480, 640))
    boxes = torch.tensor([row["bbox"] for row in results], dtype=torch.float64).reshape(-1, 4)
    instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
    instances.scores = torch.tensor([row["score"] for row in results])
    instances.pred_classes = torch.tensor(
        [category_ids.index(row["category_id"]) for row in results], dtype=torch.int64
    )
    return instances


@pytest.fixture
def evaluate_both(tmp_path):
    """Detectron2's evaluator and ours on the same predictions of a model."""

    def run(content, results, name):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        register_coco(name, path, tmp_path)
        DatasetCatalog.get(name)
        category_ids = sorted(c["id"] for c in content["categories"])
        found = []
        for kind in (COCOEvaluator, FastCOCOEvaluator):
            evaluator = kind(name, ["bbox"], output_dir=str(tmp_path / kind.__name__))
            evaluator.reset()
            for image in content["images"]:
                own = [row for row in results if row["image_id"] == image["id"]]
                evaluator.process([{"image_id": image["id"]}], [{"instances": instances_of(own, category_ids)}])
            found.append(evaluator.evaluate()["bbox"])
        written = [
            json.loads((tmp_path / kind / "coco_instances_results.json").read_text())
            for kind in ("COCOEvaluator", "FastCOCOEvaluator")
        ]
        assert written[0] == written[1]
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        return found

    return run


def test_the_evaluator_gives_detectron2s_results_and_more(evaluate_both):
    theirs, ours = evaluate_both(*random_results(6, num_images=25), "eval_both")
    assert len(theirs) > 10
    assert {key: ours[key] for key in theirs} == pytest.approx(theirs, abs=1e-7)
    assert set(ours) - set(theirs) == {"AR1", "AR10", "AR100", "ARs", "ARm", "ARl", *SUCCESS_METRICS}


def test_a_model_that_finds_nothing_gets_0(evaluate_both):
    """Detectron2 says NaN, which no comparison of runs can use."""
    theirs, ours = evaluate_both(random_results(7, num_images=5)[0], [], "eval_nothing")
    assert set(theirs) <= set(ours)
    assert ours["AP"] == ours["AP50"] == ours["AR100"] == 0


def test_images_that_did_not_go_through_the_model_are_not_missed(tmp_path):
    content, results = random_results(8, num_images=20)
    path = tmp_path / "part.json"
    path.write_text(json.dumps(content))
    register_coco("eval_part", path, tmp_path)
    DatasetCatalog.get("eval_part")
    category_ids = sorted(c["id"] for c in content["categories"])
    part = {image["id"] for image in content["images"][:7]}
    evaluator = FastCOCOEvaluator("eval_part", distributed=False)
    for image_id in part:
        own = [row for row in results if row["image_id"] == image_id]
        evaluator.process([{"image_id": image_id}], [{"instances": instances_of(own, category_ids)}])
    smaller = {
        **content,
        "images": content["images"][:7],
        "annotations": [a for a in content["annotations"] if a["image_id"] in part],
    }
    expected = pycocotools_stats(smaller, [row for row in results if row["image_id"] in part], "bbox")
    found = evaluator.evaluate()["bbox"]
    assert found["AP"] / 100 == pytest.approx(expected[0], abs=1e-6)
    DatasetCatalog.remove("eval_part")
    MetadataCatalog.remove("eval_part")


@pytest.mark.parametrize(
    ("evaluator_type", "classes", "is_known"), [("coco", ["a"], True), ("lvis", ["a"], False), ("coco", None, False)]
)
def test_metrics_are_known_before_for_coco_sets_alone(default_cfg, evaluator_type, classes, is_known):
    metadata = MetadataCatalog.get("metrics_val")
    metadata.evaluator_type = evaluator_type
    if classes:
        metadata.thing_classes = classes
    default_cfg.DATASETS.TEST = ("metrics_val",)
    names = list_metrics(default_cfg)
    MetadataCatalog.remove("metrics_val")
    assert (names is not None and {"bbox/AP", "bbox/AP-a", "bbox/CSI50"} <= set(names)) == is_known


def test_without_git_nothing_is_said_of_a_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert set(describe_software()) == {"date", "versions"}
