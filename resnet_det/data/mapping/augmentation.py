"""Augmentation from the config: Detectron2's, large-scale jitter, and changes of colour."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import Image
from torchvision.transforms import functional as F

from resnet_det.errors import InputError

Change = tuple[Callable[[Image.Image, float], Image.Image], float]


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """What Detectron2 does by INPUT.*, with RESNET_DET.DATA.LSJ and PHOTOMETRIC; at their defaults exactly that.

    Crops need no key of ours: INPUT.CROP works on boxes and masks, before anything is resized.
    """
    augmentations = detection_utils.build_augmentation(cfg, is_train)
    if not is_train:
        return augmentations
    lsj, photometric = cfg.RESNET_DET.DATA.LSJ, cfg.RESNET_DET.DATA.PHOTOMETRIC
    if lsj.ENABLED:
        augmentations[:1] = make_large_scale_jitter(lsj.SIZE, lsj.MIN_SCALE, lsj.MAX_SCALE)
    if cfg.INPUT.CROP.ENABLED:
        augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
    if photometric.PROB > 0:  # first: on the fewest pixels, and never on padding
        distortion = PhotometricDistortion(
            photometric.PROB,
            brightness=photometric.BRIGHTNESS,
            contrast=photometric.CONTRAST,
            saturation=photometric.SATURATION,
            hue=photometric.HUE,
            image_format=cfg.INPUT.FORMAT,
        )
        augmentations.insert(0, distortion)
    for name in cfg.RESNET_DET.DATA.AUGMENTATIONS:
        augmentations += load_augmentations(name, cfg)
    return augmentations


def load_augmentations(name: str, cfg: CfgNode) -> list[T.Augmentation]:
    """What the function ``name``, such as "my_module:make_augmentations", makes of the config.

    Raises:
        InputError: there is no such module or function, or it gives something else. What goes wrong inside keeps its
            traceback.
    """
    key = f"RESNET_DET.DATA.AUGMENTATIONS {name}"
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise InputError(f"{key}: no module {error.name}; PYTHONPATH=FOLDER says where it is") from None
    if not function_name or not hasattr(module, function_name):
        raise InputError(f"{key}: a function of {module_name} would be right, as in my_module:make_augmentations")
    found = getattr(module, function_name)(cfg)
    if not isinstance(found, list | tuple) or not all(isinstance(one, T.Augmentation | T.Transform) for one in found):
        raise InputError(f"{key}: it gives {found!r}; a list of detectron2.data.transforms would be right")
    return list(found)


def make_large_scale_jitter(size_px: int, min_scale: float, max_scale: float) -> list[T.Augmentation]:
    """Fit the image into a square of ``size_px`` times a random scale, then crop or pad it to ``size_px``.

    Large-scale jitter of "Simple Copy-Paste" (arXiv 2012.07177, section 3), without the flip.
    """
    crop = T.FixedSizeCrop((size_px, size_px))
    crop.seg_pad_value = 0  # upstream's 255 would make the padding part of every bit mask
    return [T.ResizeScale(min_scale, max_scale, size_px, size_px), crop]


class PhotometricDistortion(T.Augmentation):
    """Change brightness, contrast, saturation and hue at random, in random order (SSD, arXiv 1512.02325, section 2.2).

    The changes are torchvision's. Its own ``ColorJitter`` draws from torch; this draws from ``np.random``, as all of
    Detectron2's augmentation does.
    """

    def __init__(
        self, prob: float, *, brightness: float, contrast: float, saturation: float, hue: float, image_format: str
    ) -> None:
        """Args:
        prob: chance of changing an image at all.
        brightness, contrast, saturation: they are multiplied by 1 - x to 1 + x.
        hue: it is turned by -x to x; 1 is once round.
        image_format: "BGR" or "RGB".
        """
        super().__init__()
        self._init(locals())

    def get_transform(self, image: np.ndarray) -> T.Transform:  # noqa: ARG002
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        changes = [
            (F.adjust_brightness, self._rand_range(1 - self.brightness, 1 + self.brightness)),
            (F.adjust_contrast, self._rand_range(1 - self.contrast, 1 + self.contrast)),
            (F.adjust_saturation, self._rand_range(1 - self.saturation, 1 + self.saturation)),
            (F.adjust_hue, self._rand_range(-self.hue, self.hue)),
        ]
        ordered = [changes[index] for index in np.random.permutation(len(changes))]
        return T.ColorTransform(partial(change_colours, changes=ordered, is_bgr=self.image_format == "BGR"))


def change_colours(image: np.ndarray, changes: Sequence[Change], *, is_bgr: bool) -> np.ndarray:
    """Apply torchvision's ``changes``, each with its strength, to an image (H, W, 3) uint8."""
    order = slice(None, None, -1 if is_bgr else 1)
    picture = Image.fromarray(np.ascontiguousarray(image[:, :, order]))
    for change, strength in changes:
        picture = change(picture, strength)
    return np.ascontiguousarray(np.asarray(picture)[:, :, order])
