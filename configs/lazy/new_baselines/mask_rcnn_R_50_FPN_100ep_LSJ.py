"""Mask R-CNN on ResNet-50 from scratch with large-scale jitter, 100 epochs (arXiv 2012.07177)."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.layers.batch_norm import NaiveSyncBatchNorm

from ..common.coco import dataloader
from ..common.rcnn_fpn import model
from ..common.schedules import make_schedule, optimizer, train

IMAGE_SIZE = 1024


def make_head_norm(channels):
    """Counts images, as a head may get no boxes on one of the GPUs."""
    return NaiveSyncBatchNorm(channels, stats_mode="N")


model.backbone.bottom_up.update(norm="SyncBN", freeze_at=0)
model.backbone.norm = "SyncBN"
model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm=make_head_norm)
model.roi_heads.mask_head.conv_norm = make_head_norm

dataloader.train.mapper.augmentations = [
    L(T.ResizeScale)(min_scale=0.1, max_scale=2.0, target_height=IMAGE_SIZE, target_width=IMAGE_SIZE),
    L(T.FixedSizeCrop)(crop_size=(IMAGE_SIZE, IMAGE_SIZE)),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.train.mapper.recompute_boxes = True
dataloader.train.total_batch_size = 64

train["amp"]["enabled"] = True
train["max_iter"] = 184375  # 100 epochs of 118,000 images
lr_multiplier = make_schedule(184375, [163889, 177546], warmup_length=500, warmup_factor=0.067)
optimizer.lr = 0.1
optimizer.weight_decay = 4e-5
