"""Loaders of test images."""

from __future__ import annotations

import gc
import json
import pickle

import numpy as np
import pytest

from resnet_det.data import register_cfg_datasets
from resnet_det.data.loading.loader import category_repeat_factors
from resnet_det.engine import Trainer, build_train_parser, environment, loaders, setup_cfg
from resnet_det.engine.loaders import build_test_loader, build_validation_loss_loader


@pytest.fixture
def cfg(default_cfg, small_data, tmp_path):
    name = f"loaders_{tmp_path.name}"
    default_cfg.RESNET_DET.DATA.COCO = [[name, *small_data["val"]]]
    default_cfg.DATASETS.TEST = (name,)
    default_cfg.DATALOADER.NUM_WORKERS = 0
    register_cfg_datasets(default_cfg)
    return default_cfg


def test_losses_of_a_model_with_precomputed_proposals_get_them(cfg, small_data, tmp_path):
    with open(small_data["val"][0]) as file:
        ids = [image["id"] for image in json.load(file)["images"]]
    boxes = [np.array([[4, 4, 30, 30], [8, 8, 40, 44]], dtype="float32") for _ in ids]
    proposals = {"ids": ids, "boxes": boxes, "objectness_logits": [np.array([0.1, 0.9], dtype="float32") for _ in ids]}
    (tmp_path / "proposals.pkl").write_bytes(pickle.dumps(proposals))
    cfg.MODEL.LOAD_PROPOSALS, cfg.DATASETS.PROPOSAL_FILES_TEST = True, (str(tmp_path / "proposals.pkl"),)
    batch = next(iter(build_validation_loss_loader(cfg, cfg.DATASETS.TEST[0])))
    assert batch[0]["proposals"].objectness_logits.tolist() == pytest.approx([0.9, 0.1])
    assert len(batch[0]["instances"]) > 0


@pytest.mark.parametrize(("most", "shares"), [(0, (2, 2)), (3, (2, 1)), (1, (1, 0)), (100, (2, 2))])
def test_max_images_is_a_number_of_all_processes(cfg, monkeypatch, most, shares):
    cfg.RESNET_DET.TEST.MAX_IMAGES = most
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    for rank, count in enumerate(shares):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        assert len(build_test_loader(cfg, cfg.DATASETS.TEST[0]).dataset) == count


def test_loaders_that_stay_go_with_their_config(cfg):
    cfg.RESNET_DET.DATA.PERSISTENT_WORKERS, cfg.DATALOADER.NUM_WORKERS = True, 1
    name = cfg.DATASETS.TEST[0]
    mine = cfg.clone()
    assert build_test_loader(mine, name) is build_test_loader(mine, name)
    assert id(mine) in loaders._kept_loaders
    key = id(mine)
    del mine
    gc.collect()
    assert key not in loaders._kept_loaders


def test_workers_that_stay_need_not_be_there(cfg):
    cfg.RESNET_DET.DATA.PERSISTENT_WORKERS = True
    assert len(next(iter(build_test_loader(cfg, cfg.DATASETS.TEST[0])))) == 1


@pytest.mark.parametrize(
    ("device", "cuda", "wanted", "pins"),
    [
        ("cuda", True, True, True),
        ("cuda:1", True, True, True),
        ("cuda", True, False, False),
        ("cuda", False, True, False),
        ("cpu", True, True, False),
    ],
)
def test_memory_is_pinned_for_a_gpu_alone(cfg, monkeypatch, device, cuda, wanted, pins):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    cfg.MODEL.DEVICE, cfg.RESNET_DET.DATA.PIN_MEMORY = device, wanted
    assert loaders.pins_memory(cfg) is pins


def test_a_train_loader_begins_with_the_first_batch(make_args):
    cfg = setup_cfg(build_train_parser().parse_args(["--resume", *make_args("SEED", 1, "DATALOADER.NUM_WORKERS", 0)]))
    first, from_start = (
        next(iter(loader))
        for loader in (Trainer.build_train_loader(cfg), Trainer.build_train_loader(cfg, seed=0, start_step=0))
    )
    assert [entry["file_name"] for entry in first] == [entry["file_name"] for entry in from_start]


@pytest.mark.parametrize("name", ["opencv-python", "opencv-python-headless"])
def test_the_environment_says_whether_there_are_windows(monkeypatch, name):
    monkeypatch.setattr(environment, "_distribution_of", lambda _: name)
    (line,) = (line for line in environment.describe_environment() if line.startswith("OpenCV"))
    assert line.endswith("(headless: no windows)") == name.endswith("headless")


def test_images_of_rare_classes_are_repeated():
    classes = [[0, 1, 1], [0], [0, 2], []]  # shares of the images: 3/4, 1/4, 1/4
    dicts = [{"annotations": [{"category_id": index} for index in present]} for present in classes]
    assert category_repeat_factors(dicts, 0.5) == pytest.approx([2**0.5, 1, 2**0.5, 1])
    assert category_repeat_factors(dicts, 0.2) == [1, 1, 1, 1]
