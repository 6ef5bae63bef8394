"""Batches to train on: the same for any number of processes and workers, and again after an interruption."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from resnet_det.data.loading.bad_images import ABOUT_THE_IMAGE, MAX_BAD_IMAGES, SKIPPED
from resnet_det.data.loading.serialized import serialize
from resnet_det.errors import InputError
from resnet_det.processes import end_with_parent, obey_parent_only

WINDOW = 16  # batches; the fewer, the more of them have both wide and tall images


def seed_all(*numbers: int) -> None:
    """Seed ``random``, NumPy and torch (all devices) from ``numbers``, which name a moment of the run."""
    state = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


class TrainBatchSampler(Sampler):
    """Endless batches of (index, position); position counts the samples of the run, and seeds their augmentation.

    Images are shuffled anew each epoch, as by Detectron2's TrainingSampler. Batches are made of all processes' images
    and then split, so that one process and many see the same ones.

    With ``groups``, images of ``WINDOW`` batches at a time are put in the order of their groups, cut into batches, and
    the batches are shuffled: each has images of one group, but for the one where groups meet. No image waits until
    there is a batch of its group: however rare it is, its images come as often as all others.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        groups: Sequence[int] | None = None,
        repeat_factors: Sequence[float] | None = None,
        repeats: int = 1,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        start_step: int = 0,
    ) -> None:
        """
        Args:
            num_images: of the data set.
            batch_size: images of all processes in one forward pass.
            groups: a number for each image, such as 0 for wide and 1 for tall.
            repeat_factors: how often each image comes in an epoch, on average (LVIS, arXiv 1908.03195, appendix B).
            repeats: how often each image comes in a row (repeated augmentation, arXiv 1901.09335); an epoch stays as
                long, of fewer images.
            accumulate: forward passes in a step; a step takes batch_size * accumulate images.
            start_step: how many steps to leave out, as they were made before an interruption.
        """
        self.num_images = num_images
        self.batch_size, self.accumulate = batch_size, accumulate
        self.seed, self.start_step = seed, start_step
        self.groups = groups
        self.repeat_factors = None if repeat_factors is None else torch.as_tensor(repeat_factors, dtype=torch.float64)
        self.repeats = repeats
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self.batch_size // self.world_size
        # Where all epochs are of one length, and in the order in which they are drawn, what is left out is not drawn.
        first = 0 if self.groups or self.repeat_factors is not None else self.start_step
        for number, step in enumerate(self._steps(first), start=first):
            if number < self.start_step:
                continue
            for batch in step:
                yield batch[self.rank * share : (self.rank + 1) * share]

    def _steps(self, first: int = 0) -> Iterator[list[list[tuple[int, int]]]]:
        """The batches of each step, from ``first`` on."""
        batches: list[list[tuple[int, int]]] = []
        for batch in self._batches(first * self.accumulate * self.batch_size):
            batches.append(batch)
            if len(batches) == self.accumulate:
                yield batches
                batches = []

    def _batches(self, first: int) -> Iterator[list[tuple[int, int]]]:
        size = self.batch_size
        images = self._images(first)
        for number in itertools.count():
            window = [next(images) for _ in range(size * (WINDOW if self.groups else 1))]
            if not self.groups:
                yield window
                continue
            window.sort(key=lambda image: self.groups[image[0]])  # in a group, the order stays
            generator = torch.Generator().manual_seed(self.seed + number)
            for place in torch.randperm(WINDOW, generator=generator).tolist():
                yield window[place * size : (place + 1) * size]

    def _images(self, first: int) -> Iterator[tuple[int, int]]:
        position = itertools.count(first)
        begin, left_out = divmod(first, self.num_images)
        for epoch in itertools.count(begin):
            for index in self._epoch(epoch)[left_out:]:
                yield index, next(position)
            left_out = 0

    def _epoch(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed + epoch)
        indices = torch.arange(self.num_images)
        if self.repeat_factors is not None:
            whole = self.repeat_factors.floor()
            extra = torch.rand(self.num_images, generator=generator, dtype=torch.float64) < self.repeat_factors - whole
            indices = indices.repeat_interleave((whole + extra).long())
        drawn = indices[torch.randperm(len(indices), generator=generator)]
        if self.repeats > 1:
            drawn = drawn.repeat_interleave(self.repeats)[: len(indices)]
        return drawn.tolist()


class TrainDataset(Dataset):
    """Mapped samples by (index, position): what is random in the mapping depends on the seed and the position alone."""

    def __init__(
        self, dicts: Sequence[dict], mapper: Callable[[dict], dict | None], *, seed: int, on_bad_image: str = "raise"
    ) -> None:
        """
        Args:
            dicts: Detectron2's data set dicts.
            mapper: makes what a model takes of one of them; None: this image cannot be used.
            on_bad_image: "raise", or "skip": take the next image instead, and note it under ``SKIPPED``.
        """
        self.dicts = serialize(dicts)
        self.mapper = mapper
        self.seed, self.on_bad_image = seed, on_bad_image

    def __len__(self) -> int:
        return len(self.dicts)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        index, position = key
        skipped: list[tuple[str, str]] = []
        for attempt in range(min(len(self), MAX_BAD_IMAGES)):
            entry = self.dicts[(index + attempt) % len(self)]
            seed_all(self.seed, position, attempt)
            try:
                sample = self.mapper(entry)
            except ABOUT_THE_IMAGE as error:
                skipped.append((str(entry.get("file_name")), f"{type(error).__name__}: {error}"))
                if self.on_bad_image == "raise":
                    break
                continue
            except Exception as error:
                error.add_note(f"of {entry.get('file_name')}")
                raise
            if sample is not None:
                return {**sample, SKIPPED: skipped} if skipped else sample
        return {SKIPPED: skipped, "failed": True}


def make_train_loader(
    dataset: Sequence[dict],
    mapper: Callable[[dict], dict | None],
    *,
    total_batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    accumulate: int = 1,
    aspect_ratio_grouping: bool = True,
    repeat_factors: Sequence[float] | None = None,
    repeats: int = 1,
    on_bad_image: str = "raise",
    num_workers: int = 0,
    pin_memory: bool = False,
    prefetch_factor: int = 2,
    collate_fn: Callable[[list[dict]], list[dict]] | None = None,
) -> DataLoader:
    """Endless batches for this process, lists of mapped samples. Detectron2's function, but batches can be had again.

    Args:
        dataset: Detectron2's data set dicts.
        total_batch_size: images of all processes in one forward pass.
        aspect_ratio_grouping: a batch has either wide or tall images.
        collate_fn: makes a batch of the list of its samples, in the worker; None: it stays a list.

    Raises:
        InputError: the processes cannot share the batch evenly.

    The other arguments are those of :class:`TrainBatchSampler`, :class:`TrainDataset` and torch's DataLoader.
    """
    world_size = comm.get_world_size()
    if total_batch_size % world_size:
        raise InputError(f"a batch of {total_batch_size} images is one that {world_size} processes cannot share evenly")
    dicts = serialize(dataset)
    sampler = TrainBatchSampler(
        len(dicts),
        batch_size=total_batch_size,
        seed=seed,
        groups=(dicts.widths <= dicts.heights).astype(int).tolist() if aspect_ratio_grouping else None,
        repeat_factors=repeat_factors,
        repeats=repeats,
        accumulate=accumulate,
        rank=comm.get_rank(),
        world_size=world_size,
        start_step=start_step,
    )
    return ListLoader(
        TrainDataset(dicts, mapper, seed=seed, on_bad_image=on_bad_image),
        batch_sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch_factor if num_workers else None,
        collate_fn=collate_fn,
    )


class ListLoader(DataLoader):
    """torch's DataLoader of lists, which Detectron2's models take, with workers of one thread each."""

    def __init__(self, dataset: Dataset, *, collate_fn: Callable | None = None, **options: Any) -> None:
        super().__init__(dataset, collate_fn=collate_fn or _keep_list, worker_init_fn=_set_up_worker, **options)

    def __iter__(self) -> Iterator[list[dict]]:
        # Workers that are forked here would wait for ever for OpenCV's threads, which are not forked with them.
        num_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            return super().__iter__()
        finally:
            cv2.setNumThreads(num_threads)


def _keep_list(batch: list[dict]) -> list[dict]:
    return batch


def _set_up_worker(_: int) -> None:
    """In a worker: one thread, as there are others; what ends training ends it, too."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    obey_parent_only()
    end_with_parent()


def category_repeat_factors(dicts: Sequence[dict], threshold: float) -> list[float]:
    """How often to repeat each image so that rare classes are seen more (LVIS, arXiv 1908.03195, appendix B).

    The factor of a class that is in a part f of the images is max(1, sqrt(threshold / f)); an image has the largest
    factor of its classes.
    """
    counts: dict[int, int] = {}
    classes = [{annotation["category_id"] for annotation in entry.get("annotations", ())} for entry in dicts]
    for present in classes:
        for category in present:
            counts[category] = counts.get(category, 0) + 1
    factors = {category: max(1.0, math.sqrt(threshold * len(dicts) / count)) for category, count in counts.items()}
    return [max((factors[category] for category in present), default=1.0) for present in classes]
