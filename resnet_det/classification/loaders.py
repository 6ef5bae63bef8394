"""Batches of images and labels: Detectron2's list of dicts, with one dict for the whole batch.

Its keys: "image" (N, C, H, W) uint8 in the order of INPUT.FORMAT, "label" (N,) int64, "image_id" N names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import Dataset

from resnet_det.classification.augmentation import (
    BatchAugmentation,
    build_test_transform,
    build_train_transform,
    fits_batches,
)
from resnet_det.classification.image_sets import ImageSet
from resnet_det.data.loading.bad_images import ABOUT_THE_IMAGE, SKIP_ADVICE, SKIPPED, make_bad_image_error
from resnet_det.data.loading.dicts import choose_evenly
from resnet_det.data.loading.loader import ListLoader, TrainBatchSampler, make_train_loader
from resnet_det.engine.loaders import pins_memory
from resnet_det.errors import InputError

Batch = list[dict[str, Any]]

TEST_ADVICE = "All images of a test set have to be readable: mend this one, or take it away"


def build_train_loader(cfg: CfgNode, images: ImageSet, *, seed: int, start_step: int = 0) -> Iterable[Batch]:
    """Endless batches for this process, from ``start_step`` on; the same for any number of processes and workers.

    Raises:
        InputError: the processes cannot share the batch evenly; later, an image cannot be read.
    """
    options = {
        "seed": seed,
        "start_step": start_step,
        "accumulate": cfg.RESNET_DET.TRAIN.ACCUMULATE,
        "repeats": cfg.RESNET_DET.CLASSIFICATION.REPEATS,
    }
    if images.pixels is not None and fits_batches(cfg, *images.pixels.shape[1:3]):
        return _MemoryLoader(cfg, images, **options)
    data = cfg.RESNET_DET.DATA
    loader = make_train_loader(
        images.dicts,
        _Mapper(cfg, images, build_train_transform(cfg)),
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,
        on_bad_image=data.ON_BAD_IMAGE,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=pins_memory(cfg),
        prefetch_factor=data.PREFETCH_FACTOR,
        collate_fn=collate,
        **options,
    )
    return _Checked(loader, SKIP_ADVICE)


def build_test_loader(cfg: CfgNode, images: ImageSet) -> Iterable[Batch]:
    """This process's share of the images, in batches of RESNET_DET.TEST.BATCH_SIZE.

    With RESNET_DET.TEST.MAX_IMAGES, so many from all over the set.
    """
    test, workers = cfg.RESNET_DET.TEST, cfg.DATALOADER.NUM_WORKERS
    chosen = choose_test_images(cfg, images)
    places = [chosen[number] for number in InferenceSampler(len(chosen))]
    mapper = _Mapper(cfg, images, build_test_transform(cfg))
    loader = ListLoader(
        _TestDataset(images, places, mapper),
        batch_size=test.BATCH_SIZE,
        num_workers=0 if images.pixels is not None else workers,
        pin_memory=pins_memory(cfg),
        prefetch_factor=cfg.RESNET_DET.DATA.PREFETCH_FACTOR if workers and images.pixels is None else None,
        collate_fn=collate,
    )
    return _Checked(loader, TEST_ADVICE)


def choose_test_images(cfg: CfgNode, images: ImageSet) -> Sequence[int]:
    """The places of the images that are evaluated: all, or RESNET_DET.TEST.MAX_IMAGES from all over the set."""
    return choose_evenly(range(len(images)), cfg.RESNET_DET.TEST.MAX_IMAGES or len(images))


class _Mapper:
    """From an entry of an image set to a sample."""

    def __init__(self, cfg: CfgNode, images: ImageSet, transform: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.images, self.transform, self.image_format = images, transform, cfg.INPUT.FORMAT

    def __call__(self, entry: dict[str, Any]) -> dict[str, Any]:
        image = self.images.read(entry, grey=self.image_format == "L")
        pixels = self.transform(torch.from_numpy(image).permute(2, 0, 1))
        if self.image_format == "BGR":
            pixels = pixels.flip(0)
        label = int(self.images.labels[entry["place"]])
        return {"image": pixels.contiguous(), "label": label, "image_id": entry["file_name"]}


class _TestDataset(Dataset):
    def __init__(self, images: ImageSet, places: list[int], mapper: _Mapper) -> None:
        self.images, self.places, self.mapper = images, np.asarray(places, dtype=np.int64), mapper

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        entry = self.images.dicts[int(self.places[number])]
        try:
            return self.mapper(entry)
        except ABOUT_THE_IMAGE as error:
            return {SKIPPED: [(entry["file_name"], str(error))], "failed": True}


def collate(samples: list[dict[str, Any]]) -> Batch:
    """One dict of the dicts of samples, with the notes on images that could not be used."""
    notes = [note for sample in samples for note in sample.get(SKIPPED, ())]
    if any(sample.get("failed") for sample in samples):
        return [{SKIPPED: notes, "failed": True}]
    batch = {
        "image": torch.stack([sample["image"] for sample in samples]),
        "label": torch.tensor([sample["label"] for sample in samples]),
        "image_id": [sample["image_id"] for sample in samples],
    }
    return [{**batch, SKIPPED: notes} if notes else batch]


class _Checked:
    """Batches of a loader; one with an image that could not be read ends them."""

    def __init__(self, loader: Iterable[Batch], advice: str) -> None:
        self.loader, self.advice = loader, advice

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if batch[0].get("failed"):
                name, problem = batch[0][SKIPPED][-1]
                raise make_bad_image_error(name, problem, self.advice)
            yield batch


class _MemoryLoader:
    """Batches of images in memory, cropped and flipped all at once: per image it would take longer than a small net."""

    def __init__(self, cfg: CfgNode, images: ImageSet, *, seed: int, **options: int) -> None:
        size, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
        if size % processes:
            raise InputError(f"a batch of {size} images is one that {processes} processes cannot share evenly")
        self.images, self.augment = images, BatchAugmentation(cfg, seed)
        self.pixels = _order_channels(images.pixels, cfg.INPUT.FORMAT)
        self.labels = torch.from_numpy(images.labels)
        self.pins_memory = pins_memory(cfg)
        ranks = {"rank": comm.get_rank(), "world_size": processes}
        self.sampler = TrainBatchSampler(len(images), batch_size=size, seed=seed, **ranks, **options)

    def __iter__(self) -> Iterator[Batch]:
        for chosen in self.sampler:
            places, positions = zip(*chosen, strict=True)
            index = torch.tensor(places)
            pixels, labels = self.augment(self.pixels[index], positions), self.labels[index]
            yield [
                {
                    "image": pixels.pin_memory() if self.pins_memory else pixels,
                    "label": labels.pin_memory() if self.pins_memory else labels,
                    "image_id": [self.images.dicts[place]["file_name"] for place in places],
                }
            ]


def _order_channels(pixels: np.ndarray, image_format: str) -> torch.Tensor:
    """Images (N, H, W, C) in RGB order as (N, C, H, W) in the order of INPUT.FORMAT."""
    if image_format == "L" and pixels.shape[3] == 3:
        pixels = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] for image in pixels])
    ordered = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return (ordered.flip(1) if image_format == "BGR" else ordered).contiguous()
