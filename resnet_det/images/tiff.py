"""TIFF files that Pillow does not read as they are, by tifffile: any number of channels, planes, types and layouts."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from PIL import TiffImagePlugin

from resnet_det.errors import InputError
from resnet_det.images.image_input import CHANNELS, ImageInput
from resnet_det.images.pillow import BITS, SAMPLES, TRANSPOSED, explain_missing_page, turn_array
from resnet_det.images.stored import Stored, check_size

_EXTRA = 338  # the tag
REDUCED = 1  # the bit of tag 254 of a page that is a small copy of another
_RGB, _WHITE_IS_ZERO = 2, 0


def needs_tifffile(file: IO[bytes], page: int | None, image_input: ImageInput) -> bool:
    """Whether Pillow cannot read a page of an open TIFF file, or not with all of its values and channels."""
    try:
        image = TiffImagePlugin.TiffImageFile(file)
        if (page or 0) < image.n_frames:  # else Pillow's way says so
            image.seek(page or 0)
    except Exception:  # its parsers raise whatever they do not know
        return True
    finally:
        file.seek(0)
    samples, bits = image.tag_v2.get(SAMPLES, 1), image.tag_v2.get(BITS, (1,))
    if samples == 1:
        return False
    if max(bits) > 8:
        return True
    if samples == 2 and not any(image.tag_v2.get(_EXTRA, (0,))):
        return True  # Pillow leaves out the second channel, as if it were opacity
    return samples != 3 and image_input.format == CHANNELS


def list_pages(file: IO[bytes], name: str) -> list[int]:
    """The places of the pages that are no small copies of others."""
    with _told(name):
        pages = _open(file, name).pages
        return [place for place, page in enumerate(pages) if not int(page.subfiletype) & REDUCED]


def read_size(file: IO[bytes], name: str, page: int | None) -> tuple[int, int]:
    """Width and height of a page, upright."""
    found = _choose(file, name, page)
    size = found.imagewidth, found.imagelength
    return size[::-1] if _find_orientation(found) in TRANSPOSED else size


def read(file: IO[bytes], name: str, page: int | None, *, max_pixels: int) -> Stored:
    """A page; the first if none is named.

    Raises:
        InputError: tifffile or what decompresses it is not installed, the file is damaged, has no such page, or has
            more pixels than ``max_pixels`` (0: Pillow's limit).
    """
    found = _choose(file, name, page)
    check_size(name, found.imagelength, found.imagewidth, max_pixels)
    axes = found.axes
    if set(axes) not in ({"Y", "X"}, {"S", "Y", "X"}):
        raise InputError(f"{name}: its page has the axes {axes}; rows, columns and channels would be right")
    with _told(name):
        values = found.asarray()
    if values.dtype.kind not in "uif":
        raise InputError(f"{name}: its values are of type {values.dtype}; numbers would be right")
    values = np.moveaxis(values, axes.index("S"), -1) if "S" in axes else values[:, :, None]
    is_colour = int(found.photometric) == _RGB
    return Stored(
        turn_array(values.astype(values.dtype.newbyteorder("="), copy=False), _find_orientation(found)),
        is_colour=is_colour,
        has_opacity=is_colour and values.shape[2] == 4 and any(map(int, found.extrasamples)),
        is_inverted=int(found.photometric) == _WHITE_IS_ZERO,
    )


def _open(file: IO[bytes], name: str) -> Any:
    """The file, as tifffile has it; it is not closed."""
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise InputError(f"{name}: TIFF files of this kind need tifffile: pip install 'resnet_det[medical]'") from None
    file.seek(0)
    with _told(name):
        return tifffile.TiffFile(file)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """What tifffile raises for damaged files, or where what decompresses one is missing, as one kind of error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # its parsers raise whatever damaged files make them stumble over
        if "imagecodecs" in str(error):
            raise InputError(f"{name}: {error}: pip install imagecodecs") from None
        raise InputError(f"{name}: not a readable TIFF file ({error})") from None


def _choose(file: IO[bytes], name: str, page: int | None) -> Any:
    pages, place = _open(file, name).pages, page or 0
    with _told(name):
        count = len(pages)
    if not count:
        raise InputError(f"{name}: not a readable TIFF file (it has no page: is it cut off?)")
    if place >= count:
        raise InputError(f"{name}: {explain_missing_page(place, count)}")
    with _told(name):
        return pages[place]


def _find_orientation(page: Any) -> int:
    tag = page.tags.get("Orientation")
    return 1 if tag is None else int(tag.value)
