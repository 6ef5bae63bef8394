"""What a model gets of an image is what it was trained on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from PIL import Image

from resnet_det.engine.predictor import Predictor, find_category_ids
from resnet_det.modeling.fast_poolers import FastROIAlign


@pytest.mark.parametrize(("image_format", "channels"), [("BGR", 3), ("RGB", 3), ("L", 1)])
def test_images_are_converted_as_in_training(image_format, channels, default_cfg, tmp_path, request):
    default_cfg.merge_from_file(str(request.config.rootpath / "configs/demo/mask_rcnn_R_18_FPN.yaml"))
    default_cfg.MODEL.DEVICE, default_cfg.MODEL.ROI_BOX_HEAD.FC_DIM = "cpu", 32
    default_cfg.DATASETS.TRAIN = default_cfg.DATASETS.TEST = ()
    default_cfg.INPUT.FORMAT, default_cfg.INPUT.MIN_SIZE_TEST = image_format, 64
    default_cfg.MODEL.PIXEL_MEAN, default_cfg.MODEL.PIXEL_STD = [100.0] * channels, [50.0] * channels
    path = tmp_path / "weights.pth"
    torch.save({"model": build_model(default_cfg).state_dict()}, path)
    default_cfg.MODEL.WEIGHTS = str(path)
    rgb = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "image.png")
    predictor = Predictor(default_cfg)
    assert type(predictor.model.roi_heads.box_pooler.level_poolers[0]) is FastROIAlign
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = predictor.prepare(rgb[:, :, ::-1])["image"]
    expected = read_image(str(tmp_path / "image.png"), image_format)
    assert np.array_equal(got.permute(1, 2, 0).numpy(), expected.reshape(64, 80, channels))
    assert len(predictor.predict([rgb[:, :, ::-1]])) == 1


def test_category_ids_are_in_the_order_of_the_classes(default_cfg):
    MetadataCatalog.get("ids_train").thing_dataset_id_to_contiguous_id = {3: 2, 5: 0, 9: 1}
    default_cfg.DATASETS.TEST, default_cfg.DATASETS.TRAIN = (), ("ids_train",)
    assert find_category_ids(default_cfg, 3) == [5, 9, 3]
    assert find_category_ids(default_cfg, 4) == [1, 2, 3, 4], "of other data"
    MetadataCatalog.remove("ids_train")
