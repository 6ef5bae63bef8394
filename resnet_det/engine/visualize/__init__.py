"""Looking at what detectors find: what tools/visualize.py does."""

from __future__ import annotations

import argparse
from pathlib import Path

from detectron2.config import CfgNode

from resnet_det.config import read_image_input
from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.engine.exported import ExportedPredictor
from resnet_det.engine.predictor import Predictor
from resnet_det.engine.slicing import SlicedPredictor, predict_in_slices
from resnet_det.engine.visualize.arguments import DEFAULT_NUM_IMAGES, build_visualize_parser, setup_visualize_cfg
from resnet_det.engine.visualize.features import draw_features
from resnet_det.engine.visualize.filters import Filter, find_classes
from resnet_det.engine.visualize.inputs import VIDEO_SUFFIXES, find_inputs, name_pages
from resnet_det.engine.visualize.live import draw_live, draw_to_file, show_in_window
from resnet_det.engine.visualize.predictions import Summary, draw_inputs
from resnet_det.engine.visualize.results import draw_results
from resnet_det.engine.visualize.training_data import draw_training_data
from resnet_det.errors import InputError
from resnet_det.images.settings import set_image_input, set_max_pixels

__all__ = [
    "Summary",
    "build_visualize_parser",
    "draw_features",
    "draw_inputs",
    "draw_live",
    "draw_results",
    "draw_training_data",
    "setup_visualize_cfg",
    "visualize",
]


def visualize(args: argparse.Namespace, cfg: CfgNode) -> Summary:
    """Do what the flags of :func:`build_visualize_parser` say.

    Raises:
        InputError: what they name is missing, or cannot be used.
    """
    set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    set_image_input(read_image_input(cfg))
    output = Path(args.output) if args.output else None
    num_images = args.num_images or DEFAULT_NUM_IMAGES
    if args.results:
        name = args.dataset or next(iter(cfg.DATASETS.TEST), None)
        if name is None:
            raise InputError("--results needs --annotations, --dataset, or a config with DATASETS.TEST")
        return draw_results(
            name,
            Path(args.results),
            output,
            min_score=args.confidence_threshold,
            num_images=num_images,
            classes=args.classes,
            error_types=list(dict.fromkeys(args.error_type)),
            picture_format=args.picture_format,
        )
    if args.dataset:
        return draw_training_data(
            cfg,
            args.dataset,
            output,
            num_images=num_images,
            num_augmented=args.num_augmented,
            classes=args.classes,
            picture_format=args.picture_format,
        )
    images, videos = find_inputs(args.input or ())
    images = name_pages(images)[: args.num_images]
    if args.video_input:
        videos = [Path(args.video_input)]
    predictor = _make_predictor(args, cfg)
    set_image_input(predictor.image_input)
    shown = Filter(args.confidence_threshold, find_classes(args.classes, predictor.class_names))
    if args.webcam is not None:
        target = _camera_file(output)
        return draw_live(predictor, args.webcam, target, shown=shown, max_frames=args.num_images)
    if output is None:
        return show_in_window(predictor, images, videos, shown=shown, max_frames=args.num_images)
    if output.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        if len(images) + len(videos) != 1:
            raise InputError(f"--output {output}: a file is for a single image or video; give a folder")
        return draw_to_file(predictor, *images, *videos, output, shown=shown, max_frames=args.num_images)
    if args.features:
        return draw_features(
            predictor,
            images,
            output,
            shown=shown,
            num_detections=args.num_detections,
            level=args.level,
            picture_format=args.picture_format,
        )
    return draw_inputs(
        predictor,
        images,
        videos,
        output,
        shown=shown,
        batch_size=1 if cfg.RESNET_DET.TEST.SLICE else args.batch_size,  # then the slices are what makes a batch
        max_frames=args.num_images,
        picture_format=args.picture_format,
    )


def _make_predictor(args: argparse.Namespace, cfg: CfgNode) -> Predictor | ExportedPredictor | SlicedPredictor:
    if args.features:  # of whole images
        return Predictor(cfg, differentiable=True)
    predictor = ExportedPredictor(args.exported) if args.exported else Predictor(cfg)
    return predict_in_slices(predictor, cfg, batch_size=args.batch_size)


def _camera_file(output: Path | None) -> Path | None:
    if output is None or output.suffix.lower() in VIDEO_SUFFIXES:
        return output
    return output / "webcam.mp4"
