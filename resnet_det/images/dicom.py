"""DICOM files, by pydicom: values in the units of the file (CT: Hounsfield), and the window that they are shown with.

The standard's part 3: modality LUT, C.11.1 (slope and intercept); VOI LUT, C.11.2 (window centre and width).
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import IO, Any

import numpy as np

from resnet_det.errors import InputError
from resnet_det.images.pillow import explain_missing_page
from resnet_det.images.stored import Stored, check_size

_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")  # of enhanced files, for each frame


def count_frames(file: IO[bytes], name: str) -> int:
    return _count_frames(_read_header(file, name))


def read_size(file: IO[bytes], name: str, page: int | None) -> tuple[int, int]:
    """Width and height."""
    dataset = _read_header(file, name)
    _choose_frame(dataset, name, page)
    return int(dataset.Columns), int(dataset.Rows)


def read(file: IO[bytes], name: str, page: int | None, *, max_pixels: int) -> Stored:
    """A frame; the first if none is named.

    Raises:
        InputError: pydicom or what decompresses it is not installed, the file is damaged, has no image or no such
            frame, or has more pixels than ``max_pixels`` (0: Pillow's limit).
    """
    _, pixels = _import(name)
    dataset = _read_header(file, name)
    frame = _choose_frame(dataset, name, page)
    check_size(name, int(dataset.Rows), int(dataset.Columns), max_pixels)
    values = _decode(file, name, dataset, frame)
    kind = str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, dataset)
        values = (values >> 8).astype(np.uint8) if values.dtype == np.uint16 else values
    if values.ndim == 3:
        return Stored(values, is_colour=True)
    _take_frame_groups_(dataset, frame)
    return _store_grey(pixels, dataset, values, is_inverted=kind == "MONOCHROME1")


def _import(name: str) -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("pydicom"), importlib.import_module("pydicom.pixels")
    except ImportError:
        raise InputError(f"{name}: DICOM files need pydicom 3: pip install 'resnet_det[medical]'") from None


def _read_header(file: IO[bytes], name: str) -> Any:
    """All that a file says, without its pixels; some files lack the standard's first 132 bytes."""
    pydicom, _ = _import(name)
    file.seek(0)
    try:
        dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        is_image = bool(getattr(dataset, "Rows", 0) and getattr(dataset, "Columns", 0))
    except Exception as error:  # its parsers raise whatever damaged files make them stumble over
        raise InputError(f"{name}: not a readable DICOM file ({type(error).__name__}: {error})") from None
    if not (is_image and "PhotometricInterpretation" in dataset):
        raise InputError(f"{name}: no DICOM file with an image: it does not say its rows, columns and kind of pixels")
    return dataset


def _count_frames(dataset: Any) -> int:
    return int(getattr(dataset, "NumberOfFrames", 1) or 1)


def _choose_frame(dataset: Any, name: str, page: int | None) -> int:
    frame, count = page or 0, _count_frames(dataset)
    if frame >= count:
        raise InputError(f"{name}: {explain_missing_page(frame, count)}")
    return frame


def _decode(file: IO[bytes], name: str, dataset: Any, frame: int) -> np.ndarray:
    """The pixels of a frame as they are stored, colours as RGB."""
    pydicom, pixels = _import(name)
    syntax = dataset.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian)
    file.seek(0)
    try:
        return pixels.pixel_array(file, index=frame, transfer_syntax_uid=syntax)
    except Exception as error:  # its decoders raise whatever damaged files make them stumble over
        told = " ".join(str(error).split())
        if syntax.is_compressed and "missing dependencies" in told:
            raise InputError(
                f"{name}: its pixels are compressed ({syntax.name}), and nothing that decompresses them is installed: "
                f"pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg ({told})"
            ) from None
        raise InputError(f"{name}: the pixels of this DICOM file cannot be read ({told})") from None


def _take_frame_groups_(dataset: Any, frame: int) -> None:
    """Let what an enhanced file says of a frame (slope, window) stand where other files have it."""
    groups = list(getattr(dataset, "SharedFunctionalGroupsSequence", None) or ())[:1]
    groups += list(getattr(dataset, "PerFrameFunctionalGroupsSequence", None) or ())[frame : frame + 1]
    for group in groups:
        for key in _GROUPS:
            for item in getattr(group, key, None) or ():
                dataset.update(item)


def _store_grey(pixels: ModuleType, dataset: Any, values: np.ndarray, *, is_inverted: bool) -> Stored:
    bits = int(dataset.BitsStored)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(dataset.PixelRepresentation) else (0, 2**bits - 1)
    if "PixelPaddingValue" in dataset:  # outside of what was scanned: as dark as what is darkest there
        values = _replace_padding(values, dataset, is_inverted=is_inverted)
    in_units = pixels.apply_modality_lut(values, dataset).astype(np.float64)
    ends = pixels.apply_modality_lut(np.array([low, high], dtype=values.dtype), dataset).astype(np.float64)
    told, apply_told = _find_window(pixels, dataset, in_units)
    return Stored(
        in_units[:, :, None],
        is_inverted=is_inverted,
        is_windowed=True,
        full=(float(ends.min()), float(ends.max())),
        told=told,
        apply_told=apply_told,
    )


def _replace_padding(values: np.ndarray, dataset: Any, *, is_inverted: bool) -> np.ndarray:
    first = int(dataset.PixelPaddingValue)
    last = int(getattr(dataset, "PixelPaddingRangeLimit", first))
    is_padding = (values >= min(first, last)) & (values <= max(first, last))
    if is_padding.all() or not is_padding.any():
        return values
    inside = values[~is_padding]
    return np.where(is_padding, inside.max() if is_inverted else inside.min(), values)


def _find_window(pixels: ModuleType, dataset: Any, values: np.ndarray) -> tuple[tuple[float, float] | None, Any]:
    """The first window of a file: its ends, or what it makes of values where it is no straight line."""
    centre, width = (_first(getattr(dataset, key, None)) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        if not getattr(dataset, "VOILUTSequence", None):
            return None, None
        table = dataset.VOILUTSequence[0]
        highest = 2 ** int(table.LUTDescriptor[2]) - 1
        whole = np.rint(values).astype(np.int64)
        return None, lambda _: pixels.apply_voi(whole, dataset).astype(np.float64)[:, :, None] / highest
    function = str(getattr(dataset, "VOILUTFunction", "") or "LINEAR").upper()
    if function == "SIGMOID":
        return None, lambda stored: 1 / (1 + np.exp(-4 * (stored - centre) / width))
    if function == "LINEAR_EXACT":
        return (centre - width / 2, centre + width / 2), None
    # C.11.2.1.2.1: a width of 1 divides values into black and white
    half = (width - 1) / 2
    return (centre - 0.5 - half, centre - 0.5 + half), None


def _first(value: Any) -> float | None:
    """The first of several values, as files with several windows have them."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
