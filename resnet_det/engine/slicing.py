"""Sliced prediction by models and exported files: RESNET_DET.TEST.SLICE."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.structures import Boxes, Instances
from torch import nn

from resnet_det.data import build_mapper
from resnet_det.data.mapping.mapper import Mapper
from resnet_det.deploy.merging import Found
from resnet_det.deploy.slicing import Slicing
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.predictor import Predictor, to_cpu
from resnet_det.errors import InputError
from resnet_det.masks import BoxMasks, cut_out


def make_slicing(cfg: CfgNode, *, batch_size: int) -> Slicing | None:
    """What RESNET_DET.TEST asks for; None where images are not cut.

    Args:
        batch_size: slices that go through the model together.
    """
    test = cfg.RESNET_DET.TEST
    if not test.SLICE:
        return None
    return Slicing(
        size=test.SLICE,
        overlap=test.SLICE_OVERLAP,
        takes_whole=test.SLICE_WHOLE,
        batch_size=batch_size,
        max_detections=test.SLICE_DETECTIONS,
        slice_limit=max(cfg.TEST.DETECTIONS_PER_IMAGE, 0),
        shortest=cfg.INPUT.MIN_SIZE_TEST,
        longest=cfg.INPUT.MAX_SIZE_TEST,
    )


class SlicedPredictor:
    """A predictor that cuts large images into slices. Others go through it as they do without.

    Attributes:
        class_names, category_ids, stuff_names, skeleton, image_input: those of the predictor.
    """

    def __init__(self, predictor: Predictor | ExportedPredictor, slicing: Slicing) -> None:
        self.predictor, self.slicing = predictor, slicing
        self.class_names, self.category_ids = predictor.class_names, predictor.category_ids
        self.stuff_names, self.skeleton = predictor.stuff_names, predictor.skeleton
        self.image_input = predictor.image_input

    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """{"instances": ...} for each of ``images``, as the predictor takes them."""
        small = [image for image in images if not self.slicing.cuts(*image.shape[:2])]
        outputs = iter(self.predictor.run(small))
        return [self._run_sliced(image) if self.slicing.cuts(*image.shape[:2]) else next(outputs) for image in images]

    def _run_sliced(self, image: np.ndarray) -> dict[str, Any]:
        found = self.slicing.detect(image, self._detect)
        return {"instances": to_instances(found, *image.shape[:2])}

    def _detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        return [to_found(output["instances"]) for output in self.predictor.run(images)]


def predict_in_slices(
    predictor: Predictor | ExportedPredictor, cfg: CfgNode, *, batch_size: int
) -> Predictor | ExportedPredictor | SlicedPredictor:
    """``predictor``, or what cuts large images for it where RESNET_DET.TEST.SLICE asks for that."""
    slicing = make_slicing(cfg, batch_size=batch_size)
    if slicing is None:
        return predictor
    if isinstance(predictor, ExportedPredictor):  # which resizes as its file says
        known = predictor.detector.metadata
        limit = known.get("max_detections", 0)
        slicing = replace(slicing, shortest=known["min_size"], longest=known["max_size"], slice_limit=limit)
    return SlicedPredictor(predictor, slicing)


def add_slice_arguments(parser: argparse._ActionsContainer) -> None:
    """``--slice`` and ``--overlap``."""
    parser.add_argument(
        "--slice",
        type=int,
        metavar="PIXELS",
        help="cut images with a side of more pixels into slices of that size, which go through the model each by "
        "itself, --batch-size together; what is found is merged (RESNET_DET.TEST.SLICE; default: off)",
    )
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE", help="of a slice that the next one shows, too (default: 0.2)"
    )


def set_slice_keys_(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Let the keys be what the flags say, if they are given.

    Raises:
        InputError: an overlap without slices.
    """
    test = cfg.RESNET_DET.TEST
    test.SLICE = test.SLICE if args.slice is None else args.slice
    test.SLICE_OVERLAP = test.SLICE_OVERLAP if args.overlap is None else args.overlap
    if args.overlap is not None and not test.SLICE:
        raise InputError.from_problems("command line", ["--overlap goes with --slice"])


class SlicingMapper:
    """Makes what :class:`SlicedModel` takes: images that will be cut in full size, others as they are without."""

    def __init__(self, cfg: CfgNode, slicing: Slicing) -> None:
        self.mapper, self.whole_mapper, self.slicing = build_mapper(cfg, False), build_mapper(cfg, False), slicing
        self.whole_mapper.augmentations.augs = []

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        size = [dataset_dict.get(key) for key in ("height", "width")]
        if None in size or self.slicing.cuts(*size):
            whole = self.whole_mapper(dataset_dict)
            if self.slicing.cuts(*whole["image"].shape[1:]):
                return {**whole, "is_whole": True}
        return self.mapper(dataset_dict)


class SlicedModel(nn.Module):
    """A model that cuts the large ones of the images that :class:`SlicingMapper` has made."""

    def __init__(self, model: nn.Module, slicing: Slicing, mapper: DatasetMapper) -> None:
        """Args:
        mapper: resizes slices as whole images.
        """
        super().__init__()
        self.model, self.slicing, self.mapper = model, slicing, mapper
        self.training = model.training

    def forward(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        small = [image for image in batch if "is_whole" not in image]
        outputs = iter(self.model(small) if small else ())
        return [self._run_sliced(image["image"]) if "is_whole" in image else next(outputs) for image in batch]

    def _run_sliced(self, image: torch.Tensor) -> dict[str, Any]:
        found = self.slicing.detect(image.permute(1, 2, 0).numpy(), self._detect)
        return {"instances": to_instances(found, *image.shape[1:])}

    def _detect(self, images: Sequence[np.ndarray]) -> list[Found]:
        return [to_found(output["instances"]) for output in self.model([self._prepare(image) for image in images])]

    def _prepare(self, image: np.ndarray) -> dict[str, Any]:
        resized = self.mapper.make_input(image, None)
        self.mapper.augmentations(resized)
        resized = resized.image.reshape(*resized.image.shape[:2], -1)  # of one channel, resizing may leave none
        return {"image": self.mapper.to_tensor(resized), "height": image.shape[0], "width": image.shape[1]}


def build_test_mapper(cfg: CfgNode) -> Mapper:
    """The mapper of test images: with RESNET_DET.TEST.SLICE for :class:`SlicedModel`."""
    slicing = make_slicing(cfg, batch_size=cfg.RESNET_DET.TEST.BATCH_SIZE)
    return build_mapper(cfg, False) if slicing is None else SlicingMapper(cfg, slicing)


def slice_as_configured(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """``model``, or what cuts large images for it where RESNET_DET.TEST.SLICE asks for that."""
    slicing = make_slicing(cfg, batch_size=cfg.RESNET_DET.TEST.BATCH_SIZE)
    return model if slicing is None else SlicedModel(model, slicing, build_mapper(cfg, False))


def to_found(instances: Instances) -> Found:
    """Predictions of a model in NumPy, on the CPU."""
    instances = to_cpu(instances)
    masks = None
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        masks = masks.masks if isinstance(masks, BoxMasks) else [cut_out(mask) for mask in masks.numpy()]
    return Found(
        boxes=instances.pred_boxes.tensor.float().numpy(),
        scores=instances.scores.numpy(),
        classes=instances.pred_classes.numpy(),
        keypoints=instances.pred_keypoints.numpy() if instances.has("pred_keypoints") else None,
        masks=masks,
    )


def to_instances(found: Found, height: int, width: int) -> Instances:
    """``found`` in an image of this size as Detectron2 has it, but for masks, which stay in their boxes."""
    instances = Instances((height, width))
    instances.pred_boxes = Boxes(torch.from_numpy(found.boxes))
    instances.scores = torch.from_numpy(found.scores)
    instances.pred_classes = torch.from_numpy(found.classes)
    if found.masks is not None:
        instances.pred_masks = BoxMasks(found.masks, height, width)
    if found.keypoints is not None:
        instances.pred_keypoints = torch.from_numpy(found.keypoints)
    return instances
