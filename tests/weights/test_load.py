"""Every tensor is accounted for: what fits, what does not, and what is changed on the way."""

from __future__ import annotations

import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from models import randomise_norms_, with_our_backbone, zoo_cfg
from torch import nn

from resnet_det import ResNet, load_weights, make_resnet
from resnet_det.errors import InputError
from resnet_det.modeling import BasicStem
from resnet_det.weights import from_detectron2_names, write_tensors


@pytest.fixture(scope="module")
def torchvision18(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_the_report_accounts_for_every_tensor(torchvision18):
    model = make_resnet(18, out_features=("res4",))
    report = load_weights(model, torchvision18)
    file = torch.load(torchvision18)
    assert set(report.matched) == set(model.state_dict())
    counters = {name for name in file if name.endswith("num_batches_tracked")}
    assert len(report.unexpected) == len(file) - len(counters) - len(report.matched) + len(
        [name for name in report.matched if name.endswith("num_batches_tracked")]
    )
    assert {"res5.0.conv1.weight", "linear.weight"} <= set(report.unexpected)
    assert report.naming == "torchvision"
    assert report.file_model == report.model == "ResNet-18"
    table = str(report).splitlines()
    assert table[1].split() == ["part", "loaded", "missing", "wrong", "shape", "not", "used"]
    assert [line.split()[0] for line in table[2:]] == ["stem", "res2", "res3", "res4", "res5", "linear"]


def test_another_depth_is_named_and_nothing_is_changed(tmp_path):
    path = tmp_path / "r50.pth"
    write_tensors(make_resnet(50).state_dict(), path)
    model = make_resnet(34)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match="this file is a ResNet-50, the config says 34"):
        load_weights(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    report = load_weights(model, path, strict=False)
    assert report.wrong_shape
    assert report.unexpected
    assert not torch.equal(model.stem.conv1.weight, before["stem.conv1.weight"])


def test_a_net_made_of_blocks_is_described_by_its_tensors(torchvision18):
    stages = ResNet.make_default_stages(34)
    with pytest.raises(InputError, match="this file is a ResNet-18, the config says 34"):
        load_weights(ResNet(BasicStem(), stages, out_features=["res5"]), torchvision18)
    net = ResNet(BasicStem(), ResNet.make_default_stages(18), out_features=["res5"])
    assert load_weights(net, torchvision18).model == "ResNet-18"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_groups": 32, "width_per_group": 4}, "this file is a ResNet-50, the config says ResNeXt-50-32x4d"),
        ({"width_per_group": 128}, "this file is a ResNet-50, the config says Wide ResNet-50-2"),
        (
            {"stage_blocks": (3, 8, 4, 3), "block": "bottleneck"},
            "the config says ResNet of bottleneck blocks 3, 8, 4, 3",
        ),
        ({"stem": "deep"}, "tensors of the backbone do not fit"),
        ({"se_reduction": 16}, "res2.0.se.fc1.weight is missing"),
    ],
)
def test_other_kinds_of_resnets_are_named(tmp_path, arguments, message):
    path = tmp_path / "r50.safetensors"
    write_tensors(make_resnet(50).state_dict(), path)
    with pytest.raises(InputError, match=message):
        load_weights(make_resnet(50, **arguments), path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_cast(tmp_path, dtype):
    source = make_resnet(18)
    path = tmp_path / "half.pth"
    write_tensors({name: t.to(dtype) if t.is_floating_point() else t for name, t in source.state_dict().items()}, path)
    model = make_resnet(18)
    report = load_weights(model, path)
    assert str(dtype).removeprefix("torch.") in report.notes[0]
    assert model.res5[0].conv1.weight.dtype == torch.float32
    torch.testing.assert_close(model.res5[0].conv1.weight, source.res5[0].conv1.weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_input_channels_are_adapted(torchvision18, channels):
    model = make_resnet(18, in_channels=channels).eval()
    report = load_weights(model, torchvision18)
    assert report.notes == (f"stem: 3 input channels were adapted to {channels}",)
    colour = make_resnet(18).eval()
    load_weights(colour, torchvision18)
    grey = torch.randn(1, 1, 64, 64)
    expected = colour(grey.expand(1, 3, 64, 64))["res5"]
    if channels == 1:
        torch.testing.assert_close(model(grey)["res5"], expected, rtol=1e-4, atol=1e-4)
    else:
        index = [number % 3 for number in range(channels)]
        assert torch.equal(model.stem.conv1.weight, colour.stem.conv1.weight[:, index] * (3 / channels))


def test_caffe2_norms_without_statistics(tmp_path):
    source = make_resnet(50, norm="FrozenBN", stride_in_1x1=True).eval()
    randomise_norms_(source)
    for module in source.modules():  # a merged norm: scale and shift alone
        if hasattr(module, "running_var"):
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
    state = {name: tensor for name, tensor in source.state_dict().items() if "running" not in name}
    names = from_detectron2_names(state, "caffe2")
    path = tmp_path / "R-50.pkl"
    write_tensors({names[name]: tensor for name, tensor in state.items()}, path)
    model = make_resnet(50, norm="FrozenBN", stride_in_1x1=True).eval()
    randomise_norms_(model, seed=5)
    report = load_weights(model, path)
    assert report.naming == "caffe2"
    assert "53 norms came merged" in report.notes[0]
    x = torch.randn(1, 3, 65, 64)
    torch.testing.assert_close(model(x)["res5"], source(x)["res5"])
    with pytest.raises(InputError, match="FrozenBN, or GN if that is it"):
        load_weights(make_resnet(50, norm="BN"), path)


@pytest.mark.parametrize("config", ["faster_rcnn_R_50_FPN_1x", "faster_rcnn_R_50_C4_1x", "faster_rcnn_R_50_DC5_1x"])
def test_a_classifier_goes_into_every_kind_of_detector(tmp_path, config):
    source = torchvision.models.resnet50()
    path = tmp_path / "r50.pth"
    torch.save(source.state_dict(), path)
    model = build_model(with_our_backbone(zoo_cfg(f"COCO-Detection/{config}.yaml")))
    report = load_weights(model, path)
    assert not report.backbone_problems
    found = [name for name in report.matched if name.endswith("res5.2.conv3.weight")]
    assert len(found) == 1
    assert torch.equal(model.state_dict()[found[0]], source.layer4[2].conv3.weight)
    assert {name.split(".")[0] for name in report.missing} <= {"backbone", "proposal_generator", "roi_heads"}


def test_res5_of_a_c4_detector_must_be_there(tmp_path):
    path = tmp_path / "r50.pth"
    state = torchvision.models.resnet50().state_dict()
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("layer4.2.")}, path)
    model = build_model(with_our_backbone(zoo_cfg("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")))
    before = model.roi_heads.res5[0].conv1.weight.clone()
    with pytest.raises(InputError, match=r"ResNet of bottleneck blocks 3, 4, 6, 2.*\n.*roi_heads.res5.2.conv1"):
        load_weights(model, path)
    assert torch.equal(model.roi_heads.res5[0].conv1.weight, before)


def test_a_detector_goes_into_one_with_other_classes_and_its_backbone_into_a_resnet(tmp_path):
    name = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
    source = build_model(with_our_backbone(zoo_cfg(name)))
    path = tmp_path / "detector.pth"
    torch.save({"model": source.state_dict(), "iteration": 7}, path)
    fine = build_model(with_our_backbone(zoo_cfg(name, MODEL__ROI_HEADS__NUM_CLASSES=3)))
    report = load_weights(fine, path)
    assert sorted(name for name, *_ in report.wrong_shape) == [
        "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.cls_score.bias",
        "roi_heads.box_predictor.cls_score.weight",
    ]
    assert torch.equal(fine.backbone.fpn_lateral2.weight, source.backbone.fpn_lateral2.weight)
    resnet = make_resnet(50, norm="FrozenBN", stride_in_1x1=True)
    load_weights(resnet, path)
    assert torch.equal(resnet.res3[1].conv2.weight, source.backbone.bottom_up.res3[1].conv2.weight)


def test_what_is_no_resnet(tmp_path, torchvision18):
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.ones(1)}, path)
    with pytest.raises(InputError, match=r"vgg.pth: no ResNet or DenseNet in the naming of .* features.0.weight"):
        load_weights(make_resnet(18), path)
    with pytest.raises(InputError, match="the Linear has no ResNet"):
        load_weights(nn.Linear(2, 2), torchvision18)
