"""Our keys, and what they say about the ResNet."""

from __future__ import annotations

import ast
import re

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from resnet_det import ResNet, add_resnet_det_config
from resnet_det.config import check_cfg, merge_cfg, read_resnet_spec
from resnet_det.errors import InputError


def fpn_cfg(cfg):
    cfg.MODEL.BACKBONE.NAME = "build_resnet_det_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    return cfg


def test_adding_the_keys_twice_keeps_what_was_set():
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    cfg.RESNET_DET.TRAIN.AMP_DTYPE = "bfloat16"
    add_resnet_det_config(cfg)
    assert cfg.RESNET_DET.TRAIN.AMP_DTYPE == "bfloat16"


def test_a_config_without_our_keys_builds():
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_det_backbone"
    assert isinstance(build_backbone(cfg), ResNet)


@pytest.mark.parametrize(
    ("depth", "channels"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048), (14, 2048), (200, 2048)]
)
def test_depth_is_all_it_takes(default_cfg, depth, channels):
    default_cfg.MODEL.BACKBONE.NAME = "build_resnet_det_backbone"
    default_cfg.MODEL.RESNETS.DEPTH = depth
    default_cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    spec = read_resnet_spec(default_cfg)
    assert spec.blocks_of("res5")[-1].out_channels == channels
    assert build_backbone(default_cfg).output_shape()["res5"] == ShapeSpec(channels=channels, stride=32)


@pytest.mark.parametrize(
    ("depth", "channels", "message"),
    [(18, 128, "depths 10, 18, 34. have 64; leave the key"), (50, 64, "has bottlenecks and 256; leave the key out")],
)
def test_contradictory_channels_are_an_error(default_cfg, depth, channels, message):
    default_cfg.MODEL.RESNETS.DEPTH, default_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = depth, channels
    with pytest.raises(InputError, match=message):
        read_resnet_spec(default_cfg)


def test_input_channels_follow_the_pixel_mean(default_cfg):
    default_cfg.MODEL.PIXEL_MEAN = [1.0]
    assert read_resnet_spec(default_cfg).in_channels == 1


def test_a_sound_config_has_no_problems(default_cfg):
    assert check_cfg(fpn_cfg(default_cfg)) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.RESNETS.DEPTH", 35, "MODEL.RESNETS: depth is 35; choose one of"),
        ("MODEL.RESNETS.NORM", "BatchNorm", "MODEL.RESNETS: norm is 'BatchNorm'; choose one of"),
        ("MODEL.RESNETS.OUT_FEATURES", ["res2", "res9"], "out_features has 'res9'"),
        ("MODEL.RESNETS.RES5_DILATION", 3, "RES5_DILATION is 3; choose 1, 2 or 4"),
        ("MODEL.BACKBONE.FREEZE_AT", 7, "freeze_at is 7"),
        ("MODEL.BACKBONE.NAME", "build_resnet_dett", "MODEL.BACKBONE.NAME is 'build_resnet_dett'; choose one of"),
        ("MODEL.META_ARCHITECTURE", "FasterRCNN", "MODEL.META_ARCHITECTURE is 'FasterRCNN'; choose one of"),
        ("MODEL.FPN.IN_FEATURES", ["res1"], "MODEL.FPN.IN_FEATURES has 'res1'"),
        ("MODEL.RPN.IN_FEATURES", ["p2", "p7"], "MODEL.RPN.IN_FEATURES has 'p7', which is not among the outputs"),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"], "MODEL.ROI_HEADS.IN_FEATURES has 'res4'"),
        ("RESNET_DET.TRAIN.AMP_DTYPE", "half", "RESNET_DET.TRAIN.AMP_DTYPE is 'half'; choose one of float16"),
        ("RESNET_DET.DATA.LSJ.MIN_SCALE", 0.0, "LSJ.MIN_SCALE is 0.0; it must be above 0, up to 2.0"),
        ("RESNET_DET.DATA.LSJ.MIN_SCALE", 3.0, "LSJ.MIN_SCALE is 3.0; it must be above 0, up to 2.0"),
        ("RESNET_DET.DATA.LSJ.SIZE", 64, "LSJ.SIZE is 64; it must be so large that SIZE * MIN_SCALE is at least 8 pix"),
        ("RESNET_DET.DATA.COPY_PASTE.PROB", 1.5, "COPY_PASTE.PROB is 1.5; it must be from 0 to 1"),
        ("RESNET_DET.DATA.COPY_PASTE.MAX_OBJECTS", -1, "COPY_PASTE.MAX_OBJECTS is -1; it must be 0 (any number) or"),
        ("RESNET_DET.DATA.PHOTOMETRIC.HUE", 0.6, "PHOTOMETRIC.HUE is 0.6; it must be from 0 to 0.5"),
        ("RESNET_DET.DATA.PHOTOMETRIC.CONTRAST", -0.1, "PHOTOMETRIC.CONTRAST is -0.1; it must be from 0 to 1"),
        ("RESNET_DET.TRAIN.OPTIMIZER", "Adagrad", "RESNET_DET.TRAIN.OPTIMIZER is 'Adagrad'; choose one of SGD, AdamW"),
    ],
)
def test_wrong_values_are_named_with_their_key(default_cfg, key, value, message):
    cfg = fpn_cfg(default_cfg)
    cfg.merge_from_list([key, value])
    assert any(message in problem for problem in check_cfg(cfg)), check_cfg(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["RESNET_DET.DATA.COPY_PASTE.PROB", 0.5, "MODEL.MASK_ON", True], "INPUT.MASK_FORMAT is 'polygon'; RESNET_DET"),
        (
            ["RESNET_DET.DATA.COPY_PASTE.PROB", 0.5, "MODEL.KEYPOINT_ON", True],
            "COPY_PASTE pastes boxes and masks alone",
        ),
        (["RESNET_DET.DATA.LSJ.ENABLED", True, "MODEL.META_ARCHITECTURE", "PanopticFPN"], "LSJ pads with label 0"),
        (["RESNET_DET.DATA.PHOTOMETRIC.PROB", 0.5, "INPUT.FORMAT", "YUV-BT.601"], "PHOTOMETRIC needs BGR or RGB"),
    ],
)
def test_augmentation_that_does_not_fit_the_model_is_named(default_cfg, opts, message):
    cfg = fpn_cfg(default_cfg)
    cfg.merge_from_list(opts[2:])
    assert not any("RESNET_DET.DATA" in problem for problem in check_cfg(cfg))
    cfg.merge_from_list(opts[:2])
    assert any(message in problem for problem in check_cfg(cfg)), check_cfg(cfg)


def test_all_problems_are_found_at_once(default_cfg):
    cfg = fpn_cfg(default_cfg)
    cfg.MODEL.RESNETS.DEPTH, cfg.RESNET_DET.TRAIN.OPTIMIZER = 35, "Adagrad"
    assert len(check_cfg(cfg)) == 2


def all_keys(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from all_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_key_is_documented_with_its_default(default_cfg, request):
    text = (request.config.rootpath / "docs" / "config.md").read_text()
    sections = {"MODEL.RESNET_DET": default_cfg.MODEL.RESNET_DET}
    sections |= {f"RESNET_DET.{name}": node for name, node in default_cfg.RESNET_DET.items()}
    for section, node in sections.items():
        table = text.split(f"## {section}:")[1].split("\n## ")[0]
        documented = dict(re.findall(r"^\| `([A-Z_.0-9]+)` \| `([^|]*)` \|", table, re.MULTILINE))
        assert {key: ast.literal_eval(value) for key, value in documented.items()} == dict(all_keys(node)), section


def test_whole_numbers_stand_for_fractions(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("RESNET_DET: {CLASSIFICATION: {FLIP: 0}, TRAIN: {EMA_DECAY: 0}}\nSOLVER: {BASE_LR: 1}")
    cfg = merge_cfg(str(path), ["RESNET_DET.CLASSIFICATION.MIXUP", "1", "RESNET_DET.DATA.COPY_PASTE.PROB", 1])
    data = cfg.RESNET_DET
    found = [data.CLASSIFICATION.FLIP, data.TRAIN.EMA_DECAY, cfg.SOLVER.BASE_LR, data.CLASSIFICATION.MIXUP]
    found.append(data.DATA.COPY_PASTE.PROB)
    assert found == [0, 0, 1, 1, 1]
    assert {type(value) for value in found} == {float}
    with pytest.raises(InputError, match="Type mismatch"):
        merge_cfg("", ["RESNET_DET.CLASSIFICATION.FLIP", "True"])
    with pytest.raises(InputError, match="Type mismatch"):
        merge_cfg("", ["RESNET_DET.CLASSIFICATION.SIZE_TRAIN", "0.5"])


@pytest.mark.parametrize(("said", "channels"), [(256, 64), (16, 16)])
def test_channels_that_count_as_not_set_are_told_where_the_net_is_built(default_cfg, said, channels, caplog):
    default_cfg.MODEL.BACKBONE.NAME = "build_resnet_det_backbone"
    default_cfg.MODEL.RESNET_DET.BLOCK, default_cfg.MODEL.RESNET_DET.STAGE_BLOCKS = "basic", [1]
    default_cfg.MODEL.RESNETS.OUT_FEATURES, default_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = ["res2"], said
    caplog.set_level("INFO")
    assert build_backbone(default_cfg).output_shape()["res2"].channels == channels
    told = "RES2_OUT_CHANNELS 256 is Detectron2's default and counts as not set: basic blocks get 64"
    assert (told in caplog.text) == (said == 256)
