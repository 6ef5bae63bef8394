"""TEST.AUG, and augmentation by the names of functions."""

from __future__ import annotations

import json

import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from models import NARROW, QUICK

from resnet_det.data.mapping.augmentation import build_augmentations
from resnet_det.engine import build_train_parser, train_or_evaluate
from resnet_det.engine.run_folder import clear_run, start_run
from resnet_det.errors import InputError


@pytest.mark.parametrize("prepare", ["", "bfloat16"])
def test_results_with_augmentation_stand_beside_those_without(make_args, default_cfg, tmp_path, prepare):
    opts = ["TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(64, 96)", "RESNET_DET.TEST.PREPARE", prepare]
    opts += ["RESNET_DET.TEST.MAX_IMAGES", 2, "MODEL.WEIGHTS", tmp_path / "weights.pth"]
    default_cfg.merge_from_file("configs/demo/mask_rcnn_R_18_FPN.yaml")
    default_cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NUM_CLASSES", 6, *QUICK, *NARROW])
    torch.save({"model": build_model(default_cfg).state_dict()}, tmp_path / "weights.pth")
    found = train_or_evaluate(build_train_parser().parse_args(["--eval-only", *make_args(*opts)]))
    assert set(found) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())) == {*found, "facts"}
    assert {path.name for path in (tmp_path / "out").glob("inference*")} == {"inference", "inference_TTA"}
    start_run(tmp_path / "out")
    clear_run(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()), "what a run writes, --overwrite deletes"


@pytest.mark.parametrize("opts", [["MODEL.META_ARCHITECTURE", "RetinaNet"], ["MODEL.KEYPOINT_ON", True]])
def test_what_cannot_be_augmented_is_told(make_args, opts):
    with pytest.raises(InputError, match=r"TEST.AUG.ENABLED works only for GeneralizedRCNN without MODEL.KEYPOINT_ON"):
        train_or_evaluate(build_train_parser().parse_args(make_args("TEST.AUG.ENABLED", True, *opts)))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_augmentations.py").write_text(
        "from detectron2.data import transforms as T\n"
        "def make(cfg):\n    return [T.RandomRotation([cfg.SEED, cfg.SEED])]\n"
        "def wrong(cfg):\n    return T.RandomFlip()\n"
        "def bug(cfg):\n    raise KeyError('own')\n"
    )
    (tmp_path / "lacking.py").write_text("import no_such_package_of_anybody\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own_module")
def test_own_augmentation_comes_after_detectron2s_and_in_training_alone(default_cfg):
    default_cfg.SEED, default_cfg.RESNET_DET.DATA.AUGMENTATIONS = 30, ["own_augmentations:make"]
    *others, own = build_augmentations(default_cfg, True)
    assert len(others) == 2
    assert isinstance(own, T.RandomRotation)
    assert own.angle == [30, 30]
    assert not any(isinstance(one, T.RandomRotation) for one in build_augmentations(default_cfg, False))


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_such:make", InputError, r"AUGMENTATIONS no_such:make: no module no_such; PYTHONPATH"),
        ("own_augmentations:gone", InputError, r"a function of own_augmentations would be right"),
        ("own_augmentations", InputError, r"a function of own_augmentations would be right"),
        ("own_augmentations:wrong", InputError, r"it gives .*RandomFlip.* a list of"),
        ("own_augmentations:bug", KeyError, "own"),
        ("lacking:make", ModuleNotFoundError, "no_such_package_of_anybody"),
    ],
)
def test_what_is_wrong_with_own_augmentation_is_told_and_bugs_stay_bugs(default_cfg, name, error, message):
    default_cfg.RESNET_DET.DATA.AUGMENTATIONS = [name]
    with pytest.raises(error, match=message):
        build_augmentations(default_cfg, True)
