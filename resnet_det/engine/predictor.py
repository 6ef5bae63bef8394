"""Run a trained detector on images."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances

from resnet_det.engine.weights import load_trained_weights


class Predictor:
    """A model and its preprocessing, from a config and MODEL.WEIGHTS.

    Why not Detectron2's DefaultPredictor: it takes one image at a time and cannot name the classes of own data.

    Attributes:
        model: in evaluation mode.
        class_names: of the data set the model was trained on, or "class 0", ... where that is unknown.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Build the model and load MODEL.WEIGHTS.

        Raises:
            InputError: no weights are given, there is no such file, or they are not of this config.
        """
        self.model = build_model(cfg).eval()
        load_trained_weights(cfg, self.model)
        shortest = cfg.INPUT.MIN_SIZE_TEST
        self.resize = T.ResizeShortestEdge([shortest, shortest], cfg.INPUT.MAX_SIZE_TEST)
        self.is_rgb = cfg.INPUT.FORMAT == "RGB"
        self.class_names = find_class_names(cfg)

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Instances on the CPU for each image, in pixels of that image.

        Args:
            images: (H, W, 3) uint8 in BGR order, of any sizes; they go through the model as one batch.
        """
        inputs = []
        for image in images:
            resized = self.resize.get_transform(image).apply_image(image[:, :, ::-1] if self.is_rgb else image)
            chw = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
            inputs.append({"image": chw, "height": image.shape[0], "width": image.shape[1]})
        return [output["instances"].to("cpu") for output in self.model(inputs)]


def find_class_names(cfg: CfgNode) -> list[str]:
    """Class names of the first data set of ``cfg`` that knows them."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = MetadataCatalog.get(name).get("thing_classes")
        if names is not None:
            return list(names)
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    return [f"class {index}" for index in range(cfg.MODEL[node].NUM_CLASSES)]
