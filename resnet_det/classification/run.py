"""A classifier from a config to results: what tools/train_classifier.py does in each process, and Python calls."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch import nn

from resnet_det.classification.classifier import build_classifier, check_head
from resnet_det.classification.evaluation import evaluate_classifier
from resnet_det.classification.image_sets import ImageSet, load_image_set
from resnet_det.classification.loaders import TEST_ADVICE, build_test_loader, build_train_loader, choose_test_images
from resnet_det.classification.memory import keep_in_memory
from resnet_det.classification.weights import describe_backbone, describe_training, find_spec, write_weights
from resnet_det.config import check_classification_cfg, merge_cfg, read_resnet_spec, set_classification_defaults_
from resnet_det.engine.agreement import decide_once
from resnet_det.engine.checkpoint import find_checkpoint
from resnet_det.engine.configured_run import ConfiguredRun
from resnet_det.engine.epochs import set_length_in_epochs_
from resnet_det.engine.initial_weights import check_from_scratch, prepare_weights
from resnet_det.engine.model_setup import compile_backbone_, set_up_torch
from resnet_det.engine.precision import autocast_for_tests
from resnet_det.engine.resuming import MATCHED, STRIDE_KEY, name_facts, read_keys, take_matched_keys_
from resnet_det.engine.run_folder import choose_start, clear_run
from resnet_det.engine.solver import build_lr_scheduler, build_optimizer
from resnet_det.engine.startup import check_output_dir, fall_back_to_cpu
from resnet_det.engine.step import TrainStep
from resnet_det.errors import InputError
from resnet_det.images.settings import set_max_pixels
from resnet_det.modeling import speed_up_on_cpus_
from resnet_det.weights import describe_stride

logger = logging.getLogger(__name__)

# With another value of these a run that is resumed would not see the batches it would have seen, or be another model.
_FIXED = (
    *(*MATCHED, "SOLVER.IMS_PER_BATCH", "RESNET_DET.TRAIN.ACCUMULATE", "RESNET_DET.TRAIN.OPTIMIZER"),
    "RESNET_DET.CLASSIFICATION.REPEATS",
)


def make_classification_cfg(config_file: str = "", opts: Sequence[Any] = ()) -> CfgNode:
    """The config of a classifier: its defaults, ``config_file``, and KEY VALUE pairs; not checked, and not frozen.

    Raises:
        InputError: a key or value that no config has; or a length that would not be followed.
    """
    cfg = merge_cfg(config_file, list(opts), prepare=set_classification_defaults_)
    if "SOLVER.MAX_ITER" in opts[::2] and "RESNET_DET.TRAIN.EPOCHS" not in opts[::2] and cfg.RESNET_DET.TRAIN.EPOCHS:
        raise InputError(
            f"SOLVER.MAX_ITER is scaled to the length of RESNET_DET.TRAIN.EPOCHS {cfg.RESNET_DET.TRAIN.EPOCHS:g}: set "
            "that in its place, or RESNET_DET.TRAIN.EPOCHS 0 beside it for a length in iterations"
        )
    return cfg


def train_classifier(
    cfg: CfgNode,
    *,
    resume: bool = False,
    overwrite: bool = False,
    train_set: ImageSet | None = None,
    test_set: ImageSet | None = None,
    backbone: nn.Module | None = None,
) -> dict[str, Any] | None:
    """Train what ``cfg`` describes, in OUTPUT_DIR, and evaluate it. What the log says goes where the caller's loggers
    do: tools/train_classifier.py sets up OUTPUT_DIR/log.txt.

    Args:
        cfg: of :func:`make_classification_cfg`; it stays as it is.
        resume: go on with the run in OUTPUT_DIR, if there is one.
        overwrite: delete the run in OUTPUT_DIR, and start anew.
        train_set, test_set: None loads DATASETS.TRAIN and DATASETS.TEST. Several runs in one process can share them
            (:func:`load_images`).
        backbone: None builds MODEL.RESNETS; else a net that gives {"linear": logits} is trained, in place.

    Returns:
        {"classification": {"top1_error", "top5_error" (percent), "loss"}}, also in OUTPUT_DIR/results.json; None in
        other processes than the first, without a test set, or after a signal.

    Raises:
        InputError: something in ``cfg`` or the data cannot work, or the loss is not finite.
    """
    data = {"train_set": train_set, "test_set": test_set}
    start = prepare_run(cfg, resume=resume, overwrite=overwrite, backbone=backbone, **data)
    if comm.is_main_process():
        Path(start.cfg.OUTPUT_DIR, "config.yaml").write_text(start.cfg.dump(), encoding="utf-8")
    return run_training(start, backbone=backbone)


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run begins with: a config that is checked, complete and frozen, and the data.

    Attributes:
        resume: whether the run in OUTPUT_DIR goes on.
    """

    cfg: CfgNode
    train_set: ImageSet | None
    test_set: ImageSet | None
    resume: bool = False


def prepare_run(
    cfg: CfgNode,
    *,
    resume: bool = False,
    overwrite: bool = False,
    train_set: ImageSet | None = None,
    test_set: ImageSet | None = None,
    backbone: nn.Module | None = None,
    keep: Sequence[str] = (),
) -> Start:
    """Check ``cfg`` and the data, and clear OUTPUT_DIR if that is asked for.

    Args:
        backbone: see :func:`train_classifier`.
        keep: files besides MODEL.WEIGHTS that ``overwrite`` may not delete.

    Raises:
        InputError: something cannot work; all problems of the config are listed.
    """
    cfg = cfg.clone()
    cfg.defrost()
    fall_back_to_cpu(cfg)
    resume = decide_once(lambda: choose_start(cfg.OUTPUT_DIR, resume=resume, overwrite=overwrite))
    checkpoint = decide_once(lambda: find_checkpoint(cfg.OUTPUT_DIR)) if resume else None
    if test_set is not None and not cfg.DATASETS.TEST:
        cfg.DATASETS.TEST = (test_set.name,)
    problems = check_classification_cfg(cfg) + (check_from_scratch(cfg) if checkpoint is None else [])
    if not cfg.DATASETS.TRAIN and train_set is None:
        problems.append("DATASETS.TRAIN is empty: name a folder of images by class, a tar file, or CIFAR's files")
    if problems:
        raise InputError.from_problems("config", problems)
    check_output_dir(cfg.OUTPUT_DIR)
    train_set = train_set or load_images(cfg, "train")
    if test_set is None and cfg.DATASETS.TEST:
        test_set = load_images(cfg, "test")
    set_classes_(cfg, train_set, test_set)
    if backbone is not None:
        check_head(cfg, backbone)
    if cfg.RESNET_DET.TRAIN.BEST_METRIC == "classification/top5_error" and len(train_set.classes) <= 5:
        raise InputError(
            f"RESNET_DET.TRAIN.BEST_METRIC is classification/top5_error, which {len(train_set.classes)} classes do not "
            "have; classification/top1_error would be right"
        )
    set_length_in_epochs_(cfg, lambda: len(train_set))
    if checkpoint is None:
        if backbone is None:
            prepare_weights(cfg, spec=read_resnet_spec(cfg, num_classes=len(train_set.classes)))
        else:
            prepare_weights(cfg, spec=find_spec(backbone), is_given=True)
    else:
        take_matched_keys_(cfg, checkpoint)
    if overwrite and not resume:
        decide_once(lambda: clear_run(cfg.OUTPUT_DIR, keep=[*keep, cfg.MODEL.WEIGHTS]))
    cfg.freeze()
    return Start(cfg, train_set, test_set, resume)


def load_images(cfg: CfgNode, split: str) -> ImageSet:
    """The images of DATASETS.TRAIN ("train") or DATASETS.TEST ("test"), in memory if RESNET_DET.CLASSIFICATION says so.

    Raises:
        InputError: they cannot be used.
    """
    set_max_pixels(cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS)
    images = load_image_set(cfg.DATASETS[split.upper()][0], split=split)
    logger.info("%s: %d images of %d classes", images.name, len(images), len(images.classes))
    keys = cfg.RESNET_DET
    rule = {"on_bad_image": keys.DATA.ON_BAD_IMAGE} if split == "train" else {"advice": TEST_ADVICE}
    return keep_in_memory(images, keys.CLASSIFICATION.MEMORY_MIB, **rule)


def set_classes_(cfg: CfgNode, train_set: ImageSet | None, test_set: ImageSet | None) -> None:
    """Let RESNET_DET.CLASSES.NAMES be the classes of the data.

    Raises:
        InputError: those of the test set, or of the config, are others.
    """
    known, of = tuple(cfg.RESNET_DET.CLASSES.NAMES), "RESNET_DET.CLASSES.NAMES"
    for images in filter(None, (train_set, test_set)):
        if known and images.classes != known:
            lacking = [name for name in known if name not in images.classes]
            new = [name for name in images.classes if name not in known]
            told = [
                f"{', '.join(names[:5])} {where}"
                for names, where in ((lacking, f"only in {of}"), (new, "only there"))
                if names
            ]
            raise InputError(
                f"{images.name}: its classes are not those of {of}: {'; '.join(told) or 'they have another order'}"
            )
        known, of = images.classes, images.name
    cfg.RESNET_DET.CLASSES.NAMES = list(known)


def run_training(start: Start, *, backbone: nn.Module | None = None) -> dict[str, Any] | None:
    """Train, evaluate, and write OUTPUT_DIR/classifier.safetensors; see :func:`train_classifier`."""
    run = ClassificationRun(start, backbone)
    run.resume_or_load(resume=start.resume)
    results = run.train()
    if run.finished and comm.is_main_process():
        write_weights(start.cfg, run.evaluated_file)
    return results


class ClassificationRun(ConfiguredRun):
    """A run as of tools/train_net.py: the same steps, checkpoints and hooks."""

    def __init__(self, start: Start, backbone: nn.Module | None = None) -> None:
        self.cfg = cfg = start.cfg
        self.train_set, self.test_set = start.train_set, start.test_set
        train = cfg.RESNET_DET.TRAIN
        set_up_torch(cfg)
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        seed_all_rng(seed)
        model = build_classifier(cfg, backbone=backbone)
        speed_up_on_cpus_(model)
        if train.COMPILE:
            compile_backbone_(model)
        self.optimizer = optimizer = build_optimizer(cfg, model)  # where Detectron2's hooks look for it
        step = TrainStep.from_cfg(
            cfg,
            model,
            lambda first: iter(build_train_loader(cfg, self.train_set, seed=self.seed, start_step=first)),
            optimizer,
            seed=seed,
        )
        step.skipped.update(self.train_set.problems.values())
        scheduler = build_lr_scheduler(cfg, optimizer)
        fixed = _read_fixed(start, model.backbone, is_given=backbone is not None)
        super().__init__(step, scheduler, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, fixed_settings=fixed)
        self.checkpointer.facts = describe_training(cfg, model.backbone)
        self.register_hooks(self.build_hooks())

    def describe_data(self) -> dict[str, Any]:
        facts = {"trained on": describe(self.train_set, len(self.train_set) - len(self.skipped))}
        return facts | ({} if self.test_set is None else describe_test(self.cfg, self.test_set))

    def evaluate(self) -> dict[str, Any]:
        with autocast_for_tests(self.cfg, self._trainer.amp_dtype):
            self._last_eval_results = evaluate(self.cfg, self.evaluated_model, self.test_set)
        logger.info("Iteration %d: %s", self.iter, tell(self._last_eval_results))
        return self._last_eval_results


def evaluate(cfg: CfgNode, model: nn.Module, images: ImageSet) -> dict[str, Any]:
    return {"classification": evaluate_classifier(model, build_test_loader(cfg, images))}


def tell(results: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in results["classification"].items())


def describe_test(cfg: CfgNode, images: ImageSet) -> dict[str, Any]:
    """What is evaluated, for results.json."""
    return {"evaluated on": describe(images, len(choose_test_images(cfg, images)))}


def describe(images: ImageSet, used: int) -> dict[str, Any]:
    """
    Args:
        used: how many of the images.
    """
    return {images.name: {"images": used, "classes": len(images.classes)}}


def _read_fixed(start: Start, backbone: nn.Module, *, is_given: bool) -> dict[str, Any]:
    """
    Args:
        is_given: the net is not of the config: where it strides, its spec says and not the key.
    """
    images, spec = start.train_set, find_spec(backbone)
    data = {"the number of training images": len(images), "the classes": list(images.classes)}
    net = describe_backbone(backbone) | (describe_stride(spec) if is_given and spec is not None else {})
    keys = [key for key in _FIXED if not (is_given and key == STRIDE_KEY)]
    return {**read_keys(start.cfg, keys), **data, **name_facts(net)}
