"""ROIAlign as a weighted sum of rows: the same numbers as torchvision's, which uses one thread on CPUs.

A pooled value is a weighted sum of pixels. With features channels-last, a feature map is a table with one row of
channels per pixel, and ``embedding_bag`` sums rows with all threads, in half precision too. Weights are separable in y
and x, and those of samples that share a pixel are added first. The gradient is a sum with the same weights, transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

# Weights that are in memory at once, about 16 bytes each, if a single box does not have more.
WEIGHTS_AT_ONCE = 2**19


class Pooling(NamedTuple):
    """How boxes are pooled: what ``torchvision.ops.roi_align`` takes."""

    output_size: tuple[int, int]
    spatial_scale: float
    sampling_ratio: int
    aligned: bool


class Rows(NamedTuple):
    """Some boxes as weighted sums of rows.

    Attributes:
        boxes: which boxes, (m,).
        rows: of the table, bin by bin, (n,).
        weights: of these rows, (n,).
        counts: rows of each bin, (m * output height * output width,).
    """

    boxes: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor
    counts: torch.Tensor


def roi_align(features: torch.Tensor, boxes: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """What ``torchvision.ops.roi_align`` computes, on a CPU.

    Boxes are taken as exactly as they are given, whatever the type of the features; one that is not finite pools zeros.
    It can be differentiated with respect to the features, any number of times.

    Shapes:
        features: (N, C, H, W), fastest where channels-last; boxes: (M, 5), image and XYXY; out: (M, C, *output_size),
        channels-last, in the type of the features.
    """
    return _Pool.apply(features, boxes, pooling)


class _Pool(torch.autograd.Function):
    """From features to pooled values."""

    @staticmethod
    def forward(features: torch.Tensor, boxes: torch.Tensor, pooling: Pooling) -> torch.Tensor:
        table = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        pooled = features.new_empty(len(boxes), *pooling.output_size, features.shape[1])
        for part in _find_rows(boxes, features.shape, pooling):
            pooled[part.boxes] = _sum_rows(table, part.rows, part.weights, part.counts).view(-1, *pooled.shape[1:])
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:  # noqa: ARG004
        features, boxes, pooling = inputs
        ctx.save_for_backward(boxes)
        ctx.shape, ctx.pooling = features.shape, pooling

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (boxes,) = ctx.saved_tensors
        return _Spread.apply(gradient, boxes, ctx.shape, ctx.pooling), None, None


class _Spread(torch.autograd.Function):
    """From gradients of pooled values to those of features: summed in float32 at least."""

    @staticmethod
    def forward(gradient: torch.Tensor, boxes: torch.Tensor, shape: torch.Size, pooling: Pooling) -> torch.Tensor:
        images, channels, height, width = shape
        bins = gradient.permute(0, 2, 3, 1)
        dtype = torch.promote_types(gradient.dtype, torch.float32)
        table = gradient.new_zeros(images * height * width, channels, dtype=dtype)
        for part in _find_rows(boxes, shape, pooling):
            rows, order = part.rows.sort(stable=True)
            rows, counts = rows.unique_consecutive(return_counts=True)
            numbers = torch.repeat_interleave(part.counts)[order]
            source = bins[part.boxes].reshape(-1, channels).to(dtype)
            table.index_add_(0, rows, _sum_rows(source, numbers, part.weights[order], counts))
        return table.view(images, height, width, channels).permute(0, 3, 1, 2).to(gradient.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:  # noqa: ARG004
        _, boxes, _, pooling = inputs
        ctx.save_for_backward(boxes)
        ctx.pooling = pooling

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple:
        (boxes,) = ctx.saved_tensors
        return _Pool.apply(gradient, boxes, ctx.pooling), None, None, None


def _sum_rows(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """For each count, the weighted sum of the next so many of ``rows``: (len(counts), channels)."""
    offsets = counts.cumsum(0) - counts
    return F.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype))


def _find_rows(boxes: torch.Tensor, shape: torch.Size, pooling: Pooling) -> Iterator[Rows]:
    """The boxes, some at a time, as weighted sums of rows of features of ``shape`` (N, C, H, W)."""
    _, _, height, width = shape
    boxes = boxes.detach().to(torch.promote_types(boxes.dtype, torch.float32))
    corners = boxes[:, 1:] * pooling.spatial_scale - (0.5 if pooling.aligned else 0.0)
    starts, sizes = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not pooling.aligned:
        sizes = sizes.clamp(min=1)
    bins_y, bins_x = pooling.output_size
    for part in _split(sizes, shape, pooling):
        y, weights_y = _weigh(starts[part, 1], sizes[part, 1], height, bins_y, pooling.sampling_ratio)
        x, weights_x = _weigh(starts[part, 0], sizes[part, 0], width, bins_x, pooling.sampling_ratio)
        first = boxes[part, 0].long() * (height * width)
        y = first[:, None, None] + y * width
        is_y, is_x = weights_y != 0, weights_x != 0
        kept = _outer(torch.logical_and, is_y, is_x).flatten().nonzero().squeeze(1)
        yield Rows(
            part,
            _outer(torch.add, y, x).flatten()[kept],
            _outer(torch.mul, weights_y, weights_x).flatten()[kept],
            (is_y.sum(2)[:, :, None] * is_x.sum(2)[:, None, :]).flatten(),
        )


def _outer(function: Callable, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(m, bins of y, k) and (m, bins of x, l) to (m, bins of y, bins of x, k, l)."""
    return function(y[:, :, None, :, None], x[:, None, :, None, :])


def _split(sizes: torch.Tensor, shape: torch.Size, pooling: Pooling) -> Iterator[torch.Tensor]:
    """Numbers of boxes of like size, so many that their weights take bounded memory.

    Args:
        sizes: (M, 2) in pixels of the feature map, x first.
    """
    bins_y, bins_x = pooling.output_size
    limits = sizes.new_tensor([shape[3], shape[2]])
    if pooling.sampling_ratio > 0:
        touched = torch.full_like(sizes, 2 * pooling.sampling_ratio)
    else:
        touched = (sizes / sizes.new_tensor([bins_x, bins_y])).ceil().nan_to_num(0.0).clamp(min=0) + 1
    touched = touched.minimum(limits).long()
    order = (touched[:, 1] * (shape[3] + 1) + touched[:, 0]).argsort(stable=True)
    most_x = most_y = begin = 0
    for end, (x, y) in enumerate(touched[order].tolist()):
        next_x, next_y = max(x, most_x), max(y, most_y)
        if end > begin and (end + 1 - begin) * next_x * next_y * bins_x * bins_y > WEIGHTS_AT_ONCE:
            yield order[begin:end]
            begin, next_x, next_y = end, x, y
        most_x, most_y = next_x, next_y
    if begin < len(order):
        yield order[begin:]


def _weigh(
    starts: torch.Tensor, lengths: torch.Tensor, size: int, bins: int, sampling_ratio: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Along one axis, the pixels that each bin of each box is made of, and their weights.

    Bins are sampled where torchvision samples them, in its order of operations. A sample that is more than a pixel
    outside is 0, and a bin without samples, of a box of size 0, too.

    Args:
        starts, lengths: (m,) of the boxes, in pixels of the feature map.
        size: of the feature map.

    Returns:
        pixels (m, bins, k) and weights (m, bins, k); k is that of the bin with the most. Unused weights are 0.
    """
    bin_sizes = (lengths / bins)[:, None, None]
    counts = torch.full_like(bin_sizes, sampling_ratio) if sampling_ratio > 0 else bin_sizes.ceil().nan_to_num(0.0)
    bin_starts = starts[:, None, None] + torch.arange(bins, device=starts.device)[:, None] * bin_sizes
    at_least_one = counts.clamp(min=1)
    number = int(counts.max().clamp(min=1))
    first = 0
    if sampling_ratio <= 0 and number > 2 * size + 6:
        # Samples are half a pixel apart at least where there are several: so many can be inside.
        number = 2 * size + 6
        first = ((-1 - bin_starts) * at_least_one / bin_sizes - 0.5).floor().nan_to_num(0.0).clamp(min=0)
    samples = first + torch.arange(number, device=starts.device)
    positions = bin_starts + (samples + 0.5) * bin_sizes / at_least_one
    is_inside = (samples < counts) & (positions >= -1) & (positions <= size)
    positions = positions.where(is_inside, 0).clamp(min=0)
    low = positions.long().clamp(max=size - 1)
    share = (positions - low).where(low < size - 1, 0)
    weights = is_inside / at_least_one
    weights = torch.cat([weights * (1 - share), weights * share], dim=2)
    pixels = torch.cat([low, (low + 1).clamp(max=size - 1)], dim=2)
    lowest = pixels.where(weights != 0, size - 1).amin(2, keepdim=True)
    places = (pixels - lowest).where(weights != 0, 0)
    reach = int(places.max()) + 1
    if reach >= 2 * number:  # far apart: nothing to add up
        return pixels, weights
    merged = weights.new_zeros(*weights.shape[:2], reach).scatter_add_(2, places, weights)
    return (lowest + torch.arange(reach, device=starts.device)).clamp(max=size - 1), merged
