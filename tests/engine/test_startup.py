"""From arguments to a config: what is set by itself, and the error for each wrong input."""

from __future__ import annotations

import json
import logging

import pytest
import yaml

from resnet_det.engine import build_train_parser, setup_cfg
from resnet_det.engine.startup import fall_back_to_cpu
from resnet_det.errors import InputError

FASTER = "configs/COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


FROM_SCRATCH = ["MODEL.WEIGHTS", "", "MODEL.RESNET_DET.ALLOW_FROZEN_RANDOM", "True"]


def parse(*args, out="out"):
    return build_train_parser().parse_args([*map(str, args), *FROM_SCRATCH, "OUTPUT_DIR", str(out)])


@pytest.fixture
def own_data(small_data):
    return ["--train-data", *small_data["train"], "--test-data", *small_data["val"]]


@pytest.fixture(autouse=True)
def _in_root(monkeypatch, request, tmp_path):
    monkeypatch.chdir(request.config.rootpath)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_own_data_by_two_flags(own_data, tmp_path):
    cfg = setup_cfg(parse("--config-file", FASTER, *own_data, out=tmp_path / "out"))
    assert cfg.DATASETS.TRAIN == ("small_train",)
    assert cfg.DATASETS.TEST == ("small_val",)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 6
    assert cfg.is_frozen()
    assert (tmp_path / "out").is_dir()


def test_own_data_by_keys(small_data, tmp_path):
    sets = [["by_keys_train", *small_data["train"]], ["by_keys_val", *small_data["val"]]]
    names = ["DATASETS.TRAIN", "('by_keys_train',)", "DATASETS.TEST", "('by_keys_val',)"]
    args = parse("--config-file", FASTER, "RESNET_DET.DATA.COCO", sets, *names, out=tmp_path)
    assert setup_cfg(args).MODEL.ROI_HEADS.NUM_CLASSES == 6


def test_the_dumped_config_gives_the_same_config(own_data, tmp_path):
    cfg = setup_cfg(parse("--config-file", FASTER, *own_data, out=tmp_path))
    dumped = tmp_path / "config.yaml"
    dumped.write_text(cfg.dump())
    again = setup_cfg(parse("--config-file", dumped, out=tmp_path))
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def test_names_of_the_data_are_kept_in_the_config(own_data, tmp_path, small_data):
    cfg = setup_cfg(parse("--config-file", FASTER, *own_data, out=tmp_path))
    with open(small_data["train"][0]) as file:
        categories = sorted(json.load(file)["categories"], key=lambda category: category["id"])
    assert [category["name"] for category in categories] == cfg.RESNET_DET.CLASSES.NAMES
    assert [category["id"] for category in categories] == cfg.RESNET_DET.CLASSES.IDS
    assert cfg.RESNET_DET.CLASSES.KEYPOINTS == []
    stale = ["RESNET_DET.CLASSES.NAMES", "['of', 'other', 'data']"]
    again = setup_cfg(parse("--config-file", FASTER, *own_data, *stale, out=tmp_path))
    assert again.RESNET_DET.CLASSES == cfg.RESNET_DET.CLASSES


def test_keypoints_and_limbs_are_kept_in_the_config(coco_files, tmp_path):
    path, images = coco_files
    content = json.loads(path.read_text())
    content["categories"][1] |= {"keypoints": ["nose", "left_ear", "right_ear"], "skeleton": [[1, 2], [1, 3]]}
    content["annotations"][1] |= {"keypoints": [10, 10, 2, 12, 12, 2, 20, 20, 1], "num_keypoints": 3}
    path.write_text(json.dumps(content))
    keypoint_config = "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"
    data = ["--train-data", path, images, "--test-data", path, images]
    kept = setup_cfg(parse("--config-file", keypoint_config, *data, out=tmp_path)).RESNET_DET.CLASSES
    assert (kept.NAMES, kept.KEYPOINTS) == (["cat", "dog"], ["nose", "left_ear", "right_ear"])
    assert [limb[:2] for limb in kept.LIMBS] == [["nose", "left_ear"], ["nose", "right_ear"]]


def test_retinanet_counts_classes_in_its_own_key(own_data, tmp_path):
    args = parse("--config-file", "configs/COCO-Detection/retinanet_R_50_FPN_1x.yaml", *own_data, out=tmp_path)
    cfg = setup_cfg(args)
    assert (cfg.MODEL.RETINANET.NUM_CLASSES, cfg.MODEL.ROI_HEADS.NUM_CLASSES) == (6, 80)


def test_without_cuda_the_cpu_is_used_and_said_so(own_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        cfg = setup_cfg(parse("--config-file", FASTER, *own_data, "MODEL.DEVICE", "cuda:0", out=tmp_path))
    assert cfg.MODEL.DEVICE == "cpu"
    assert "MODEL.DEVICE is 'cuda:0', but torch finds no CUDA device: using the CPU" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config-file", "configs/nowhere.yaml"], r"--config-file configs/nowhere.yaml: no such file"),
        (["--config-file", "README.md"], r"README.md: "),
        (
            ["--config-file", FASTER, "MODEL.RESNETS.DEPTHS", "18"],
            r"no key MODEL.RESNETS.DEPTHS; did you mean MODEL.RESNETS.DEPTH\?",
        ),
        (["--config-file", FASTER, "MODEL.RESNETS.DEPTH", "18.5"], r"MODEL.RESNETS.DEPTH 18.5: Type mismatch"),
        (["--config-file", FASTER, "MODEL.RESNETS.DEPTH"], r"KEY VALUE pairs expected"),
        (["--config-file", FASTER, "MODEL.RESNETS.DEPTH", "35"], r"depth is 35; choose one of"),
        (["--config-file", FASTER, "MODEL.RESNETS.NORM", "Batch"], r"norm is 'Batch'; choose one of"),
        (["--config-file", FASTER, "DATASETS.TRAIN", "('coco_2071',)"], r"no data set 'coco_2071'; known are"),
        (
            ["--config-file", FASTER, "RESNET_DET.DATA.COCO", "[['a', 'b']]"],
            r"each entry is \[name, annotation file, image",
        ),
        (["--train-data", "no.json", "."], r"no.json: no such annotation file"),
    ],
)
def test_each_wrong_input_has_its_error(args, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        setup_cfg(parse(*args, out=tmp_path))
    assert "Traceback" not in str(error.value)


def test_missing_images_stop_before_training(coco_files, tmp_path):
    path, images = coco_files
    (images / "a.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images are not in .* \(such as a.png\)"):
        setup_cfg(
            parse("--config-file", FASTER, "--train-data", path, images, "--test-data", path, images, out=tmp_path)
        )


def test_a_contradictory_number_of_classes_is_an_error(own_data, tmp_path):
    with pytest.raises(InputError, match=r"NUM_CLASSES is 7, but the data .small_train, small_val. have 6 classes"):
        setup_cfg(parse("--config-file", FASTER, *own_data, "MODEL.ROI_HEADS.NUM_CLASSES", "7", out=tmp_path))


def test_an_output_folder_that_cannot_be_made_is_an_error(own_data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"OUTPUT_DIR .*file/out: Not a directory"):
        setup_cfg(parse("--config-file", FASTER, *own_data, out=tmp_path / "file" / "out"))


def test_all_problems_of_a_config_are_listed(tmp_path):
    with pytest.raises(InputError, match=r"(?s)- .*OPTIMIZER is 'X'.*- MODEL.RESNETS: depth is 35"):
        setup_cfg(
            parse("--config-file", FASTER, "MODEL.RESNETS.DEPTH", "35", "RESNET_DET.TRAIN.OPTIMIZER", "X", out=tmp_path)
        )


def test_a_fast_dev_run_is_short_and_stays_away_from_the_real_one(own_data, tmp_path):
    args = parse("--fast-dev-run", "--config-file", FASTER, *own_data, out=tmp_path)
    cfg = setup_cfg(args)
    assert str(tmp_path / "fast_dev_run") == cfg.OUTPUT_DIR
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD) == (2, 1, 1)
    assert cfg.RESNET_DET.TEST.VAL_LOSS


def test_own_data_alone_are_trained_on_without_the_configs_test_set(small_data, tmp_path, caplog):
    alone = ["--train-data", *small_data["train"]]
    cfg = setup_cfg(parse("--config-file", FASTER, *alone, out=tmp_path / "a"))
    assert cfg.DATASETS.TEST == ()
    assert "Nothing is evaluated on coco_2017_val, which is not of your data: --test-data" in caplog.text
    own = ["RESNET_DET.DATA.COCO", [["mine_val", *small_data["val"]]], "DATASETS.TEST", "('mine_val',)"]
    assert setup_cfg(parse("--config-file", FASTER, *alone, *own, out=tmp_path / "b")).DATASETS.TEST == ("mine_val",)
    dumped = tmp_path / "config.yaml"
    dumped.write_text(
        yaml.safe_dump(
            {"RESNET_DET": {"DATA": {"COCO": [["kept_val", *small_data["val"]]]}}, "DATASETS": {"TEST": ["kept_val"]}}
        )
    )
    assert setup_cfg(parse("--config-file", dumped, *alone, out=tmp_path / "c")).DATASETS.TEST == ("kept_val",)


@pytest.mark.parametrize(("visible", "refused"), [(None, True), ("0", True), ("", False), ("-1", False)])
def test_a_gpu_that_torch_cannot_use_is_no_reason_to_train_on_the_cpu_for_days(
    visible, refused, default_cfg, monkeypatch
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("resnet_det.engine.startup.Path.glob", lambda *_: ["/dev/nvidia0"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    default_cfg.MODEL.DEVICE = "cuda"
    if refused:
        with pytest.raises(
            InputError, match=r"has 1 NVIDIA GPUs, but torch .* cannot use them: .* Set MODEL.DEVICE to cpu"
        ):
            fall_back_to_cpu(default_cfg)
        return
    fall_back_to_cpu(default_cfg)
    assert default_cfg.MODEL.DEVICE == "cpu"


def test_the_examples_of_the_help_name_the_program(monkeypatch):
    monkeypatch.setattr("sys.argv", ["tools/train_net.py"])
    assert "tools/train_net.py --config-file" in " ".join(build_train_parser().epilog.split())
