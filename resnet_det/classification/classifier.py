"""The model that is trained: a ResNet with its linear head, the pixels it takes, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import nn
from torchvision.transforms import v2

from resnet_det.errors import InputError
from resnet_det.modeling import build_resnet


class Classifier(nn.Module):
    """A ResNet that names the class of an image. It takes batches as Detectron2's models do: a list of dicts.

    In training it returns losses by name, else logits.

    Attributes:
        backbone: any module that gives {"linear": logits} for images.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        bce_threshold: float = 0.2,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        """Args: those of RESNET_DET.CLASSIFICATION and MODEL that are called so."""
        super().__init__()
        self.backbone, self.num_classes = backbone, num_classes
        self.loss, self.label_smoothing, self.bce_threshold = loss, label_smoothing, bce_threshold
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self.mixing = nn.ModuleList(kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor] | torch.Tensor:
        """
        Args:
            batch: dicts with "image" (N, C, H, W), 0 to 255, and in training "label" (N,) int64.

        Returns:
            In training {"loss_cls": the mean over the images}, else logits (N, num_classes).
        """
        images = torch.cat([entry["image"].to(self.device, non_blocking=True) for entry in batch])
        images = (images.float() - self.pixel_mean) / self.pixel_std
        if not self.training:
            return self.backbone(images)["linear"]
        labels = torch.cat([entry["label"].to(self.device, non_blocking=True) for entry in batch])
        if len(self.mixing):
            chosen = int(torch.randint(len(self.mixing), ()))
            images, labels = self.mixing[chosen](images, labels)
        return {"loss_cls": self.compute_loss(self.backbone(images)["linear"], labels)}

    def compute_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """
        Shapes:
            logits: (N, num_classes).
            labels: (N,) int64, or shares of classes (N, num_classes).
        """
        logits = logits.float()
        if self.loss == "cross_entropy":
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        shares = labels if labels.dim() == 2 else F.one_hot(labels, self.num_classes)
        present = (shares > self.bce_threshold).float()
        targets = present * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return F.binary_cross_entropy_with_logits(logits, targets)


def build_classifier(cfg: CfgNode, *, backbone: nn.Module | None = None) -> Classifier:
    """The classifier that ``cfg`` describes, on MODEL.DEVICE; RESNET_DET.CLASSES.NAMES are its classes.

    Args:
        backbone: None builds MODEL.RESNETS; else a ResNet with a head of as many classes, such as
            ``make_resnet(18, num_classes=10)``.

    Raises:
        InputError: there are no classes in ``cfg``, ``backbone`` has no head or one of another number of them, or no
            ResNet is as MODEL.RESNETS says.
    """
    num_classes, keys = len(cfg.RESNET_DET.CLASSES.NAMES), cfg.RESNET_DET.CLASSIFICATION
    if num_classes < 2:
        raise InputError("RESNET_DET.CLASSES.NAMES: two classes or more are needed; data sets give them their names")
    if backbone is None:
        backbone = build_resnet(cfg, num_classes=num_classes)
    else:
        check_head(cfg, backbone)
    return Classifier(
        backbone,
        num_classes,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        loss=keys.LOSS,
        label_smoothing=keys.LABEL_SMOOTHING,
        bce_threshold=keys.BCE_THRESHOLD,
        mixup=keys.MIXUP,
        cutmix=keys.CUTMIX,
    ).to(cfg.MODEL.DEVICE)


def check_head(cfg: CfgNode, backbone: nn.Module) -> None:
    """Let ``backbone`` look at an image, where it is, and see whether logits come out.

    Raises:
        InputError: it has no head of as many classes as RESNET_DET.CLASSES.NAMES.
    """
    num_classes, channels = len(cfg.RESNET_DET.CLASSES.NAMES), len(cfg.MODEL.PIXEL_MEAN)
    size = cfg.RESNET_DET.CLASSIFICATION.SIZE_TEST
    was_training = {module: module.training for module in backbone.modules()}
    device = next((parameter.device for parameter in backbone.parameters()), None)
    try:
        with torch.no_grad():
            found = backbone.eval()(torch.zeros(1, channels, size, size, device=device))
    finally:
        for module, training in was_training.items():
            module.training = training
    logits = found.get("linear") if isinstance(found, dict) else None
    if not isinstance(logits, torch.Tensor):
        given = f"{', '.join(map(str, found)) or 'nothing'}" if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f'the backbone gives {given}, and no "linear", which are the logits of a head: make_resnet(..., '
            f"num_classes={num_classes}) has one"
        )
    if logits.shape != (1, num_classes):
        raise InputError(
            f"the backbone's head gives logits {tuple(logits.shape)} for an image, and the data have {num_classes} "
            f"classes: (1, {num_classes}) would be right"
        )
