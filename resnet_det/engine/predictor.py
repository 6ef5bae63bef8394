"""Run a trained detector on images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import cv2
import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image

from resnet_det.config import read_image_input
from resnet_det.data.mapping.fast_image import apply_to_image
from resnet_det.engine.initial_weights import load_trained_weights
from resnet_det.engine.precision import prepare_as_configured
from resnet_det.errors import InputError
from resnet_det.images.image_input import CHANNELS
from resnet_det.images.stored import convert
from resnet_det.modeling import speed_up_on_cpus_
from resnet_det.visualization import Skeleton, make_skeleton

logger = logging.getLogger(__name__)


class Predictor:
    """A model and its preprocessing, from a config and MODEL.WEIGHTS.

    Why not Detectron2's DefaultPredictor: it takes one image at a time and cannot name the classes of own data.

    Attributes:
        model: in evaluation mode.
        image_input: how images are read for it.
        class_names: of the data set the model was trained on, or "class 0", ... where that is unknown.
        category_ids: of the same classes in the data set's annotation file; 1, 2, ... where that is unknown.
        skeleton: which keypoints are joined by lines, as far as that is known.
        stuff_names: of the semantic classes of a panoptic model.
    """

    def __init__(self, cfg: CfgNode, *, differentiable: bool = False) -> None:
        """Build the model and load MODEL.WEIGHTS.

        Args:
            differentiable: whether gradients are wanted; then RESNET_DET.TEST.PREPARE does not count.

        Raises:
            InputError: no weights are given, there is no such file, or they are not of this config.
        """
        self.model = build_model(cfg).eval()
        load_trained_weights(cfg, self.model)
        speed_up_on_cpus_(self.model)
        if not differentiable:
            self.model = prepare_as_configured(cfg, self.model)
        shortest = cfg.INPUT.MIN_SIZE_TEST
        self.resize = T.ResizeShortestEdge([shortest, shortest], cfg.INPUT.MAX_SIZE_TEST)
        self.image_input = read_image_input(cfg)
        self.class_names = find_class_names(cfg)
        self.category_ids = find_category_ids(cfg, len(self.class_names))
        self.stuff_names = find_stuff_names(cfg)
        self.skeleton = find_skeleton(cfg)

    def prepare(self, image: np.ndarray) -> dict[str, Any]:
        """What the model takes for an image: resized, with the size to go back to.

        It is converted to INPUT.FORMAT as in training, to one channel (L) too.

        Args:
            image: (H, W, 3) uint8 in BGR order; by RESNET_DET.INPUT.DTYPE float32 from 0 to 255, and with INPUT.FORMAT
                CHANNELS (H, W, C): what :func:`resnet_det.data.mapping.fast_image.read_taken` reads.

        Raises:
            InputError: it is no such array, or so narrow that nothing is left of it.
        """
        self.image_input.check(image)
        converted = self._convert(image)
        transform = self.resize.get_transform(converted)
        if 0 in (getattr(transform, "new_h", 1), getattr(transform, "new_w", 1)):
            raise InputError(f"nothing is left of an image of shape {image.shape} when it is resized")
        resized = apply_to_image(transform, converted)
        resized = resized.reshape(*resized.shape[:2], -1)  # of one channel, resizing may leave none
        chw = torch.as_tensor(resized.transpose(2, 0, 1).copy())
        return {"image": chw, "height": image.shape[0], "width": image.shape[1]}

    def _convert(self, image: np.ndarray) -> np.ndarray:
        wanted = self.image_input.format
        if wanted in ("BGR", CHANNELS):
            return image
        as_rgb = np.ascontiguousarray(image[:, :, ::-1])
        if wanted == "RGB":
            return as_rgb
        if image.dtype == np.uint8:
            return convert(Image.fromarray(as_rgb), wanted)
        return cv2.cvtColor(as_rgb, cv2.COLOR_RGB2GRAY)[:, :, None]

    @torch.no_grad()
    def run(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """All outputs of the model for each image, on the CPU: "instances", and of a panoptic model "panoptic_seg".

        Args:
            images: see :meth:`prepare`, of any sizes; they go through the model as one batch.

        Raises:
            InputError: the model is of a kind that finds none.
        """
        outputs = self.model([self.prepare(image) for image in images]) if images else []
        for output in outputs:
            if "instances" not in output:
                raise InputError(f"{type(self.model).__name__} finds no instances that could be drawn")
            output["instances"] = to_cpu(output["instances"])
            if "sem_seg" in output:
                output["sem_seg"] = output["sem_seg"].cpu()
            if "panoptic_seg" in output:
                segments, described = output["panoptic_seg"]
                output["panoptic_seg"] = segments.cpu(), described
        return outputs

    def predict(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Instances on the CPU for each image, in pixels of that image; see :meth:`run`."""
        return [output["instances"] for output in self.run(images)]


def to_cpu(instances: Instances) -> Instances:
    """``instances`` on the CPU, with scores and keypoints in float32, whatever the model computes in."""
    instances = instances.to("cpu")
    for name, value in instances.get_fields().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            instances.set(name, value.float())
    return instances


def find_class_names(cfg: CfgNode) -> list[str]:
    """Class names that training has kept in ``cfg``, else those of the first of its data sets that knows them."""
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    count = cfg.MODEL[node].NUM_CLASSES
    if len(cfg.RESNET_DET.CLASSES.NAMES) == count:
        return list(map(str, cfg.RESNET_DET.CLASSES.NAMES))
    names = _find(cfg, "thing_classes")
    if names is not None:
        return list(names)
    logger.warning(
        "The classes have no names: none of the data sets %s is here, and the config has none in "
        "RESNET_DET.CLASSES.NAMES (the config.yaml that training writes to OUTPUT_DIR has them)",
        ", ".join((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)) or "of the config",
    )
    return [f"class {index}" for index in range(count)]


def find_category_ids(cfg: CfgNode, num_classes: int) -> list[int]:
    """Category ids, in the order of the classes: those kept in ``cfg``, or of the first data set that knows them."""
    if len(cfg.RESNET_DET.CLASSES.IDS) == num_classes:
        return list(cfg.RESNET_DET.CLASSES.IDS)
    places = _find(cfg, "thing_dataset_id_to_contiguous_id")
    if places is None or len(places) != num_classes:
        return list(range(1, num_classes + 1))
    return sorted(places, key=places.__getitem__)


def find_stuff_names(cfg: CfgNode) -> list[str]:
    """Names of the semantic classes of ``cfg``."""
    names = _find(cfg, "stuff_classes")
    return list(names) if names is not None else [f"stuff {i}" for i in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]


def find_skeleton(cfg: CfgNode) -> Skeleton:
    """Which keypoints are joined, as kept in ``cfg``, or by the first of its data sets that knows it."""
    kept = cfg.RESNET_DET.CLASSES
    if kept.KEYPOINTS:
        return make_skeleton(kept.KEYPOINTS, kept.LIMBS)
    return make_skeleton(_find(cfg, "keypoint_names"), _find(cfg, "keypoint_connection_rules"))


def _find(cfg: CfgNode, key: str) -> Any:
    known: list[Metadata] = [MetadataCatalog.get(name) for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)]
    return next((metadata.get(key) for metadata in known if metadata.get(key) is not None), None)
