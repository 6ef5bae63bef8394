"""From a data set dict to what the model gets: Detectron2's DatasetMapper or our fast one, with our augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from pycocotools import mask as mask_util
from torch.nn import functional as F

from resnet_det.config import read_image_input
from resnet_det.data.loading.serialized import serialize
from resnet_det.data.mapping.augmentation import build_augmentations
from resnet_det.data.mapping.copy_paste import choose_objects, paste_objects
from resnet_det.data.mapping.fast_mapper import FastDatasetMapper
from resnet_det.data.mapping.missing_labels import CompletingMapper, Mapper
from resnet_det.data.mapping.plain_mapper import PlainDatasetMapper
from resnet_det.errors import InputError

MAPPERS = {"detectron2": PlainDatasetMapper, "fast": FastDatasetMapper}


def build_mapper(cfg: CfgNode, is_train: bool, sources: Sequence[dict[str, Any]] = ()) -> Mapper:
    """The mapper that RESNET_DET.DATA.MAPPER names, with the augmentation of RESNET_DET.DATA in training.

    It can be pickled, and draws from ``np.random`` alone.

    Args:
        sources: data set dicts of the training images, which RESNET_DET.DATA.COPY_PASTE copies objects from.

    Raises:
        InputError: copy-paste is on, and ``sources`` have no masks.
    """
    data = cfg.RESNET_DET.DATA
    arguments = {**DatasetMapper.from_config(cfg, is_train), "augmentations": build_augmentations(cfg, is_train)}
    pastes, jitters = is_train and data.COPY_PASTE.PROB > 0, is_train and data.LSJ.ENABLED
    if pastes:
        arguments |= {"use_instance_mask": True, "instance_mask_format": "bitmask"}
    if pastes or jitters:
        arguments["recompute_boxes"] = False
    mapper = make_mapper(cfg, arguments)
    if pastes:
        mapper = CopyPasteMapper(
            mapper,
            sources,
            prob=data.COPY_PASTE.PROB,
            max_objects=data.COPY_PASTE.MAX_OBJECTS,
            keep_masks=cfg.MODEL.MASK_ON,
        )
    elif jitters:
        mapper = TightBoxMapper(mapper)
    return complete_labels(cfg, mapper) if is_train else mapper


def make_mapper(cfg: CfgNode, arguments: dict[str, Any]) -> PlainDatasetMapper:
    """The mapper of RESNET_DET.DATA.MAPPER with Detectron2's arguments."""
    mapper = MAPPERS[cfg.RESNET_DET.DATA.MAPPER](**arguments)
    mapper.max_pixels = cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS
    mapper.image_input = read_image_input(cfg)
    return mapper


def complete_labels(cfg: CfgNode, mapper: Mapper) -> Mapper:
    """``mapper`` for objects of which some have no mask or no keypoints."""
    num_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else 0
    if not (cfg.MODEL.MASK_ON or num_keypoints):
        return mapper
    return CompletingMapper(mapper, masks=cfg.MODEL.MASK_ON, num_keypoints=num_keypoints)


def find_sources(dicts: Sequence[dict[str, Any]]) -> np.ndarray:
    """Places of those of the data set dicts that have objects to copy.

    Raises:
        InputError: there are none, or objects have no masks.
    """
    usable, lacking = [], []
    for place, entry in enumerate(dicts):
        objects = [annotation for annotation in entry.get("annotations", ()) if annotation.get("iscrowd", 0) == 0]
        if objects:
            usable.append(place)
        if not all("segmentation" in annotation for annotation in objects):
            lacking.append(entry["file_name"])
    if not usable:
        raise InputError("RESNET_DET.DATA.COPY_PASTE: the training images have no objects to copy")
    if lacking:
        raise InputError(
            f"RESNET_DET.DATA.COPY_PASTE needs masks, and objects in {len(lacking)} of {len(usable)} images have none "
            f"(such as {lacking[0]}); set its PROB to 0"
        )
    return np.array(usable)


class TightBoxMapper:
    """Takes boxes from what is left of the masks, if there are any, and makes bit masks before cropping.

    Detectron2's ``recompute_boxes`` stops at images without objects, and v0.5 at bit masks of polygons that are cropped
    away.
    """

    def __init__(self, mapper: DatasetMapper) -> None:
        """Args:
        mapper: does the rest; without ``recompute_boxes``.
        """
        self.mapper = mapper

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        if self.mapper.use_instance_mask and self.mapper.instance_mask_format == "bitmask":
            dataset_dict = with_bit_masks(dataset_dict)
        mapped = self.mapper(dataset_dict)
        if "instances" in mapped and mapped["instances"].has("gt_masks"):
            mapped["instances"].gt_boxes = mapped["instances"].gt_masks.get_bounding_boxes()
        return mapped


class CopyPasteMapper(TightBoxMapper):
    """Pastes objects of a random other image, which had its own augmentation, onto the image."""

    def __init__(
        self,
        mapper: DatasetMapper,
        sources: Sequence[dict[str, Any]],
        *,
        prob: float,
        max_objects: int,
        keep_masks: bool,
    ) -> None:
        """Args:
        mapper: makes bit masks.
        sources: data set dicts to copy from; all their objects have masks.
        prob: chance that something is pasted.
        max_objects: at most so many objects are; 0: any number.
        keep_masks: hand the masks on to the model.

        Raises:
            InputError: the sources have no objects, or objects without masks.
        """
        super().__init__(mapper)
        self.sources = serialize(sources)
        self.places = find_sources(self.sources)
        self.prob, self.max_objects, self.keep_masks = prob, max_objects, keep_masks

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        mapped = super().__call__(dataset_dict)
        if "instances" in mapped and np.random.uniform() < self.prob:
            self.paste_onto_(mapped)
        if not self.keep_masks and "instances" in mapped and mapped["instances"].has("gt_masks"):
            mapped["instances"].remove("gt_masks")
        return mapped

    def paste_onto_(self, mapped: dict[str, Any]) -> None:
        place = self.places[np.random.randint(len(self.places))]
        source = super().__call__(self.sources[place])
        if len(source["instances"]) == 0:  # all were cropped away
            return
        objects, padding = choose_objects(source["instances"], mapped["instances"].image_size, self.max_objects)
        mapped["image"], mapped["instances"] = paste_objects(
            mapped["image"], mapped["instances"], F.pad(source["image"], padding), objects
        )


def with_bit_masks(dataset_dict: dict[str, Any]) -> dict[str, Any]:
    """``dataset_dict`` with run-length masks in place of polygons."""
    height, width = dataset_dict["height"], dataset_dict["width"]
    annotations = [
        {
            **annotation,
            "segmentation": mask_util.merge(mask_util.frPyObjects(annotation["segmentation"], height, width)),
        }
        if isinstance(annotation.get("segmentation"), list)
        else annotation
        for annotation in dataset_dict.get("annotations", ())
    ]
    return {**dataset_dict, "annotations": annotations} if annotations else dataset_dict
