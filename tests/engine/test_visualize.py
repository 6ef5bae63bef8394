"""Pictures of predictions: inputs of all kinds, and what is said of wrong ones."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from resnet_det.data import register_coco
from resnet_det.engine import Predictor, build_visualize_parser, setup_cfg, visualize
from resnet_det.engine.visualize import draw_results, find_images
from resnet_det.errors import InputError

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


@pytest.fixture
def run(small_data, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def call(*args, opts=()):
        fixed = ["--config-file", DEMO, "--output", tmp_path / "drawn", *args]
        fixed += ["--opts", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", tmp_path, "INPUT.MIN_SIZE_TEST", "96", *opts]
        data = [["vis_val", *small_data["val"]]]
        fixed += ["RESNET_DET.DATA.COCO", data, "DATASETS.TRAIN", "()", "DATASETS.TEST", "('vis_val',)"]
        parsed = build_visualize_parser().parse_args(list(map(str, fixed)))
        return visualize(parsed, setup_cfg(parsed))

    return call


@pytest.fixture
def weights(tmp_path, default_cfg, request):
    default_cfg.merge_from_file(str(request.config.rootpath / DEMO))
    default_cfg.MODEL.DEVICE = "cpu"
    path = tmp_path / "weights.pth"
    torch.save({"model": build_model(default_cfg).state_dict()}, path)
    return ["MODEL.WEIGHTS", path]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "deeper/c.bmp"):
        cv2.imwrite(str(folder / name), np.random.randint(0, 255, (70, 90, 3), dtype=np.uint8))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_folder_and_a_pattern_and_a_file(run, folder, weights, tmp_path):
    written, unreadable = run("--input", folder, "--confidence-threshold", "0", "--batch-size", "2", opts=weights)
    assert [path.name for path in written] == ["a.png", "b.png", "c.png"]
    assert unreadable == []
    assert cv2.imread(str(tmp_path / "drawn" / "a.png")).shape[:2] == (420, 540)
    assert len(run("--input", folder / "*.jpg", folder / "b.png", opts=weights)[0]) == 2


def test_a_corrupt_image_is_named_and_passed_over(run, folder, weights, caplog):
    (folder / "b.png").write_bytes(b"\x89PNG not really")
    written, unreadable = run("--input", folder, opts=weights)
    assert [path.name for path in written] == ["a.png", "c.png"]
    assert [path.name for path in unreadable] == ["b.png"]
    assert "b.png: not a readable image, passed over" in caplog.text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "empty", "no images in this folder"),
        (lambda p: p / "nowhere.jpg", "nowhere.jpg: no such file or folder"),
        (lambda p: p / "*.gif", "no such file or folder"),
    ],
)
def test_no_images_is_an_error(tmp_path, make, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        find_images([str(make(tmp_path))])


def test_weights_must_be_there(run, folder, tmp_path):
    with pytest.raises(InputError, match=r"MODEL.WEIGHTS is empty"):
        run("--input", folder)
    with pytest.raises(InputError, match=r"no.pth: no such file"):
        run("--input", folder, opts=["MODEL.WEIGHTS", tmp_path / "no.pth"])


def test_a_batch_predicts_what_single_images_do(weights, default_cfg):
    default_cfg.MODEL.WEIGHTS = str(weights[1])
    default_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    predictor = Predictor(default_cfg)
    assert not predictor.model.training
    images = [np.random.randint(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(2)]
    together = predictor.predict(images)
    for image, want in zip(images, together, strict=True):
        (got,) = predictor.predict([image])
        torch.testing.assert_close(got.scores, want.scores, rtol=1e-3, atol=1e-4)
        assert want.image_size == (96, 128)


def result(**changes):
    return {"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "score": 0.9, **changes}


def test_saved_results_are_drawn_beside_the_ground_truth(run, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([result(), result(score=0.1)]))
    written, _ = run("--results", path, "--num-images", "3")
    assert len(written) == 3
    picture = cv2.imread(str(written[0]))
    assert picture.shape[1] > 2 * 480


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "not a JSON file, or cut off"),
        ('{"bbox": 1}', "not in COCO's result format: a list of objects with bbox, category_id, image_id, score"),
        (json.dumps([result(image_id=999)]), r"1 image_ids are not in the data set \(such as 999\)"),
        (json.dumps([result(category_id=99)]), r"1 category_ids are not in the data set \(such as 99\)"),
    ],
)
def test_wrong_results_are_told_apart(run, tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        run("--results", path)


def test_pictures_of_the_same_name_do_not_overwrite_each_other(run, folder, weights):
    (folder / "a.png").write_bytes((folder / "b.png").read_bytes())
    written, _ = run("--input", folder, opts=weights)
    assert len(set(written)) == 4
    assert all(path.is_file() for path in written)


def test_results_of_an_own_set(small_data, tmp_path):
    register_coco("vis_own", *small_data["val"])
    path = tmp_path / "r.json"
    path.write_text("[]")
    written = draw_results("vis_own", path, tmp_path / "o", min_score=0.5, num_images=10)
    assert len(written) == len(DatasetCatalog.get("vis_own")) == 4
