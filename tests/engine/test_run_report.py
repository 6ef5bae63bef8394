"""report.html at the end of a run; and a run whose report fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from resnet_det.benchmark.random_results import random_results
from resnet_det.data import register_coco
from resnet_det.engine import build_train_parser, train_or_evaluate
from resnet_det.engine.run_report import write_run_reports

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


def test_an_evaluation_ends_with_a_report(small_data, default_cfg, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    default_cfg.merge_from_file(DEMO)
    default_cfg.MODEL.DEVICE = "cpu"
    weights = tmp_path / "weights.pth"
    torch.save({"model": build_model(default_cfg).state_dict()}, weights)
    args = ["--config-file", DEMO, "--eval-only", "--test-data", *small_data["val"], "OUTPUT_DIR", tmp_path / "out"]
    args += ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights, "INPUT.MIN_SIZE_TEST", "64"]
    args += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "5"]
    results = train_or_evaluate(build_train_parser().parse_args(list(map(str, args))))
    numbers = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    for task in ("bbox", "segm"):
        found = {key: float("nan") if value is None else value for key, value in numbers[task]["metrics"].items()}
        assert found == pytest.approx({key: results[task][key] for key in found}, nan_ok=True)
    with open(small_data["val"][0]) as file:
        annotations = json.load(file)["annotations"]
    objects = sum(not annotation["iscrowd"] for annotation in annotations)
    facts = json.loads((tmp_path / "out" / "results.json").read_text())["facts"]["evaluated on"]["small_val"]
    assert (facts["images"], facts["objects"], facts["masks"]) == (4, objects, objects)
    crowds = {"objects: crowd region": len(annotations) - objects} if len(annotations) > objects else {}
    assert facts["left_out"] == crowds
    text = (tmp_path / "out" / "report.html").read_text()
    first = min(annotation["image_id"] for annotation in annotations)
    few = [*args, "OUTPUT_DIR", tmp_path / "few", "RESNET_DET.TEST.MAX_IMAGES", "1"]
    train_or_evaluate(build_train_parser().parse_args(list(map(str, few))))
    facts = json.loads((tmp_path / "few" / "results.json").read_text())["facts"]["evaluated on"]["small_val"]
    of_first = [annotation["iscrowd"] for annotation in annotations if annotation["image_id"] == first]
    assert (facts["images"], facts["objects"], facts["masks"]) == (1, of_first.count(0), of_first.count(0))
    assert facts["left_out"] == {
        "images: not evaluated": 3,
        **({"objects: crowd region": sum(of_first)} if sum(of_first) else {}),
    }
    assert f"{weights}, sha256 " in text
    assert "build_resnet_det_fpn_backbone" in text
    assert "data:image/jpeg" in text


def test_a_set_without_annotations_is_predicted_on(small_data, default_cfg, tmp_path, monkeypatch, request):
    """As COCO's test-dev, whose results a server evaluates."""
    monkeypatch.chdir(request.config.rootpath)
    default_cfg.merge_from_file(DEMO)
    default_cfg.MODEL.DEVICE = "cpu"
    weights, test_dev = tmp_path / "weights.pth", tmp_path / "image_info_test-dev.json"
    torch.save({"model": build_model(default_cfg).state_dict()}, weights)
    content = json.loads(Path(small_data["val"][0]).read_text())
    del content["annotations"]
    test_dev.write_text(json.dumps(content))
    data = ["--test-data", test_dev, small_data["val"][1], "OUTPUT_DIR", tmp_path / "out"]
    args = ["--config-file", DEMO, "--eval-only", *data, "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights]
    args += ["INPUT.MIN_SIZE_TEST", "64", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    train_or_evaluate(build_train_parser().parse_args(list(map(str, args))))
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "image_info_test-dev has no annotations: predictions are written, not evaluated" in log
    rows = json.loads((tmp_path / "out" / "inference" / "coco_instances_results.json").read_text())
    assert {row["image_id"] for row in rows} == {image["id"] for image in content["images"]}
    assert {row["category_id"] for row in rows} <= {category["id"] for category in content["categories"]}
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {}
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.fixture
def run_cfg(default_cfg, tmp_path):
    """The config of a run that has evaluated a set named for the test."""
    content, results = random_results(41, num_images=4)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    name = f"report_{tmp_path.name}"
    register_coco(name, path, tmp_path)
    default_cfg.DATASETS.TEST = (name,)
    default_cfg.OUTPUT_DIR = str(tmp_path)
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
    yield default_cfg
    MetadataCatalog.remove(name)


def test_a_report_can_be_switched_off(run_cfg, tmp_path, caplog):
    caplog.set_level("INFO")
    run_cfg.RESNET_DET.TEST.REPORT = False
    write_run_reports(run_cfg, None)
    run_cfg.RESNET_DET.TEST.REPORT, run_cfg.RESNET_DET.TEST.MAX_IMAGES = True, 2
    write_run_reports(run_cfg, None)
    assert "No report.html: RESNET_DET.TEST.MAX_IMAGES leaves out images" in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_a_report_that_fails_is_said_and_no_more(run_cfg, tmp_path, monkeypatch, caplog):
    (tmp_path / "inference" / "coco_instances_results.json").write_text("[]")
    write_run_reports(run_cfg, None)
    assert "coco_instances_results.json: it has no detections" in caplog.text

    def fail(*_, **__):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("resnet_det.evaluation.files.evaluate_files", fail)
    write_run_reports(run_cfg, None)
    assert "could not be made; the results are not touched by that" in caplog.text
    assert "planted" in caplog.text


def test_several_sets_have_their_own_folders(run_cfg, tmp_path):
    name = run_cfg.DATASETS.TEST[0]
    run_cfg.DATASETS.TEST = (name, "resnet_det_demo_val")
    folder = tmp_path / "inference" / name
    folder.mkdir()
    (tmp_path / "inference" / "coco_instances_results.json").rename(folder / "coco_instances_results.json")
    write_run_reports(run_cfg, None)
    assert (folder / "report.html").is_file()
    assert not (tmp_path / "report.html").exists()
