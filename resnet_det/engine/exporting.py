"""From a config and its weights to files for other runtimes, each compared with the model before it is called done."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from torch import nn

import resnet_det
from resnet_det.config import read_image_input
from resnet_det.data import load_dataset_dicts, prepare_dataset, register_cfg_datasets, set_num_classes
from resnet_det.data.loading.dicts import choose_evenly
from resnet_det.data.mapping.fast_image import read_taken
from resnet_det.deploy.detector import make_batch
from resnet_det.deploy.export import FILES, check_libraries, check_precision, trace, write_files, write_onnx
from resnet_det.deploy.modules import add_missing_operators_, make_exportable
from resnet_det.engine.export_check import Differences, compare_with_model
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.visualize.arguments import find_known_dataset
from resnet_det.errors import InputError
from resnet_det.evaluation.files import hash_file
from resnet_det.images.image_input import FORMATS, ImageInput
from resnet_det.images.settings import set_image_input, set_max_pixels
from resnet_det.outputs import OutputFolder

logger = logging.getLogger(__name__)

NUM_CHECKED = 4  # images that each file is compared with the model on


def export_model(
    cfg: CfgNode, output: Path, *, formats: Sequence[str], precision: str = "float32", calibration: str = ""
) -> dict[Path, Differences]:
    """Write the detector of ``cfg`` and its MODEL.WEIGHTS in each of ``formats``.

    Args:
        formats: of "onnx", "openvino" and "torch".
        precision: "float32"; with OpenVINO "bfloat16" and "float16", too; with OpenVINO and ONNX "int8".
        calibration: the data set whose images int8 takes its ranges from, and all are compared on; else, of those that
            are here, the first of DATASETS.TRAIN for int8, and of DATASETS.TEST for others. Where none is, random
            images are compared.

    Returns:
        Of each file, how its detections differ from those of the model.

    Raises:
        InputError: the model is of a kind that cannot be exported, a library is not installed, a file is in the way.
        ExportError: a file in float32 does not find what the model finds. It is not kept; those before it are.
    """
    for kind in formats:
        check_precision(kind, precision)
    check_libraries(formats, precision)
    if cfg.INPUT.FORMAT not in FORMATS:
        raise InputError(f"INPUT.FORMAT {cfg.INPUT.FORMAT}: exported files take images in {', '.join(FORMATS)}")
    folder = OutputFolder(output, [name for kind in formats for name in FILES[kind]])
    cfg = set_up_for_export(cfg, calibration)
    if precision == "int8":
        names, count = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), cfg.RESNET_DET.TEST.CALIBRATION_IMAGES
    else:
        names, count = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN), NUM_CHECKED
    images = read_images(calibration, count) if calibration else find_images(names, count)
    if precision == "int8" and not images:
        raise InputError("--precision int8 takes its ranges from images: name a data set with --calibration")
    predictor = Predictor(cfg, differentiable=True)
    add_missing_operators_(predictor.model)
    try:
        module = make_exportable(predictor.model)
        metadata = describe_model(cfg, predictor, module) | {"precision": precision}
        program = trace(module, len(cfg.MODEL.PIXEL_MEAN))
    except ValueError as error:
        raise InputError(str(error)) from error
    checked = images[:NUM_CHECKED] or make_random_images(predictor.image_input)
    compared = {}
    with tempfile.TemporaryDirectory(dir=output, prefix=".export-") as aside:
        plain = Path(aside) / "float32.onnx"
        if set(formats) != {"torch"}:
            write_onnx(program, plain, metadata["outputs"])
        batches = (make_batch([image], metadata) for image in images)
        for kind, file in write_files(program, plain, Path(aside), formats, metadata, batches):
            logger.info("Comparing %s with the model on %d images", file.name, len(checked))
            differences = compare_with_model(predictor, file, checked, cfg)
            logger.info("%s: %s", file.name, differences)
            if precision == "float32":
                differences.require_equal(file.name)
            for name in FILES[kind]:
                shutil.move(Path(aside) / name, folder.claim(name))
            compared[output / file.name] = differences
    return compared


def set_up_for_export(cfg: CfgNode, calibration: str) -> CfgNode:
    """``cfg`` on the CPU, where files are compared with the model, with its data sets and their classes.

    Raises:
        InputError: the classes of its data sets are not those of the model.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    set_image_input(read_image_input(cfg))
    register_cfg_datasets(cfg, [calibration] if calibration else [])
    known = find_known_dataset((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN))
    if known is not None:
        set_num_classes(cfg, [known])
    cfg.freeze()
    return cfg


def describe_model(cfg: CfgNode, predictor: Predictor, module: nn.Module) -> dict[str, Any]:
    """What a file says of its detector: all that the runner needs, and where it comes from."""
    is_retinanet = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
    heads = cfg.MODEL.RETINANET if is_retinanet else cfg.MODEL.ROI_HEADS
    keypoints = {"keypoint_names": list(cfg.RESNET_DET.CLASSES.KEYPOINTS), "skeleton": asdict(predictor.skeleton)}
    weights = Path(cfg.MODEL.WEIGHTS)
    return {
        "outputs": list(module.output_names),
        "class_names": predictor.class_names,
        "category_ids": predictor.category_ids,
        "input_format": cfg.INPUT.FORMAT,
        "image_input": predictor.image_input.to_metadata(),
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),  # inside the network, as are these
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "score_threshold": heads.SCORE_THRESH_TEST,
        "nms_threshold": heads.NMS_THRESH_TEST,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        **(keypoints if "keypoint_heatmaps" in module.output_names else {}),
        "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
        "depth": cfg.MODEL.RESNETS.DEPTH,
        "weights": weights.name,
        "weights_sha256": hash_file(weights) if weights.is_file() else "",
        "written_by": f"resnet_det {resnet_det.__version__}",
    }


def find_images(names: Sequence[str], count: int) -> list[np.ndarray]:
    """Images, as predictors take them, of the first of the data sets ``names`` that is here; none if none is."""
    for name in names:
        try:
            return read_images(name, count)
        except InputError as error:
            logger.info("No images of %s: %s", name, error)
    return []


def read_images(name: str, count: int) -> list[np.ndarray]:
    """Images, as predictors take them, from all over a data set, at most ``count``.

    Raises:
        InputError: no data set has that name, its files are not here, or have problems.
    """
    prepare_dataset(name)
    chosen = choose_evenly(load_dataset_dicts(name, filter_empty=False, tasks=()), count)
    logger.info("%d images of %s", len(chosen), name)
    return [read_taken(entry["file_name"]) for entry in chosen]


def make_random_images(image_input: ImageInput) -> list[np.ndarray]:
    """Images of coloured patches, of different sizes, to compare on where there are no others."""
    logger.warning("No data set of the config is here: the files are compared with the model on random images")
    generator = np.random.default_rng(0)
    shapes = ((12, 16), (16, 12), (15, 15))
    channels = image_input.taken.channels
    patches = [generator.integers(0, 256, (*shape, channels), dtype=np.uint8) for shape in shapes]
    return [patch.repeat(32, 0).repeat(32, 1).astype(image_input.dtype) for patch in patches]
