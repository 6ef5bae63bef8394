"""The benchmark of the evaluation: both ways give the same numbers, and wrong flags are named."""

from __future__ import annotations

import argparse

import pytest

from resnet_det.benchmark import SUBCOMMANDS
from resnet_det.benchmark.evaluate import add_arguments, run, write_random
from resnet_det.errors import InputError


@pytest.fixture
def make_args():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return lambda *args: parser.parse_args([*map(str, args)])


def test_both_ways_read_and_find_the_same(make_args):
    assert "evaluate" in SUBCOMMANDS
    args = make_args("--images", 12, "--detections", 15)
    args.pairs = 1
    read, *evaluated = run(args)
    assert read.title.startswith("Annotation file read: 12 images, ")
    assert [comparison.title.split(": ")[1][:4] for comparison in evaluated] == ["bbox", "segm"]
    assert evaluated[0].title.endswith("180 detections")
    for comparison in (read, *evaluated):
        assert [result.name for result in comparison.results] == ["pycocotools", "resnet_det"]
        assert comparison.result("resnet_det").difference < 1e-9


def test_given_files_are_used_and_checked(make_args, tmp_path):
    annotations, results = write_random(tmp_path, 4, 5)
    args = make_args("--annotations", annotations, "--results", results, "--iou-type", "bbox")
    args.pairs = 1
    assert [comparison.items for comparison in run(args)] == [4, 4]
    with pytest.raises(InputError, match="--annotations needs --results"):
        next(iter(run(make_args("--annotations", annotations))))
    results.write_text('[{"image_id": 1}]')
    with pytest.raises(InputError, match=r"results.json: 1 of 1 results has no category_id"):
        next(iter(run(args)))
