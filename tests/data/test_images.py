"""Training, pictures and checks read every kind of image file alike, and say what they did."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from detectron2.data import DatasetMapper
from PIL import Image

from resnet_det.data import FastDatasetMapper, build_mapper
from resnet_det.data.inspection.clean import read_rgb
from resnet_det.data.inspection.images import inspect_image
from resnet_det.data.mapping.fast_image import read_bgr
from resnet_det.engine.visualize.inputs import find_inputs
from resnet_det.errors import InputError
from resnet_det.images import pillow, settings
from resnet_det.images.image_input import ImageInput
from resnet_det.images.pillow import allow_pixels
from resnet_det.images.reader import read_image
from resnet_det.images.size import read_image_size
from resnet_det.images.stored import Stored, make_array

WIDTH, HEIGHT = 40, 30
RAMP = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
GREY = (RAMP * 255).astype(np.uint8)
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2], 2)


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(pillow, "_said", set())
    monkeypatch.setattr(settings, "max_pixels", 0)


def save(path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(COLOURS)
    {
        "16 bit": lambda: Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path, "PNG"),
        "12 bit": lambda: Image.fromarray((RAMP * 4095).astype(np.uint16)).save(path, "PNG"),
        "float": lambda: Image.fromarray(RAMP.astype(np.float32)).save(path, "TIFF"),
        "cmyk": lambda: picture.convert("CMYK").save(path, "JPEG", quality=95),
        "exif": lambda: picture.save(path, "JPEG", exif=exif, quality=95),
        "pages": lambda: picture.save(path, "TIFF", save_all=True, append_images=[picture.rotate(180)]),
        "gif": lambda: Image.fromarray(GREY).save(path, "GIF", save_all=True, append_images=[picture.rotate(180)]),
    }[kind]()


# The kind of problem, what the log says, and how far pixels may be off
KINDS = {
    "16 bit": ("16-bit-image", "more than 8 bits: scaled down to 8", 1),
    "12 bit": ("16-bit-image", "more than 8 bits: scaled down to 8", 1),
    "float": ("16-bit-image", "more than 8 bits: scaled down to 8", 1),
    "cmyk": ("cmyk-image", "converted to RGB", 12),
    "exif": ("exif-rotation", "turned upright", 30),
    "pages": ("animated-image", "the first one is taken", 0),
    "gif": ("animated-image", "the first one is taken", 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_tool_reads_an_image_alike_and_says_what_it_did(default_cfg, tmp_path, caplog, kind):
    path = tmp_path / "image"
    save(path, kind)
    problem, told, tolerance = KINDS[kind]
    expected = COLOURS[:, :, ::-1] if kind in ("cmyk", "exif", "pages") else np.repeat(GREY[:, :, None], 3, 2)
    expected = np.rot90(expected, -1) if kind == "exif" else expected
    with caplog.at_level(logging.WARNING, logger="resnet_det"):
        shown = read_bgr(path)
        again = read_bgr(path)
    assert [record.getMessage() for record in caplog.records if told in record.getMessage()] == [
        f"{path}: {pillow.DONE[problem]} (said once, for the first of such images)"
    ]
    assert np.array_equal(shown, again)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= tolerance
    height, width = shown.shape[:2]
    assert read_image_size(path) == (width, height)
    entry = {"file_name": str(path), "width": width, "height": height, "image_id": 1, "annotations": []}
    default_cfg.INPUT.MIN_SIZE_TEST, default_cfg.INPUT.MAX_SIZE_TEST = min(width, height), 2000  # not resized
    for name in ("detectron2", "fast"):
        default_cfg.RESNET_DET.DATA.MAPPER = name
        mapper = build_mapper(default_cfg, False)
        assert isinstance(mapper, DatasetMapper)
        assert isinstance(mapper, FastDatasetMapper) == (name == "fast")
        assert np.array_equal(mapper(entry)["image"].numpy().transpose(1, 2, 0), shown)
    found = inspect_image(entry, tmp_path, with_hash=False)
    assert problem in [kind for kind, _ in found.faults]
    fixed = np.asarray(read_rgb(path, as_stored=False)[0])[:, :, ::-1]
    assert np.array_equal(fixed, shown), "check_dataset --fix"
    as_stored = np.asarray(read_rgb(path, as_stored=True)[0])[:, :, ::-1]
    assert np.array_equal(as_stored if kind != "exif" else np.rot90(as_stored, -1), shown)


@pytest.mark.parametrize("image_format", ["L", "RGB", "YUV-BT.601"])
def test_deep_images_have_every_format(tmp_path, image_format):
    save(tmp_path / "a", "16 bit")
    Image.fromarray((RAMP * 65535 / 256).astype(np.uint8)).save(tmp_path / "b", "PNG")
    deep, plain = (read_image(tmp_path / name, ImageInput(image_format)) for name in "ab")
    assert np.array_equal(deep, plain)


def test_bits_are_those_that_hold_the_image():
    for bits, values in ((8, [0, 255]), (10, [0, 256]), (12, [5, 4095]), (16, [0, 65535])):
        assert scale(values, np.uint16) == [value >> (bits - 8) for value in values]
    assert scale([np.nan, 0, 0.5, 1, np.inf], np.float32) == [0, 0, 128, 255, 0]
    assert scale([0, 1023], np.float32) == [0, 255]
    with pytest.raises(InputError, match=r"a.tif: values from -3 to 1; RESNET_DET.INPUT.WINDOW has to say"):
        scale([-3, 1], np.float32)


def scale(values, dtype):
    return make_array(Stored(np.array(values, dtype)[None, :, None]), ImageInput("L"), "a.tif")[0, :, 0].tolist()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_large_images_are_refused_unless_the_key_allows_them(default_cfg, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOURS).save(path)
    entry = {"file_name": str(path), "width": WIDTH, "height": HEIGHT, "image_id": 1}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow's error comes from twice that on
    for name in ("detectron2", "fast"):
        default_cfg.RESNET_DET.DATA.MAPPER = name
        for limit, message in (
            (0, "limit of 1000 pixels.*MAX_IMAGE_PIXELS sets another limit"),
            (1199, "allows 1,199"),
        ):
            default_cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS = limit
            with pytest.raises(InputError, match=message):
                build_mapper(default_cfg, False)(entry)
        default_cfg.RESNET_DET.DATA.MAX_IMAGE_PIXELS = 1200
        assert build_mapper(default_cfg, False)(entry)["image"].shape[0] == 3
    with pytest.raises(InputError, match=r"MAX_IMAGE_PIXELS"):
        read_bgr(path)
    settings.set_max_pixels(1200)
    assert read_bgr(path).shape == (HEIGHT, WIDTH, 3)
    assert read_image_size(path) == (WIDTH, HEIGHT), "the size alone is read of any image"
    assert Image.MAX_IMAGE_PIXELS == 500
    ((kind, message),) = inspect_image(entry, tmp_path, with_hash=False).faults
    assert kind == "huge-image"
    assert "--max-image-pixels" in message
    with allow_pixels(1200):
        assert inspect_image(entry, tmp_path, with_hash=False, max_pixels=1200).faults == []
        assert "allows 1,199" in inspect_image(entry, tmp_path, with_hash=False, max_pixels=1199).faults[0][1]


def test_gif_files_are_inputs(tmp_path):
    save(tmp_path / "a.gif", "gif")
    assert find_inputs([str(tmp_path)]) == ([tmp_path / "a.gif"], [])
