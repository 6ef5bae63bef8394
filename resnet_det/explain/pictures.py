"""What a net sees in a picture: filters, activations and Grad-CAM, as small pictures for a page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import torch

from resnet_det.analysis.features import record_features
from resnet_det.classification import Classifier
from resnet_det.visualization.heatmaps import colour_map, overlay_map

SIDE_PX = 96


def draw_filters(weights: torch.Tensor) -> np.ndarray:
    """Filters of a first layer side by side, each scaled from its least to its greatest value, as a BGR picture.

    Shapes:
        weights: (N, 3, h, w) for RGB images.
    """
    low, high = weights.amin((1, 2, 3), keepdim=True), weights.amax((1, 2, 3), keepdim=True)
    scaled = (255 * (weights - low) / (high - low).clamp(min=1e-12)).round().byte()
    count, _, height, width = scaled.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    for number, one in enumerate(scaled.flip(1).permute(0, 2, 3, 1).numpy()):
        top, left = (number // columns) * (height + 1), (number % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = one
    return canvas


def look(model: Classifier, pixels: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
    """What a picture does in a net, and where the class with the highest score comes from.

    Args:
        model: in evaluation mode.
        pixels: (1, 3, H, W) as its backbone takes them.

    Returns:
        By stage the mean absolute activation (h, w), and by stage Grad-CAM (arXiv 1610.02391, section 3), 0 to 1; and
        that class.
    """
    with torch.enable_grad(), record_features(model) as recorded:
        logits = model.backbone(pixels.detach().requires_grad_())["linear"][0]
        chosen = int(logits.argmax())
        stages = [name for name in recorded if name.startswith("res")]
        gradients = torch.autograd.grad(logits[chosen], [recorded[name] for name in stages])
    activations, cams = {}, {}
    for name, gradient in zip(stages, gradients, strict=True):
        feature = recorded[name].detach()[0]
        activations[name] = feature.abs().mean(0).cpu()
        cam = (gradient[0].mean((1, 2), keepdim=True) * feature).sum(0).clamp(min=0).cpu()
        cams[name] = cam / cam.max().clamp(min=1e-12)
    return activations, cams, chosen


def draw_activation(values: torch.Tensor) -> np.ndarray:
    return colour_map(values.numpy(), (SIDE_PX, SIDE_PX))


def draw_cam(image: np.ndarray, values: torch.Tensor) -> np.ndarray:
    """Over ``image`` (H, W, 3), BGR."""
    enlarged = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
    return overlay_map(enlarged, values.numpy())


def to_uri(picture: np.ndarray) -> str:
    """A BGR picture as PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
