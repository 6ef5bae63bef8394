"""Models made fast on CPUs as they are: Detectron2's ROIAlign modules, and the layout of features."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from detectron2.layers import ROIAlign
from torch import nn

from resnet_det.modeling.fused import is_captured
from resnet_det.modeling.roi_align import Pooling, roi_align

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Values of a feature map that are laid out anew in the time in which torchvision pools one.
LAYOUT_PER_POOLED = 16


class FastROIAlign(ROIAlign):
    """Detectron2's ROIAlign, by :func:`resnet_det.modeling.roi_align.roi_align` where that can be used.

    On GPUs, and for what a compiler, a tracer or fake tensors follow, it is torchvision's operator as before.
    """

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:  # noqa: A002 - Detectron2's name
        """
        Shapes:
            input: (N, C, H, W); rois: (M, 5), image and XYXY; out: (M, C, *output_size).
        """
        size = self.output_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        if not _is_supported(input, rois) or not _is_worthwhile(input, len(rois) * size[0] * size[1]):
            return super().forward(input, rois)
        return roi_align(input, rois, Pooling(size, self.spatial_scale, self.sampling_ratio, self.aligned))


def use_fast_roi_align(model: nn.Module) -> ExitStack:
    """Let the ROIAlign modules of ``model`` pool faster on CPUs, in training and inference.

    They become :class:`FastROIAlign` in place: names, state, hooks and results (to 1e-5) stay. That is fastest where
    features are channels-last: ``model.to(memory_format=torch.channels_last)``. Subclasses of Detectron2's ROIAlign and
    modules with a ``forward`` of their own are left as they are.

    Returns:
        What takes it back: ``.close()``, or the end of a ``with`` block.
    """
    undo = ExitStack()
    for module in model.modules():
        if type(module) is ROIAlign and "forward" not in vars(module):
            module.__class__ = FastROIAlign
            undo.callback(setattr, module, "__class__", ROIAlign)
    return undo


def speed_up_on_cpus_(model: nn.Module) -> None:
    """Let ``model`` be faster on CPUs, with its weights and state as they are, and results equal to rounding.

    ROIAlign as of :func:`use_fast_roi_align`; and features lie channels-last, from the backbone to the poolers.
    """
    use_fast_roi_align(model)
    if hasattr(model, "backbone"):
        model.backbone.register_forward_pre_hook(_lay_channels_last)


def _lay_channels_last(backbone: nn.Module, args: tuple) -> tuple | None:  # noqa: ARG001
    """Images (N, 3, H, W) channels-last: what is computed of them lies like that, too.

    Not in training without AVX-512: oneDNN's backward passes then take more than twice the time.
    """
    image = args[0] if args else None
    if is_captured() or type(image) is not torch.Tensor or image.device.type != "cpu":
        return None
    if torch.is_grad_enabled() and not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return None
    return image.contiguous(memory_format=torch.channels_last), *args[1:]


def _is_supported(features: torch.Tensor, boxes: torch.Tensor) -> bool:
    return (
        not is_captured()
        and type(features) in (torch.Tensor, nn.Parameter)  # no fake tensor, no tracer's proxy
        and type(boxes) in (torch.Tensor, nn.Parameter)
        and features.device.type == boxes.device.type == "cpu"
        and features.dtype in DTYPES
        and features.dim() == 4
        and boxes.dim() == 2
        and boxes.shape[1] == 5
        and (features.numel() > 0 or len(boxes) == 0)
    )


def _is_worthwhile(features: torch.Tensor, bins: int) -> bool:
    """Whether there are so many bins that a feature map which is not channels-last may first be laid out anew."""
    if features.dtype in (torch.bfloat16, torch.float16) or features.is_contiguous(memory_format=torch.channels_last):
        return True
    images, _, height, width = features.shape
    return images * height * width <= LAYOUT_PER_POOLED * bins
