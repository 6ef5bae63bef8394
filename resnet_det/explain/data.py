"""The images of the experiments: some of those in a folder, the same ones each time."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from resnet_det.classification import ImageSet, load_image_set
from resnet_det.classification.image_sets import find_splits
from resnet_det.classification.memory import keep_in_memory
from resnet_det.data.loading.serialized import SerializedDicts
from resnet_det.errors import InputError

SUBSET_SEED = 1512  # of all subsets, so that nets and experiments share them
MEMORY_MIB = 2048


def choose_subset(labels: np.ndarray, count: int, seed: int) -> list[int]:
    """Places of ``count`` images, as many of each class as can be; a smaller subset is part of a larger one.

    Args:
        labels: (N,) int64.
        count: 0, or more than there are: all.
    """
    if not count or count >= len(labels):
        return list(range(len(labels)))
    rng = np.random.default_rng(seed)
    # A place's turn is its rank within its class, in random order: all first ones, then all second ones, ...
    shuffled = rng.permutation(len(labels))
    turns = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = shuffled[labels[shuffled] == label]
        turns[of_class] = np.arange(len(of_class))
    order = shuffled[np.argsort(turns[shuffled], kind="stable")]
    return sorted(order[:count].tolist())


def take(images: ImageSet, places: Iterable[int]) -> ImageSet:
    """A part of ``images``."""
    places = list(places)
    dicts = SerializedDicts({**images.dicts[place], "place": number} for number, place in enumerate(places))
    pixels = None if images.pixels is None else images.pixels[places]
    return dataclasses.replace(images, labels=images.labels[places], dicts=dicts, pixels=pixels)


class Data:
    """The images of one folder, to train on and to test on, loaded when they are wanted."""

    def __init__(self, root: str | Path) -> None:
        """Args:
            root: with folders train and test (or val), each with a folder of images for each class; or CIFAR's files.

        Raises:
            InputError: there are no such images.
        """
        self.root = root = Path(root)
        try:
            paths = find_splits(root)
        except InputError as error:
            raise InputError(str(error).partition("; --train-data")[0]) from None  # another tool's flags
        self._paths = dict(zip(("train", "test"), paths, strict=True))
        self._whole: dict[str, ImageSet] = {}
        self._loaded: dict[tuple[str, int, int], ImageSet] = {}
        self._fingerprints: dict[tuple[str, int, int], str] = {}
        classes = self.classes
        if self._load("test").classes != classes:
            raise InputError(f"--data {root}: train and test have different classes")

    @property
    def classes(self) -> tuple[str, ...]:
        return self._load("train").classes

    def count(self, split: str) -> int:
        """How many images "train" or "test" has."""
        return len(self._load(split))

    def images(self, split: str, count: int = 0, seed: int = SUBSET_SEED) -> ImageSet:
        """``count`` images of "train" or "test", evenly from all classes, drawn with ``seed``; 0: all.

        Raises:
            InputError: ``count`` is negative, or an image cannot be read.
        """
        if count < 0:
            raise InputError(f"{count} images to {split} on: give a number, or 0 for all")
        key = split, count, seed
        if key not in self._loaded:
            whole = self._load(split)
            part = take(whole, choose_subset(whole.labels, count, seed))
            self._loaded[key] = keep_in_memory(part, MEMORY_MIB, advice="Take it away, or mend it")
        return self._loaded[key]

    def fingerprint(self, split: str, count: int = 0, seed: int = SUBSET_SEED) -> str:
        """Of ``images(split, count, seed)``, worked out once."""
        key = split, count, seed
        if key not in self._fingerprints:
            self._fingerprints[key] = fingerprint(self.images(split, count, seed=seed))
        return self._fingerprints[key]

    def _load(self, split: str) -> ImageSet:
        if split not in self._whole:
            self._whole[split] = load_image_set(self._paths[split], split=split)
        return self._whole[split]


def fingerprint(images: ImageSet) -> str:
    """Tells sets of images apart: by their classes, their names in their folder, wherever that is, and their pixels, or
    the sizes of their files where they are not in memory."""
    digest = hashlib.sha256(repr(images.classes).encode() + images.labels.tobytes())
    for entry in images.dicts:
        digest.update(entry["file_name"].removeprefix(images.name).encode() + b"\0")
        if images.pixels is None:
            size = entry["size"] if "size" in entry else Path(entry["file_name"]).stat().st_size
            digest.update(str(size).encode() + b"\0")
    if images.pixels is not None:
        digest.update(np.ascontiguousarray(images.pixels))
    return digest.hexdigest()[:16]
