"""A moving average of a model's weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage:
    """The exponential moving average of parameters and buffers (as in arXiv 1703.01780, section 2).

    The decay rises to ``decay``: update n (from 0) has at most n / (n + 9). Else the first weights, the worst ones,
    would stay for 1 / (1 - decay) updates: 0.9998 leaves 74 % of them after 1500.

    Attributes:
        module: the model with the averaged weights.
        updates: how many there were.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights of ``model`` in; the first time, copy them. Counters of norms are copied each time."""
        decay = min(self.decay, self.updates / (self.updates + 9))
        self.updates += 1
        averaged, current = [], []
        for mine, theirs in zip(_tensors(self.module), _tensors(model), strict=True):
            if mine.is_floating_point():
                averaged.append(mine)
                current.append(theirs)
            else:
                mine.copy_(theirs)
        get_ema_multi_avg_fn(decay)(averaged, current, None)

    def copy_from(self, model: nn.Module) -> None:
        """Start from the weights of ``model``."""
        self.module.load_state_dict(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
