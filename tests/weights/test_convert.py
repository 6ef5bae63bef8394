"""Conversions between four namings and three formats, there and back."""

from __future__ import annotations

import pytest
import torch

from resnet_det import load_weights, make_resnet
from resnet_det.errors import InputError
from resnet_det.weights import convert_weights, read_checkpoint, read_tensors, write_tensors

VARIANTS = {
    "plain": ({"depth": 18, "num_classes": 7}, ("detectron2", "torchvision", "timm", "caffe2")),
    "bottleneck": ({"depth": 14, "num_classes": 7}, ("detectron2", "torchvision", "timm", "caffe2")),
    "resnet-d": ({"depth": 14, "stem": "deep", "shortcut": "avg_down", "num_classes": 7}, ("detectron2", "timm")),
    "se": ({"depth": 18, "se_reduction": 16}, ("detectron2", "timm")),
    "preact": ({"depth": 14, "preact": True, "num_classes": 7}, ("detectron2", "timm")),
}


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back(tmp_path, variant, suffix):
    arguments, namings = VARIANTS[variant]
    source = make_resnet(**arguments)
    start = tmp_path / "start.pth"
    write_tensors(source.state_dict(), start)
    for naming in namings:
        there, back = tmp_path / f"{naming}{suffix}", tmp_path / f"back_{naming}.pth"
        report = convert_weights(start, there, naming=naming)
        assert report.naming == naming
        assert not report.left_out or naming == "caffe2"
        convert_weights(there, back)
        model = make_resnet(**arguments)
        loaded = load_weights(model, back)
        assert not loaded.missing
        for name, tensor in model.state_dict().items():
            if not (naming == "caffe2" and name.endswith("num_batches_tracked")):
                assert torch.equal(tensor, source.state_dict()[name]), (naming, name)


def test_state_of_a_training_goes_along_or_is_stripped(tmp_path):
    checkpoint = {"model": make_resnet(14).state_dict(), "optimizer": {"state": {}}, "iteration": 5}
    source = tmp_path / "model_final.pth"
    torch.save(checkpoint, source)
    convert_weights(source, tmp_path / "whole.pth")
    assert read_checkpoint(tmp_path / "whole.pth")[1] == {"optimizer": {"state": {}}, "iteration": 5}
    report = convert_weights(source, tmp_path / "bare.pth", strip=True)
    assert read_checkpoint(tmp_path / "bare.pth")[1] == {}
    assert report.left_out == ("optimizer", "iteration")
    assert "ResNet-14: " in str(report)
    assert "left out: optimizer, iteration" in str(report)


def test_what_the_names_do_not_tell_of_shortcuts_can_be_said(tmp_path):
    source = tmp_path / "deep.pth"
    write_tensors(make_resnet(14, stem="deep", num_classes=7).state_dict(), source)
    for avg_down, index in ((None, 1), (True, 1), (False, 0)):
        destination = tmp_path / f"timm_{avg_down}.pth"
        convert_weights(source, destination, naming="timm", avg_down=avg_down)
        assert f"layer2.0.downsample.{index}.weight" in read_tensors(destination)


def test_heads_stay_out_of_other_namings(tmp_path):
    state = {f"backbone.bottom_up.{name}": tensor for name, tensor in make_resnet(14).state_dict().items()}
    source = tmp_path / "detector.pth"
    torch.save({**state, "roi_heads.box_predictor.cls_score.bias": torch.ones(3)}, source)
    assert convert_weights(source, tmp_path / "a.pth").written[0] == "backbone.bottom_up.stem.conv1.weight"
    report = convert_weights(source, tmp_path / "b.pth", naming="torchvision")
    assert report.left_out == ("roi_heads.box_predictor.cls_score.bias",)
    assert "layer1.0.conv1.weight" in read_tensors(tmp_path / "b.pth")


def test_wrong_destinations(tmp_path):
    source = tmp_path / "a.pth"
    write_tensors(make_resnet(18, stem="deep").state_dict(), source)
    with pytest.raises(InputError, match="would replace the one that is read"):
        convert_weights(source, source)
    with pytest.raises(InputError, match="torchvision has no names for deep stems"):
        convert_weights(source, tmp_path / "b.pth", naming="torchvision")
    assert not (tmp_path / "b.pth").exists()
