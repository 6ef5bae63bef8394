"""Copy-paste (arXiv 2012.07177, section 3): objects of one image pasted onto another, with their masks."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances
from torch import Tensor
from torch.nn import functional as F

MIN_VISIBLE_SHARE = 0.1  # of an object's pixels; with less left it is dropped


def choose_objects(instances: Instances, size: tuple[int, int], max_objects: int) -> tuple[Instances, tuple[int, ...]]:
    """A random choice of objects, at a random place of an image of another size.

    Args:
        instances: with ``gt_masks`` (N, h, w) and ``gt_classes``.
        size: height and width of the image to paste on.
        max_objects: at most so many are chosen; 0: any number.

    Returns:
        The chosen ones, with ``gt_masks`` (n, H, W) and ``gt_classes``, and the padding (left, right, top, bottom) that
        brings their image there; it is negative where it crops.
    """
    height, width = instances.image_size
    left, top = (_random_offset(new - old) for new, old in ((size[1], width), (size[0], height)))
    padding = (left, size[1] - width - left, top, size[0] - height - top)
    masks = F.pad(instances.gt_masks.tensor, padding)
    candidates = masks.flatten(1).any(dim=1).nonzero()[:, 0].numpy()
    most = min(len(candidates), max_objects or len(candidates))
    count = np.random.randint(1, most + 1) if most else 0
    chosen = torch.from_numpy(np.random.permutation(candidates)[:count])
    return Instances(size, gt_masks=BitMasks(masks[chosen]), gt_classes=instances.gt_classes[chosen]), padding


def paste_objects(image: Tensor, instances: Instances, source: Tensor, objects: Instances) -> tuple[Tensor, Instances]:
    """Paste ``objects`` of the image ``source`` onto ``image``.

    Objects of ``image`` lose the pixels that are covered now, and are dropped where less than a tenth of them is left.
    All boxes are tight around their masks. Masks are pasted without blending, which makes no difference to the result
    (section 4.2 of the paper).

    Args:
        image, source: (C, H, W).
        instances, objects: with ``gt_masks`` (N, H, W) and ``gt_classes``; ``instances`` may have no masks if empty.

    Returns:
        The new image, and its objects: those of ``instances``, then ``objects``.
    """
    covered = objects.gt_masks.tensor.any(dim=0)
    before = instances.gt_masks.tensor if len(instances) else covered.new_zeros(0, *covered.shape)
    after = before & ~covered
    kept = after.flatten(1).sum(dim=1) >= (MIN_VISIBLE_SHARE * before.flatten(1).sum(dim=1)).clamp(min=1)
    combined = Instances(instances.image_size)
    combined.gt_masks = BitMasks(torch.cat((after[kept], objects.gt_masks.tensor)))
    combined.gt_boxes = combined.gt_masks.get_bounding_boxes()
    combined.gt_classes = torch.cat((instances.gt_classes[kept], objects.gt_classes))
    return torch.where(covered, source, image), combined


def _random_offset(room: int) -> int:
    """Where a side begins on one that is longer by ``room``: below 0 where it is too long, and is cropped."""
    return int(np.random.randint(min(room, 0), max(room, 0) + 1))
