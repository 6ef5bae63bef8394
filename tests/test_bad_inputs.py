"""Wrong configs and files: each has its one clear error, before time is spent on training."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
import torchvision

from resnet_det.engine import Trainer, build_train_parser, launch, train_or_evaluate
from resnet_det.engine.checkpoint import Checkpointer
from resnet_det.errors import InputError

DEMO = "configs/demo/mask_rcnn_R_18_FPN.yaml"


def change(path, **changes):
    """Change a JSON file; a list is given as a function of what it was."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = value(content[key])
    path.write_text(json.dumps(content))


def without_masks(annotations):
    return [{key: value for key, value in entry.items() if key != "segmentation"} for entry in annotations]


def resnet50_file(folder):
    torch.save(torchvision.models.resnet50().state_dict(), folder / "resnet50.pth")
    return folder / "resnet50.pth"


def cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def a_run_with_damaged_checkpoints(out):
    out.mkdir()
    (out / "model_0000001.pth").write_bytes(b"PK")
    (out / "last_checkpoint").write_text("model_0000001.pth")


def no_room(patch):
    usage = namedtuple("usage", "total used free")
    patch.setattr("resnet_det.engine.checkpoint.shutil.disk_usage", lambda _: usage(100, 99, 2**20))


# What is done before, given train.json, val.json, the output folder and monkeypatch; the arguments; the error.
CASES = {
    "unknown depth": ([], ["MODEL.RESNETS.DEPTH", 51], r"depth is 51; choose one of 10, 14, 18"),
    "typo in a key": ([], ["MODEL.RESNETS.DEPHT", 50], r"no key MODEL.RESNETS.DEPHT; did you mean MODEL.RESNETS.DEPTH"),
    "value of another type": ([], ["SOLVER.BASE_LR", "fast"], r"SOLVER.BASE_LR fast: Type mismatch"),
    "key without a value": ([], ["SOLVER.BASE_LR"], r"KEY VALUE pairs expected"),
    "metric that no evaluation gives": (
        [],
        ["RESNET_DET.TRAIN.BEST_METRIC", "bbox/ap"],
        r"BEST_METRIC bbox/ap is not among the results; did you mean bbox/AP\?",
    ),
    "metric of a class that is not there": (
        [],
        ["RESNET_DET.TRAIN.BEST_METRIC", "segm/AP-trangle"],
        r"is not among the results; did you mean segm/AP-triangle\?",
    ),
    "unknown backbone": ([], ["MODEL.BACKBONE.NAME", "resnet"], r"MODEL.BACKBONE.NAME is 'resnet'; choose one of"),
    "unknown optimizer": ([], ["RESNET_DET.TRAIN.OPTIMIZER", "Adam"], r"OPTIMIZER is 'Adam'; choose one of SGD, AdamW"),
    "unknown schedule": ([], ["SOLVER.LR_SCHEDULER_NAME", "Cosine"], r"LR_SCHEDULER_NAME is 'Cosine'; choose one of"),
    "no accumulation": ([], ["RESNET_DET.TRAIN.ACCUMULATE", 0], r"ACCUMULATE is 0; it must be at least 1"),
    "stopping by nothing": ([], ["RESNET_DET.TRAIN.EARLY_STOPPING", 3], r"EARLY_STOPPING needs RESNET_DET.TRAIN.BEST_"),
    "two scales of the learning rate": (
        [],
        ["SOLVER.REFERENCE_WORLD_SIZE", 2, "RESNET_DET.TRAIN.REFERENCE_BATCH_SIZE", 16],
        r"both scale the learning rate: set one",
    ),
    "batch for no number of processes": ([], ["SOLVER.REFERENCE_WORLD_SIZE", 5], r"is no multiple of REFERENCE_WORLD"),
    "a device that is none": ([], ["MODEL.DEVICE", "gpu"], r"MODEL.DEVICE is 'gpu'; choose cpu, cuda"),
    "a device that cannot": ([], ["MODEL.DEVICE", "mps"], r"MODEL.DEVICE is 'mps'; choose cpu, cuda"),
    "anchors for other levels": (
        [],
        ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32], [64], [128]]"],
        r"ANCHOR_GENERATOR.SIZES has 3 lists, and MODEL.RPN.IN_FEATURES \d feature maps",
    ),
    "ratios for other levels": (
        [],
        ["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "[[1.0], [2.0]]"],
        r"ANCHOR_GENERATOR.ASPECT_RATIOS has 2 lists",
    ),
    "a range of one size": (
        [],
        ["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.MIN_SIZE_TRAIN", "(96,)"],
        r"with INPUT.MIN_SIZE_TRAIN_SAMPLING range two sizes",
    ),
    "pixels of other channels": (
        [],
        ["MODEL.PIXEL_MEAN", "[1.0]", "MODEL.PIXEL_STD", "[1.0]"],
        r"INPUT.FORMAT \w+ has 3 channels, and MODEL.PIXEL_MEAN 1",
    ),
    "mean without deviation": ([], ["MODEL.PIXEL_STD", "[1.0]"], r"PIXEL_MEAN has 3 values, MODEL.PIXEL_STD 1"),
    "best by a loss that is not computed": (
        [],
        ["RESNET_DET.TRAIN.BEST_METRIC", "validation_total_loss"],
        r"needs RESNET_DET.TEST.VAL_LOSS True",
    ),
    "best in no direction": ([], ["RESNET_DET.TRAIN.BEST_DIRECTION", "up"], r"BEST_DIRECTION is 'up'; choose one of"),
    "frozen random weights": ([], ["MODEL.BACKBONE.FREEZE_AT", 2], r"FREEZE_AT 2 freezes random weights: set it to 0"),
    "unknown data set": ([], ["DATASETS.TRAIN", "('coco_2071',)"], r"no data set 'coco_2071'; known are"),
    "missing json": (lambda t, **_: t.unlink(), [], r"train.json: no such annotation file \(folder exists\)"),
    "json cut off": (lambda t, **_: cut_off(t), [], r"train.json: not a JSON file, or cut off"),
    "json of something else": (lambda t, **_: t.write_text("[1]"), [], r"not in COCO format: no list under images"),
    "empty set": (lambda t, **_: change(t, images=lambda _: [], annotations=lambda _: []), [], r"it has no images"),
    "nothing annotated": (
        lambda t, **_: change(t, annotations=lambda _: []),
        [],
        r"no annotated objects to train on",
    ),
    "no masks": (
        lambda t, **_: change(t, annotations=without_masks),
        [],
        r"annotations has a mask .*: set MODEL.MASK_ON",
    ),
    "missing images": (
        lambda t, **_: change(t, images=lambda old: [{**old[0], "file_name": "gone.png"}, *old[1:]]),
        [],
        r"1 of 8 images are not in .* \(such as gone.png\)",
    ),
    "other classes to test on": (
        lambda v, **_: change(v, categories=lambda old: [{**old[0], "name": "other"}, *old[1:]]),
        [],
        r"train and .*val do not have the same classes",
    ),
    "wrong NUM_CLASSES": ([], ["MODEL.ROI_HEADS.NUM_CLASSES", 7], r"NUM_CLASSES is 7, but .* have 6 classes"),
    "output folder in a file": (lambda o, **_: o.write_text(""), [], r"OUTPUT_DIR .*: (Not a directory|File exists)"),
    "read-only output folder": (
        lambda patch, **_: patch.setattr("resnet_det.engine.startup.os.access", lambda *_: False),
        [],
        r"OUTPUT_DIR .*: no permission to write there",
    ),
    "full disk": (
        lambda patch, **_: no_room(patch),
        [],
        r"OUTPUT_DIR .*: 1 MiB are free there, and a checkpoint",
    ),
    "missing weights": ([], ["MODEL.WEIGHTS", "no/model.pth"], r"no/model.pth: no such file"),
    "weights cut off": (
        lambda o, **_: cut_off(resnet50_file(o.parent)),
        ["MODEL.WEIGHTS", "{folder}/resnet50.pth"],
        r"resnet50.pth: .*(damaged|cut off|cannot be read)",
    ),
    "weights of another depth": (
        lambda o, **_: resnet50_file(o.parent),
        ["MODEL.WEIGHTS", "{folder}/resnet50.pth", "MODEL.RESNET_DET.CHECK_WEIGHTS", False],
        r"this file is a ResNet-50, the config says 18",
    ),
    "checkpoints cut off": (
        lambda o, **_: a_run_with_damaged_checkpoints(o),
        ["--resume"],
        r"none of 1 checkpoints can",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_wrong_input_has_its_error(case, small_data, tmp_path, monkeypatch, request):
    prepare, args, message = CASES[case]
    files = {split: tmp_path / f"{tmp_path.name}_{split}.json" for split in small_data}
    for split, (annotation_file, _) in small_data.items():
        shutil.copy(annotation_file, files[split])
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(Trainer, "run_step", lambda _: pytest.fail("time was spent"))
    out = tmp_path / "out"
    if prepare:
        arguments = {"t": files["train"], "v": files["val"], "o": out, "patch": monkeypatch}
        prepare(**arguments)
    command = ["--config-file", DEMO, "--test-data", files["val"], small_data["val"][1]]
    if "DATASETS.TRAIN" not in args:
        command += ["--train-data", files["train"], small_data["train"][1]]
    flags = args if args and args[0].startswith("--") else []
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", out, *(args if not flags else [])]
    words = [str(word).format(folder=tmp_path) for word in [*command, *flags, *opts]]
    with pytest.raises(InputError, match=message):
        launch(train_or_evaluate, build_train_parser().parse_args(words))
    if out.is_dir() and case != "checkpoints cut off":
        assert not list(Path(out).glob("*.pth"))


def test_there_is_room_for_a_checkpoint_or_an_error(tmp_path):
    checkpointer = Checkpointer(torch.nn.Linear(2, 2), str(tmp_path))
    checkpointer.check_space(1)
    with pytest.raises(InputError, match="a checkpoint of this run takes 1000000000000"):
        checkpointer.check_space(1e12)
