"""RetinaNet on ResNet-18, 1x schedule."""

from ..common.coco import dataloader
from ..common.retinanet import model
from ..common.schedules import lr_multiplier, optimizer, train
from ..common.torchvision import use_torchvision_conventions

use_torchvision_conventions(model, dataloader)
model.backbone.bottom_up.depth = 18
dataloader.train.mapper.use_instance_mask = False
optimizer.lr = 0.01
train["init_checkpoint"] = "torchvision://resnet18"
