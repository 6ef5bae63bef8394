"""Names in four namings, and back."""

from __future__ import annotations

import pytest
import timm
import torchvision

from resnet_det import make_resnet
from resnet_det.errors import InputError
from resnet_det.weights import from_detectron2_names, naming_of, to_detectron2_names

# Names that Caffe2's files have (Detectron1's models), and ours.
CAFFE2 = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_s": "stem.conv1.norm.weight",
    "res_conv1_bn_b": "stem.conv1.norm.bias",
    "res_conv1_bn_rm": "stem.conv1.norm.running_mean",
    "res_conv1_bn_riv": "stem.conv1.norm.running_var",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res2_0_branch1_bn_s": "res2.0.shortcut.norm.weight",
    "res2_0_branch2a_w": "res2.0.conv1.weight",
    "res5_2_branch2c_w": "res5.2.conv3.weight",
    "res4_22_branch2b_bn_b": "res4.22.conv2.norm.bias",
    "pred_w": "linear.weight",
    "pred_b": "linear.bias",
}


def test_caffe2_names():
    assert to_detectron2_names([*CAFFE2, "conv1_w_momentum", "lr"]) == CAFFE2
    assert from_detectron2_names(list(CAFFE2.values()), "caffe2") == {own: name for name, own in CAFFE2.items()}
    assert to_detectron2_names(["res2_0_branch2a_w", "conv1_gn_s", "res2_0_branch2a_gn_b"]) == {
        "res2_0_branch2a_w": "res2.0.conv1.weight",
        "conv1_gn_s": "stem.conv1.norm.weight",
        "res2_0_branch2a_gn_b": "res2.0.conv1.norm.bias",
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_names_go_both_ways(name):
    keys = list(torchvision.models.get_model(name).state_dict())
    own = to_detectron2_names(keys)
    assert set(own) == set(keys)
    assert set(own.values()) == set(make_resnet(int(name[6:]), num_classes=10).state_dict())
    assert from_detectron2_names(list(own.values()), "torchvision") == {new: old for old, new in own.items()}
    assert naming_of(keys) == "torchvision"


@pytest.mark.parametrize("name", ["resnet50d", "resnet26t", "seresnet50", "resnetv2_50", "resnetv2_50d"])
def test_timm_names_go_both_ways(name):
    keys = list(timm.create_model(name).state_dict())
    own = to_detectron2_names(keys)
    assert set(own) == set(keys)
    assert from_detectron2_names(list(own.values()), "timm") == {new: old for old, new in own.items()}
    assert naming_of(keys) == "timm"


def test_deep_stem_without_averaging_shortcuts():
    keys = list(timm.create_model("resnet50c" if timm.is_model("resnet50c") else "resnet50d").state_dict())
    own = list(to_detectron2_names(keys).values())
    plain = from_detectron2_names(own, "timm", avg_down=False)
    assert plain["res2.0.shortcut.weight"] == "layer1.0.downsample.0.weight"
    assert plain["stem.conv3.norm.bias"] == "bn1.bias"


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "backbone.bottom_up.", "module.encoder_q."])
def test_prefixes_are_found(prefix):
    keys = {f"{prefix}layer1.0.conv1.weight": "res2.0.conv1.weight", f"{prefix}bn1.bias": "stem.conv1.norm.bias"}
    assert to_detectron2_names([*keys, "something.else"]) == keys


def test_what_has_no_name_is_an_error():
    names = list(make_resnet(50, stem="deep", se_reduction=16).state_dict())
    with pytest.raises(InputError, match="torchvision has no names for deep stems"):
        from_detectron2_names(names, "torchvision")
    with pytest.raises(InputError, match=r"caffe2 has no name for stem.conv2.weight"):
        from_detectron2_names(names, "caffe2")
    with pytest.raises(InputError, match=r"no ResNet or DenseNet in the naming of .* 2 keys: a, b"):
        naming_of(["a", "b"])
