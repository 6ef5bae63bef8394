"""How often a classifier is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from torch import nn

from resnet_det.errors import InputError


@torch.no_grad()
def evaluate_classifier(model: nn.Module, loader: Iterable[list[dict[str, Any]]]) -> dict[str, float]:
    """The errors of ``model`` on the images of all processes together. In all of them together.

    Args:
        model: gives logits in evaluation mode, as :class:`Classifier` does; its mode is afterwards as it was.
        loader: batches for this process.

    Returns:
        "top1_error" and "top5_error" in percent: the share of images whose class is not the one, or not among the five,
        with the highest logits; and "loss", their mean cross entropy. With five classes or fewer there is no
        "top5_error".

    Raises:
        InputError: there are no images.
    """
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    counts, num_classes = torch.zeros(4, dtype=torch.float64), 0  # images, right by top 1, by top 5, sum of losses
    try:
        for batch in loader:
            logits = model(batch).float()
            labels = torch.cat([entry["label"] for entry in batch]).to(logits.device)
            num_classes = logits.shape[1]
            best = logits.topk(min(5, num_classes)).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="none").double().sum()
            counts += torch.stack([torch.tensor(len(labels)).to(loss), best[:, 0].sum(), best.sum(), loss]).cpu()
    finally:
        for module, training in was_training.items():
            module.training = training
    gathered = comm.all_gather((counts, num_classes))
    total, right1, right5, loss = sum(part for part, _ in gathered).tolist()
    if not total:
        raise InputError("there are no images to evaluate on")
    results = {"top1_error": 100 * (total - right1) / total}
    if max(number for _, number in gathered) > 5:
        results["top5_error"] = 100 * (total - right5) / total
    return {**results, "loss": loss / total}
