"""prepare_for_inference: the same outputs as the model it was made of, whatever its parts; and what it leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from detectron2.layers import Conv2d
from detectron2.modeling import build_model
from models import build_pair, make_inputs, randomise_norms_, with_our_backbone, zoo_cfg
from torch import nn
from torch.nn.utils import parametrizations, prune

from resnet_det import make_resnet, prepare_for_inference
from resnet_det.modeling import make_fpn
from resnet_det.modeling.inference import ConvReLU

FAMILY = {
    "R-18 FrozenBN": {"depth": 18, "norm": "FrozenBN"},
    "R-50 BN": {"depth": 50},
    "ResNeXt": {"depth": 50, "num_groups": 32, "width_per_group": 4},
    "ResNet-D": {"depth": 50, "stem": "deep", "shortcut": "avg_down", "stem_out_channels": 64},
    "SE": {"depth": 18, "se_reduction": 16},
    "GN": {"depth": 18, "norm": "GN"},
    "dilated": {"depth": 18, "dilations": (1, 1, 1, 2)},
    "deformable": {"depth": 50, "deform_stages": (False, False, True, True), "deform_modulated": True},
    "pre-activation": {"depth": 18, "preact": True},
    "no shortcuts": {"depth": 18, "shortcut": "none"},
}


def make_random(**kwargs):
    torch.manual_seed(6)
    net = make_resnet(**kwargs)
    randomise_norms_(net)
    return net.eval()


def share_of_largest(actual, expected):
    return max(float((actual[key] - value).abs().max() / value.abs().max()) for key, value in expected.items())


@pytest.mark.parametrize("name", FAMILY)
@torch.no_grad()
def test_every_member_of_the_family_puts_out_the_same(name):
    net = make_random(**FAMILY[name])
    before = copy.deepcopy(net.state_dict())
    image = torch.randn(2, 3, 97, 130)
    expected = net(image)
    prepared = prepare_for_inference(net)
    assert share_of_largest(prepared(image), expected) < 1e-4
    assert share_of_largest(prepare_for_inference(net, dtype=torch.bfloat16)(image), expected) < 0.1
    # The model itself is as it was.
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert share_of_largest(net(image), expected) == 0


@torch.no_grad()
def test_norms_are_gone():
    net = make_fpn(make_random(depth=50, norm="FrozenBN"), norm="BN").eval()
    randomise_norms_(net)
    prepared = prepare_for_inference(net)
    assert not any("norm" in name for name in prepared.state_dict())
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    image = torch.randn(1, 3, 128, 160)
    assert share_of_largest(prepared(image), net(image)) < 1e-4


@torch.no_grad()
def test_after_a_checkpoint_and_after_to_it_is_that_of_the_new_state():
    net, other = make_random(depth=18, norm="FrozenBN"), make_resnet(18, norm="FrozenBN").eval()
    image = torch.randn(1, 3, 64, 96)
    prepare_for_inference(other)(image)
    other.load_state_dict(net.state_dict())
    assert share_of_largest(prepare_for_inference(other)(image), net(image)) < 1e-4
    moved = prepare_for_inference(net).to(torch.float64)
    assert share_of_largest(moved(image.double()), copy.deepcopy(net).double()(image.double())) < 1e-4
    meta = prepare_for_inference(net).to("meta")
    assert meta(image.to("meta"))["res5"].shape == (1, 512, 2, 3)


@pytest.mark.parametrize(
    "config",
    [
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        "Misc/mask_rcnn_R_50_FPN_3x_gn.yaml",
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
    ],
)
@torch.no_grad()
def test_heads_put_out_the_same(config):
    """Heads are compared before boxes are chosen: random scores are nearly equal, and their order is chance."""
    cfg = zoo_cfg(config)
    torch.manual_seed(7)
    theirs, ours = build_pair(cfg)
    assert type(theirs.backbone).__module__.startswith("detectron2")
    prepared = prepare_for_inference(ours.eval())
    inputs = make_inputs(cfg)
    outputs = [_head_outputs(model.eval(), inputs) for model in (theirs, prepared)]
    assert len(outputs[0]) == len(outputs[1]) > 4
    for actual, expected in zip(outputs[1], outputs[0], strict=True):
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def _head_outputs(model, inputs):
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    outputs = list(features.values())
    if hasattr(model, "head"):
        levels = [features[name] for name in model.head_in_features]
        return outputs + [tensor for part in model.head(levels) for tensor in part]
    head = model.proposal_generator.rpn_head
    outputs += [tensor for part in head([features[name] for name in ("p2", "p3", "p4")]) for tensor in part]
    if hasattr(model, "sem_seg_head"):
        outputs.append(model.sem_seg_head(features)[0])
    crops = features["p2"][:, :, :14, :14]
    return [*outputs, model.roi_heads.mask_head.layers(crops) if model.roi_heads.mask_on else crops]


@torch.no_grad()
def test_in_bfloat16_heads_compute_in_it_and_boxes_are_float32():
    cfg = with_our_backbone(zoo_cfg("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 5
    model = build_model(cfg).eval()
    randomise_norms_(model)
    prepared = prepare_for_inference(model, dtype=torch.bfloat16)
    assert prepared.roi_heads.box_head.fc1.weight.dtype == torch.bfloat16
    assert prepared.roi_heads.box_predictor.bbox_pred.weight.dtype == torch.float32
    assert model.roi_heads.box_head.fc1.weight.dtype == torch.float32
    instances = prepared(make_inputs(cfg, ((96, 128),)))[0]["instances"]
    assert len(instances) > 0
    assert instances.pred_boxes.tensor.dtype == torch.float32
    assert instances.scores.isfinite().all()
    assert not torch.is_autocast_enabled("cpu")


@torch.no_grad()
def test_convolutions_of_any_geometry_stay_what_they_are():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make_random(depth=18)
            self.valid = nn.Conv2d(512, 8, 3)  # no padding
            self.reflecting = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
            self.oblong = Conv2d(8, 8, (1, 3), stride=(2, 1), activation=nn.ReLU())
            self.heard = nn.Conv2d(8, 8, 1)
            self.seen = []
            self.heard.register_forward_hook(lambda *_: self.seen.append(1))

        def forward(self, x):
            return self.heard(self.oblong(self.reflecting(self.valid(self.net(x)["res5"]))))

    model, image = Model().eval(), torch.randn(1, 3, 160, 192)
    prepared = prepare_for_inference(model)
    assert [type(getattr(prepared, name)) for name in ("valid", "reflecting", "heard")] == [nn.Conv2d] * 3
    assert type(prepared.oblong) is ConvReLU
    torch.testing.assert_close(prepared(image), model(image), rtol=1e-4, atol=1e-5)
    assert len(model.seen) == 2


def prune_conv(net):
    prune.l1_unstructured(net.res3[0].conv1, "weight", 0.5)


def normalise_weight(net):
    parametrizations.weight_norm(net.res3[0].conv2)


def subclass_conv(net):
    class Standardised(Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
            return self.norm(F.conv2d(x, weight, None, self.stride, self.padding))

    net.res3[0].conv1.__class__ = Standardised


def patch_forward(net):
    plain = net.res3[0].conv2.forward
    net.res3[0].conv2.forward = lambda x: plain(x) * 2


def use_integers(net):
    net.res3[1].conv1.stride = 1


@pytest.mark.parametrize("change", [prune_conv, normalise_weight, subclass_conv, patch_forward, use_integers])
@torch.no_grad()
def test_edited_parts_are_left_as_they_are(change):
    net = make_random(depth=18, norm="FrozenBN")
    change(net)
    image = torch.randn(1, 3, 64, 96)
    assert share_of_largest(prepare_for_inference(net)(image), net(image)) < 1e-4


def test_weights_that_are_not_finite_are_refused():
    net = make_random(depth=18)
    net.res4[0].conv1.weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"1 tensors of the model hold NaN .* the first is res4.0.conv1.weight"):
        prepare_for_inference(net)


def test_another_dtype_is_refused():
    with pytest.raises(
        ValueError, match=r"dtype is torch.int8; torch has torch.float32, torch.bfloat16, torch.float16"
    ):
        prepare_for_inference(make_resnet(18), dtype=torch.int8)


@pytest.mark.long
@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="torch 2.4 compiles the FPN in parts"
)
def test_compiling_has_no_breaks_and_few_versions_for_many_sizes():
    """Without the code generator, which takes minutes: what is compiled is counted."""
    counter = torch._dynamo.testing.CompileCounter()
    net = make_fpn(make_random(depth=18, norm="FrozenBN"), ["res2", "res3", "res4", "res5"]).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = net(image)
    torch._dynamo.reset()
    compiled = torch.compile(net, dynamic=True, fullgraph=True, backend=counter)
    for training in (False, True):
        net.train(training)
        assert share_of_largest({k: v.detach() for k, v in compiled(image).items()}, expected) < 1e-4
        for height, width in ((96, 64), (128, 160), (64, 192)):
            compiled(torch.randn(2, 3, height, width))
    assert counter.frame_count <= 6
    torch._dynamo.reset()
