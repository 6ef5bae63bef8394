"""How images are read where nothing else is said. As Pillow's limit it is one for the process: tools set it once,
before they read anything."""

from __future__ import annotations

from resnet_det.images.image_input import ImageInput

# The most pixels of an image that are read (RESNET_DET.DATA.MAX_IMAGE_PIXELS); 0: Pillow's limit.
max_pixels = 0
# What detectors and pictures have of images (INPUT.FORMAT CHANNELS, RESNET_DET.INPUT).
image_input = ImageInput()


def set_max_pixels(count: int) -> None:
    global max_pixels
    max_pixels = count


def set_image_input(value: ImageInput) -> None:
    global image_input
    image_input = value
