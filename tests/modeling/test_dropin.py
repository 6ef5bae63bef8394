"""Our backbone in place of Detectron2's: the same state, detections, losses and gradients; norms are not trivial."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from models import OUR_NAMES, ZOO, build_pair, make_inputs, with_our_backbone, zoo_cfg

BASIC = {"MODEL__RESNETS__RES2_OUT_CHANNELS": 64}  # what Detectron2 needs besides the depth
MODELS = {
    "faster_R_50": ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", {}),
    "mask_R_101": ("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml", {}),
    "faster_R_18": ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", {"MODEL__RESNETS__DEPTH": 18, **BASIC}),
    "mask_R_34": ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", {"MODEL__RESNETS__DEPTH": 34, **BASIC}),
    "faster_R_50_C4": ("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", {}),
    "faster_R_50_DC5": ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", {}),
    "retinanet_R_18": ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {"MODEL__RESNETS__DEPTH": 18, **BASIC}),
    "panoptic_R_18": ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", {"MODEL__RESNETS__DEPTH": 18, **BASIC}),
    "keypoint_R_18": ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", {"MODEL__RESNETS__DEPTH": 18, **BASIC}),
    "mask_R_50_GN": ("Misc/mask_rcnn_R_50_FPN_3x_gn.yaml", {}),
    "mask_R_50_SyncBN": ("Misc/mask_rcnn_R_50_FPN_3x_syncbn.yaml", {}),
}
TAKE_LONG = ("mask_R_101", "mask_R_34", "faster_R_50_C4", "faster_R_50_DC5", "mask_R_50_SyncBN", "keypoint_R_18")


def for_random_weights(cfg):
    """Let a random model detect something, and not too much of it."""
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 40
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 20, 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 64  # heads are Detectron2's in both models
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    return cfg


def losses_and_gradients(model, inputs):
    model.train()
    torch.manual_seed(1)  # proposals and anchors are sampled
    with EventStorage():
        losses = model(inputs)
        sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(actual, expected, what):
    """Compare outputs of models: tensors, and what is made of them."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys(), what
        for key, value in expected.items():
            assert_same(actual[key], value, f"{what} {key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), what
        for one, other in zip(actual, expected, strict=True):
            assert_same(one, other, what)
    elif isinstance(expected, Instances):
        assert len(actual) == len(expected) > 0, what
        assert_same(actual.get_fields(), expected.get_fields(), what)
    elif hasattr(expected, "tensor"):  # boxes
        assert_same(actual.tensor, expected.tensor, what)
    elif isinstance(expected, torch.Tensor):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6, msg=lambda m: f"{what}: {m}")
    else:
        assert actual == pytest.approx(expected, rel=1e-6), what


def compare_with_detectron2s(cfg, name):
    """State and backbone in float32, and the whole models with the backbone in float64.

    In float32 ours does the same sums in another order, and from the last digits of a model with random weights other
    detections follow: its scores are all but equal, and which of them come first is chance.
    """
    theirs, ours = build_pair(for_random_weights(cfg))
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
    assert shapes[0] == shapes[1]
    assert [n for n, p in theirs.named_parameters() if p.requires_grad] == [
        n for n, p in ours.named_parameters() if p.requires_grad
    ]
    compare_backbones(theirs.backbone, ours.backbone, len(cfg.MODEL.PIXEL_MEAN))

    ours.load_state_dict(theirs.state_dict())  # running statistics differ in the last digits
    for model in (theirs, ours):
        compute_backbone_in_float64_(model)
    inputs = make_inputs(cfg)
    with torch.no_grad():
        assert_same(ours.eval()(inputs), theirs.eval()(inputs), name)
    (want_losses, want_grads), (got_losses, got_grads) = (losses_and_gradients(m, inputs) for m in (theirs, ours))
    assert all(value.isfinite() for value in want_losses.values())
    assert_same(got_losses, want_losses, name)
    assert any("bottom_up.res5" in key or "backbone.res4" in key for key in got_grads)
    assert_close_gradients(got_grads, want_grads, 1e-6)


def compute_backbone_in_float64_(model):
    """Heads get the features in float32 and in the same order in memory, so that they do the same sums."""
    model.backbone.double()
    model.backbone.register_forward_pre_hook(lambda _, args: (args[0].double(),))
    model.backbone.register_forward_hook(
        lambda _, __, features: {name: value.float().contiguous() for name, value in features.items()}
    )


def compare_backbones(theirs, ours, channels):
    """Features and gradients in float32, in training and in evaluation.

    Where an activation is zero up to rounding, ReLU's derivative is 0 in one sum and 1 in the other: that is a percent
    of a gradient, here. tests/modeling/test_fused.py has single convolutions, to the last digits.
    """
    image = torch.randn(2, channels, 64, 96)
    for is_training in (True, False):
        outputs, gradients = [], []
        for backbone in (theirs.train(is_training), ours.train(is_training)):
            torch.manual_seed(2)
            outputs.append(backbone(image))
            sum((value * torch.randn(value.shape)).mean() for value in outputs[-1].values()).backward()
            gradients.append({key: p.grad.clone() for key, p in backbone.named_parameters() if p.grad is not None})
            backbone.zero_grad()
        for key, value in outputs[0].items():
            assert (outputs[1][key] - value).abs().max() <= 1e-4 * value.abs().max(), key
        assert_close_gradients(gradients[1], gradients[0], 0.05)


def assert_close_gradients(actual, expected, tolerance):
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert (actual[key] - value).norm() <= tolerance * value.norm() + 1e-12, key


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name in TAKE_LONG)) for name in MODELS]
)
def test_same_state_detections_losses_and_gradients(name):
    path, overrides = MODELS[name]
    compare_with_detectron2s(zoo_cfg(path, **overrides), name)


def zoo_models():
    """The zoo's configs of R-50, R-101 and X-101, one of each that differ in nothing but schedule, data and weights.

    Not those with deformable convolution, which Detectron2 cannot train on the CPU; its outputs are compared below.
    """
    names = {}
    for path in sorted(ZOO.glob("COCO-*/*.yaml")) + sorted(ZOO.glob("Misc/*.yaml")):
        cfg = zoo_cfg(str(path.relative_to(ZOO)))
        is_resnet = cfg.MODEL.BACKBONE.NAME in OUR_NAMES and cfg.MODEL.RESNETS.DEPTH != 152
        if is_resnet and not any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE) and not path.name.startswith("Base"):
            names.setdefault(cfg.MODEL.dump(), str(path.relative_to(ZOO)))
    return sorted(names.values())


@pytest.mark.long
@pytest.mark.parametrize("name", zoo_models())
def test_every_model_of_the_zoo(name):
    compare_with_detectron2s(zoo_cfg(name), name)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@pytest.mark.parametrize("freeze_at", range(6))
def test_freeze_at_freezes_the_same(depth, freeze_at):
    overrides = {"MODEL__RESNETS__DEPTH": depth, "MODEL__BACKBONE__FREEZE_AT": freeze_at, "MODEL__RESNETS__NORM": "BN"}
    cfg = zoo_cfg("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", **overrides, **(BASIC if depth < 50 else {}))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        theirs, ours = build_model(cfg), build_model(with_our_backbone(cfg))
    states = [
        {
            "trainable": [n for n, p in model.named_parameters() if p.requires_grad],
            "frozen": [n for n, p in model.named_parameters() if not p.requires_grad],
            "buffers": [n for n, _ in model.named_buffers()],
            "norms": [type(m).__name__ for _, m in model.named_modules() if "BatchNorm" in type(m).__name__],
        }
        for model in (theirs, ours)
    ]
    assert states[0] == states[1]
    assert bool(states[1]["frozen"]) == (freeze_at > 0)


@pytest.mark.parametrize(
    ("path", "overrides"),
    [
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", {}),
        ("COCO-Detection/retinanet_R_50_FPN_1x.yaml", {}),
        ("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml", {}),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", {"MODEL__RESNETS__DEPTH": 18, **BASIC}),
    ],
)
def test_the_same_seed_gives_the_same_first_weights(path, overrides):
    cfg = zoo_cfg(path, **overrides)
    models = []
    for config in (cfg, with_our_backbone(cfg)):
        torch.manual_seed(3)
        models.append(build_model(config))
    for (name, theirs), ours in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(theirs, ours), name


def test_deformable_convolution_v1_equals_detectron2s():
    cfg = zoo_cfg("Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml")
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = 50, [False, True, True, True]
    theirs, ours = build_pair(cfg)
    for name, parameter in theirs.named_parameters():
        if "conv2_offset" in name:  # zero offsets would be an ordinary convolution
            torch.nn.init.normal_(parameter, std=0.02)
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected, actual = theirs.backbone(image), ours.backbone(image)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_every_zoo_config_of_a_resnet_gives_the_same_keys_and_shapes():
    checked = 0
    for path in sorted(ZOO.glob("COCO-*/*.yaml")) + sorted(ZOO.glob("Misc/*.yaml")):
        name = str(path.relative_to(ZOO))
        cfg = zoo_cfg(name)
        if not cfg.MODEL.BACKBONE.NAME.startswith(("build_resnet", "build_retinanet_resnet")):
            continue
        if any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE) and cfg.MODEL.RESNETS.DEFORM_MODULATED:
            continue  # Detectron2 without compiled operators cannot build its own; ours is tested in test_blocks
        cfg.MODEL.DEVICE = "meta"
        with torch.device("meta"):
            theirs, ours = build_model(cfg), build_model(with_our_backbone(cfg))
        shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (theirs, ours)]
        assert shapes[0] == shapes[1], name
        checked += 1
    assert checked >= 30
