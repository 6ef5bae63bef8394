"""RetinaNet on ResNet-50, 1x schedule."""

from ..common.coco import dataloader
from ..common.retinanet import model
from ..common.schedules import lr_multiplier, optimizer, train

model.backbone.bottom_up.depth = 50
dataloader.train.mapper.use_instance_mask = False
optimizer.lr = 0.01
train["init_checkpoint"] = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
