"""Objects without a mask or keypoints among objects with some: what they lack is not learned, the rest is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, Instances
from PIL import Image

from resnet_det.data import build_mapper, load_coco_json, prepare_cfg_datasets, register_coco
from resnet_det.data.loading.register import name_own_dataset
from resnet_det.errors import InputError
from resnet_det.modeling.missing_masks import ignore_missing_masks_

SQUARE = [[5, 5, 25, 5, 25, 25, 5, 25]]


@pytest.fixture
def entry(tmp_path):
    """An image with an object with a mask and keypoints, one without, and a crowd without."""
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    common = {"bbox_mode": 1, "iscrowd": 0}
    annotations = [
        {**common, "bbox": [30, 5, 20, 20], "category_id": 1},
        {**common, "bbox": [5, 5, 20, 20], "category_id": 2, "segmentation": SQUARE, "keypoints": [6.0, 7, 2]},
        {**common, "bbox": [0, 0, 9, 9], "category_id": 0, "iscrowd": 1},
    ]
    return {"file_name": str(tmp_path / "a.png"), "height": 48, "width": 64, "annotations": annotations}


@pytest.mark.parametrize("mapper", ["detectron2", "fast"])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_each_object_keeps_its_class_and_says_whether_it_has_a_mask(default_cfg, entry, mapper, mask_format):
    cfg = default_cfg
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT, cfg.RESNET_DET.DATA.MAPPER = True, mask_format, mapper
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (48,), "none"
    instances = build_mapper(cfg, True)(entry)["instances"]
    assert instances.gt_classes.tolist() == [1, 2]
    assert instances.gt_has_mask.tolist() == [False, True]
    assert instances.gt_boxes.tensor.tolist() == [[30, 5, 50, 25], [5, 5, 25, 25]]
    with_masks = {**entry, "annotations": entry["annotations"][1:2]}
    assert not build_mapper(cfg, True)(with_masks)["instances"].has("gt_has_mask")


def test_an_object_without_keypoints_has_none_that_is_labelled(default_cfg, entry):
    cfg = default_cfg
    cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = False, True, 1
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP, cfg.DATASETS.TRAIN = (48,), "none", ("one_keypoint",)
    MetadataCatalog.get("one_keypoint").set(keypoint_names=["a"], keypoint_flip_map=[])
    mapper = build_mapper(cfg, True)
    instances = mapper(entry)["instances"]
    assert instances.gt_keypoints.tensor[:, 0, 2].tolist() == [0, 2]
    assert not instances.has("gt_has_mask")


class _Head(torch.nn.Module):
    def forward(self, features, instances):
        return features, instances


def test_the_mask_head_gets_objects_with_a_mask_alone():
    model = torch.nn.Module()
    model.roi_heads = torch.nn.Module()
    model.roi_heads.mask_head = _Head()
    ignore_missing_masks_(model)
    first, second = (
        Instances((9, 9), gt_boxes=Boxes(torch.zeros(count, 4)), gt_masks=BitMasks(torch.zeros(count, 9, 9)))
        for count in (2, 1)
    )
    first.gt_has_mask = torch.tensor([False, True])
    features, instances = model.roi_heads.mask_head(torch.arange(3.0)[:, None], [first, second])
    assert features.flatten().tolist() == [1, 2]
    assert [len(one) for one in instances] == [1, 1]
    model.eval()
    assert len(model.roi_heads.mask_head(torch.arange(3.0)[:, None], [first, second])[0]) == 3
    ignore_missing_masks_(torch.nn.Linear(1, 1))  # a model without a mask head


def test_files_of_one_name_get_the_names_of_their_folders(tmp_path):
    entries, names = [], []
    for folder in ("a/train", "a/valid", "b/valid"):
        files = [str(tmp_path / folder / "_annotations.coco.json"), str(tmp_path / folder)]
        names.append(name_own_dataset(*files, entries))
        entries.append([names[-1], *files])
        assert name_own_dataset(*files, entries) == names[-1], "the same set has the same name"
    assert names == ["train_annotations", "valid_annotations", "b_valid_annotations"]
    assert name_own_dataset("/x/set.json", "/x") == "set"
    assert name_own_dataset("/y/set.json", "/y", [["set", "/x/set.json", "/x"]]) == "y_set"


def test_a_number_of_classes_on_the_command_line_contradicts_and_one_in_a_file_does_not(default_cfg, coco_files):
    path, images = map(str, coco_files)
    register_coco(coco_files[0].stem, path, images)
    cfg = default_cfg
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.MODEL.ROI_HEADS.NUM_CLASSES = (coco_files[0].stem,), (), 7
    for options in ({}, {"follows_data": True, "set_keys": ["MODEL.ROI_HEADS.NUM_CLASSES"]}):
        with pytest.raises(InputError, match=r"NUM_CLASSES is 7, but .* have 2 classes"):
            prepare_cfg_datasets(cfg, cfg.DATASETS.TRAIN, **options)
    prepare_cfg_datasets(cfg, cfg.DATASETS.TRAIN, follows_data=True)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
    assert len(load_coco_json(path, images)) == 2
