"""Objects without a mask among objects with one: they count in all losses but that of masks."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor, nn


def ignore_missing_masks_(model: nn.Module) -> None:
    """Let the mask head of ``model``, if it has one, leave out objects whose ``gt_has_mask`` is False in training."""
    head = getattr(getattr(model, "roi_heads", None), "mask_head", None)
    if isinstance(head, nn.Module):
        head.register_forward_pre_hook(_leave_out)


def _leave_out(head: nn.Module, args: tuple) -> tuple | None:
    """What the head gets in place of features (N, C, H, W) and the instances that they are of."""
    if not head.training or len(args) != 2 or not isinstance(args[0], Tensor):
        return None
    features: Tensor = args[0]
    instances: list[Instances] = args[1]
    if not any(found.has("gt_has_mask") for found in instances):
        return None
    everything = {"dtype": torch.bool, "device": features.device}
    kept = [
        found.gt_has_mask if found.has("gt_has_mask") else torch.ones(len(found), **everything) for found in instances
    ]
    return features[torch.cat(kept)], [found[keep] for found, keep in zip(instances, kept, strict=True)]
