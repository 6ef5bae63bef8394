"""Image files as microscopes and scanners write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

HEIGHT, WIDTH = 48, 64


def write_dicom(path: Path, values: np.ndarray, *, window: Any = None, **fields: Any) -> Path:
    """A DICOM file of ``values`` (H, W), (frames, H, W), or with ``SamplesPerPixel`` 3 (H, W, 3).

    Args:
        window: centre and width, or lists of them.
        fields: more of the file's, and of its meta information ``syntax``.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = fields.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    file = Dataset()
    file.file_meta = meta
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    is_colour = fields.get("SamplesPerPixel") == 3
    file.Rows, file.Columns = values.shape[:2] if is_colour else values.shape[-2:]
    if values.ndim == 3 and not is_colour:
        file.NumberOfFrames = len(values)
    bits = 8 * values.dtype.itemsize
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = bits, bits, bits - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    if window is not None:
        file.WindowCenter, file.WindowWidth = window
    for key, value in fields.items():
        setattr(file, key, value)
    file.PixelData = fields.get("PixelData", values.tobytes())
    pydicom.dcmwrite(path, file, enforce_file_format=True)
    return path


def draw_squares(count: int, dtype: type, *, channels: int = 1, seed: int = 0) -> tuple[np.ndarray, list[list[int]]]:
    """Images (count, HEIGHT, WIDTH, channels) with a bright square each, and the boxes x, y, width, height of these."""
    generator = np.random.default_rng(seed)
    highest = np.iinfo(dtype).max
    images = generator.integers(0, highest // 8, (count, HEIGHT, WIDTH, channels)).astype(dtype)
    boxes = []
    for image in images:
        x, y = int(generator.integers(4, WIDTH - 24)), int(generator.integers(4, HEIGHT - 24))
        image[y : y + 20, x : x + 20] += np.array(highest // 2, dtype)
        boxes.append([x, y, 20, 20])
    return images, boxes


def write_annotations(path: Path, names: list[str], boxes: list[list[int]]) -> Path:
    """A COCO file of images with one square each."""
    images = [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(names, 1)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
    path.write_text(json.dumps(content))
    return path


def write_stack(folder: Path) -> tuple[list[str], list[list[int]]]:
    """A grey TIFF stack of 16 bits and three pages; the names of its pages, and their boxes."""
    images, boxes = draw_squares(3, np.uint16)
    tifffile.imwrite(folder / "stack.tif", images[..., 0], photometric="minisblack")
    return [f"stack.tif#{page}" for page in range(3)], boxes


def write_series(folder: Path) -> tuple[list[str], list[list[int]]]:
    """A DICOM series, a file for each slice, in Hounsfield units by its slope and intercept."""
    images, boxes = draw_squares(3, np.uint8)
    for place, image in enumerate(images):
        values = image[..., 0].astype(np.uint16) * 4
        write_dicom(folder / f"{place}.dcm", values, window=(0, 1000), RescaleSlope=2, RescaleIntercept=-1024)
    return [f"{place}.dcm" for place in range(3)], boxes


def write_channels(folder: Path) -> tuple[list[str], list[list[int]]]:
    """TIFF files of four channels of 8 bits, two of them in planes."""
    images, boxes = draw_squares(3, np.uint8, channels=4)
    for place, image in enumerate(images):
        planes = image.transpose(2, 0, 1) if place else image
        layout = "separate" if place else "contig"
        tifffile.imwrite(folder / f"{place}.tif", planes, photometric="minisblack", planarconfig=layout)
    return [f"{place}.tif" for place in range(3)], boxes
