"""Loaders of the data sets that a config names."""

from __future__ import annotations

import weakref

import torch
from detectron2.config import CfgNode
from detectron2.data import MapDataset
from detectron2.data import transforms as T
from detectron2.data.samplers import InferenceSampler
from torch.utils.data import DataLoader, Subset

from resnet_det.data.loading.dicts import load_dataset_dicts
from resnet_det.data.loading.fit import needed_tasks
from resnet_det.data.loading.loader import ListLoader, category_repeat_factors, make_train_loader
from resnet_det.data.loading.serialized import SerializedDicts
from resnet_det.data.mapping.mapper import Mapper, build_mapper, complete_labels, make_mapper
from resnet_det.engine.slicing import build_test_mapper


def load_train_dicts(cfg: CfgNode) -> SerializedDicts:
    """The images of DATASETS.TRAIN that are trained on."""
    return load_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        tasks=needed_tasks(cfg),
    )


def pins_memory(cfg: CfgNode) -> bool:
    """Whether batches wait in pinned memory, from which a GPU fetches them by itself."""
    return cfg.RESNET_DET.DATA.PIN_MEMORY and cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available()


def build_train_loader(cfg: CfgNode, *, seed: int, start_step: int = 0) -> DataLoader:
    """Endless batches of DATASETS.TRAIN for this process, from ``start_step`` on.

    Raises:
        InputError: the processes cannot share the batch evenly.
    """
    dicts = load_train_dicts(cfg)
    factors = None
    if cfg.DATALOADER.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors = category_repeat_factors(dicts, cfg.DATALOADER.REPEAT_THRESHOLD)
    data = cfg.RESNET_DET.DATA
    return make_train_loader(
        dicts,
        build_mapper(cfg, True, dicts),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        start_step=start_step,
        accumulate=cfg.RESNET_DET.TRAIN.ACCUMULATE,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        repeat_factors=factors,
        on_bad_image=data.ON_BAD_IMAGE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=pins_memory(cfg),
        prefetch_factor=data.PREFETCH_FACTOR,
    )


# For RESNET_DET.DATA.PERSISTENT_WORKERS, by the id of a config and a data set's name. They and their workers go with
# the config, which goes with the trainer.
_kept_loaders: dict[int, dict[str, DataLoader]] = {}


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """This process's share of the images to evaluate on, in batches of RESNET_DET.TEST.BATCH_SIZE."""
    if not (cfg.RESNET_DET.DATA.PERSISTENT_WORKERS and cfg.DATALOADER.NUM_WORKERS):
        return _make_test_loader(cfg, name, build_test_mapper(cfg))
    if id(cfg) not in _kept_loaders:
        _kept_loaders[id(cfg)] = {}
        weakref.finalize(cfg, _kept_loaders.pop, id(cfg))
    kept = _kept_loaders[id(cfg)]
    if name not in kept:
        kept[name] = _make_test_loader(cfg, name, build_test_mapper(cfg))
    return kept[name]


def build_validation_loss_loader(cfg: CfgNode, name: str) -> DataLoader:
    """The same images with their annotations, as training has them, but resized as for a test and not augmented."""
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    arguments = {
        "is_train": True,
        "augmentations": [resize],
        "image_format": cfg.INPUT.FORMAT,
        "use_instance_mask": cfg.MODEL.MASK_ON,
        "use_keypoint": cfg.MODEL.KEYPOINT_ON,
        "instance_mask_format": cfg.INPUT.MASK_FORMAT,
        "precomputed_proposal_topk": cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST if cfg.MODEL.LOAD_PROPOSALS else None,
    }
    mapper = make_mapper(cfg, arguments)
    return _make_test_loader(cfg, name, complete_labels(cfg, mapper))


def load_test_dicts(cfg: CfgNode, name: str) -> SerializedDicts:
    """The images of a data set to evaluate on, those without objects included."""
    proposal_files = None
    if cfg.MODEL.LOAD_PROPOSALS:
        proposal_files = [cfg.DATASETS.PROPOSAL_FILES_TEST[list(cfg.DATASETS.TEST).index(name)]]
    tasks = needed_tasks(cfg)
    return load_dataset_dicts(name, filter_empty=False, proposal_files=proposal_files, tasks=tasks)


def _make_test_loader(cfg: CfgNode, name: str, mapper: Mapper) -> DataLoader:
    """As Detectron2's, which has one image a batch, and no key for more."""
    test, data = cfg.RESNET_DET.TEST, cfg.RESNET_DET.DATA
    dicts = load_test_dicts(cfg, name)
    places = list(InferenceSampler(min(len(dicts), test.MAX_IMAGES or len(dicts))))
    num_workers = cfg.DATALOADER.NUM_WORKERS
    return ListLoader(
        Subset(MapDataset(dicts, mapper), places),
        batch_size=test.BATCH_SIZE,
        num_workers=num_workers,
        pin_memory=pins_memory(cfg),
        prefetch_factor=data.PREFETCH_FACTOR if num_workers else None,
        persistent_workers=data.PERSISTENT_WORKERS and num_workers > 0,
    )
