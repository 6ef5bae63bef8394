"""Panoptic quality, against a calculation pixel by pixel, and in training."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from models import QUICK
from panoptic_data import NAME, SIZE, STUFF, THINGS, forget_panoptic_set, make_panoptic_set
from PIL import Image

from resnet_det.engine import build_train_parser, train_or_evaluate
from resnet_det.errors import InputError
from resnet_det.evaluation.panoptic import PanopticEvaluator, ids_to_rgb


@pytest.fixture
def folder(tmp_path):
    make_panoptic_set(tmp_path / "data")
    yield tmp_path / "data"
    forget_panoptic_set()


def compute_slowly(truth, found):
    """PQ, SQ, RQ of each group of classes by the definition, one pair of segments after the other.

    Args:
        truth, found: for each image, ids (H, W) with 0 for void, and segments.
    """
    iou, tp, fp, fn = (defaultdict(float) for _ in range(4))
    for (true_ids, true_segments), (ids, segments) in zip(truth, found, strict=True):
        true_ids, ids = true_ids.ravel().tolist(), ids.ravel().tolist()
        matched_true, matched = set(), set()
        for segment in segments:
            own = {place for place, value in enumerate(ids) if value == segment["id"]}
            for other in true_segments:
                if other["category_id"] != segment["category_id"] or other["iscrowd"]:
                    continue
                theirs = {place for place, value in enumerate(true_ids) if value == other["id"]}
                in_void = sum(true_ids[place] == 0 for place in own)
                overlap = len(own & theirs) / (len(own) + len(theirs) - len(own & theirs) - in_void)
                if overlap > 0.5:
                    iou[segment["category_id"]] += overlap
                    tp[segment["category_id"]] += 1
                    matched_true.add(other["id"])
                    matched.add(segment["id"])
        for other in true_segments:
            fn[other["category_id"]] += not other["iscrowd"] and other["id"] not in matched_true
        for segment in segments:
            if segment["id"] in matched:
                continue
            crowds = {o["id"] for o in true_segments if o["iscrowd"] and o["category_id"] == segment["category_id"]}
            own = [true_ids[place] for place, value in enumerate(ids) if value == segment["id"]]
            fp[segment["category_id"]] += sum(value == 0 or value in crowds for value in own) <= 0.5 * len(own)
    results = {}
    for suffix, classes in (("", [*THINGS, *STUFF]), ("_th", THINGS), ("_st", STUFF)):
        known = [c for c in classes if tp[c] + fp[c] + fn[c]]
        sq = [iou[c] / tp[c] if tp[c] else 0.0 for c in known]
        rq = [tp[c] / (tp[c] + 0.5 * fp[c] + 0.5 * fn[c]) for c in known]
        for name, values in (("PQ", np.multiply(sq, rq)), ("SQ", sq), ("RQ", rq)):
            results[name + suffix] = 100 * float(np.mean(values))
    return results


def read_truth(folder):
    content = json.loads((folder / "panoptic.json").read_text())
    truth = {}
    for entry in content["annotations"]:
        colours = np.asarray(Image.open(folder / "panoptic" / entry["file_name"])).astype(np.int64)
        truth[entry["image_id"]] = colours @ [1, 256, 256**2], entry["segments_info"]
    return truth


def perturb(rng, ids, segments):
    """Segments moved by some pixels, some without their class or altogether new."""
    moved = np.roll(ids, rng.integers(-4, 5, 2), (0, 1))
    moved[rng.random(SIZE) < 0.05] = 0
    described = []
    for segment in segments:
        category = segment["category_id"]
        if rng.random() < 0.2:
            category = int(rng.choice([*THINGS, *STUFF]))
        if (moved == segment["id"]).any():
            described.append({"id": segment["id"], "category_id": category})
    return moved, described


def as_output(ids, segments):
    """In the form of Detectron2's Panoptic FPN."""
    places = {**{key: place for place, key in enumerate(THINGS)}, **{key: p for p, key in enumerate(STUFF, start=1)}}
    described = [
        {"id": s["id"], "isthing": s["category_id"] in THINGS, "category_id": places[s["category_id"]], "score": 0.5}
        for s in segments
    ]
    return {"panoptic_seg": (torch.as_tensor(ids.astype(np.int32)), described)}


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_the_definition(folder, seed, tmp_path):
    rng = np.random.default_rng(seed)
    truth = read_truth(folder)
    found = {key: perturb(rng, *value) for key, value in truth.items()}
    found[4] = perturb(rng, *truth[1])  # of another image
    evaluator = PanopticEvaluator(NAME, str(tmp_path / "out"))
    for key, value in found.items():
        evaluator.process([{"image_id": key, "file_name": f"a/{key}.jpg"}], [as_output(*value)])
    results = evaluator.evaluate()["panoptic_seg"]
    expected = compute_slowly(truth.values(), found.values())
    assert list(results) == ["PQ", "SQ", "RQ", "PQ_th", "SQ_th", "RQ_th", "PQ_st", "SQ_st", "RQ_st"]
    assert 5 < results["PQ"] < 95
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, abs=1e-9), name
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [entry["file_name"] for entry in written["annotations"]] == ["1.png", "2.png", "3.png", "4.png"]


def test_images_that_were_not_seen_do_not_count(folder):
    truth = read_truth(folder)
    evaluator = PanopticEvaluator(NAME)
    evaluator.process([{"image_id": 2, "file_name": "2.jpg"}], [as_output(*truth[2])])
    without_crowds = [segment for segment in truth[2][1] if not segment["iscrowd"]]
    assert without_crowds
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100)
    evaluator.reset()
    assert not evaluator.evaluate()


def test_images_of_one_name_in_two_folders_are_two(folder):
    truth = read_truth(folder)
    evaluator = PanopticEvaluator(NAME)
    for key in (1, 2):
        evaluator.process([{"image_id": key, "file_name": f"{key}/a.jpg"}], [as_output(*truth[key])])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100)


def test_labels_without_segments_are_split(folder):
    ids, segments = read_truth(folder)[1]
    labels = np.full(SIZE, -1)
    for number, segment in enumerate(segments):
        labels[ids == segment["id"]] = segment["category_id"] * 1000 + number
    evaluator = PanopticEvaluator(NAME)
    evaluator.label_divisor = 1000
    evaluator.thing_ids = {key: key for key in THINGS}
    evaluator.stuff_ids = {key: key for key in STUFF}
    image = [{"image_id": 1, "file_name": "1.jpg"}]
    evaluator.process(image, [{"panoptic_seg": (torch.as_tensor(labels), None)}])
    assert evaluator.evaluate()["panoptic_seg"]["PQ"] == pytest.approx(100)


def test_ids_are_colours_in_cocos_order():
    assert ids_to_rgb(np.array([[1 + 2 * 256 + 3 * 65536]])).tolist() == [[[1, 2, 3]]]


def test_ground_truth_that_is_missing_is_named(folder):
    truth = read_truth(folder)
    evaluator = PanopticEvaluator(NAME)
    evaluator.process([{"image_id": 99, "file_name": "99.jpg"}], [as_output(*truth[1])])
    with pytest.raises(InputError, match=r"panoptic.json: no segments of 1 of the 1 images .* image_id 99"):
        evaluator.evaluate()
    (folder / "panoptic.json").unlink()
    with pytest.raises(InputError, match=r"no .*panoptic.json, which has its panoptic segments"):
        PanopticEvaluator(NAME)


@pytest.mark.usefixtures("folder")
def test_panoptic_fpn_trains_and_is_evaluated(tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    opts = ["DATASETS.TRAIN", f"('{NAME}',)", "DATASETS.TEST", f"('{NAME}',)", "OUTPUT_DIR", tmp_path / "out"]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", "14", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", "0"]
    opts += ["MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STRIDE_IN_1X1", "False", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"]
    opts += ["MODEL.ROI_HEADS.NUM_CLASSES", "2", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "()"]
    opts += ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.AMP.ENABLED", "False", "DATALOADER.NUM_WORKERS", "0"]
    opts += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "RESNET_DET.TEST.MAX_IMAGES", "3", *QUICK]
    opts += ["MODEL.RPN.POST_NMS_TOPK_TRAIN", "200", "MODEL.RPN.POST_NMS_TOPK_TEST", "50"]
    config = "configs/COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
    words = ["--config-file", config, *map(str, opts)]
    results = train_or_evaluate(build_train_parser().parse_args(words))
    assert set(results) == {"bbox", "segm", "sem_seg", "panoptic_seg"}
    assert 0 <= results["panoptic_seg"]["PQ"] <= 100
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(written["panoptic_seg"]) == set(results["panoptic_seg"])
    weights = ["MODEL.WEIGHTS", str(tmp_path / "out" / "model_final.pth")]
    again = train_or_evaluate(build_train_parser().parse_args(["--eval-only", *words, *weights]))
    assert again["panoptic_seg"] == pytest.approx(results["panoptic_seg"], nan_ok=True)
