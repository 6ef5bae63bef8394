"""Faster R-CNN on ResNet-101, 1x schedule."""

from ..common.coco import dataloader
from ..common.rcnn_fpn import model, without_masks
from ..common.schedules import lr_multiplier, optimizer, train

model = without_masks(model)
dataloader.train.mapper.use_instance_mask = False
model.backbone.bottom_up.depth = 101
train["init_checkpoint"] = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
