"""Stacks: image files with several pages, each an image. ``stack.tif#3`` is the fourth page of stack.tif."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO

from PIL import TiffImagePlugin

from resnet_det.errors import InputError
from resnet_det.images import dicom, tiff

DICOM_SUFFIXES = (".dcm", ".dicom")
_STACK_SUFFIXES = (".tif", ".tiff", *DICOM_SUFFIXES, "")  # DICOM files often have no suffix
_PAGE = re.compile(r"(.+)#(\d+)", re.DOTALL)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two: BigTIFF
_KIND_OF_PAGE = 254  # the tag


def split_page(name: str | os.PathLike[str]) -> tuple[str, int | None]:
    """The file that ``name`` means and the page in it, counted from 0; None where it names none.

    A file that is there under the whole of ``name`` is that file.
    """
    name = os.fspath(name)
    match = _PAGE.fullmatch(name)
    if match is None or os.path.exists(name):
        return name, None
    return match[1], int(match[2])


def name_page(name: str | os.PathLike[str], page: int) -> str:
    """The name of a page, counted from 0."""
    return f"{os.fspath(name)}#{page}"


def find_file(name: str | os.PathLike[str]) -> Path:
    """The path of the file that ``name``, with or without a page, means."""
    return Path(split_page(name)[0])


def stem_of(name: str | os.PathLike[str]) -> str:
    """What files that are made of an image are called: ``stack-page-3`` for ``stack.tif#3``."""
    path, page = split_page(name)
    return Path(path).stem + ("" if page is None else f"-page-{page}")


def find_kind(file: IO[bytes], name: str) -> str:
    """ "tiff", "dicom" or "other", by how an open file begins; it is at its beginning afterwards."""
    start = file.read(132)
    file.seek(0)
    if start[128:] == b"DICM" or split_page(name)[0].lower().endswith(DICOM_SUFFIXES):
        return "dicom"
    return "tiff" if start.startswith(_TIFF_STARTS) else "other"


def list_pages(name: str | os.PathLike[str], file: IO[bytes] | None = None) -> list[str]:
    """The names of the images in a file: those of its pages for a TIFF or DICOM file with several, else its own.

    Pages of a TIFF file that are small copies of others are left out. A name with a page is that page.

    Args:
        file: the open file, if it is not to be opened by its name.

    Raises:
        InputError: it is not there, or is damaged.
    """
    path, page = split_page(name)
    if page is not None or os.path.splitext(path)[1].lower() not in _STACK_SUFFIXES:
        return [os.fspath(name)]
    if file is not None:
        return _list_pages(file, path)
    try:
        with open(path, "rb") as opened:
            return _list_pages(opened, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _list_pages(file: IO[bytes], path: str) -> list[str]:
    kind = find_kind(file, path)
    if kind == "other":
        return [path]
    places = list(range(dicom.count_frames(file, path))) if kind == "dicom" else _list_tiff_pages(file, path)
    file.seek(0)
    return [name_page(path, place) for place in places] if len(places) > 1 else [path]


def _list_tiff_pages(file: IO[bytes], name: str) -> list[int]:
    """The places of the pages of a TIFF file that are no small copies of others, by Pillow if it knows them all."""
    places = []
    try:
        image = TiffImagePlugin.TiffImageFile(file)
        for place in range(image.n_frames):
            image.seek(place)
            if not image.tag_v2.get(_KIND_OF_PAGE, 0) & tiff.REDUCED:
                places.append(place)
    except Exception:  # its parsers raise whatever they do not know
        return tiff.list_pages(file, name)
    return places
