"""The models that are measured: ours, and the same net of Detectron2, torchvision and timm, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import Backbone, build_backbone, build_model
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import nn
from torchvision.models._utils import IntermediateLayerGetter

from resnet_det.benchmark.torchvision_detectors import TorchvisionDetector
from resnet_det.config import backbone_outputs, merge_cfg
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.errors import InputError
from resnet_det.modeling.fast_poolers import speed_up_on_cpus_
from resnet_det.weights.names import to_detectron2_names

AGAINST = ("detectron2", "torchvision", "timm")
TRAINABLE_DETECTORS = ("detectron2", "torchvision")
EXPORTED = {"exported-onnx": "onnx", "exported-openvino": "openvino"}  # and their formats
DETECTORS = (*TRAINABLE_DETECTORS, "openvino", *EXPORTED)
TITLES = {"detectron2": "Detectron2", "torchvision": "torchvision", "timm": "timm"}
# Times the first random weights of what scores proposals and classes: with those all scores are nearly the same.
DECISIVENESS = 10
STAGES = ("res2", "res3", "res4", "res5")


def backbone_cfg(depth: int, opts: list[str], *, freeze_at: int = 2) -> CfgNode:
    """The config of an R-``depth``-FPN as Detectron2's users have it, with torchvision's place of the stride."""
    cfg = merge_cfg("", ["MODEL.BACKBONE.NAME", "build_resnet_det_fpn_backbone", "MODEL.DEVICE", "cpu"])
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.BACKBONE.FREEZE_AT = depth, freeze_at
    cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.MODEL.RESNETS.OUT_FEATURES = False, list(STAGES)
    cfg.MODEL.FPN.IN_FEATURES = list(STAGES)
    cfg.merge_from_list(opts)
    return cfg


def with_detectron2s_backbone(cfg: CfgNode) -> CfgNode:
    """The same config with Detectron2's own ResNet.

    Raises:
        InputError: MODEL.BACKBONE.NAME is none of ours.
    """
    theirs, name = cfg.clone(), cfg.MODEL.BACKBONE.NAME
    if backbone_outputs(cfg) is None:
        raise InputError(f"MODEL.BACKBONE.NAME is {name}: only our backbones can be compared with Detectron2's")
    theirs.defrost()
    theirs.MODEL.BACKBONE.NAME = name.replace("resnet_det", "resnet")
    if theirs.MODEL.RESNETS.DEPTH in (18, 34):  # what Detectron2 asks for
        theirs.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    return theirs


def build_pair(cfg: CfgNode, build: Callable[[CfgNode], nn.Module]) -> tuple[nn.Module, nn.Module]:
    """Detectron2's model and ours, with the same random weights and norms that are not trivial.

    Raises:
        InputError: Detectron2 cannot build this net.
    """
    torch.manual_seed(0)
    try:
        theirs = build(with_detectron2s_backbone(cfg))
        randomise_norms_(theirs)
        ours = build(cfg)
        ours.load_state_dict(theirs.state_dict())
    except (AssertionError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"Detectron2's ResNet cannot be built as this config says: {error}") from error
    return theirs, ours


def build_backbones(cfg: CfgNode, against: list[str]) -> dict[str, nn.Module]:
    """By title: the backbones with FPN of the libraries ``against``, and "resnet_det", with equal weights."""
    theirs, ours = build_pair(cfg, lambda cfg: build_backbone(cfg, ShapeSpec(channels=3)))
    makers = {"detectron2": lambda: theirs, "torchvision": lambda: _with_fpn(cfg, ours, _torchvision_net)}
    makers["timm"] = lambda: _with_fpn(cfg, ours, _timm_net)
    return {TITLES[name]: makers[name]() for name in against} | {"resnet_det": ours}


def build_detectors(cfg: CfgNode, against: Sequence[str] = ("detectron2",)) -> dict[str, nn.Module]:
    """By title: the detectors of the libraries ``against``, and "resnet_det" as our tools train it.

    All have the weights of MODEL.WEIGHTS; if that is empty, equal random ones that detect something.

    Raises:
        InputError: a library has no such detector, or the weights do not fit.
    """
    theirs, ours = build_pair(cfg, build_model)
    if cfg.MODEL.WEIGHTS:
        load_trained_weights(cfg, ours)
    else:
        for name, module in ours.named_modules():
            if name.endswith(("objectness_logits", "cls_score")):
                module.weight.data *= DECISIVENESS
    theirs.load_state_dict(ours.state_dict())
    speed_up_on_cpus_(ours)
    makers = {"detectron2": lambda: theirs, "torchvision": lambda: TorchvisionDetector(cfg, ours)}
    return {TITLES[name]: makers[name]() for name in against if name in makers} | {"resnet_det": ours}


def build_ours_like(ours: nn.Module, cfg: CfgNode, opts: list[str]) -> nn.Module:
    """Another of our models with the weights of ``ours``, built from ``cfg`` changed by KEY VALUE pairs."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(opts)
    is_detector = hasattr(ours, "backbone")
    model = build_model(cfg) if is_detector else build_backbone(cfg, ShapeSpec(channels=3))
    model.load_state_dict(ours.state_dict())
    if is_detector:
        speed_up_on_cpus_(model)
    return model


def randomise_norms_(model: nn.Module) -> None:
    """Statistics and weights other than those that norms start with, near those under which features keep their
    scale: with the identity, they would grow from block to block."""
    for name, norm in model.named_modules():
        if isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            is_last = name.endswith(("conv3.norm", "conv2.norm"))
            with torch.no_grad():
                norm.running_mean.normal_(std=0.1)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5).mul_(0.3 if is_last else 1.0)
                norm.bias.normal_(std=0.1)


class _Net(Backbone):
    """Another library's ResNet as a bottom_up of Detectron2's FPN."""

    def __init__(self, net: nn.Module, channels: list[int]) -> None:
        super().__init__()
        self.net, self.channels = net, channels

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.net(x)
        return features if isinstance(features, dict) else dict(zip(STAGES, features, strict=True))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {
            name: ShapeSpec(channels=width, stride=4 * 2**index)
            for index, (name, width) in enumerate(zip(STAGES, self.channels, strict=True))
        }


def _with_fpn(cfg: CfgNode, ours: nn.Module, make_net: Callable[[int], nn.Module]) -> nn.Module:
    net = make_net(cfg.MODEL.RESNETS.DEPTH)
    channels = [ours.bottom_up.output_shape()[name].channels for name in STAGES]
    fpn = FPN(_Net(net, channels), list(STAGES), cfg.MODEL.FPN.OUT_CHANNELS, "", LastLevelMaxPool())
    state = ours.state_dict()
    names = to_detectron2_names(net.state_dict())
    trunk = {key: state[f"bottom_up.{name}"] for key, name in names.items() if f"bottom_up.{name}" in state}
    net.load_state_dict(trunk, strict=False)
    fpn.load_state_dict({key: value for key, value in state.items() if key.startswith("fpn")}, strict=False)
    return fpn


def _torchvision_net(depth: int) -> nn.Module:
    layers = {f"layer{number}": name for number, name in enumerate(STAGES, start=1)}
    return IntermediateLayerGetter(torchvision.models.get_model(f"resnet{depth}"), layers)


def _timm_net(depth: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise InputError("--against timm: it is not installed (pip install timm)") from None
    return timm.create_model(f"resnet{depth}", features_only=True, out_indices=(1, 2, 3, 4))


def autocast(function: Callable, device: str, dtype: torch.dtype) -> Callable:
    """``function`` under autocast to ``dtype``; as it is, if that is float32."""
    return function if dtype == torch.float32 else torch.autocast(device, dtype)(function)
