"""From a data set dict to what the model gets: Detectron2's DatasetMapper, with our augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, DatasetMapper
from pycocotools import mask as mask_util
from torch.nn import functional as F

from resnet_det.data.augmentation import build_augmentations
from resnet_det.data.copy_paste import choose_objects, paste_objects
from resnet_det.errors import InputError


def build_mapper(cfg: CfgNode, is_train: bool, sources: Sequence[dict[str, Any]] = ()) -> DatasetMapper:
    """Detectron2's DatasetMapper for ``cfg``, with the augmentation of RESNET_DET.DATA in training.

    It can be pickled, and draws from ``np.random`` alone.

    Args:
        sources: data set dicts of the training images, which RESNET_DET.DATA.COPY_PASTE copies objects from.

    Raises:
        InputError: copy-paste is on, and ``sources`` have no masks.
    """
    arguments = {**DatasetMapper.from_config(cfg, is_train), "augmentations": build_augmentations(cfg, is_train)}
    data = cfg.RESNET_DET.DATA
    if is_train and data.COPY_PASTE.PROB > 0:
        return CopyPasteMapper(
            check_sources(sources),
            prob=data.COPY_PASTE.PROB,
            max_objects=data.COPY_PASTE.MAX_OBJECTS,
            keep_masks=cfg.MODEL.MASK_ON,
            **{**arguments, "use_instance_mask": True, "instance_mask_format": "bitmask"},
        )
    if is_train and data.LSJ.ENABLED:
        return TightBoxMapper(**arguments)
    return DatasetMapper(**arguments)


def check_sources(sources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the data set dicts ``sources`` that have objects to copy.

    Raises:
        InputError: there are none, or objects have no masks.
    """
    usable = [source for source in sources if any(map(_is_object, source.get("annotations", ())))]
    if not usable:
        raise InputError("RESNET_DET.DATA.COPY_PASTE: the training images have no objects to copy")
    lacking = [
        source["file_name"]
        for source in usable
        if not all("segmentation" in annotation for annotation in source["annotations"] if _is_object(annotation))
    ]
    if lacking:
        raise InputError(
            f"RESNET_DET.DATA.COPY_PASTE needs masks, and objects in {len(lacking)} of {len(usable)} images have none "
            f"(such as {lacking[0]}); set its PROB to 0"
        )
    return usable


class TightBoxMapper(DatasetMapper):
    """Takes boxes from what is left of the masks, if there are any, and makes bit masks before cropping.

    Detectron2's ``recompute_boxes`` stops at images without objects, and v0.5 at bit masks of polygons that are cropped
    away.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{**arguments, "recompute_boxes": False})

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        if self.use_instance_mask and self.instance_mask_format == "bitmask":
            dataset_dict = with_bit_masks(dataset_dict)
        mapped = super().__call__(dataset_dict)
        if "instances" in mapped and mapped["instances"].has("gt_masks"):
            mapped["instances"].gt_boxes = mapped["instances"].gt_masks.get_bounding_boxes()
        return mapped


class CopyPasteMapper(TightBoxMapper):
    """Pastes objects of a random other image, which had its own augmentation, onto the image."""

    def __init__(
        self, sources: Sequence[dict[str, Any]], *, prob: float, max_objects: int, keep_masks: bool, **arguments: Any
    ) -> None:
        """Args:
        sources: data set dicts to copy from; all their objects have masks.
        prob: chance that something is pasted.
        max_objects: at most so many objects are; 0: any number.
        keep_masks: hand the masks on to the model.
        arguments: those of DatasetMapper, with bit masks.
        """
        super().__init__(**arguments)
        self.sources = DatasetFromList(list(sources), copy=False)  # serialised: workers share its memory
        self.prob, self.max_objects, self.keep_masks = prob, max_objects, keep_masks

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        mapped = super().__call__(dataset_dict)
        if "instances" in mapped and np.random.uniform() < self.prob:
            self.paste_onto_(mapped)
        if not self.keep_masks and "instances" in mapped and mapped["instances"].has("gt_masks"):
            mapped["instances"].remove("gt_masks")
        return mapped

    def paste_onto_(self, mapped: dict[str, Any]) -> None:
        source = super().__call__(self.sources[np.random.randint(len(self.sources))])
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


def _is_object(annotation: dict[str, Any]) -> bool:
    return annotation.get("iscrowd", 0) == 0
