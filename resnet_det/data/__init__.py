"""Data sets: own ones in COCO format, their checks, and the demo data, whose names are registered on import."""

from resnet_det.data.coco import judge_content, read_coco, read_coco_json
from resnet_det.data.demo import make_demo_data
from resnet_det.data.loading.coco_json import load_coco_json
from resnet_det.data.loading.dicts import load_dataset_dicts
from resnet_det.data.loading.fit import prepare_cfg_datasets, set_num_classes
from resnet_det.data.loading.loader import make_train_loader
from resnet_det.data.loading.register import (
    count_classes,
    name_own_dataset,
    prepare_dataset,
    register_cfg_datasets,
    register_coco,
)
from resnet_det.data.mapping.augmentation import build_augmentations
from resnet_det.data.mapping.fast_mapper import FastDatasetMapper
from resnet_det.data.mapping.mapper import build_mapper
from resnet_det.data.mapping.plain_mapper import PlainDatasetMapper

__all__ = [
    "FastDatasetMapper",
    "PlainDatasetMapper",
    "build_augmentations",
    "build_mapper",
    "count_classes",
    "judge_content",
    "load_coco_json",
    "load_dataset_dicts",
    "make_demo_data",
    "make_train_loader",
    "name_own_dataset",
    "prepare_cfg_datasets",
    "prepare_dataset",
    "read_coco",
    "read_coco_json",
    "register_cfg_datasets",
    "register_coco",
    "set_num_classes",
]
