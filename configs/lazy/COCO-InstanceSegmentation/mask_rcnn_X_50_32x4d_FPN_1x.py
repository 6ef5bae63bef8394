"""Mask R-CNN on ResNeXt-50-32x4d, 1x schedule."""

from ..common.coco import dataloader
from ..common.rcnn_fpn import model
from ..common.schedules import lr_multiplier, optimizer, train
from ..common.torchvision import use_torchvision_conventions

use_torchvision_conventions(model, dataloader)
model.backbone.bottom_up.num_groups = 32
model.backbone.bottom_up.width_per_group = 4
train["init_checkpoint"] = "torchvision://resnext50_32x4d"
