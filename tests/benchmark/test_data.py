"""The benchmarks of data and drawing: what they compare, and what they say of it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data.datasets import load_coco_json

from resnet_det.benchmark import data, draw
from resnet_det.benchmark.annotation_file import write_annotation_file
from resnet_det.benchmark.processes import run_in_child
from resnet_det.data import FastDatasetMapper, judge_content
from resnet_det.errors import InputError


def parse(module, *flags):
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=7)
    module.add_arguments(parser)
    return parser.parse_args(flags)


def test_the_made_up_file_is_sound_and_as_large_per_annotation_as_cocos(tmp_path):
    path = tmp_path / "large.json"
    write_annotation_file(path, 300, 2500)
    content = json.loads(path.read_bytes())
    assert [len(content[key]) for key in ("images", "annotations", "categories")] == [300, 2500, 80]
    data = judge_content(content)
    assert (data.problems(), data.count_use().masks, list(data.describe_warnings())) == ([], 2500, [])
    assert 420 < path.stat().st_size / 2500 < 620, "448 MB for 860,000 annotations in COCO train2017"
    for annotation in content["annotations"][:50]:
        corners = np.reshape(annotation["segmentation"][0], (-1, 2))
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose([*corners.min(0), *corners.max(0)], [x, y, x + width, y + height], atol=0.011)


def compare_loading_of_a_small_file():
    args = parse(data, "--parts", "loading", "--start-methods", "fork")
    args.file_images = args.shared_images = 1000
    args.file_annotations, args.pairs = 8000, 3
    return list(data.run(args))


def test_loading_is_compared_and_sharing_described():
    # In a new process, as the tool is: what a process of many tests has freed would hide these few MiB.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        (comparison,) = pool.submit(compare_loading_of_a_small_file).result()
    assert [result.name for result in comparison.results] == ["Detectron2", "resnet_det"]
    assert comparison.items == 1000
    assert len(comparison.results[0].seconds) == 3
    size, theirs, ours = (int(word) for word in comparison.notes[0].split() if word.isdecimal())
    assert ours < theirs < 20 * size
    as_list, _, shared = (int(part.split()[-2]) for part in comparison.notes[-1].split(", "))
    assert comparison.notes[-1].startswith("  forked: a list")
    assert shared < as_list, "the list is copied"


def test_a_child_tells_its_result_and_its_peak_whatever_was_freed_here():
    blocks = [bytearray(100 * 2**10) for _ in range(3000)]
    last = blocks.pop()
    del blocks
    result, peak = run_in_child(lambda: len(bytearray(200 * 2**20)))
    assert result == 200 * 2**20
    assert peak == pytest.approx(200 * 2**20, rel=0.1)
    assert len(last) == 100 * 2**10, "it lies behind the freed ones, which the allocator therefore keeps"


def test_mappers_are_compared(small_data):
    dicts = load_coco_json(*small_data["train"])[:2]
    comparison = data.compare_mappers(dicts, pairs=1)
    assert comparison.notes[0].startswith("Boxes and masks are equal in all images; pixels differ by 0.0")
    assert torch.get_num_threads() == 1


def test_a_mapper_that_changes_boxes_is_told(small_data):
    class Shifting(FastDatasetMapper):
        def __call__(self, dataset_dict):
            mapped = super().__call__(dataset_dict)
            mapped["instances"].gt_boxes.tensor += 0.5
            return mapped

    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    dicts = load_coco_json(*small_data["train"])[:2]
    assert "DIFFER in 2 images" in data.describe_difference(DatasetMapper(cfg, True), Shifting(cfg, True), dicts)


def test_images_that_are_not_there_are_named(tmp_path):
    args = parse(data, "--annotations", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"--annotations .*none\.json: no such file"):
        next(data.run(args))


def test_drawing_is_compared():
    (comparison,) = draw.run(parse(draw, "--objects", "3", "--pairs", "1"))
    assert comparison.title.startswith("A picture of 3 objects")
    assert [result.name for result in comparison.results] == ["Detectron2", "resnet_det"]
    with pytest.raises(InputError, match="--objects 0: 1 or more"):
        next(draw.run(parse(draw, "--objects", "0")))


def test_the_scene_is_what_a_model_returns():
    image, instances = draw.make_scene(30)
    assert image.shape == (480, 640, 3)
    assert len(instances) == 30
    assert (instances.scores.diff() <= 0).all()
    for mask, box in zip(instances.pred_masks.numpy(), instances.pred_boxes.tensor.numpy(), strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
