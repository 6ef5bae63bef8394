"""The keys that resnet_det adds to a Detectron2 config: each with its default, and what it means."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_resnet_det_config(cfg: CfgNode) -> None:
    """Add our keys, with their defaults, to ``cfg`` in place; keys that are there already stay as they are."""
    defaults = CfgNode()
    defaults.MODEL = CfgNode()
    defaults.MODEL.RESNET_DET = resnet_defaults()
    defaults.RESNET_DET = CfgNode()

    # Own data sets in COCO format: a list of [name, annotation file, image folder]. The names can then stand in
    # DATASETS.TRAIN and DATASETS.TEST; class names and the number of classes are taken from the annotation file.
    defaults.RESNET_DET.DATA = CfgNode()
    defaults.RESNET_DET.DATA.COCO = []
    # Names of the classes to use, in this order, such as ["person", "car"]; objects of
    # others are left out, in training and in evaluation. []: all.
    defaults.RESNET_DET.DATA.CLASSES = []
    # Treat crowd regions (iscrowd 1) as ordinary objects, as CVAT's brush masks are meant.
    defaults.RESNET_DET.DATA.CROWD_AS_OBJECTS = False
    _add_augmentation(defaults.RESNET_DET.DATA)

    # More augmentation, by name: "module:function" takes the config, and gives a list of Detectron2's augmentations,
    # which come after those of INPUT.*. The module is imported (PYTHONPATH says from where).
    defaults.RESNET_DET.DATA.AUGMENTATIONS = []

    # How images are read and resized: "detectron2" (PIL), or "fast" (OpenCV and torch): twice as fast or more, for the
    # same boxes and masks, and pixels that differ by rounding.
    defaults.RESNET_DET.DATA.MAPPER = "detectron2"
    # What a training image that cannot be read or used does: "raise" stops, "skip" takes the next one and lists it.
    defaults.RESNET_DET.DATA.ON_BAD_IMAGE = "raise"
    # The most pixels of an image that are read; 0: Pillow's limit (178,956,970), against files that unpack to more.
    defaults.RESNET_DET.DATA.MAX_IMAGE_PIXELS = 0
    # Loading: pinned memory for a model on a GPU, and batches that each of DATALOADER.NUM_WORKERS prepares ahead.
    defaults.RESNET_DET.DATA.PIN_MEMORY = True
    defaults.RESNET_DET.DATA.PREFETCH_FACTOR = 2
    # Keep the workers that load test images from one evaluation to the next. Those of training always stay.
    defaults.RESNET_DET.DATA.PERSISTENT_WORKERS = False

    defaults.RESNET_DET.INPUT = _input_defaults()

    # What the classes and keypoints are called: set from the data, and kept in config.yaml, so that pictures can be
    # made where the data are not. NAMES and IDS (of the annotation file) of the classes; KEYPOINTS, their names, and
    # LIMBS, two of these and a colour [R, G, B] each.
    defaults.RESNET_DET.CLASSES = CfgNode({"NAMES": [], "IDS": [], "KEYPOINTS": [], "LIMBS": []})

    defaults.RESNET_DET.TRAIN = _train_defaults()
    defaults.RESNET_DET.CLASSIFICATION = _classification_defaults()
    defaults.RESNET_DET.TEST = CfgNode()
    # Images that go through the model together in evaluation.
    defaults.RESNET_DET.TEST.BATCH_SIZE = 1
    # Images with a side of more pixels than this are cut into square slices of that size, which go through the model
    # each by itself (in batches of BATCH_SIZE), in evaluation and pictures; 0: off. What is found is merged.
    defaults.RESNET_DET.TEST.SLICE = 0
    # Share of a slice that the next one shows, too, at least.
    defaults.RESNET_DET.TEST.SLICE_OVERLAP = 0.2
    # Whether the whole image goes through the model, too, for objects longer than a slice.
    defaults.RESNET_DET.TEST.SLICE_WHOLE = True
    # Detections that an image in slices may have; TEST.DETECTIONS_PER_IMAGE holds for each slice. 0: any number.
    defaults.RESNET_DET.TEST.SLICE_DETECTIONS = 10000
    # Evaluate in the precision of training (SOLVER.AMP), while training too.
    defaults.RESNET_DET.TEST.AMP = False
    # Whether each evaluation writes the losses on the first of DATASETS.TEST, too.
    defaults.RESNET_DET.TEST.VAL_LOSS = False
    # Evaluate on the first so many images alone; 0: on all.
    defaults.RESNET_DET.TEST.MAX_IMAGES = 0
    # "float32", "bfloat16" or "float16": evaluate trained weights (--eval-only), and draw, with a model that
    # resnet_det.prepare_for_inference has made faster; "openvino-float32", "openvino-bfloat16", "openvino-int8": with
    # backbone and heads that OpenVINO computes; "": with the model as it is.
    defaults.RESNET_DET.TEST.PREPARE = ""
    # With openvino-int8: images of DATASETS.TRAIN, from which the ranges of features are taken.
    defaults.RESNET_DET.TEST.CALIBRATION_IMAGES = 64
    # Whether a run ends with OUTPUT_DIR/report.html, for data sets in COCO format.
    defaults.RESNET_DET.TEST.REPORT = True

    _add_missing(cfg, defaults)


def _input_defaults() -> CfgNode:
    """What detectors get of images with more than 8 bits, or other channels than grey and RGB (docs/medical.md)."""
    node = CfgNode()
    # Which values become 0 and 255, where a file has more than 8 bits: "auto" (DICOM: the file's window; else the
    # smallest of 8, 10, 12, ... bits that hold the image), "type" (all that the type of the file can hold), "minmax"
    # and "percentiles" (of each image), "fixed". Values below and above become 0 and 255.
    node.WINDOW = "auto"
    # Of "fixed" the two values, such as [-160, 240] (CT: Hounsfield units); of "percentiles" two percentages, such as
    # [0.5, 99.5].
    node.LIMITS = []
    # "uint8": 256 levels, or "float32": those of the file, between 0 and 255.
    node.DTYPE = "uint8"
    # With INPUT.FORMAT CHANNELS (as many channels as MODEL.PIXEL_MEAN has values): those that pictures show as red,
    # green and blue, counted from 0; []: the first three.
    node.SHOWN = []
    return node


def _train_defaults() -> CfgNode:
    """How to train; with these defaults as Detectron2 does."""
    node = CfgNode()
    # With SOLVER.AMP.ENABLED: "float16", "bfloat16", or "auto" (bfloat16 if it is faster than float32 on this
    # machine, else float32). Both work on CUDA and on the CPU.
    node.AMP_DTYPE = "float16"
    # "SGD" (Detectron2's), "AdamW" or "LAMB" (timm's). All take SOLVER.BASE_LR, WEIGHT_DECAY and SOLVER's other keys.
    node.OPTIMIZER = "SGD"
    # Length of training in epochs of the training images; SOLVER.MAX_ITER, STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD and
    # TEST.EVAL_PERIOD, which are for Detectron2's length, follow it in proportion. 0: SOLVER.MAX_ITER iterations.
    node.EPOCHS = 0
    # Forward passes of SOLVER.IMS_PER_BATCH images in a step: their gradients are averaged.
    node.ACCUMULATE = 1
    # Largest norm of all gradients together; 0: any. (SOLVER.CLIP_GRADIENTS clips each parameter by itself.)
    node.CLIP_GRAD_NORM = 0.0
    # Factor of the ResNet's learning rate, and once more for each stage below the last.
    node.BACKBONE_LR_FACTOR = 1.0
    node.LAYER_DECAY = 1.0
    # For how many images a step SOLVER.BASE_LR is meant: it is scaled to those of this run. 0: it is taken as it is.
    node.REFERENCE_BATCH_SIZE = 0
    # Decay of a moving average of the weights, such as 0.9998, which is evaluated and saved; 0: none.
    node.EMA_DECAY = 0.0
    # Compile the backbone (torch.compile).
    node.COMPILE = False
    # How exact float32 products of matrices are on GPUs (torch.set_float32_matmul_precision): "high" lets linear layers
    # use TF32, as convolutions do by default; "": torch's default.
    node.MATMUL_PRECISION = ""
    # Prefer operators that give the same numbers each time, on GPUs too.
    node.DETERMINISTIC = False
    # How many of the newest checkpoints to keep; 0: all.
    node.KEEP_CHECKPOINTS = 0
    # A result by which model_best.pth is chosen, such as "bbox/AP" or "validation_total_loss"; "": none is kept.
    node.BEST_METRIC = ""
    # "max" or "min"; "": of a loss or an error the lowest is best, of all else the highest.
    node.BEST_DIRECTION = ""
    # Evaluations without a better BEST_METRIC after which training stops; 0: never.
    node.EARLY_STOPPING = 0
    # Where numbers go beside the log and TensorBoard: "wandb", "mlflow".
    node.LOGGERS = []
    # Seconds from SIGTERM to the end: a process that takes longer is killed, even if it is stuck. 0: never.
    node.GRACE_SECONDS = 120
    # Write a trace of some iterations to OUTPUT_DIR/profile_*.json, which opens in https://ui.perfetto.dev.
    node.PROFILE = False
    return node


def _classification_defaults() -> CfgNode:
    """Image classification, by which tools/train_classifier.py trains backbones; detectors do not look at it."""
    node = CfgNode()
    # Side in pixels of what is trained on, and how it is cut out: "resized" (AREA of the image, of a ratio of width to
    # height in ASPECT_RATIO), "padded" (of the image with PADDING pixels around it), "none" (its middle).
    node.SIZE_TRAIN = 224
    node.CROP = "resized"
    node.AREA = [0.08, 1.0]
    node.ASPECT_RATIO = [0.75, 1.3333]
    node.PADDING = 4
    # Chance of turning left to right.
    node.FLIP = 0.5
    # torchvision's "trivial" (TrivialAugmentWide), "randaugment", "autoaugment" (of ImageNet) or "augmix"; "": none.
    node.AUTO_AUGMENT = ""
    # Of randaugment: operations on an image, and their strength, 0 to 30.
    node.RAND_AUGMENT = CfgNode({"NUM_OPS": 2, "MAGNITUDE": 9})
    # Chance of covering a rectangle with the mean colour.
    node.ERASING = 0.0
    # How often each image of an epoch comes in a row, augmented anew; an epoch stays as long, of fewer images.
    node.REPEATS = 1
    # Parameters of the beta distributions by which images of a batch are mixed; with both, one is drawn for each batch.
    # 0: none.
    node.MIXUP = 0.0
    node.CUTMIX = 0.0
    # "cross_entropy", or "binary_cross_entropy": each class by itself, there or not. Of a mixed image, classes with a
    # share above BCE_THRESHOLD are there.
    node.LOSS = "cross_entropy"
    node.BCE_THRESHOLD = 0.2
    node.LABEL_SMOOTHING = 0.0
    # In tests the shorter side is resized to RESIZE_TEST, and the middle SIZE_TEST pixels are looked at.
    node.RESIZE_TEST = 256
    node.SIZE_TEST = 224
    # Images of one size that take no more than this, in MiB, are kept in memory; 0: none are.
    node.MEMORY_MIB = 2048
    return node


def _add_augmentation(node: CfgNode) -> None:
    """Augmentation in training, all off: what Detectron2 does by INPUT.* alone."""
    # Large-scale jitter, in place of INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN: the image is fitted into a square of SIZE
    # pixels times MIN_SCALE to MAX_SCALE, then cropped or padded to SIZE.
    node.LSJ = CfgNode({"ENABLED": False, "MIN_SCALE": 0.1, "MAX_SCALE": 2.0, "SIZE": 1024})
    # Chance of pasting a random choice of another training image's objects, at most MAX_OBJECTS (0: any number).
    node.COPY_PASTE = CfgNode({"PROB": 0.0, "MAX_OBJECTS": 0})
    # Chance of changing the colours. Brightness, contrast and saturation are multiplied by 1 - x to 1 + x, the hue is
    # turned by at most HUE (1: once round). The strengths are SSD's.
    node.PHOTOMETRIC = CfgNode({"PROB": 0.0, "BRIGHTNESS": 0.125, "CONTRAST": 0.5, "SATURATION": 0.5, "HUE": 0.05})


def resnet_defaults() -> CfgNode:
    """What MODEL.RESNETS has no keys for. With these defaults the ResNet is Detectron2's."""
    node = CfgNode()
    # Blocks of each stage, such as [3, 8, 36, 3] (any number of stages), and their kind, "basic" or "bottleneck";
    # empty: those of MODEL.RESNETS.DEPTH.
    node.STAGE_BLOCKS = []
    node.BLOCK = ""
    # "7x7", "deep" (ResNet-C: three 3x3), "deep_tiered", or "3x3" (stride 1, for tiny images).
    node.STEM = "7x7"
    # Where the shape changes: "projection", "avg_down" (ResNet-D) or "pad" (skipped pixels and zeros, no weights).
    # "none": no shortcuts at all, the plain net.
    node.SHORTCUT = "projection"
    # Pre-activation blocks (ResNet-v2).
    node.PREACT = False
    # Squeeze-and-excitation with so many times fewer channels (usually 16); 0: none.
    node.SE_REDUCTION = 0
    # Start each block as its shortcut: zero weights in the last norm.
    node.ZERO_INIT_RESIDUAL = False
    # Chance of skipping the last block in training; it grows linearly from the first block.
    node.STOCHASTIC_DEPTH = 0.0
    # Dilation of each stage, such as [1, 1, 1, 2]; empty: MODEL.RESNETS.RES5_DILATION. A dilated stage keeps the
    # stride of the stage before, under an FPN too.
    node.DILATIONS = []
    # In which stages self-attention stands in place of the 3x3 convolutions of bottlenecks, such as [False, False,
    # False, True] (BoTNet); empty: in none. Its heads, and the distances of rows and of columns of the feature map that
    # it tells apart, from 0 to EXTENT - 1.
    node.ATTENTION_STAGES = []
    node.ATTENTION_HEADS = 4
    node.ATTENTION_EXTENT = 42
    # Which stages save memory in training by computing their blocks again, such as [True, True, False, False]; empty:
    # none.
    node.CHECKPOINT_STAGES = []
    # Set INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and STRIDE_IN_1X1 to what MODEL.WEIGHTS were trained with.
    node.MATCH_WEIGHTS = False
    # Stop before training if those four keys are not what MODEL.WEIGHTS were trained with, as far as that is known.
    node.CHECK_WEIGHTS = True
    # Let training from scratch freeze random weights (FREEZE_AT > 0) or have norms that never normalise (FrozenBN).
    node.ALLOW_FROZEN_RANDOM = False
    return node


def _add_missing(cfg: CfgNode, defaults: CfgNode) -> None:
    for key, value in defaults.items():
        if key not in cfg:
            cfg[key] = value
        elif isinstance(value, CfgNode):
            _add_missing(cfg[key], value)
