"""A DatasetMapper that takes a third of the time of Detectron2's, for the same boxes, masks and (nearly) pixels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from fvcore.transforms.transform import TransformList
from torch import Tensor

from resnet_det.data.mapping.fast_annotations import transform_annotations
from resnet_det.data.mapping.fast_image import FastAugInput, read_image, to_tensor
from resnet_det.data.mapping.plain_mapper import PlainDatasetMapper
from resnet_det.images.image_input import ImageInput


class FastDatasetMapper(PlainDatasetMapper):
    """Detectron2's DatasetMapper, with its arguments and attributes, on other libraries.

    Augmentations are the same objects and draw the same random numbers, so that boxes, masks and keypoints are equal.
    Pixels of images that are resized differ in rounding: by one level in some.
    """

    def copy(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        # Annotations are the larger part, and are not changed.
        return {k: v if k == "annotations" else copy.deepcopy(v) for k, v in dataset_dict.items()}

    def read_image(self, file_name: str) -> np.ndarray:
        taken = self.image_input or ImageInput(self.image_format)
        return read_image(file_name, taken, max_pixels=self.max_pixels)

    def make_input(self, image: np.ndarray, semantic: np.ndarray | None) -> FastAugInput:
        return FastAugInput(image, sem_seg=semantic)

    def to_tensor(self, image: np.ndarray) -> Tensor:
        return to_tensor(image)

    def transform_annotations(
        self, objects: list[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int]
    ) -> list[dict[str, Any]]:
        return transform_annotations(
            objects, transforms, image_size, keypoint_hflip_indices=self.keypoint_hflip_indices
        )
