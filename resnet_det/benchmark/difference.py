"""How far two outputs are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances, pairwise_iou


def largest_difference(output: Any, expected: Any) -> float:
    """The largest difference of any number in ``output`` from its place in ``expected``, as a share of the largest
    value of the same tensor there; inf if they have not the same tensors of the same shapes.

    Args:
        output, expected: tensors, arrays, numbers, Instances, and lists and dicts of them. What is none of these does
            not count.
    """
    ours, theirs = list(_arrays(output)), list(_arrays(expected))
    if [array.shape for array in ours] != [array.shape for array in theirs]:
        return math.inf
    return max((_difference(a, b) for a, b in zip(ours, theirs, strict=True) if a.size), default=0.0)


def _difference(array: np.ndarray, expected: np.ndarray) -> float:
    scale = float(np.abs(expected).max()) or 1.0
    apart = float(np.abs(array - expected).max())
    return math.inf if math.isnan(apart) else apart / scale


def _arrays(output: Any) -> Iterator[np.ndarray]:
    if isinstance(output, Instances):
        output = output.get_fields()
    elif hasattr(output, "tensor"):  # boxes and masks
        output = output.tensor
    if isinstance(output, dict):
        for key in sorted(output, key=str):
            yield from _arrays(output[key])
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _arrays(part)
    elif isinstance(output, torch.Tensor):
        yield output.detach().double().cpu().numpy()
    elif isinstance(output, np.ndarray | int | float):
        yield np.asarray(output, dtype=float)


def count_equal_detections(instances: Instances, expected: Instances) -> int:
    """How many of ``expected`` have a detection of the same class with an IoU over 0.99 and a score within 0.001."""
    if not len(instances) or not len(expected):
        return 0
    equal = pairwise_iou(expected.pred_boxes, instances.pred_boxes) > 0.99
    equal &= expected.pred_classes[:, None] == instances.pred_classes[None]
    equal &= (expected.scores[:, None] - instances.scores[None]).abs() < 1e-3
    return int(equal.any(dim=1).sum())
