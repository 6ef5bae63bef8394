"""Activation checkpointing (arXiv 1604.06174): less memory in training, for more forward passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_checkpointed(blocks: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """``blocks`` one after the other, keeping only ``x`` for the backward pass.

    That computes the last block again, from ``x`` on and keeping nothing of those before it; then the one before it,
    and so on. Inputs and insides of the other blocks take no memory meanwhile. Of n blocks, n (n + 1) / 2 are computed
    again. The running statistics of BatchNorm are updated by the first computation only, as without checkpointing.

    A compiler decides itself in which order it computes again, and does not update statistics twice.
    """

    def run_all(x: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            x = block(x)
        return x

    if torch.compiler.is_compiling():
        return checkpoint(run_all, x, use_reentrant=False)

    def run_nested(x: torch.Tensor) -> torch.Tensor:
        *others, last = blocks
        return last(run_checkpointed(others, x) if others else x)

    def make_contexts() -> tuple:
        return nullcontext(), _keep_running_statistics(blocks)

    return checkpoint(run_nested, x, use_reentrant=False, context_fn=make_contexts)


@contextmanager
def _keep_running_statistics(blocks: Sequence[nn.Module]) -> Iterator[None]:
    modules = (module for block in blocks for module in block.modules())
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)
