"""Self-attention over the positions of a feature map, in place of a 3x3 convolution (BoTNet, arXiv 2101.11605)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from resnet_det.modeling.norms import make_norm
from resnet_det.specs import AttentionSpec


class SelfAttention(nn.Module):
    """Multi-head self-attention with relative positions (figure 4 of the paper), average pooling if it strides, norm.

    The logit of a query and a key is ``q . (k + r)``, divided by the root of the channels of a head, where ``r`` is a
    learned vector for the distance in rows plus one for the distance in columns. There are vectors for distances up to
    ``extent - 1`` in each direction; a longer one counts as that. So weights do not depend on the size of images, and a
    distance means the same in images of any size.

    Time and memory grow with the square of the number of positions.

    Shapes:
        (N, channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels: int, attention: AttentionSpec, *, stride: int, norm: str | Callable) -> None:
        super().__init__()
        self.num_heads, self.extent, self.stride = attention.num_heads, attention.extent, stride
        head_channels = channels // attention.num_heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.relative_rows = nn.Parameter(torch.empty(2 * attention.extent - 1, head_channels))
        self.relative_columns = nn.Parameter(torch.empty(2 * attention.extent - 1, head_channels))
        self.norm = make_norm(norm, channels)
        nn.init.normal_(self.qkv.weight, std=channels**-0.5)
        for table in (self.relative_rows, self.relative_columns):
            nn.init.normal_(table, std=head_channels**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        head_channels = channels // self.num_heads
        q, k, v = self.qkv(x).reshape(batch, 3, self.num_heads, head_channels, height * width).unbind(1)
        q = q * head_channels**-0.5
        q_map = q.reshape(batch, self.num_heads, head_channels, height, width)
        # Logits by row and column of the query, then of the key.
        by_row = torch.einsum("nhcij,ikc->nhijk", q_map, self._vectors(self.relative_rows, height, q.dtype))
        by_column = torch.einsum("nhcij,jlc->nhijl", q_map, self._vectors(self.relative_columns, width, q.dtype))
        relative = by_row.unsqueeze(-1) + by_column.unsqueeze(-2)
        positions = height * width
        logits = q.transpose(-2, -1) @ k + relative.reshape(batch, self.num_heads, positions, positions)
        weights = logits.softmax(dim=-1).to(v.dtype)
        out = (v @ weights.transpose(-2, -1)).reshape(batch, channels, height, width)
        if self.stride > 1:
            out = F.avg_pool2d(out, 2, self.stride, ceil_mode=True, count_include_pad=False)
        return out if self.norm is None else self.norm(out)

    def _vectors(self, table: torch.Tensor, size: int, dtype: torch.dtype) -> torch.Tensor:
        """The vector of each pair of ``size`` positions, query and key.

        Shapes:
            table: (2 * extent - 1, C); out: (size, size, C).
        """
        positions = torch.arange(size, device=table.device)
        distances = (positions[None, :] - positions[:, None]).clamp(1 - self.extent, self.extent - 1)
        return table[distances + (self.extent - 1)].to(dtype)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, extent={self.extent}, stride={self.stride}"
