"""What is done to images: torchvision's transforms for one at a time, and crops and flips for whole batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from torchvision.transforms import InterpolationMode, v2

_BILINEAR = InterpolationMode.BILINEAR


def mean_colour(cfg: CfgNode) -> list[int]:
    """MODEL.PIXEL_MEAN, rounded, for images in RGB order: nothing, once it is subtracted."""
    mean = [round(value) for value in cfg.MODEL.PIXEL_MEAN]
    return mean[::-1] if cfg.INPUT.FORMAT == "BGR" else mean


def build_train_transform(cfg: CfgNode) -> Callable[[torch.Tensor], torch.Tensor]:
    """RESNET_DET.CLASSIFICATION's augmentation of one image, (C, H, W) uint8 in RGB order, to SIZE_TRAIN pixels."""
    keys, fill = cfg.RESNET_DET.CLASSIFICATION, mean_colour(cfg)
    size = keys.SIZE_TRAIN
    if keys.CROP == "resized":
        area, ratio = tuple(keys.AREA), tuple(keys.ASPECT_RATIO)
        steps: list[Callable] = [v2.RandomResizedCrop(size, scale=area, ratio=ratio, antialias=True)]
    elif keys.CROP == "padded":
        steps = [v2.Resize(size, antialias=True), v2.Pad(keys.PADDING, fill=fill), v2.RandomCrop(size)]
    else:
        steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    if keys.FLIP:
        steps.append(v2.RandomHorizontalFlip(keys.FLIP))
    if keys.AUTO_AUGMENT == "trivial":
        steps.append(v2.TrivialAugmentWide(interpolation=_BILINEAR))
    elif keys.AUTO_AUGMENT == "randaugment":
        ops, magnitude = keys.RAND_AUGMENT.NUM_OPS, keys.RAND_AUGMENT.MAGNITUDE
        steps.append(v2.RandAugment(ops, magnitude, interpolation=_BILINEAR))
    elif keys.AUTO_AUGMENT == "autoaugment":
        steps.append(v2.AutoAugment(interpolation=_BILINEAR))
    elif keys.AUTO_AUGMENT == "augmix":
        steps.append(v2.AugMix(interpolation=_BILINEAR))
    if keys.ERASING:
        steps.append(v2.RandomErasing(keys.ERASING, value=[float(value) for value in fill]))
    return v2.Compose(steps)


def build_test_transform(cfg: CfgNode) -> Callable[[torch.Tensor], torch.Tensor]:
    """RESIZE_TEST and SIZE_TEST, of an image (C, H, W) uint8 or a batch of them of one size."""
    keys = cfg.RESNET_DET.CLASSIFICATION
    return v2.Compose([v2.Resize(keys.RESIZE_TEST, antialias=True), v2.CenterCrop(keys.SIZE_TEST)])


def fits_batches(cfg: CfgNode, height: int, width: int) -> bool:
    """Whether images of that size are augmented by crops and flips alone, which :class:`BatchAugmentation` does."""
    keys = cfg.RESNET_DET.CLASSIFICATION
    is_plain = keys.CROP in ("padded", "none") and not keys.AUTO_AUGMENT and not keys.ERASING
    return is_plain and height == width == keys.SIZE_TRAIN


class BatchAugmentation:
    """Random crops of padded images, and flips, for a batch at once.

    What is drawn for an image depends on the seed and its position in the run alone, as with the other transforms:
    batches are the same for any number of processes, and after an interruption.
    """

    def __init__(self, cfg: CfgNode, seed: int) -> None:
        keys = cfg.RESNET_DET.CLASSIFICATION
        self.padding = keys.PADDING if keys.CROP == "padded" else 0
        self.flip, self.seed, self.total = keys.FLIP, seed, cfg.SOLVER.IMS_PER_BATCH
        self.fill = torch.tensor([round(value) for value in cfg.MODEL.PIXEL_MEAN], dtype=torch.uint8).view(-1, 1, 1)

    def __call__(self, images: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
        """
        Shapes:
            images: (N, C, H, W) uint8, in the order of INPUT.FORMAT, to the same.
            positions: N, of one batch.
        """
        number, first = divmod(positions[0], self.total)
        state = np.random.SeedSequence((self.seed, number)).generate_state(1)
        generator = torch.Generator().manual_seed(int(state[0]))
        offsets = torch.randint(0, 2 * self.padding + 1, (2, self.total), generator=generator)
        flips = torch.rand(self.total, generator=generator) < self.flip
        mine = slice(first, first + len(images))
        if self.padding:
            images = self._crop(images, *offsets[:, mine])
        flipped = flips[mine]
        if flipped.any():
            images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        return images

    def _crop(self, images: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        count, channels, height, width = images.shape
        pad = self.padding
        padded = self.fill.expand(count, channels, height + 2 * pad, width + 2 * pad).clone()
        padded[..., pad : pad + height, pad : pad + width] = images
        rows = top[:, None] + torch.arange(height)
        columns = left[:, None] + torch.arange(width)
        places = (rows * padded.shape[-1])[:, :, None] + columns[:, None, :]
        flat = padded.flatten(2)
        index = places.flatten(1)[:, None, :].expand(-1, channels, -1)
        return flat.gather(2, index).view(count, channels, height, width)
