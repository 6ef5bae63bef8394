"""Copy-paste: pixels, masks, boxes and numbers of objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BitMasks, Boxes, Instances

from resnet_det.data import build_mapper
from resnet_det.data.mapping.copy_paste import choose_objects, paste_objects
from resnet_det.data.mapping.mapper import find_sources
from resnet_det.errors import InputError


def make_instances(size, *rectangles):
    """Objects of classes 0, 1, ... whose masks are rectangles (x0, y0, x1, y1)."""
    masks = torch.zeros(len(rectangles), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True):
        mask[y0:y1, x0:x1] = True
    classes = torch.arange(len(rectangles))
    return Instances(size, gt_masks=BitMasks(masks), gt_boxes=Boxes(torch.tensor(rectangles)), gt_classes=classes)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 20, 30), generator=generator, dtype=torch.uint8)


def test_pixels_come_from_the_source_under_its_masks_alone(images):
    target, objects = make_instances((20, 30), (1, 1, 9, 9)), make_instances((20, 30), (5, 5, 10, 8), (20, 3, 25, 18))
    image, _ = paste_objects(images[0], target, images[1], objects)
    covered = objects.gt_masks.tensor.any(dim=0)
    assert torch.equal(image[:, covered], images[1][:, covered])
    assert torch.equal(image[:, ~covered], images[0][:, ~covered])


def test_covered_objects_lose_exactly_the_covered_pixels(images):
    target = make_instances((20, 30), (0, 0, 10, 10), (15, 0, 25, 10))
    _, combined = paste_objects(images[0], target, images[1], make_instances((20, 30), (6, 0, 12, 20)))
    masks, before = combined.gt_masks.tensor, target.gt_masks.tensor
    lost = before[0] & ~masks[0]
    assert lost.nonzero().tolist() == [[y, x] for y in range(10) for x in range(6, 10)]
    assert not (masks[0] & ~before[0]).any()
    assert torch.equal(masks[1], before[1])
    assert combined.gt_boxes.tensor.tolist() == [[0, 0, 6, 10], [15, 0, 25, 10], [6, 0, 12, 20]]
    assert combined.gt_classes.tolist() == [0, 1, 0]


def test_objects_that_are_nearly_covered_are_dropped(images):
    target = make_instances((20, 30), (0, 0, 10, 10), (10, 0, 20, 10), (20, 0, 30, 10))
    # 9 %, 10 % and nothing of them stay visible.
    objects = make_instances((20, 30), (0, 0, 10, 9), (1, 9, 2, 10), (10, 0, 20, 9), (20, 0, 30, 10))
    _, combined = paste_objects(images[0], target, images[1], objects)
    assert combined.gt_classes.tolist() == [1, 0, 1, 2, 3]
    assert combined.gt_boxes.tensor[0].tolist() == [10, 9, 20, 10]


def test_an_image_without_objects_can_be_pasted_on(images):
    empty = Instances((20, 30), gt_boxes=Boxes(torch.zeros(0, 4)), gt_classes=torch.zeros(0, dtype=torch.int64))
    _, combined = paste_objects(images[0], empty, images[1], make_instances((20, 30), (5, 5, 10, 8)))
    assert combined.gt_boxes.tensor.tolist() == [[5, 5, 10, 8]]


def test_any_subset_is_chosen_up_to_the_limit():
    source = make_instances((20, 30), *[(x, 2, x + 3, 5) for x in range(0, 20, 4)])
    picks = [tuple(sorted(choose_objects(source, (20, 30), 3)[0].gt_classes.tolist())) for _ in range(400)]
    assert {len(pick) for pick in picks} == {1, 2, 3}
    assert all(len(set(pick)) == len(pick) for pick in picks)
    assert {index for pick in picks for index in pick} == set(range(5))
    assert max(len(choose_objects(source, (20, 30), 0)[0]) for _ in range(100)) == 5


@pytest.mark.parametrize("size", [(40, 60), (10, 50), (20, 30), (8, 9)])
def test_objects_keep_their_pixels_on_an_image_of_another_size(images, size):
    source = make_instances((20, 30), (8, 6, 14, 12))
    for _ in range(20):
        objects, padding = choose_objects(source, size, 0)
        moved = torch.nn.functional.pad(images[1], padding)
        assert moved.shape[1:] == size
        if len(objects) == 0:  # the crop misses it
            continue
        (x0, y0, x1, y1) = objects.gt_masks.get_bounding_boxes().tensor[0].int().tolist()
        left, top = x0 - padding[0], y0 - padding[2]
        assert torch.equal(moved[:, y0:y1, x0:x1], images[1][:, top : top + y1 - y0, left : left + x1 - x0])
        if size == (40, 60):
            assert (left, top, x1 - x0, y1 - y0) == (8, 6, 6, 6)


@pytest.fixture
def paste_cfg(default_cfg):
    default_cfg.RESNET_DET.DATA.COPY_PASTE.PROB = 1.0
    default_cfg.MODEL.MASK_ON, default_cfg.INPUT.MASK_FORMAT = True, "bitmask"
    default_cfg.INPUT.MIN_SIZE_TRAIN = (160, 200)
    return default_cfg


@pytest.mark.parametrize("jitter", [False, True])
def test_the_mapper_pastes_objects_of_the_data(paste_cfg, small_data, jitter):
    lsj = paste_cfg.RESNET_DET.DATA.LSJ
    lsj.ENABLED, lsj.SIZE = jitter, 192
    dicts = load_coco_json(*small_data["train"])
    mapper = build_mapper(paste_cfg, True, dicts)
    more = 0
    for seed, entry in enumerate(dicts):
        np.random.seed(seed)
        mapped = mapper(entry)
        instances = mapped["instances"]
        assert mapped["image"].shape[1:] == instances.image_size == instances.gt_masks.tensor.shape[1:]
        assert torch.equal(instances.gt_boxes.tensor, instances.gt_masks.get_bounding_boxes().tensor)
        assert instances.gt_masks.nonempty().all()
        more += len(instances) - sum(not annotation["iscrowd"] for annotation in entry["annotations"])
    assert jitter or more > 0


def test_nothing_is_pasted_at_probability_zero_or_from_crowds(paste_cfg, small_data):
    dicts = load_coco_json(*small_data["train"])
    paste_cfg.RESNET_DET.DATA.COPY_PASTE.PROB = 1e-9
    paste_cfg.INPUT.RANDOM_FLIP = "none"
    mapped = build_mapper(paste_cfg, True, dicts)(dicts[0])
    assert len(mapped["instances"]) == len(dicts[0]["annotations"])
    crowd = [{**entry, "annotations": [{**entry["annotations"][0], "iscrowd": 1}]} for entry in dicts]
    with pytest.raises(InputError, match="no objects to copy"):
        build_mapper(paste_cfg, True, crowd)


def test_a_box_detector_gets_pasted_boxes_without_masks(paste_cfg, small_data):
    paste_cfg.MODEL.MASK_ON = False
    dicts = load_coco_json(*small_data["train"])
    mapped = build_mapper(paste_cfg, True, dicts[1:2])({**dicts[0], "annotations": []})
    assert set(mapped["instances"].get_fields()) == {"gt_boxes", "gt_classes"}
    assert len(mapped["instances"]) >= 1
    classes = {annotation["category_id"] for annotation in dicts[1]["annotations"]}
    assert set(mapped["instances"].gt_classes.tolist()) <= classes


def test_data_without_masks_are_named(paste_cfg, coco_files):
    with pytest.raises(InputError, match=r"COPY_PASTE needs masks, and objects in 2 of 2 images have none .*a\.png"):
        build_mapper(paste_cfg, True, load_coco_json(*map(str, coco_files)))


def test_objects_without_a_word_on_crowds_are_objects():
    """As data sets of one's own have them: Detectron2's dicts need no iscrowd."""
    mask = {"segmentation": [[0, 0, 4, 0, 4, 4]]}
    dicts = [{"annotations": []}, {"annotations": [mask]}, {"annotations": [{**mask, "iscrowd": 1}]}]
    assert find_sources(dicts).tolist() == [1]
