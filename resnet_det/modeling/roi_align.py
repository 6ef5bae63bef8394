"""ROIAlign with all threads: torchvision computes it with one on CPUs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from detectron2.layers import ROIAlign

from resnet_det.modeling.fused import is_captured

# Boxes in a call. Large ones take longer than small ones, so that equal parts would not be ready at the same time.
BOXES_AT_ONCE = 64


class ThreadedROIAlign(ROIAlign):
    """Detectron2's ROIAlign without gradients; the same numbers, each thread with boxes of its own."""

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:  # noqa: A002 - Detectron2's name
        """
        Shapes:
            input: (N, C, H, W); rois: (M, 5), image and XYXY; out: (M, C, *output_size).
        """
        num_threads = torch.get_num_threads()
        is_serial = input.device.type == "cpu" and not is_captured()
        if not is_serial or num_threads == 1 or len(rois) <= BOXES_AT_ONCE:
            return super().forward(input, rois)
        align = super().forward
        with ThreadPoolExecutor(num_threads) as pool:
            return torch.cat(list(pool.map(lambda part: align(input, part), rois.split(BOXES_AT_ONCE))))
