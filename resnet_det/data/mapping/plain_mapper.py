"""Detectron2's DatasetMapper, but for how image files are read."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.utils.file_io import PathManager
from fvcore.transforms.transform import TransformList
from torch import Tensor

from resnet_det.data.mapping.fast_image import ImageAugInput
from resnet_det.images.image_input import ImageInput
from resnet_det.images.reader import read_image


class PlainDatasetMapper(DatasetMapper):
    """Detectron2's DatasetMapper, with its arguments and attributes, whose images are read as everywhere here.

    Detectron2 has no place for another way to read images, so that ``__call__`` is written anew; the steps are its own.

    Attributes:
        max_pixels: the most of an image that is read; 0: Pillow's limit.
        image_input: how they are read; None: by ``image_format`` alone.
    """

    max_pixels = 0
    image_input: ImageInput | None = None

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        mapped = self.copy(dataset_dict)
        image = self.read_image(mapped["file_name"])
        detection_utils.check_image_size(mapped, image)
        semantic_file = mapped.pop("sem_seg_file_name", None)
        semantic = None if semantic_file is None else detection_utils.read_image(semantic_file, "L").squeeze(2)

        augmented = self.make_input(image, semantic)
        transforms = self.augmentations(augmented)
        image_size = augmented.image.shape[:2]
        mapped["image"] = self.to_tensor(augmented.image)
        if semantic is not None:
            mapped["sem_seg"] = torch.as_tensor(augmented.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(mapped, image_size, transforms, proposal_topk=self.proposal_topk)
        annotations = mapped.pop("annotations", None)
        if self.is_train and annotations is not None:
            mapped["instances"] = self._make_instances(annotations, transforms, image_size)
        return mapped

    def copy(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """What may be changed below."""
        return copy.deepcopy(dataset_dict)

    def read_image(self, file_name: str) -> np.ndarray:
        taken = self.image_input or ImageInput(self.image_format)
        return read_image(file_name, taken, max_pixels=self.max_pixels, open_file=PathManager.open)

    def make_input(self, image: np.ndarray, semantic: np.ndarray | None) -> T.AugInput:
        return ImageAugInput(image, sem_seg=semantic)

    def to_tensor(self, image: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def transform_annotations(
        self, objects: list[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int]
    ) -> list[dict[str, Any]]:
        return [
            detection_utils.transform_instance_annotations(
                item, transforms, image_size, keypoint_hflip_indices=self.keypoint_hflip_indices
            )
            for item in objects
        ]

    def _make_instances(
        self, annotations: list[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int]
    ) -> Any:
        used = {"segmentation": self.use_instance_mask, "keypoints": self.use_keypoint}
        objects = [
            {key: value for key, value in annotation.items() if used.get(key, True)}
            for annotation in annotations
            if annotation.get("iscrowd", 0) == 0
        ]
        objects = self.transform_annotations(objects, transforms, image_size)
        instances = detection_utils.annotations_to_instances(objects, image_size, mask_format=self.instance_mask_format)
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)
