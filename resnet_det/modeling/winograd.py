"""3x3 convolutions by Winograd's minimal filtering (arXiv 1509.09308, section 4.3): F(4x4, 3x3), in float32 on CPUs.

Each tile of 4x4 outputs takes 36 multiplications per pair of channels, where the sum itself takes 144. cuDNN chooses
this by itself; oneDNN, which torch computes with on CPUs, does not have it. Rounding errors are about ten times those
of the plain sum, 1e-5 of the largest output.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.autograd.function import FunctionCtx, once_differentiable

from resnet_det.modeling.fused import compute_dtype, is_captured

TILE = 4
# So many tiles are done at once: what is in between stays in the cache. Gradients of the weight add up from part to
# part, which costs a pass over them, so that their parts are larger.
TILES_AT_ONCE = 80
TILES_AT_ONCE_FOR_WEIGHT = 160
# Of fewer pixels, transforming the weight takes longer than it saves, unless it is kept.
MIN_PIXELS = 2000

# The three matrices of the paper's section 4.3, for the points 0, 1, -1, 2, -2 and infinity.
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_FILTER = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    dtype=torch.float64,
) / torch.tensor([24.0], dtype=torch.float64)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
# For a tile as a vector: along both axes in one product of matrices.
INPUT_TRANSFORM, FILTER_TRANSFORM, OUTPUT_TRANSFORM = (
    torch.kron(matrix, matrix).float() for matrix in (_INPUT, _FILTER, _OUTPUT)
)


def takes_winograd(x: torch.Tensor, transformed: torch.Tensor | None) -> bool:
    """Whether :func:`conv3x3` can take ``x``, and is faster. What is traced or compiled should consist of ordinary
    operators."""
    if is_captured() or x.device.type != "cpu" or compute_dtype(x) != torch.float32:
        return False
    return x.numel() >= MIN_PIXELS * x.shape[1] or (transformed is not None and x.numel() > 0)


def transform_weight(weight: torch.Tensor) -> torch.Tensor:
    """(36, C, D) for a weight of (D, C, 3, 3): four times its memory."""
    out_channels, channels = weight.shape[:2]
    return (FILTER_TRANSFORM @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, out_channels)


def conv3x3(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, transformed: torch.Tensor | None = None
) -> torch.Tensor:
    """``conv2d(x, weight, bias, padding=1)``, with first gradients.

    Args:
        transformed: :func:`transform_weight` of ``weight``, where it is kept; then without gradients.

    Shapes:
        x: (N, C, H, W) float32; weight: (D, C, 3, 3); bias: (D,); out: (N, D, H, W), channels-last.
    """
    if transformed is not None:
        return _convolve(x, transformed, bias)
    return _Conv3x3.apply(x, weight, bias)


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, transform_weight(weight), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        backwards = weight.flip(2, 3).transpose(0, 1)
        return (
            _convolve(grad, transform_weight(backwards), None) if needs_x else None,
            _weight_gradient(x, grad) if needs_weight else None,
            grad.sum((0, 2, 3)) if needs_bias else None,
        )


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    batch, _, height, width = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    out = x.new_empty(batch, rows, TILE, columns, TILE, weight.shape[2])
    for images, part in _parts(x, TILES_AT_ONCE):
        tiles = _input_tiles(x[images])
        for here in part:
            products = torch.bmm(_transform_input(tiles[:, here]), weight)
            target = out[images, here].permute(2, 4, 0, 1, 3, 5)
            sums = (OUTPUT_TRANSFORM @ products.view(36, -1)).view(target.shape)
            if bias is None:
                target.copy_(sums)
            else:
                torch.add(sums, bias, out=target)
    out = out.view(batch, rows * TILE, columns * TILE, -1)[:, :height, :width]
    return out.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _weight_gradient(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    channels, out_channels = x.shape[1], grad.shape[1]
    total = x.new_zeros(36, channels, out_channels)
    for images, part in _parts(x, TILES_AT_ONCE_FOR_WEIGHT):
        tiles, grads = _input_tiles(x[images]), _output_tiles(grad[images])
        for here in part:
            products = OUTPUT_TRANSFORM.T @ grads[:, here].permute(2, 4, 0, 1, 3, 5).reshape(TILE**2, -1)
            total.baddbmm_(_transform_input(tiles[:, here]).transpose(1, 2), products.view(36, -1, out_channels))
    return (FILTER_TRANSFORM.T @ total.view(36, -1)).view(3, 3, channels, out_channels).permute(3, 2, 0, 1)


def _input_tiles(x: torch.Tensor) -> torch.Tensor:
    """(N, rows, columns, 6, 6, C): tiles that overlap by two pixels, of a padded copy."""
    batch, channels, height, width = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    # F.pad would first fill all of it with zeros.
    padded = x.new_empty(batch, rows * TILE + 2, columns * TILE + 2, channels)
    padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
    for border in (padded[:, 0], padded[:, height + 1 :], padded[:, :, 0], padded[:, :, width + 1 :]):
        border.zero_()
    image_stride, row_stride, pixel_stride, channel_stride = padded.stride()
    strides = (image_stride, TILE * row_stride, TILE * pixel_stride, row_stride, pixel_stride, channel_stride)
    return padded.as_strided((batch, rows, columns, 6, 6, channels), strides)


def _output_tiles(grad: torch.Tensor) -> torch.Tensor:
    """(N, rows, 4, columns, 4, D)"""
    batch, channels, height, width = grad.shape
    grad = grad.permute(0, 2, 3, 1)
    if height % TILE or width % TILE:
        grad = F.pad(grad, (0, 0, 0, -width % TILE, 0, -height % TILE))
    return grad.reshape(batch, -(-height // TILE), TILE, -(-width // TILE), TILE, channels)


def _transform_input(tiles: torch.Tensor) -> torch.Tensor:
    """(36, tiles, C)"""
    values = tiles.permute(3, 4, 0, 1, 2, 5).reshape(36, -1)
    return (INPUT_TRANSFORM @ values).view(36, -1, tiles.shape[-1])


def _parts(x: torch.Tensor, at_once: int) -> Iterator[tuple[slice, list[slice]]]:
    """Images, and the rows of tiles in them, of about ``at_once`` tiles in a part."""
    batch, _, height, width = x.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    images, step = max(1, at_once // (rows * columns)), max(1, at_once // columns)
    for image in range(0, batch, images):
        yield slice(image, image + images), [slice(row, row + step) for row in range(0, rows, step)]
