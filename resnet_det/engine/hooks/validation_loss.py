"""The losses on images that are not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from resnet_det.engine.kept_numbers import numbers_kept, read_numbers, write_numbers

_UNLIKE_TRAINING = (_BatchNorm, _DropoutNd, StochasticDepth)


def validation_losses(model: nn.Module, numbers_of: nn.Module, batches: Iterable[list[dict]]) -> dict[str, float]:
    """:func:`mean_losses` of ``model``, under the names that results have: validation_total_loss, ...

    Args:
        numbers_of: the model that is trained, whose own numbers (RetinaNet's normalizer) count; an average has none.
    """
    with numbers_kept(model):
        if model is not numbers_of:
            write_numbers(model, read_numbers(numbers_of))
        return {f"validation_{name}": value for name, value in mean_losses(model, batches).items()}


@torch.no_grad()
def mean_losses(model: nn.Module, batches: Iterable[list[dict]]) -> dict[str, float]:
    """Mean losses per image over all processes.

    Norms use their running statistics and keep them, and nothing is dropped at random. ``model`` is afterwards as it
    was: modes and numbers are put back, and what models write of themselves does not get among training's numbers.
    """
    was_training = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if isinstance(module, _UNLIKE_TRAINING):
            module.eval()
    sums: dict[str, torch.Tensor] = {}
    count = 0
    try:
        with EventStorage(), numbers_kept(model):
            for batch in batches:
                losses = model(batch)
                for name, loss in losses.items():
                    sums[name] = sums.get(name, 0.0) + loss.detach().double() * len(batch)
                count += len(batch)
    finally:
        for module, training in was_training.items():
            module.training = training
    gathered = comm.all_gather(({name: float(value) for name, value in sums.items()}, count))
    total = sum(number for _, number in gathered)
    names = dict.fromkeys(name for part, _ in gathered for name in part)
    losses = {name: sum(part.get(name, 0.0) for part, _ in gathered) / total for name in names}
    return {"total_loss": sum(losses.values()), **losses}
