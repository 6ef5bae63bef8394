"""An exported detector on images, without Detectron2; ONNX and OpenVINO files without torch, too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from resnet_det.deploy.pixels import choose_size, heatmaps_to_keypoints, resize
from resnet_det.deploy.runtimes import find_file, load_network
from resnet_det.errors import InputError
from resnet_det.images.image_input import ImageInput
from resnet_det.masks import BoxMask, BoxMasks


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: (n, 4) float32, XYXY in pixels of the image.
        scores: (n,) float32, highest first.
        classes: (n,) int64, index of the class.
        class_names: of each detection.
        category_ids: of each detection, in the data set that the detector was trained on.
        keypoints: (n, K, 3) float32, x, y and score; None if the detector has none.
        box_masks: (n, S, S) float32, probabilities within each box; None if the detector has none.
        height, width: of the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: list[str]
    category_ids: list[int]
    height: int
    width: int
    keypoints: np.ndarray | None = None
    box_masks: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def has_masks(self) -> bool:
        return self.box_masks is not None

    @property
    def masks(self) -> BoxMasks:
        """The masks in their boxes, which need little memory.

        Raises:
            InputError: there are none.
        """
        if self.box_masks is None:
            raise InputError("this detector finds no masks")
        return BoxMasks(list(map(BoxMask, self.box_masks, self.boxes)), self.height, self.width)

    def iterate_masks(self, threshold: float = 0.5) -> Iterator[np.ndarray]:
        """The mask of each detection, (height, width) bool, made one after the other."""
        for mask in self.masks:
            yield mask.paste(self.height, self.width, threshold)

    def make_masks(self, threshold: float = 0.5) -> np.ndarray:
        """All masks, (n, height, width) bool."""
        masks = list(self.iterate_masks(threshold))
        return np.stack(masks) if masks else np.zeros((0, self.height, self.width), bool)

    def to_coco(self, image_id: int | str) -> list[dict]:
        """Entries of COCO's results format; masks as compressed RLE."""
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], 1).tolist()
        entries = [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for category_id, box, score in zip(self.category_ids, corners, self.scores.tolist(), strict=True)
        ]
        if self.has_masks:
            for entry, runs in zip(entries, self.masks.to_rle(), strict=True):
                entry["segmentation"] = runs
        if self.keypoints is not None:
            for entry, keypoints in zip(entries, self.keypoints, strict=True):
                # COCO's pixels have their centres at whole numbers, as Detectron2's evaluator knows.
                entry["keypoints"] = (keypoints - np.array([0.5, 0.5, 0], np.float32)).reshape(-1).tolist()
        return entries


class Detector:
    """A detector that tools/export_model.py has written, run by ONNX Runtime, OpenVINO or torch on the CPU.

    Attributes:
        class_names, category_ids: of the data set that it was trained on.
        image_input: what it takes for an image.
        metadata: all that the file says of it.
    """

    def __init__(self, path: str | os.PathLike, *, threads: int = 0) -> None:
        """
        Args:
            path: model.onnx, model.xml, model.pt2, or the folder in which one of them is.
            threads: 0: as many as there are cores. torch has one number for the whole process.

        Raises:
            InputError: there is no such file, it is damaged, or its runtime is not installed.
        """
        self._network, self.metadata = load_network(find_file(path), threads)
        self.class_names: list[str] = self.metadata["class_names"]
        self.category_ids: list[int] = self.metadata["category_ids"]
        self.image_input = ImageInput.from_metadata(self.metadata)

    def __call__(self, image: np.ndarray | Sequence[np.ndarray]) -> Detections | list[Detections]:
        """What is in an image, or in each of a batch.

        Args:
            image: (H, W, 3) uint8 in BGR order, as OpenCV reads it, of any size; or several. A detector of images with
                more than 8 bits, or with other channels, takes what :meth:`read_image` reads.
        """
        if isinstance(image, np.ndarray):
            return self.detect([image])[0]
        return self.detect(image)

    def read_image(self, name: str | os.PathLike) -> np.ndarray:
        """An image file as this detector takes it, read as in training; ``stack.tif#3`` is the fourth page of a stack.

        Needs Pillow, and for some files what ``pip install 'resnet_det[medical]'`` installs.

        Raises:
            InputError: it is missing, not an image, damaged, or has other channels than the detector takes.
        """
        from resnet_det.images.reader import read_image, told_as_input_error

        with told_as_input_error(name):
            return read_image(name, self.image_input.taken)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """What is in each of ``images``, which go through the network as one batch."""
        if len(images) == 0:
            return []
        return self.detect_resized(*make_batch(images, self.metadata), [image.shape[:2] for image in images])

    def detect_resized(
        self, batch: np.ndarray, sizes: np.ndarray, shapes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """What is in images that have been resized before.

        Args:
            batch, sizes: see :func:`make_batch`.
            shapes: height and width of each image, whose pixels the detections are in.
        """
        found = self._network(batch, sizes)
        ends = np.cumsum(found["count"])
        return [
            self._collect(found, number, slice(end - count, end), shape, size)
            for number, (shape, size, count, end) in enumerate(
                zip(shapes, sizes, found["count"].tolist(), ends.tolist(), strict=True)
            )
        ]

    def _collect(
        self, found: dict[str, np.ndarray], number: int, rows: slice, shape: tuple[int, int], size: np.ndarray
    ) -> Detections:
        """The detections of image ``number``, in its pixels; boxes that are empty there are left out."""
        height, width = shape
        count = rows.stop - rows.start
        scale = np.array([width / size[1], height / size[0]] * 2, np.float32)
        boxes = found["boxes"][number, :count] * scale
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes, classes = boxes[kept], found["classes"][number, :count][kept]
        keypoints = None
        if "keypoint_heatmaps" in found:
            small = found["boxes"][number, :count][kept]
            keypoints = heatmaps_to_keypoints(found["keypoint_heatmaps"][rows][kept], small) * [*scale[:2], 1]
            keypoints = keypoints.astype(np.float32)
        return Detections(
            boxes=boxes,
            scores=found["scores"][number, :count][kept],
            classes=classes,
            class_names=[self.class_names[index] for index in classes],
            category_ids=[self.category_ids[index] for index in classes],
            height=height,
            width=width,
            keypoints=keypoints,
            box_masks=found["masks"][rows][kept] if "masks" in found else None,
        )


def make_batch(images: Sequence[np.ndarray], metadata: dict) -> tuple[np.ndarray, np.ndarray]:
    """What an exported network takes for ``images``: (N, C, H, W) float32, and height and width of each, (N, 2) int64.

    Args:
        images: as :meth:`Detector.__call__` takes them, of any size.
        metadata: what the file of the network says of its input.

    Raises:
        InputError: one is no such array.
    """
    resized = [_prepare(image, metadata) for image in images]
    sizes = np.array([image.shape[1:] for image in resized], np.int64)
    batch = np.zeros((len(images), resized[0].shape[0], *sizes.max(0)), np.float32)
    for target, image in zip(batch, resized, strict=True):
        target[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def _prepare(image: np.ndarray, metadata: dict) -> np.ndarray:
    """``image`` as (C, h, w), uint8 or float32, resized and converted as in evaluation."""
    ImageInput.from_metadata(metadata).check(image)
    size = choose_size(*image.shape[:2], metadata["min_size"], metadata["max_size"]) if image.size else (0, 0)
    if not all(size):
        raise InputError(f"nothing is left of an image of shape {image.shape} when it is resized")
    if metadata["input_format"] == "RGB":
        image = image[:, :, ::-1]
    elif metadata["input_format"] == "L":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return resize(image, *size).reshape(*size, -1).transpose(2, 0, 1)
