"""Files of microscopes and scanners: values, windows, channels, pages; and what is wrong with some."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from medical import HEIGHT, WIDTH, write_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless

from resnet_det.errors import InputError
from resnet_det.images import pillow
from resnet_det.images.image_input import CHANNELS, ImageInput
from resnet_det.images.pages import list_pages, split_page, stem_of
from resnet_det.images.reader import decode_image, read_image, read_stored
from resnet_det.images.size import read_image_size

RAMP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)  # 0 to 3071
GREY = ImageInput("L")


def grey(**changes):
    return ImageInput("L", channels=1, **changes)


def read(path, image_input=GREY):
    return read_image(path, image_input)[:, :, 0]


def to_255(values, low, high):
    return np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_windows_say_which_values_are_black_and_white(tmp_path, byteorder):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (RAMP * 7).astype(np.uint16), byteorder=byteorder)
    values = RAMP * 7  # up to 21497: 16 bits
    assert np.array_equal(read(path), values >> 8)
    assert np.array_equal(read(path, grey(window="type")), to_255(values, 0, 65535))
    assert np.array_equal(read(path, grey(window="minmax")), to_255(values, 0, values.max()))
    low, high = np.percentile(values, [1, 90])
    assert np.array_equal(read(path, grey(window="percentiles", limits=(1, 90))), to_255(values, low, high))
    assert np.array_equal(read(path, grey(window="fixed", limits=(700, 1400))), to_255(values, 700, 1400))
    kept = read(path, grey(window="fixed", limits=(0, 65535), dtype="float32"))
    assert kept.dtype == np.float32
    assert len(np.unique(kept)) == RAMP.size, "all levels are kept"
    assert np.allclose(kept, values / 257)


def test_eight_bits_stay_as_they_are_and_a_flat_image_is_black(tmp_path):
    small = (RAMP % 200).astype(np.uint8)
    Image.fromarray(small).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", grey(window="minmax")), small)
    assert read(tmp_path / "a.png", grey(dtype="float32")).dtype == np.float32
    tifffile.imwrite(tmp_path / "flat.tif", np.full((5, 6), 300, np.uint16))
    assert not read(tmp_path / "flat.tif", grey(window="minmax")).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32])
def test_types_of_values(tmp_path, dtype):
    path, values = tmp_path / "a.tif", RAMP.astype(dtype)
    if dtype == np.uint32:
        values[0, 0] = 2**32 - 1  # Pillow would have -1
    tifffile.imwrite(path, values)
    assert np.array_equal(read_stored(path).values[:, :, 0], values)
    limits = grey(window="fixed", limits=(0, 3000))
    assert np.array_equal(read(path, limits), to_255(values.astype(float), 0, 3000))
    tifffile.imwrite(path, (values - values.max() / 2).astype(dtype) if dtype != np.uint32 else values)
    if dtype in (np.int16, np.float32, np.float64):
        with pytest.raises(InputError, match=r"a.tif: values from -.* RESNET_DET.INPUT.WINDOW has to say"):
            read(path)


def test_fractions_beyond_0_to_1_have_no_type_range(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float32))
    with pytest.raises(InputError, match="WINDOW type takes numbers with a fraction from 0 to 1"):
        read(tmp_path / "a.tif", grey(window="type"))
    tifffile.imwrite(tmp_path / "b.tif", (RAMP / 3071).astype(np.float32))
    assert np.array_equal(read(tmp_path / "b.tif", grey(window="type")), to_255(RAMP, 0, 3071))


def test_white_is_zero(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.uint16), photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif", grey(window="minmax")), 255 - to_255(RAMP, 0, 3071))


def test_pages_of_a_stack_are_images(tmp_path):
    stack = np.stack([RAMP, RAMP + 1000, RAMP[::-1]]).astype(np.uint16)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    assert list_pages(path) == [f"{path}#{page}" for page in range(3)]
    assert list_pages(f"{path}#1") == [f"{path}#1"]
    for page, values in enumerate(stack):
        assert np.array_equal(read_stored(f"{path}#{page}").values[:, :, 0], values)
    assert np.array_equal(read_stored(path).values[:, :, 0], stack[0])
    assert split_page(f"{path}#2") == (str(path), 2)
    assert stem_of(f"{path}#2") == "stack-page-2"
    assert read_image_size(f"{path}#2") == (WIDTH, HEIGHT)
    for read_it in (read_image_size, read_stored):
        with pytest.raises(InputError, match=r"stack.tif#3: no page 3: the file has 3, counted from 0"):
            read_it(f"{path}#3")
    named = tmp_path / "odd.tif#3"  # a file that is called so
    tifffile.imwrite(named, stack[1])
    assert split_page(named) == (str(named), None)
    assert np.array_equal(read_stored(named).values[:, :, 0], stack[1])


def test_small_copies_of_pages_are_no_images_and_photos_have_one(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(RAMP.astype(np.uint16))
        writer.write(RAMP[::2, ::2].astype(np.uint16), subfiletype=1)
    assert list_pages(path) == [str(path)]
    Image.fromarray(RAMP.astype(np.uint8)).save(tmp_path / "a.jpg")
    assert list_pages(tmp_path / "a.jpg") == [str(tmp_path / "a.jpg")]
    wide = tmp_path / "wide.tif"
    tifffile.imwrite(wide, np.zeros((2, HEIGHT, WIDTH), np.float64), photometric="minisblack")
    assert len(list_pages(wide)) == 2, "Pillow does not read its pages"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("count", [2, 4, 5])
def test_files_of_any_number_of_channels(tmp_path, dtype, layout, count):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, count)).astype(dtype)
    path = tmp_path / "a.tif"
    shaped = values if layout == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(path, shaped, photometric="minisblack", planarconfig=layout)
    found = read_image(path, ImageInput(CHANNELS, channels=count, window="type"))
    assert np.array_equal(found, values if dtype == np.uint8 else to_255(values, 0, 65535))
    assert read_image_size(path) == (WIDTH, HEIGHT)
    wrong = rf"a.tif: {count} channels; INPUT.FORMAT CHANNELS takes as many as MODEL.PIXEL_MEAN has values, which is 3"
    with pytest.raises(InputError, match=wrong):
        read_image(path, ImageInput(CHANNELS, channels=3))
    with pytest.raises(InputError, match=rf"{count} channels; INPUT.FORMAT BGR takes grey and RGB images"):
        read_image(path, ImageInput())
    picture = ImageInput().to_picture(read_image(path, ImageInput().of_pictures))
    assert picture.shape == (HEIGHT, WIDTH, 3)


def test_each_channel_has_its_own_range_but_colours_share_one(tmp_path):
    values = np.stack([RAMP, RAMP // 10, RAMP // 100], 2).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb")
    apart = read_image(tmp_path / "a.tif", ImageInput(CHANNELS, window="minmax"))
    assert apart.max((0, 1)).tolist() == [255, 255, 255]
    together = read_image(tmp_path / "a.tif", ImageInput("RGB", window="minmax"))
    assert np.array_equal(together, to_255(values, 0, 3071))
    assert np.array_equal(read_image(tmp_path / "a.tif", ImageInput(window="minmax")), together[:, :, ::-1])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits_keep_their_lower_bits(tmp_path, suffix):
    values = np.stack([RAMP // 16, RAMP // 20, RAMP // 30], 2).astype(np.uint16)  # below 256: black for Pillow
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), values[:, :, ::-1])
    assert np.array_equal(read_image(path, ImageInput("RGB")), values)
    assert read_image_size(path) == (WIDTH, HEIGHT)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, InputError), match=r"truncated|it has no page: is it cut off\?"):
        read_image(path, ImageInput("RGB"))


def test_opacity_is_a_channel_only_for_channels(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name, ImageInput(CHANNELS, channels=4)), values)
        assert np.array_equal(read_image(tmp_path / name, ImageInput("RGB")), values[:, :, :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_are_turned_once(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack([RAMP % 251] * 3, 2).astype(np.uint8)).save(tmp_path / "a.png", exif=exif)
    small, deep = (RAMP % 251).astype(np.uint8), RAMP.astype(np.float64)
    tags = [(274, "H", 1, orientation, True)]
    colours = np.stack([RAMP, RAMP * 2, RAMP], 2).astype(np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", colours, photometric="rgb", extratags=tags)
    for name, values in (("a.tif", small), ("b.tif", deep)):
        tifffile.imwrite(tmp_path / name, values, extratags=tags)
    expected = read(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.tif"), expected)
    assert np.array_equal(read_stored(tmp_path / "b.tif").values[:, :, 0] % 251, expected)
    assert np.array_equal(read_stored(tmp_path / "c.tif").values[:, :, 0] % 251, expected)
    for name in ("a.png", "a.tif", "b.tif", "c.tif"):
        assert read_image_size(tmp_path / name) == expected.shape[::-1]


# DICOM


def test_a_ct_has_hounsfield_units_and_its_window(tmp_path):
    units = RAMP - 1024
    path = write_dicom(tmp_path / "a", RAMP.astype(np.uint16), window=(40, 400), RescaleSlope=1, RescaleIntercept=-1024)
    assert np.array_equal(read_stored(path).values[:, :, 0], units)
    # Part 3, C.11.2.1.2.1: from 40 - 0.5 - 399 / 2 to 40 - 0.5 + 399 / 2
    assert np.array_equal(read(path), to_255(units, -160, 239))
    assert np.array_equal(read(path, grey(window="fixed", limits=(-1000, 400))), to_255(units, -1000, 400))
    assert np.array_equal(read(path, grey(window="type")), to_255(units, -1024, 65535 - 1024))
    assert np.array_equal(read(path, grey(window="minmax")), to_255(units, -1024, 2047))
    assert read_image(path, ImageInput()).shape == (HEIGHT, WIDTH, 3)
    assert read_image_size(path) == (WIDTH, HEIGHT)
    exact = {"VOILUTFunction": "LINEAR_EXACT"}
    path = write_dicom(tmp_path / "b", RAMP.astype(np.uint16), window=([1000, 7], [500, 9]), **exact)
    assert np.array_equal(read(path), to_255(RAMP, 750, 1250)), "the first of two windows"
    path = write_dicom(tmp_path / "c", RAMP.astype(np.uint16), window=(1000, 500), VOILUTFunction="SIGMOID")
    assert np.array_equal(read(path), np.rint(255 / (1 + np.exp(-4 * (RAMP - 1000) / 500))))


def test_without_a_window_a_dicom_file_has_the_range_of_its_bits(tmp_path):
    stored = {"BitsStored": 12, "HighBit": 11}
    path = write_dicom(tmp_path / "a", RAMP.astype(np.uint16), **stored)
    assert np.array_equal(read(path), to_255(RAMP, 0, 4095))
    path = write_dicom(tmp_path / "b", (RAMP - 1500).astype(np.int16), **stored)
    assert np.array_equal(read(path), to_255(RAMP - 1500, -2048, 2047))
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], (65535 - np.arange(4096)).astype(np.uint16).tobytes()
    path = write_dicom(tmp_path / "c", RAMP.astype(np.uint16), VOILUTSequence=[table], **stored)
    assert np.array_equal(read(path), np.rint((65535 - RAMP) / 65535 * 255))


def test_monochrome1_is_inverted_and_padding_is_dark(tmp_path):
    values = RAMP.astype(np.int16) + 100
    values[:5] = -2000
    fields = {"PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"}
    path = write_dicom(tmp_path / "a", values, **fields)
    found = read(path, grey(window="minmax"))
    low, high = values[5:].min(), values.max()
    assert np.array_equal(found[5:], 255 - to_255(values[5:], low, high))
    assert not found[:5].any()


def test_frames_are_pages_with_slopes_of_their_own(tmp_path):
    frames = np.stack([RAMP, RAMP * 2]).astype(np.uint16)
    groups = []
    for slope in (1, 3):
        slopes, window, group = Dataset(), Dataset(), Dataset()
        slopes.RescaleSlope, slopes.RescaleIntercept = slope, 5
        window.WindowCenter, window.WindowWidth = 1000 * slope, 500
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = [slopes], [window]
        groups.append(group)
    path = write_dicom(tmp_path / "a.dcm", frames, PerFrameFunctionalGroupsSequence=groups)
    assert list_pages(path) == [f"{path}#0", f"{path}#1"]
    assert np.array_equal(read_stored(f"{path}#1").values[:, :, 0], RAMP * 6 + 5)
    assert np.array_equal(read(f"{path}#1"), to_255(RAMP * 6 + 5, 3000 - 250, 3000 + 249))
    with pytest.raises(InputError, match=r"a.dcm#2: no page 2: the file has 2"):
        read(f"{path}#2")


def test_colour_dicom_files_and_files_without_a_preamble(tmp_path):
    colours = np.stack([RAMP % 255, RAMP % 99, RAMP % 13], 2).astype(np.uint8)
    fields = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = write_dicom(tmp_path / "a", colours, **fields)
    assert np.array_equal(read_image(path, ImageInput("RGB")), colours)
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(read_image(bare, ImageInput("RGB")), colours)


# What is wrong


def test_damaged_files_are_told(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float64))
    write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16))
    for name, length, message in (
        ("a.tif", 9000, "not a readable TIFF file"),
        ("a.tif", 9, "not a readable TIFF file"),
        ("a.dcm", 3000, "the pixels of this DICOM file cannot be read"),
        ("a.dcm", 200, "no DICOM file with an image"),
    ):
        path = tmp_path / f"cut-{length}-{name}"
        path.write_bytes((tmp_path / name).read_bytes()[:length])
        with pytest.raises(InputError, match=f"{path.name}: {message}"):
            read(path)
    (tmp_path / "text.dcm").write_text("no image at all " * 20)
    with pytest.raises(InputError, match=r"text.dcm: no DICOM file with an image"):
        read(tmp_path / "text.dcm")


def test_large_images_are_refused_before_they_are_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(np.float64))
    write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16))
    for name in ("a.tif", "a.dcm"):
        with pytest.raises(InputError, match=r"3,072 pixels; RESNET_DET.DATA.MAX_IMAGE_PIXELS allows 3,071"):
            read_image(tmp_path / name, GREY, max_pixels=3071)
        assert read_image(tmp_path / name, ImageInput("L", window="minmax"), max_pixels=3072).any()


def test_a_missing_library_is_named_and_plain_files_do_without(tmp_path, monkeypatch):
    write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16))
    tifffile.imwrite(tmp_path / "wide.tif", RAMP.astype(np.float64))
    tifffile.imwrite(tmp_path / "plain.tif", np.stack([RAMP, RAMP]).astype(np.uint16), photometric="minisblack")
    for name in ("pydicom", "tifffile"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"a.dcm: DICOM files need pydicom 3: pip install 'resnet_det\[medical\]'"):
        read(tmp_path / "a.dcm")
    with pytest.raises(InputError, match=r"wide.tif: .* need tifffile: pip install 'resnet_det\[medical\]'"):
        read(tmp_path / "wide.tif")
    assert np.array_equal(read(tmp_path / "plain.tif#1"), RAMP >> 4)
    assert len(list_pages(tmp_path / "plain.tif")) == 2


def test_what_decompresses_a_file_is_named(tmp_path):
    path = tmp_path / "a.dcm"
    write_dicom(path, RAMP.astype(np.uint16), syntax=JPEGLSLossless, PixelData=encapsulate([b"\xff\xd8" * 8]))
    with pytest.raises(InputError, match=r"a.dcm: its pixels are compressed \(JPEG-LS .*pip install pylibjpeg"):
        read(path)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 4), np.uint8)).save(tmp_path / "a.tif", compression="tiff_lzw")
    code = "import sys; sys.modules['imagecodecs'] = None\n"
    code += "from resnet_det.images.reader import ImageInput, read_image\n"
    code += f"read_image({str(tmp_path / 'a.tif')!r}, ImageInput('CHANNELS', 4))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "a.tif: <COMPRESSION.LZW: 5> requires the 'imagecodecs' package: pip install imagecodecs" in run.stderr


def test_that_levels_are_lost_is_said_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pillow, "_said", set())
    write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint16), window=(1000, 500))
    data = io.BytesIO((tmp_path / "a.dcm").read_bytes())
    read(tmp_path / "a.dcm", grey(dtype="float32"))
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(decode_image(data, "a.dcm", GREY)[:, :, 0], read(tmp_path / "a.dcm"))
    (record,) = caplog.records
    assert record.getMessage().startswith("a.dcm: more than 8 bits: scaled down to 8 (docs/medical.md")
