"""A detector of a few numbers, so that tests of a run's life take no time."""

from __future__ import annotations

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import nn

ARCHITECTURE = ["MODEL.META_ARCHITECTURE", "ToyDetector", "MODEL.MASK_ON", "False", "RESNET_DET.TEST.REPORT", "False"]
ARCHITECTURE += ["DATALOADER.NUM_WORKERS", "0", "RESNET_DET.TRAIN.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.01"]


@META_ARCH_REGISTRY.register()
class ToyDetector(nn.Module):
    """A convolution, a norm, random numbers, and a number of its own; it finds one box in each image."""

    def __init__(self, cfg):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=8), nn.BatchNorm2d(4)
        self.backbone = nn.Identity()
        self.normalizer = 100
        self.to(cfg.MODEL.DEVICE)

    @property
    def device(self):
        return self.conv.weight.device

    def forward(self, batch):
        images = torch.stack([sample["image"][:, :48, :48] for sample in batch]).to(self.device).float() / 255
        features = self.norm(self.conv(images))
        if self.training:
            count = sum(len(sample["instances"]) for sample in batch)
            self.normalizer = 0.9 * self.normalizer + 0.1 * count
            get_event_storage().put_scalar("toy/count", count)
            noise = 1 + 0.1 * torch.rand((), device=self.device)
            return {"loss_toy": 100 * (features - noise).square().mean() / self.normalizer}
        return [{"instances": self.detect(sample)} for sample in batch]

    def detect(self, sample):
        found = Instances((sample["height"], sample["width"]))
        found.pred_boxes = Boxes(torch.tensor([[1.0, 1.0, 9.0, 9.0]]))
        found.scores, found.pred_classes = torch.tensor([0.5]), torch.tensor([0])
        return found
