"""The keys of image classification, by which tools/train_classifier.py trains backbones, and what can be wrong."""

from __future__ import annotations

from detectron2.config import CfgNode, get_cfg

from resnet_det.config.check import PLAIN_BACKBONE, check_device, check_input
from resnet_det.config.keys import add_resnet_det_config
from resnet_det.config.resnet import read_resnet_spec
from resnet_det.config.training import check_training_keys
from resnet_det.errors import InputError

CROPS = ("resized", "padded", "none")
AUTO_AUGMENTS = ("", "trivial", "randaugment", "autoaugment", "augmix")
LOSSES = ("cross_entropy", "binary_cross_entropy")
METRICS = ("top1_error", "top5_error", "loss")

# Keys of detectors that would change nothing here: set to something else, they are refused.
_WITHOUT_MEANING = (
    *(
        "DATASETS.PROPOSAL_FILES_TRAIN",
        "DATASETS.PROPOSAL_FILES_TEST",
        "DATALOADER.SAMPLER_TRAIN",
        "INPUT.CROP.ENABLED",
        "INPUT.RANDOM_FLIP",
    ),
    *("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"),
    *("MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.LOAD_PROPOSALS", "TEST.AUG.ENABLED", "TEST.PRECISE_BN.ENABLED"),
    *("RESNET_DET.DATA.COCO", "RESNET_DET.DATA.CLASSES", "RESNET_DET.DATA.LSJ.ENABLED"),
    *(
        "RESNET_DET.DATA.COPY_PASTE.PROB",
        "RESNET_DET.DATA.PHOTOMETRIC.PROB",
        "RESNET_DET.DATA.AUGMENTATIONS",
        "RESNET_DET.DATA.MAPPER",
    ),
    *("RESNET_DET.TEST.SLICE", "RESNET_DET.TEST.PREPARE", "RESNET_DET.TEST.VAL_LOSS"),
)


def set_classification_defaults_(cfg: CfgNode) -> None:
    """Let ``cfg``, Detectron2's defaults with our keys, describe a classifier in place of a detector.

    A trainable ResNet-50 with torchvision's conventions, SGD and its usual learning rate for 256 images a step.
    """
    model, solver = cfg.MODEL, cfg.SOLVER
    model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = PLAIN_BACKBONE, 0
    model.PIXEL_MEAN, model.PIXEL_STD = [123.675, 116.280, 103.530], [58.395, 57.120, 57.375]
    model.RESNETS.NORM, model.RESNETS.STRIDE_IN_1X1 = "BN", False
    cfg.INPUT.FORMAT = "RGB"
    solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY, solver.WEIGHT_DECAY_NORM = 256, 0.1, 1e-4, 1e-4
    solver.LR_SCHEDULER_NAME, solver.WARMUP_ITERS, solver.WARMUP_FACTOR = "WarmupCosineLR", 5, 0.01
    # In epochs: RESNET_DET.TRAIN.EPOCHS scales them all, so that there are always ten evaluations.
    solver.MAX_ITER, solver.STEPS, solver.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD = 90, (), 3, 9
    cfg.RESNET_DET.TRAIN.EPOCHS, cfg.RESNET_DET.TRAIN.KEEP_CHECKPOINTS = 90, 3
    cfg.RESNET_DET.TEST.BATCH_SIZE = 128


def check_classification_cfg(cfg: CfgNode) -> list[str]:
    """Everything in the config of a classifier that would fail later on, or change nothing; not the data."""
    keys = cfg.RESNET_DET.CLASSIFICATION
    problems = check_device(cfg.MODEL.DEVICE) + check_input(cfg) + check_training_keys(cfg) + _check_meaning(cfg)
    try:
        read_resnet_spec(cfg, num_classes=2)
    except InputError as error:
        problems.append(str(error))
    if cfg.MODEL.BACKBONE.NAME != PLAIN_BACKBONE:
        problems.append(f"MODEL.BACKBONE.NAME is {cfg.MODEL.BACKBONE.NAME!r}; {PLAIN_BACKBONE} is what is trained here")
    if cfg.INPUT.FORMAT not in ("RGB", "BGR", "L"):
        problems.append(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; choose one of RGB, BGR, L")
    for key, value, known in (
        ("CROP", keys.CROP, CROPS),
        ("AUTO_AUGMENT", keys.AUTO_AUGMENT, AUTO_AUGMENTS),
        ("LOSS", keys.LOSS, LOSSES),
    ):
        if value not in known:
            names = ", ".join(filter(None, known))
            problems.append(f"RESNET_DET.CLASSIFICATION.{key} is {value!r}; choose one of {names}")
    for key, low, high in (
        ("FLIP", 0, 1),
        ("ERASING", 0, 1),
        ("LABEL_SMOOTHING", 0, 0.99),
        ("BCE_THRESHOLD", 0, 0.99),
        ("MIXUP", 0, None),
        ("CUTMIX", 0, None),
        ("REPEATS", 1, None),
        ("PADDING", 0, None),
        ("SIZE_TRAIN", 8, None),
        ("SIZE_TEST", 8, None),
        ("RESIZE_TEST", keys.SIZE_TEST, None),
        ("MEMORY_MIB", 0, None),
    ):
        if keys[key] < low or (high is not None and keys[key] > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            problems.append(f"RESNET_DET.CLASSIFICATION.{key} is {keys[key]}; it must be {limits}")
    for key, most in (("AREA", 1), ("ASPECT_RATIO", None)):
        values = keys[key]
        if len(values) != 2 or not 0 < values[0] <= values[1] or (most and values[1] > most):
            problems.append(f"RESNET_DET.CLASSIFICATION.{key} is {values}; two numbers, the smaller one first")
    if keys.RAND_AUGMENT.NUM_OPS < 1 or not 0 <= keys.RAND_AUGMENT.MAGNITUDE <= 30:
        problems.append("RESNET_DET.CLASSIFICATION.RAND_AUGMENT: NUM_OPS is 1 or more, MAGNITUDE from 0 to 30")
    if cfg.INPUT.FORMAT == "L" and keys.AUTO_AUGMENT == "autoaugment":
        problems.append("RESNET_DET.CLASSIFICATION.AUTO_AUGMENT autoaugment is for images in colour")
    metric = cfg.RESNET_DET.TRAIN.BEST_METRIC
    if metric and metric not in {f"classification/{name}" for name in METRICS}:
        problems.append(
            f"RESNET_DET.TRAIN.BEST_METRIC is {metric!r}; choose one of "
            + ", ".join(f"classification/{name}" for name in METRICS)
        )
    for key in ("TRAIN", "TEST"):
        if len(cfg.DATASETS[key]) > 1:
            problems.append(f"DATASETS.{key} {tuple(cfg.DATASETS[key])}: one folder, tar or set of CIFAR's files")
    return problems


def _check_meaning(cfg: CfgNode) -> list[str]:
    defaults = get_cfg()
    add_resnet_det_config(defaults)
    problems = []
    for key in _WITHOUT_MEANING:
        value, default = cfg, defaults
        for part in key.split("."):
            value, default = value[part], default[part]
        if value != default:
            problems.append(f"{key} means nothing to a classifier: leave it out")
    return problems
