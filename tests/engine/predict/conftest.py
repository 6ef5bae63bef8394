"""Images on the disk, and a detector that finds what the pixels say."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from resnet_det.errors import InputError


class PixelDetector:
    """Of the first pixel of an image (b, g, r) it finds b % 3 squares of the class g % 2, scores from r / 255 down.

    An image that is one pixel wide is refused.
    """

    class_names = ("cat", "dog")
    category_ids = (3, 7)

    def __init__(self):
        self.batches = []

    def run(self, images):
        self.batches.append(len(images))
        if any(image.shape[1] == 1 for image in images):
            raise InputError("nothing is left of it")
        return [{"instances": self.find(image)} for image in images]

    def find(self, image):
        blue, green, red = image[0, 0].tolist()
        found = Instances(image.shape[:2])
        corners = [[1 + i, 2, 9 + i, 8] for i in range(blue % 3)]
        found.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        found.scores = torch.tensor([red / 255 / (1 + i) for i in range(blue % 3)])
        found.pred_classes = torch.full((blue % 3,), green % 2)
        found.pred_masks = torch.zeros(blue % 3, *image.shape[:2], dtype=torch.bool)
        found.pred_masks[:, 2:8, 1:9] = True
        return found


@pytest.fixture
def detector():
    return PixelDetector()


def encode(blue=1, green=0, red=255, *, size=(10, 12), suffix=".png") -> bytes:
    pixels = np.full((*size, 3), (blue, green, red), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.fixture
def write_images(tmp_path):
    """Write images i, whose first pixels are (i, i, 255 - i), to a folder; returns their paths."""

    def write(count: int, folder="photos") -> list[str]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        paths = [tmp_path / folder / f"{i:03d}.png" for i in range(count)]
        for i, path in enumerate(paths):
            path.write_bytes(encode(i, i, 255 - i))
        return list(map(str, paths))

    return write


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


@pytest.fixture(name="encode")
def _encode():
    return encode


@pytest.fixture(name="write_tar")
def _write_tar():
    return write_tar
