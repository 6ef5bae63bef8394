"""Detectors of a few numbers are trained on folds: what is finished stays, what was broken off goes on."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch
import toy
from training import final_state

from resnet_det.cross_validation import TrainingStoppedError, cross_validate
from resnet_det.cross_validation import training as training_module
from resnet_det.cross_validation.folds import Fold
from resnet_det.cross_validation.report import format_folds, make_lead, summarize
from resnet_det.cross_validation.run import average
from resnet_det.cross_validation.training import FoldResult
from resnet_det.data.demo import write_split
from resnet_det.errors import InputError
from resnet_det.evaluation.files import evaluate_files

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"
OPTS = [*toy.ARCHITECTURE, "MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", "False", "SOLVER.IMS_PER_BATCH", "2"]
OPTS += ["SOLVER.MAX_ITER", "4", "TEST.EXPECTED_RESULTS", "[['bbox','AP',99.0,0.1]]"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds_data")
    write_split(folder, "train", 7, 5)
    return folder / "annotations" / "instances_train.json", folder / "train"


@pytest.fixture
def run(files, tmp_path, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)

    def start(*opts, out="out", **options):
        return cross_validate(DEMO, *files, tmp_path / out, **{"folds": 3, "seed": 7, **options}, opts=[*OPTS, *opts])

    return start


def find_some(annotations):
    """``ToyDetector.detect`` that finds the first object of every second image, and so not the same on all folds."""
    content = json.loads(annotations.read_text())
    categories = sorted(category["id"] for category in content["categories"])
    firsts = {one["image_id"]: one for one in reversed(content["annotations"])}
    detect = toy.ToyDetector.detect

    def find(self, sample):
        found, first = detect(self, sample), firsts.get(sample["image_id"])
        if first is not None and sample["image_id"] % 2:
            x, y, width, height = first["bbox"]
            found.pred_boxes.tensor[0] = torch.tensor([x, y, x + width, y + height])
            found.pred_classes[0] = categories.index(first["category_id"])
        return found

    return find


def test_all_folds_are_trained_and_told_in_one_report(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToyDetector, "detect", find_some(files[0]))
    done = run()
    out = tmp_path / "out"
    assert [result.fold.test_images for result in done.results] == [3, 2, 2]
    for number in (1, 2, 3):
        log = (out / f"fold-{number}" / "log.txt").read_text()
        assert log.count("Starting training from iteration 0") == 1  # of no other fold
    found = [json.loads((out / f"fold-{number}" / "results.json").read_text())["bbox"] for number in (1, 2, 3)]
    numbers = json.loads((out / "cross_validation.json").read_text())
    assert numbers["mean"]["bbox"]["AP50"]["values"] == [one["AP50"] for one in found]
    assert len({one["AP50"] for one in found}) > 1
    assert done.means["bbox"]["AP50"].interval.value == pytest.approx(sum(one["AP50"] for one in found) / 3)
    assert numbers["folds"][1]["weights"] == "model_final.pth"
    assert numbers["asked"]["folds"] == 3
    pooled = json.loads((out / "pooled_results.json").read_text())
    assert sorted(row["image_id"] for row in pooled) == sorted(
        image["id"] for image in json.loads(files[0].read_text())["images"]
    )
    (again,), _ = evaluate_files(files[0], out / "pooled_results.json", iou_types=["bbox"], num_draws=2)
    assert done.pooled[0].metrics == pytest.approx(again.metrics, nan_ok=True)
    page = (out / "report.html").read_text()
    assert "<h1>Cross-validation over 3 folds: instances_train</h1>" in page
    assert "<td>standard deviation</td>" in page
    assert "<td>folds with a value</td>" in page
    assert "(K - 1)/K of the images" in page
    assert "Nadeau and Bengio" in page


def test_what_was_broken_off_goes_on_and_what_is_finished_stays(run, tmp_path, monkeypatch):
    calls = []
    forward = toy.ToyDetector.forward

    def interrupted(self, batch):
        calls.append(self.training)
        if self.training and sum(calls) == 6:  # the second iteration of the second fold
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, batch)

    run(out="undisturbed")
    monkeypatch.setattr(toy.ToyDetector, "forward", interrupted)
    with pytest.raises(TrainingStoppedError, match=r"fold 2 in \S+fold-2 was ended by a signal"):
        run()
    assert not (tmp_path / "out" / "report.html").exists()
    first = (tmp_path / "out" / "fold-1" / "model_final.pth").stat().st_mtime_ns
    calls.clear()
    monkeypatch.setattr(toy.ToyDetector, "forward", forward)
    trained = []
    train = training_module.train_or_evaluate
    monkeypatch.setattr(training_module, "train_or_evaluate", lambda args: trained.append(args.opts[-1]) or train(args))
    run()
    assert [folder[-6:] for folder in trained] == ["fold-2", "fold-3"]
    assert (tmp_path / "out" / "fold-1" / "model_final.pth").stat().st_mtime_ns == first
    assert "Starting training from iteration 2" in (tmp_path / "out" / "fold-2" / "log.txt").read_text()
    for number in (1, 2, 3):
        one, other = (final_state(tmp_path / out / f"fold-{number}")["model"] for out in ("undisturbed", "out"))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_folder_is_held_to_what_it_was_begun_with(run, files, monkeypatch, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnet_det.cross_validation.run.train_fold", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run()
    with pytest.raises(
        InputError, match=r"something else: folds was 3 and is 2, SOLVER.BASE_LR was 0.01 and is 0.5. Give"
    ):
        run("SOLVER.BASE_LR", "0.5", folds=2)
    with pytest.raises(KeyboardInterrupt):
        run("DATALOADER.NUM_WORKERS", "1")  # which changes no number
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    with pytest.raises(KeyboardInterrupt):
        run("MODEL.WEIGHTS", str(weights), out="weights")
    weights.write_bytes(b"2")
    with pytest.raises(InputError, match=r"something else: weights was \w{64} and is \w{64}\. Give"):
        run("MODEL.WEIGHTS", str(weights), out="weights")
    image = next(files[1].iterdir())
    content = image.read_bytes()
    image.write_bytes(content + b" ")
    try:
        with pytest.raises(InputError, match=r"something else: images was \w{64} and is \w{64}\. Give"):
            run()
    finally:
        image.write_bytes(content)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"--output \S+used: is there, and not an empty folder"):
        run(out="used")


def make_results(*metrics):
    fold = Fold(1, Path("train.json"), Path("test.json"), 4, 2, 2)
    return [FoldResult(fold, Path("fold"), {"bbox": one}, "model_final.pth", Path("results.json")) for one in metrics]


def test_means_of_fewer_folds_say_so():
    nan = float("nan")
    results = make_results(
        {"AP": 40.0, "AP50": nan, "CSI50": 50.0}, {"AP": 42.0, "AP50": 60.0, "CSI50": 50.0, "AP-rare": 10.0}
    )
    means = average(results)
    folds = {name: one["folds"] for name, one in summarize(results, means)["mean"]["bbox"].items()}
    assert folds == {"AP": 2, "AP50": 1, "CSI50": 2, "AP-rare": 1}
    lead = make_lead(results, means, grouped=False, rare_classes=["rare"])
    assert lead.columns[-2:] == ["boxes AP", "boxes AP50"]  # the threshold of CSI50 is the best on the test images
    assert lead.rows[-1] == ["folds with a value", None, None, None, 2, 1]
    told = " ".join(lead.sentences)
    assert "the mean is of the other folds" in told
    assert "All objects of rare are in one image or group" in told
    assert re.search(r"folds with a value +2 +1\n", format_folds(results, means, []))
    complete = make_results({"AP": 40.0}, {"AP": 42.0})
    told = " ".join(make_lead(complete, average(complete), grouped=False, rare_classes=[]).sentences)
    assert "other folds" not in told
    assert "All objects of" not in told


@pytest.mark.parametrize(
    ("opts", "options", "message"),
    [
        (["OUTPUT_DIR", "x"], {}, "OUTPUT_DIR: --output says where the folds go"),
        (["RESNET_DET.TEST.MAX_IMAGES", "2"], {}, "RESNET_DET.TEST.MAX_IMAGES: each image is to be tested once"),
        (["RESNET_DET.TRAIN.EARLY_STOPPING", "2"], {}, "EARLY_STOPPING chooses weights by the very images"),
        (["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], {}, "SemanticSegmentor finds no objects"),
        (["MODEL.META_ARCHITECTURE", "ProposalNetwork"], {}, "ProposalNetwork finds no objects"),
        ([], {"seed": -1}, "--seed -1: a number from 0"),
        ([], {"folds": 8}, "--folds 8: there are 7 groups"),
    ],
)
def test_what_makes_no_cross_validation_is_said_before_anything_is_written(run, tmp_path, opts, options, message):
    with pytest.raises(InputError, match=message):
        run(*opts, **options)
    assert not (tmp_path / "out").exists()


def test_the_tool_tells_each_fold_and_the_mean(files, tmp_path, run_tool_here):
    flags = [
        "--config-file",
        DEMO,
        "--data",
        files[0],
        "--images",
        files[1],
        "--folds",
        2,
        "--output",
        tmp_path / "out",
    ]
    run = run_tool_here("cross_validate.py", *flags, "--group-by", r"(\d)\.", *OPTS)
    assert run.returncode == 0, run.stderr
    assert re.search(r"fold +trained on +tested on +groups +boxes AP +boxes AP50", run.stdout)
    assert re.search(r"Mean over folds: Boxes: AP [\d.]+ \([\d.]+ to [\d.]+\)\.", run.stdout)
    assert "bbox, all folds together: AP" in run.stdout
    asked = json.loads((tmp_path / "out" / "cross_validation.json").read_text())["asked"]
    assert (asked["group_by"], asked["folds"], asked["seed"]) == (r"(\d)\.", 2, 0)
    assert "Images of a group resemble each other" in (tmp_path / "out" / "report.html").read_text()
