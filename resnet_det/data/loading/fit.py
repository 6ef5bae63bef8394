"""A config that fits its data sets: what they have is set where nobody said otherwise, and checked where they did."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from resnet_det.data.coco.keypoints import (
    DEFAULT_SIGMA,
    NUM_COCO_KEYPOINTS,
    Keypoints,
    find_flip_pairs,
    find_lone_sides,
)
from resnet_det.data.loading.dicts import find_coco_loader
from resnet_det.data.loading.register import PreparedSet, count_classes, prepare_dataset, register_cfg_datasets
from resnet_det.errors import InputError

logger = logging.getLogger(__name__)

DETECTRON2_NUM_CLASSES = 80  # its default: a config does not tell it from a value that was set


def prepare_cfg_datasets(
    cfg: CfgNode, train_names: Sequence[str], *, set_keys: Collection[str] = (), follows_data: bool = False
) -> None:
    """Check the data sets of ``cfg``, and set what follows from them.

    The number of classes and of keypoints, INPUT.MASK_FORMAT bitmask for run-length masks, and sigmas for keypoints
    that are not COCO's.

    Args:
        train_names: the sets to train on; those of DATASETS.TEST are evaluated on.
        set_keys: keys that the command line has set, which stay.
        follows_data: the data are the user's own: they tell the number of classes, whatever the config file says.

    Raises:
        InputError: a set has problems, or does not fit the config; all problems of a set are listed.
    """
    names = list(dict.fromkeys((*train_names, *cfg.DATASETS.TEST)))

    def prepare(name: str) -> PreparedSet:
        trains = name in train_names and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
        return prepare_dataset(name, tasks=needed_tasks(cfg), trains=trains)

    sets = {name: prepare(name) for name in names}
    if set_class_order(cfg, names):
        register_cfg_datasets(cfg)
        sets = {name: prepare(name) for name in names}
    follows_data |= bool(cfg.RESNET_DET.DATA.CLASSES)
    set_num_classes(cfg, names, set_keys=set_keys, follows_data=follows_data)
    _keep_names(cfg, names)
    _set_mask_format(cfg, sets)
    if cfg.MODEL.KEYPOINT_ON:
        _fit_keypoints(cfg, sets, train_names, set_keys)


def fit_to_shown_set(cfg: CfgNode, name: str) -> None:
    """Let ``cfg`` augment the data set ``name`` as it would to train on it.

    Raises:
        InputError: the set has problems, or its keypoints do not fit the config.
    """
    cfg.DATASETS.TRAIN = (name,)
    sets = {
        name: prepare_dataset(name, tasks=["keypoints"] * cfg.MODEL.KEYPOINT_ON)
    }  # boxes can be shown without masks
    _set_mask_format(cfg, sets)
    if cfg.MODEL.KEYPOINT_ON:
        _fit_keypoints(cfg, sets, cfg.DATASETS.TRAIN, ())


def set_class_order(cfg: CfgNode, names: Sequence[str]) -> bool:
    """Where sets have the same classes in different orders, set RESNET_DET.DATA.CLASSES to the order of the first one.

    So it is in the config that is kept, by which later evaluations and pictures count them.

    Returns:
        Whether it was set, so that the sets must be read again.
    """
    orders = [MetadataCatalog.get(name).get("thing_classes") for name in names]
    if not orders or None in orders or all(order == orders[0] for order in orders):
        return False
    if any(sorted(order) != sorted(orders[0]) for order in orders) or not all(map(find_coco_loader, names)):
        return False
    cfg.RESNET_DET.DATA.CLASSES = list(orders[0])
    logger.info("RESNET_DET.DATA.CLASSES set to the order of %s, %s: other sets have another one", names[0], orders[0])
    return True


def needed_tasks(cfg: CfgNode) -> list[str]:
    """What a data set must have, besides boxes, for the heads of this config."""
    copies = cfg.RESNET_DET.DATA.COPY_PASTE.PROB > 0
    return ["masks"] * bool(cfg.MODEL.MASK_ON or copies) + ["keypoints"] * cfg.MODEL.KEYPOINT_ON


def set_num_classes(
    cfg: CfgNode, names: Sequence[str], *, set_keys: Collection[str] = (), follows_data: bool = False
) -> None:
    """Take the number of classes from the data.

    Raises:
        InputError: NUM_CLASSES was set to something else.
    """
    num_classes = count_classes(names)
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    key, configured = f"MODEL.{node}.NUM_CLASSES", cfg.MODEL[node].NUM_CLASSES
    if num_classes in (None, configured):
        return
    if configured != DETECTRON2_NUM_CLASSES and (key in set_keys or not follows_data):
        raise InputError(f"{key} is {configured}, but the data ({', '.join(names)}) have {num_classes} classes")
    cfg.MODEL[node].NUM_CLASSES = num_classes
    logger.info("%s set to %d, as many as the data have", key, num_classes)


def _keep_names(cfg: CfgNode, names: Sequence[str]) -> None:
    """Keep in the config what the classes and keypoints are called, for pictures made where the data are not."""
    known = [metadata for metadata in map(MetadataCatalog.get, names) if metadata.get("thing_classes") is not None]
    if not known:
        return
    kept = cfg.RESNET_DET.CLASSES
    kept.NAMES = list(known[0].thing_classes)
    places = known[0].get("thing_dataset_id_to_contiguous_id") or {}
    kept.IDS = sorted(places, key=places.__getitem__)
    kept.KEYPOINTS, kept.LIMBS = [], []
    with_keypoints = [metadata for metadata in known if metadata.get("keypoint_names")]
    if with_keypoints and cfg.MODEL.KEYPOINT_ON:
        kept.KEYPOINTS = list(with_keypoints[0].keypoint_names)
        rules = with_keypoints[0].get("keypoint_connection_rules") or ()
        kept.LIMBS = [[first, second, list(colour)] for first, second, colour in rules]


def _set_mask_format(cfg: CfgNode, sets: dict[str, PreparedSet]) -> None:
    encoded = [name for name, prepared in sets.items() if prepared.has_run_lengths]
    if cfg.MODEL.MASK_ON and encoded and cfg.INPUT.MASK_FORMAT == "polygon":
        cfg.INPUT.MASK_FORMAT = "bitmask"
        logger.info(
            "INPUT.MASK_FORMAT set to bitmask: masks of %s are run-length codes, which polygons cannot hold",
            ", ".join(encoded),
        )


def _fit_keypoints(
    cfg: CfgNode, sets: dict[str, PreparedSet], train_names: Sequence[str], set_keys: Collection[str]
) -> None:
    known = {name: prepared.keypoints for name, prepared in sets.items() if prepared.keypoints is not None}
    if not known:
        return
    counts = {name: len(keypoints) for name, keypoints in known.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InputError(f"DATASETS: not the same number of keypoints: {told}")
    count = next(iter(counts.values()))
    key, configured = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if configured != count:
        if key in set_keys or configured != NUM_COCO_KEYPOINTS:
            raise InputError(f"{key} is {configured}, but the data ({', '.join(known)}) have {count} keypoints")
        cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = count
        logger.info("%s set to %d, as many as the data have", key, count)
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    if sigmas and len(sigmas) != count:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers, but the data ({', '.join(known)}) have {count} "
            "keypoints"
        )
    if not sigmas and count != NUM_COCO_KEYPOINTS:
        cfg.TEST.KEYPOINT_OKS_SIGMAS = [DEFAULT_SIGMA] * count
        logger.warning(
            "TEST.KEYPOINT_OKS_SIGMAS set to %g for each of the %d keypoints, as nothing is known of them: AP of "
            "keypoints depends on these",
            DEFAULT_SIGMA,
            count,
        )
    if cfg.INPUT.RANDOM_FLIP == "horizontal":
        for name in train_names:
            if name in known:
                _check_flips(name, known[name])


def _check_flips(name: str, keypoints: Keypoints) -> None:
    """
    Raises:
        InputError: names tell sides, and a mirrored image would keep left as left.
    """
    lone = find_lone_sides(keypoints.names)
    if lone:
        raise InputError(
            f"data set {name}: the keypoints {', '.join(lone)} tell a side, but there is none of the other side, so "
            "that mirrored images would be wrong: rename them, or set INPUT.RANDOM_FLIP none"
        )
    if not find_flip_pairs(keypoints.names):
        told = f"the names ({', '.join(keypoints.names)}) tell no sides" if keypoints.is_named else "they have no names"
        logger.warning(
            "%s: images are mirrored, and no keypoints are swapped by that, as %s; set INPUT.RANDOM_FLIP none if that "
            "is wrong",
            name,
            told,
        )
