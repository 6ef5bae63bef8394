"""The mapper: Detectron2's where our keys are at their defaults; large-scale jitter; changes of colour."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BitMasks, PolygonMasks
from PIL import Image
from pycocotools import mask as mask_util

from resnet_det.data import build_augmentations, build_mapper
from resnet_det.data.mapping.augmentation import PhotometricDistortion

GREY = 128  # what FixedSizeCrop pads with


@pytest.fixture
def dicts(small_data):
    return load_coco_json(*small_data["train"])


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["image"], theirs["image"])
    ours, theirs = ours["instances"].get_fields(), theirs["instances"].get_fields()
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["gt_boxes"].tensor, theirs["gt_boxes"].tensor)
    assert torch.equal(ours["gt_classes"], theirs["gt_classes"])
    if isinstance(ours.get("gt_masks"), BitMasks):
        assert torch.equal(ours["gt_masks"].tensor, theirs["gt_masks"].tensor)
    elif "gt_masks" in ours:
        pairs = zip(ours["gt_masks"].polygons, theirs["gt_masks"].polygons, strict=True)
        assert all(np.array_equal(a, b) for polygons in pairs for a, b in zip(*polygons, strict=True))


@pytest.mark.parametrize(
    "opts",
    [
        [],
        ["MODEL.MASK_ON", True],
        ["MODEL.MASK_ON", True, "INPUT.MASK_FORMAT", "bitmask", "INPUT.FORMAT", "RGB", "INPUT.RANDOM_FLIP", "vertical"],
        ["MODEL.MASK_ON", True, "INPUT.CROP.ENABLED", True],
    ],
)
def test_with_our_keys_at_their_defaults_it_is_detectron2s(default_cfg, dicts, opts):
    default_cfg.merge_from_list([*opts, "INPUT.MIN_SIZE_TRAIN", (100, 150, 200)])
    ours, theirs = build_mapper(default_cfg, True), DatasetMapper(default_cfg, True)
    for seed, entry in enumerate(dicts):
        np.random.seed(seed)
        expected = theirs(entry)
        np.random.seed(seed)
        assert_same(ours(entry), expected)


def test_nothing_is_augmented_in_inference(default_cfg, dicts):
    data = default_cfg.RESNET_DET.DATA
    data.LSJ.ENABLED, data.COPY_PASTE.PROB, data.PHOTOMETRIC.PROB = True, 1.0, 1.0
    expected = DatasetMapper(default_cfg, False)(dicts[0])
    found = build_mapper(default_cfg, False)(dicts[0])
    assert found.keys() == expected.keys()
    assert torch.equal(found["image"], expected["image"])


def test_the_same_seed_gives_the_same_after_pickling(default_cfg, dicts):
    data = default_cfg.RESNET_DET.DATA
    data.LSJ.ENABLED, data.LSJ.SIZE, data.COPY_PASTE.PROB, data.PHOTOMETRIC.PROB = True, 160, 1.0, 1.0
    default_cfg.MODEL.MASK_ON, default_cfg.INPUT.MASK_FORMAT = True, "bitmask"
    mapper = build_mapper(default_cfg, True, dicts)
    np.random.seed(5)
    expected = mapper(dicts[0])
    np.random.seed(5)
    assert_same(pickle.loads(pickle.dumps(mapper))(dicts[0]), expected)
    assert not torch.equal(mapper(dicts[0])["image"], expected["image"])


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("scale", [0.25, 1.75])
def test_jitter_scales_then_crops_or_pads(default_cfg, dicts, mask_format, scale):
    lsj = default_cfg.RESNET_DET.DATA.LSJ
    lsj.ENABLED, lsj.SIZE, lsj.MIN_SCALE, lsj.MAX_SCALE = True, 200, scale, scale
    default_cfg.MODEL.MASK_ON, default_cfg.INPUT.MASK_FORMAT = True, mask_format
    default_cfg.INPUT.RANDOM_FLIP = "none"
    mapper = build_mapper(default_cfg, True)
    for entry in dicts:
        mapped = mapper(entry)
        assert mapped["image"].shape == (3, 200, 200)
        factor = scale * 200 / max(entry["height"], entry["width"])
        height, width = (min(200, round(entry[side] * factor)) for side in ("height", "width"))
        assert (mapped["image"][:, height:] == GREY).all()
        assert (mapped["image"][:, :, width:] == GREY).all()
        assert mapped["image"][:, :height, :width].float().std() > 5
        masks = mapped["instances"].gt_masks
        if isinstance(masks, PolygonMasks):
            masks = BitMasks.from_polygon_masks(masks, 200, 200)
        assert not masks.tensor[:, height:].any()
        assert not masks.tensor[:, :, width:].any()
        boxes = mapped["instances"].gt_boxes.tensor
        off = (boxes - masks.get_bounding_boxes().tensor).abs().max()
        assert off <= (1 if mask_format == "polygon" else 0), "boxes are tight around what is left"
        objects = [annotation for annotation in entry["annotations"] if not annotation["iscrowd"]]
        if scale < 1:
            assert len(boxes) == len(objects)
            area = sum(mask_util.area(rle(a["segmentation"], entry)) for a in objects) * factor**2
            assert masks.tensor.sum() == pytest.approx(area, rel=0.1)


def rle(polygons, entry):
    return mask_util.merge(mask_util.frPyObjects(polygons, entry["height"], entry["width"]))


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_jitter_takes_images_without_objects(default_cfg, dicts, mask_format):
    default_cfg.RESNET_DET.DATA.LSJ.ENABLED = default_cfg.MODEL.MASK_ON = True
    default_cfg.INPUT.CROP.ENABLED = True  # then Detectron2 computes boxes again, of no masks too
    default_cfg.INPUT.MASK_FORMAT = mask_format
    assert len(build_mapper(default_cfg, True)({**dicts[0], "annotations": []})["instances"]) == 0


def test_run_length_masks_do_not_reach_into_the_padding(default_cfg, dicts):
    lsj = default_cfg.RESNET_DET.DATA.LSJ
    lsj.ENABLED, lsj.MIN_SCALE, lsj.MAX_SCALE, lsj.SIZE = True, 0.5, 0.5, 200
    default_cfg.MODEL.MASK_ON, default_cfg.INPUT.MASK_FORMAT = True, "bitmask"
    default_cfg.INPUT.RANDOM_FLIP = "none"
    entry = dicts[0]
    first = {**entry["annotations"][0], "segmentation": rle(entry["annotations"][0]["segmentation"], entry)}
    masks = build_mapper(default_cfg, True)({**entry, "annotations": [first]})["instances"].gt_masks.tensor
    assert masks.any()
    assert not masks[:, 100:].any()
    assert not masks[:, :, 100:].any()


def distort(image, image_format="RGB", **strengths):
    strengths = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, **strengths}
    return PhotometricDistortion(1.0, image_format=image_format, **strengths).get_transform(image).apply_image(image)


def test_colours_stay_with_no_strength_and_brightness_scales_them():
    image = np.random.randint(0, 100, (20, 30, 3), dtype=np.uint8)
    assert np.abs(distort(image).astype(int) - image).max() <= 6, "a turn of the hue by 0 rounds alone"
    bright = distort(image, brightness=0.5).astype(float)
    factor = bright.sum() / image.sum()
    assert 0.5 <= factor <= 1.5
    assert abs(factor - 1) > 0.02
    np.testing.assert_allclose(bright, image * factor, atol=8)


def test_bgr_is_distorted_like_rgb():
    image = np.random.randint(0, 256, (20, 30, 3), dtype=np.uint8)
    strengths = {"brightness": 0.1, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}
    np.random.seed(3)
    expected = distort(image, **strengths)
    np.random.seed(3)
    found = distort(image[:, :, ::-1], "BGR", **strengths)
    assert np.array_equal(found[:, :, ::-1], expected)
    assert not np.array_equal(expected, image)


def test_a_turn_of_the_hue_keeps_value_and_saturation():
    image = np.random.randint(30, 226, (20, 30, 3), dtype=np.uint8)
    before, after = (
        np.asarray(Image.fromarray(x).convert("HSV")).astype(int) for x in (image, distort(image, hue=0.5))
    )
    assert np.abs(before[:, :, 1:] - after[:, :, 1:]).max() <= 12
    turn = (after[:, :, 0] - before[:, :, 0]) % 256
    middle = np.median(turn)
    assert 5 < middle < 251
    assert (np.abs(turn - middle) <= 6).mean() > 0.95


def test_colours_are_changed_as_often_as_said(default_cfg):
    default_cfg.RESNET_DET.DATA.PHOTOMETRIC.PROB = 0.3
    distortion = build_augmentations(default_cfg, True)[0]
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    changed = sum("Color" in type(distortion.get_transform(image)).__name__ for _ in range(2000))
    assert changed / 2000 == pytest.approx(0.3, abs=0.05)
