"""What can be wrong with the keys of RESNET_DET: training, data and tests."""

from __future__ import annotations

from detectron2.config import CfgNode

from resnet_det.config.images import COLOUR_FORMATS
from resnet_det.images.image_input import CHANNELS, FORMATS

TRAIN_CHOICES = {"AMP_DTYPE": ("float16", "bfloat16", "auto"), "OPTIMIZER": ("SGD", "AdamW", "LAMB")}
SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")
SCHEDULES = ("WarmupMultiStepLR", "WarmupCosineLR", "OneCycleLR")
MIN_SLICE_PX = 32
LOGGERS = ("wandb", "mlflow")

# How models are prepared for evaluation: resnet_det.prepare_for_inference's dtype, with "openvino-" its backend.
PREPARED = ("", "float32", "bfloat16", "float16", "openvino-float32", "openvino-bfloat16", "openvino-int8")


def check_training_keys(cfg: CfgNode) -> list[str]:
    """Problems of RESNET_DET.TRAIN, TEST and DATA, and of the keys of Detectron2 that stand beside them."""
    train, data, test = cfg.RESNET_DET.TRAIN, cfg.RESNET_DET.DATA, cfg.RESNET_DET.TEST
    choices = [(f"RESNET_DET.TRAIN.{key}", train[key], known) for key, known in TRAIN_CHOICES.items()]
    choices += [
        ("RESNET_DET.TRAIN.MATMUL_PRECISION", train.MATMUL_PRECISION, ("", "highest", "high", "medium")),
        ("RESNET_DET.TRAIN.BEST_DIRECTION", train.BEST_DIRECTION, ("", "max", "min")),
        ("RESNET_DET.DATA.MAPPER", data.MAPPER, ("detectron2", "fast")),
        ("RESNET_DET.TEST.PREPARE", test.PREPARE, PREPARED),
        ("RESNET_DET.DATA.ON_BAD_IMAGE", data.ON_BAD_IMAGE, ("raise", "skip")),
        ("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, SAMPLERS),
        ("SOLVER.LR_SCHEDULER_NAME", cfg.SOLVER.LR_SCHEDULER_NAME, SCHEDULES),
    ]
    choices += [("RESNET_DET.TRAIN.LOGGERS", name, LOGGERS) for name in train.LOGGERS]
    problems = [
        f"{key} is {value!r}; choose one of {', '.join(known)}" for key, value, known in choices if value not in known
    ]
    values = [
        ("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, 1, None),
        ("SOLVER.MAX_ITER", cfg.SOLVER.MAX_ITER, 1, None),
        ("SOLVER.BASE_LR", cfg.SOLVER.BASE_LR, 0, None),
        ("RESNET_DET.TRAIN.ACCUMULATE", train.ACCUMULATE, 1, None),
        ("RESNET_DET.TRAIN.EPOCHS", train.EPOCHS, 0, None),
        ("RESNET_DET.TRAIN.CLIP_GRAD_NORM", train.CLIP_GRAD_NORM, 0, None),
        ("RESNET_DET.TRAIN.BACKBONE_LR_FACTOR", train.BACKBONE_LR_FACTOR, 0, None),
        ("RESNET_DET.TRAIN.LAYER_DECAY", train.LAYER_DECAY, 0, 1),
        ("RESNET_DET.TRAIN.REFERENCE_BATCH_SIZE", train.REFERENCE_BATCH_SIZE, 0, None),
        ("RESNET_DET.TRAIN.EMA_DECAY", train.EMA_DECAY, 0, 0.999999),
        ("RESNET_DET.TRAIN.KEEP_CHECKPOINTS", train.KEEP_CHECKPOINTS, 0, None),
        ("RESNET_DET.TRAIN.EARLY_STOPPING", train.EARLY_STOPPING, 0, None),
        ("RESNET_DET.TRAIN.GRACE_SECONDS", train.GRACE_SECONDS, 0, None),
        ("RESNET_DET.DATA.MAX_IMAGE_PIXELS", data.MAX_IMAGE_PIXELS, 0, None),
        ("RESNET_DET.DATA.PREFETCH_FACTOR", data.PREFETCH_FACTOR, 1, None),
        ("RESNET_DET.TEST.BATCH_SIZE", test.BATCH_SIZE, 1, None),
        ("RESNET_DET.TEST.MAX_IMAGES", test.MAX_IMAGES, 0, None),
        ("RESNET_DET.TEST.CALIBRATION_IMAGES", test.CALIBRATION_IMAGES, 1, None),
        ("RESNET_DET.TEST.SLICE", test.SLICE, 0, None),
        ("RESNET_DET.TEST.SLICE_OVERLAP", test.SLICE_OVERLAP, 0, 0.9),
        ("RESNET_DET.TEST.SLICE_DETECTIONS", test.SLICE_DETECTIONS, 0, None),
    ]
    for key, value, low, high in values:
        if value < low or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"from {low} to {high}"
            problems.append(f"{key} is {value}; it must be {limits}")
    if train.EARLY_STOPPING and not train.BEST_METRIC:
        problems.append("RESNET_DET.TRAIN.EARLY_STOPPING needs RESNET_DET.TRAIN.BEST_METRIC, such as bbox/AP")
    if (train.BEST_METRIC or train.EARLY_STOPPING) and not cfg.DATASETS.TEST:
        problems.append("RESNET_DET.TRAIN.BEST_METRIC needs DATASETS.TEST, which is empty")
    if train.BEST_METRIC.startswith("validation_") and not test.VAL_LOSS:
        problems.append(f"RESNET_DET.TRAIN.BEST_METRIC {train.BEST_METRIC} needs RESNET_DET.TEST.VAL_LOSS True")
    if not all(isinstance(name, str) for name in data.CLASSES) or len(set(data.CLASSES)) < len(data.CLASSES):
        problems.append(f"RESNET_DET.DATA.CLASSES is {data.CLASSES}; names of classes, each once, would be right")
    world_size = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if world_size and train.REFERENCE_BATCH_SIZE:
        problems.append(
            "SOLVER.REFERENCE_WORLD_SIZE and RESNET_DET.TRAIN.REFERENCE_BATCH_SIZE both scale the learning rate: set "
            "one of them to 0"
        )
    if world_size and cfg.SOLVER.IMS_PER_BATCH % world_size:
        problems.append(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} is no multiple of REFERENCE_WORLD_SIZE {world_size}"
        )
    return problems


def check_augmented_tests(cfg: CfgNode) -> list[str]:
    """Problems of TEST.AUG, which Detectron2 knows for R-CNNs of boxes and masks alone."""
    if not cfg.TEST.AUG.ENABLED:
        return []
    model = cfg.MODEL
    if model.META_ARCHITECTURE != "GeneralizedRCNN" or model.KEYPOINT_ON or model.LOAD_PROPOSALS:
        return [
            "TEST.AUG.ENABLED works only for GeneralizedRCNN without MODEL.KEYPOINT_ON and MODEL.LOAD_PROPOSALS: set "
            "it to False"
        ]
    if cfg.INPUT.FORMAT == CHANNELS:
        return [f"TEST.AUG.ENABLED is for images of 1 and 3 channels: set it to False for INPUT.FORMAT {CHANNELS}"]
    return []


def check_sliced_tests(cfg: CfgNode) -> list[str]:
    """Problems of RESNET_DET.TEST.SLICE, which is for models that find objects in an image alone."""
    if not cfg.RESNET_DET.TEST.SLICE:
        return []
    model, wrong = cfg.MODEL, []
    if 0 < cfg.RESNET_DET.TEST.SLICE < MIN_SLICE_PX:
        return [f"RESNET_DET.TEST.SLICE is {cfg.RESNET_DET.TEST.SLICE}; 0 or at least {MIN_SLICE_PX} would be right"]
    if model.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor", "ProposalNetwork"):
        wrong.append(f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE}")
    if cfg.INPUT.FORMAT not in FORMATS:
        wrong.append(f"INPUT.FORMAT {cfg.INPUT.FORMAT}")
    wrong += ["MODEL.LOAD_PROPOSALS"] * model.LOAD_PROPOSALS + ["TEST.AUG.ENABLED"] * cfg.TEST.AUG.ENABLED
    if not wrong:
        return []
    return [f"RESNET_DET.TEST.SLICE does not go with {' and '.join(wrong)}: set it to 0"]


def check_augmentation_keys(cfg: CfgNode) -> list[str]:
    """Problems of the augmentation that RESNET_DET.DATA asks for."""
    data, model = cfg.RESNET_DET.DATA, cfg.MODEL
    lsj, paste, colours = data.LSJ, data.COPY_PASTE, data.PHOTOMETRIC
    values = [
        ("LSJ.MIN_SCALE", lsj.MIN_SCALE, 0 < lsj.MIN_SCALE <= lsj.MAX_SCALE, f"above 0, up to {lsj.MAX_SCALE}"),
        ("LSJ.SIZE", lsj.SIZE, lsj.SIZE * lsj.MIN_SCALE >= 8, "so large that SIZE * MIN_SCALE is at least 8 pixels"),
        ("COPY_PASTE.MAX_OBJECTS", paste.MAX_OBJECTS, paste.MAX_OBJECTS >= 0, "0 (any number) or more"),
    ]
    shares = {"COPY_PASTE.PROB": paste.PROB, **{f"PHOTOMETRIC.{key}": value for key, value in colours.items()}}
    for key, value in shares.items():
        most = 0.5 if key == "PHOTOMETRIC.HUE" else 1
        values += [(key, value, 0 <= value <= most, f"from 0 to {most}")]
    problems = [
        f"RESNET_DET.DATA.{key} is {value}; it must be {right}" for key, value, sound, right in values if not sound
    ]
    sem_seg = model.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor")
    if lsj.ENABLED and sem_seg:
        problems.append(
            f"RESNET_DET.DATA.LSJ pads with label 0, which {model.META_ARCHITECTURE} learns as a class; set INPUT.CROP"
        )
    if paste.PROB > 0 and (sem_seg or model.KEYPOINT_ON or model.LOAD_PROPOSALS):
        problems.append(
            "RESNET_DET.DATA.COPY_PASTE pastes boxes and masks alone; set its PROB to 0 with semantic segmentation, "
            "MODEL.KEYPOINT_ON or MODEL.LOAD_PROPOSALS"
        )
    if paste.PROB > 0 and model.MASK_ON and cfg.INPUT.MASK_FORMAT != "bitmask":
        problems.append(
            f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}; RESNET_DET.DATA.COPY_PASTE needs 'bitmask', as polygons "
            "cannot leave out what is covered"
        )
    if colours.PROB > 0 and cfg.INPUT.FORMAT not in COLOUR_FORMATS:
        problems.append(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; RESNET_DET.DATA.PHOTOMETRIC needs BGR or RGB")
    if colours.PROB > 0 and cfg.RESNET_DET.INPUT.DTYPE != "uint8":
        problems.append("RESNET_DET.DATA.PHOTOMETRIC needs RESNET_DET.INPUT.DTYPE uint8")
    return problems
