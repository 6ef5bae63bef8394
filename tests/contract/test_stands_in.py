"""Ours where code written for Detectron2's ResNet expects it: names, classes, builders, LazyConfig, random numbers."""

from __future__ import annotations

import inspect
import sys
import types

import detectron2.modeling
import pytest
import torch
from contract.pairs import assert_equal, images, make_net, make_nets, run
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from detectron2.modeling.backbone import FPN, fpn, resnet
from models import ZOO, build_pair, randomise_norms_, with_our_backbone, zoo_cfg

import resnet_det
from resnet_det import make_resnet, replace_detectron2_resnet
from resnet_det.errors import InputError
from resnet_det.modeling import BasicStem, make_fpn
from resnet_det.modeling.pyramid import FeaturePyramid

FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"


def test_it_is_detectron2s_resnet_without_its_code():
    net = make_resnet(18)
    assert isinstance(net, detectron2.modeling.ResNet)
    inherited = {
        name
        for name, value in vars(resnet.ResNet).items()
        if isinstance(value, types.FunctionType | staticmethod | property)
        and not name.startswith("__prepare")  # torch's
        and inspect.getattr_static(resnet_det.ResNet, name) is value
    }
    assert inherited == set()


def test_it_has_detectron2s_attributes():
    theirs, ours = make_nets(num_classes=7, out_features=["res5", "linear"])
    for name in ("stage_names", "num_classes", "size_divisibility", "_out_features"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours._out_feature_channels == theirs._out_feature_channels
    assert ours._out_feature_strides == theirs._out_feature_strides
    assert [type(stage) for stage in ours.stages] == [type(stage) for stage in theirs.stages]
    assert ours.padding_constraints == {}
    for net in (theirs, ours):
        net._out_features = ["stem", "res4"]
        net._out_feature_channels["res4"] = 3
    assert ours.output_shape() == theirs.output_shape()
    assert_equal(run(ours, images(), training=False), run(theirs, images(), training=False))


def test_without_out_features_the_last_is_put_out():
    for kwargs in ({}, {"num_classes": 5}):
        outputs = [run(net, images(), training=False) for net in make_nets(out_features=None, **kwargs)]
        assert_equal(outputs[1], outputs[0])


@pytest.mark.parametrize("freeze_at", [-1, 0, 2, 5])
def test_freezing(freeze_at):
    frozen = [
        [name for name, p in net.freeze(freeze_at).named_parameters() if not p.requires_grad]
        for net in make_nets(norm="BN")
    ]
    assert frozen[1] == frozen[0]
    assert bool(frozen[1]) == (freeze_at > 0)
    cfg = with_our_backbone(zoo_cfg(FASTER, MODEL__BACKBONE__FREEZE_AT=freeze_at))
    trains = build_backbone(cfg).bottom_up.stem.conv1.weight.requires_grad
    assert trains == (freeze_at < 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out_features": ["res6"]}, "out_features has 'res6'; choose from stem, res2, res3"),
        ({"out_features": []}, "out_features is empty"),
        ({"out_features": ["linear"]}, "out_features has 'linear'"),
    ],
)
def test_impossible_outputs(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_net(resnet_det.modeling, **arguments)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dilation_per_block": [1]}, "dilation_per_block has 1 values; give one for each of the 2 blocks"),
        ({"stride_per_block": [1, 1], "stride": 1}, "got both stride_per_block and stride"),
    ],
)
def test_impossible_stages(kwargs, message):
    with pytest.raises(ValueError, match=message):
        resnet_det.ResNet.make_stage(resnet.BasicBlock, 2, in_channels=8, out_channels=8, **kwargs)


def test_a_stage_is_made_of_blocks():
    with pytest.raises(ValueError, match=r"res2 is made of .*Conv2d.*each a CNNBlockBase"):
        resnet_det.ResNet(BasicStem(), [[torch.nn.Conv2d(64, 64, 1)]])


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        (FASTER, {}),
        ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", {}),
        ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {}),
        ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", {}),
        (FASTER, {"MODEL__RESNETS__DEPTH": 18, "MODEL__RESNETS__RES2_OUT_CHANNELS": 64}),
    ],
)
def test_building_draws_the_same_random_numbers(path, overrides):
    cfg = zoo_cfg(path, **overrides)
    drawn, states = [], []
    for config in (cfg, with_our_backbone(cfg)):
        torch.manual_seed(3)
        states.append(build_backbone(config).state_dict())
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], tensor) for name, tensor in states[0].items())


def all_builders():
    return [
        detectron2.modeling.build_resnet_backbone,
        detectron2.modeling.backbone.build_resnet_backbone,
        resnet.build_resnet_backbone,
        fpn.build_resnet_backbone,
        fpn.build_resnet_fpn_backbone,
        fpn.build_retinanet_resnet_fpn_backbone,
        BACKBONE_REGISTRY.get("build_resnet_backbone"),
        BACKBONE_REGISTRY.get("build_resnet_fpn_backbone"),
        BACKBONE_REGISTRY.get("build_retinanet_resnet_fpn_backbone"),
    ]


def test_replacing_detectron2s_builders_and_taking_it_back():
    cfg = zoo_cfg(FASTER)
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    before = all_builders()
    importer = types.ModuleType("a_project_that_imported_it_before")
    importer.build = resnet.build_resnet_backbone
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, importer.__name__, importer)
        with replace_detectron2_resnet():
            for build in [*all_builders(), importer.build]:
                built = build(cfg, ShapeSpec(channels=3))
                assert type(getattr(built, "bottom_up", built)) is resnet_det.ResNet
            assert type(build_backbone(cfg)) is FeaturePyramid
            with replace_detectron2_resnet():
                pass
            importer.later = resnet.build_resnet_backbone
            assert importer.later.__name__ == "build_resnet_backbone"
            assert type(build_backbone(cfg)) is FeaturePyramid
        assert importer.build is importer.later is before[0]
    assert all_builders() == before
    undo = replace_detectron2_resnet()
    assert all_builders() != before
    undo.close()
    assert all_builders() == before


def add_deeplab_keys(cfg, **values):
    cfg.MODEL.RESNETS.STEM_TYPE, cfg.MODEL.RESNETS.RES4_DILATION = "deeplab", 1
    cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 2, 4]
    for key, value in values.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def deeplabs_resnet(cfg):
    """What Detectron2's DeepLab builds: its stem, dilations and multi-grid."""
    resnets = cfg.MODEL.RESNETS
    stages, channels = [], resnets.STEM_OUT_CHANNELS
    for index, dilation in enumerate((1, 1, resnets.RES4_DILATION, resnets.RES5_DILATION)):
        width, num_blocks = 64 * 2**index, (3, 4, 6, 3)[index]
        grid = resnets.RES5_MULTI_GRID if index == 3 else [1] * num_blocks
        stride = 1 if index == 0 or dilation > 1 else 2
        stages.append(
            resnet.ResNet.make_stage(
                resnet.BottleneckBlock,
                num_blocks,
                in_channels=channels,
                out_channels=4 * width,
                bottleneck_channels=width,
                stride_in_1x1=resnets.STRIDE_IN_1X1,
                norm=resnets.NORM,
                stride_per_block=[stride] + [1] * (num_blocks - 1),
                dilation_per_block=[dilation * factor for factor in grid],
            )
        )
        channels = 4 * width
    if resnets.STEM_TYPE == "deeplab":
        from detectron2.projects.deeplab.resnet import DeepLabStem

        stem = DeepLabStem(3, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    else:
        stem = resnet.BasicStem(3, resnets.STEM_OUT_CHANNELS, resnets.NORM)
    return resnet.ResNet(stem, stages, out_features=resnets.OUT_FEATURES)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"RES4_DILATION": 2, "RES5_DILATION": 4, "RES5_MULTI_GRID": [1, 2, 1]},
        {"STEM_TYPE": "basic", "RES5_DILATION": 2},
    ],
)
def test_keys_of_deeplabs_builder_are_honoured(keys):
    cfg = add_deeplab_keys(zoo_cfg(FASTER), **keys)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.OUT_FEATURES = "build_resnet_det_backbone", ["res2", "res5"]
    ours, theirs = build_backbone(cfg), deeplabs_resnet(cfg)
    randomise_norms_(theirs)
    ours.load_state_dict(theirs.state_dict())
    assert_equal(run(ours, images(), training=False), run(theirs, images(), training=False))


def test_detectron2s_builder_passes_over_them_and_so_does_what_replaces_it():
    cfg = add_deeplab_keys(zoo_cfg(FASTER, MODEL__RESNETS__NORM="BN"))
    torch.manual_seed(0)
    theirs = build_backbone(cfg)
    with replace_detectron2_resnet():
        torch.manual_seed(0)
        ours = build_backbone(cfg)
    assert_equal(run(ours, images(), training=False), run(theirs, images(), training=False))


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("RESNETS", "STEM_TYPE", "deep", "STEM_TYPE is 'deep'; choose one of basic, deeplab"),
        ("RESNETS", "RES4_DILATION", 2, "RES5_DILATION is 1 and RES4_DILATION 2; choose 1, 2 or 4, and 4 where"),
        ("RESNETS", "RES5_MULTI_GRID", [1, 2], "multi_grid is .*1, 2.*each of the 3 blocks"),
        ("RESNETS", "DEFORM_INTERVAL", 3, "MODEL.RESNETS.DEFORM_INTERVAL is 3, a key of another builder .*set it to 1"),
        ("RESNETS", "AVD", True, "^MODEL.RESNETS.AVD is True, a key of another builder .*set it to False"),
        ("RESNETS", "RADIX", 0, "MODEL.RESNETS.RADIX is 0, a key of another builder .*set it to 1"),
        ("BACKBONE", "ANTI_ALIAS", True, "MODEL.BACKBONE.ANTI_ALIAS is True"),
    ],
)
def test_keys_of_other_builders_are_refused_where_they_change_the_net(section, key, value, message):
    cfg = with_our_backbone(zoo_cfg(FASTER))
    cfg.MODEL[section][key] = value
    with pytest.raises(InputError, match=message):
        build_backbone(cfg)


def test_keys_of_other_builders_that_change_nothing_are_fine():
    cfg = with_our_backbone(zoo_cfg(FASTER))
    cfg.MODEL.RESNETS.DEFORM_INTERVAL, cfg.MODEL.RESNETS.AVD, cfg.MODEL.BACKBONE.ANTI_ALIAS = 1, False, False
    cfg.MODEL.BACKBONE.FREEZE = True  # read by meta-architectures
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES5_MULTI_GRID = 18, [1, 1, 1]  # Mask2Former's, "not used"
    build_backbone(cfg)


def test_a_stem_is_chosen_once():
    cfg = add_deeplab_keys(with_our_backbone(zoo_cfg(FASTER)))
    cfg.MODEL.RESNET_DET.STEM = "deep_tiered"
    with pytest.raises(InputError, match=r"STEM_TYPE is 'deeplab', MODEL.RESNET_DET.STEM 'deep_tiered'"):
        build_backbone(cfg)


def with_our_classes(config):
    """What a user changes in a LazyConfig: the class of the ResNet, and the function that makes its stages."""
    config.bottom_up["_target_"] = resnet_det.ResNet
    config.bottom_up.stages["_target_"] = resnet_det.ResNet.make_default_stages
    return config


@pytest.mark.parametrize("stem", [resnet.BasicStem, BasicStem])
def test_lazy_configs_of_upstream_build_with_the_class_swapped(stem):
    config = LazyConfig.load(str(ZOO / "common" / "models" / "mask_rcnn_fpn.py")).model.backbone
    theirs = LazyConfig.load(str(ZOO / "common" / "models" / "mask_rcnn_fpn.py")).model.backbone
    with_our_classes(config).bottom_up.stem["_target_"] = stem
    for each in (config, theirs):
        each.bottom_up.stages.depth, each.bottom_up.freeze_at = 18, -1
        each.bottom_up.stem.norm = each.bottom_up.stages.norm = "BN"
        del each.bottom_up.stages["stride_in_1x1"]
    torch.manual_seed(0)
    expected = instantiate(theirs)
    torch.manual_seed(0)
    ours = instantiate(config)
    assert type(ours.bottom_up) is resnet_det.ResNet
    assert_equal(run(ours, images(), training=False), run(expected, images(), training=False))


def test_a_lazy_call_of_make_resnet_is_enough():
    alone = instantiate(L(make_resnet)(depth=18))
    under_ours = instantiate(L(make_fpn)(bottom_up=L(make_resnet)(depth=18)))
    theirs = L(FPN)(bottom_up=L(make_resnet)(depth=18, out_features=["res4", "res5"]), out_channels=8)
    theirs.in_features = "${.bottom_up.out_features}"
    assert list(alone.output_shape()) == ["res2", "res3", "res4", "res5"]
    assert list(under_ours.output_shape()) == ["p2", "p3", "p4", "p5", "p6"]
    assert list(instantiate(theirs).output_shape()) == ["p4", "p5"]


def test_detectron2s_own_blocks_stand_in_our_net():
    stages = resnet.ResNet.make_default_stages(18, norm="BN")
    net = resnet_det.ResNet(resnet.BasicStem(), stages, out_features=["res5"])
    assert run(net, images(), training=True)["res5"].shape == (2, 512, 2, 3)


def test_a_pair_of_whole_models_has_the_same_buffers():
    theirs, ours = build_pair(zoo_cfg(FASTER))
    assert [name for name, _ in theirs.named_buffers()] == [name for name, _ in ours.named_buffers()]
