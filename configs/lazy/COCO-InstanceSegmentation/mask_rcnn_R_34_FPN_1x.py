"""Mask R-CNN on ResNet-34, 1x schedule."""

from ..common.coco import dataloader
from ..common.rcnn_fpn import model
from ..common.schedules import lr_multiplier, optimizer, train
from ..common.torchvision import use_torchvision_conventions

use_torchvision_conventions(model, dataloader)
model.backbone.bottom_up.depth = 34
train["init_checkpoint"] = "torchvision://resnet34"
