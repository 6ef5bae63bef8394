"""Normalisation layers by name: Detectron2's own, so that names, state and freezing are the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d, NaiveSyncBatchNorm, get_norm
from torch import nn

_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm)


class LayerNorm(nn.Module):
    """Layer normalisation over the channels at each position of an (N, C, H, W) tensor (arXiv 1607.06450), as in
    Detectron2 main.

    Detectron2 v0.5 has none, which is why it stands here. State: ``weight`` and ``bias`` of shape (C,).
    """

    def __init__(self, num_features: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )


def make_norm(norm: str | Callable[[int], nn.Module] | None, channels: int) -> nn.Module | None:
    """The normalisation named ``norm`` for (N, ``channels``, H, W) tensors; None for "" or None.

    Raises:
        KeyError: Detectron2 knows no such name.
    """
    return LayerNorm(channels) if norm == "LN" else get_norm(norm, channels)


def read_affine(norm: nn.Module | None) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scale and shift, each (C,), such that ``norm(x) = x * scale + shift``; None if there are none.

    Returned for FrozenBN, and for BatchNorm in evaluation. A norm that someone listens to (hooks) has to be called, and
    a subclass may do something else.
    """
    is_batch_norm = type(norm) in _BATCH_NORMS and not norm.training and norm.running_mean is not None
    if not (is_batch_norm or type(norm) is FrozenBatchNorm2d) or norm._forward_hooks or norm._forward_pre_hooks:
        return None
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias
