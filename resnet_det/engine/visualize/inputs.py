"""What pictures are made of: image files, video files and cameras."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.errors import InputError
from resnet_det.images.pages import find_file, list_pages, split_page

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
DEFAULT_FPS = 25.0  # of videos and cameras that do not tell


def find_inputs(paths: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """Images and videos named by ``paths``: files, folders (searched through) and glob patterns, each once.

    A file that is named itself is an image unless its suffix is that of a video; ``stack.tif#3`` is a page of one.

    Raises:
        InputError: a path names neither.
    """
    found: list[Path] = []
    for path in paths:
        expanded = os.path.expanduser(path)
        is_there = os.path.exists(split_page(expanded)[0])  # a name may have brackets in it
        matches = [Path(expanded)] if is_there else []
        matches = matches or [Path(match) for match in sorted(glob.glob(expanded, recursive=True))] or [Path(path)]
        for match in matches:
            if match.is_dir():
                found += _search(match)
            elif find_file(match).is_file():
                found.append(match)
            else:
                raise InputError(f"--input {path}: no such file or folder")
    found = list(dict.fromkeys(found))
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    return [path for path in found if path not in set(videos)], videos


def name_pages(images: Iterable[Path]) -> list[Path]:
    """The images, with each page of a stack in its place. Files that are damaged stay: reading them says so."""
    found: list[Path] = []
    for path in images:
        try:
            found += map(Path, list_pages(path))
        except InputError:
            found.append(path)
    return found


def _search(folder: Path) -> list[Path]:
    known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    inside = sorted(file for file in folder.rglob("*") if file.suffix.lower() in known and file.is_file())
    if not inside:
        raise InputError(f"--input {folder}: no images or videos in this folder (looked for {', '.join(known)})")
    return inside


class Frames:
    """The frames of a video file or camera, (H, W, 3) uint8 in BGR order, one after the other.

    Attributes:
        count: as the file tells, which may be wrong; 0 where it does not, and of cameras.
        fps: frames a second.
    """

    def __init__(self, source: Path | int) -> None:
        """Args:
            source: a file, or the number of a camera.

        Raises:
            InputError: it cannot be opened.
        """
        self.source = source
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            if isinstance(source, int):
                raise InputError(f"--webcam {source}: no camera of this number can be opened")
            raise InputError(f"{source}: not a readable video")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        self.count = 0 if isinstance(source, int) else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if isinstance(source, int):
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the latest frame, not one that has waited

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while True:
                is_read, frame = self._capture.read()
                if not is_read:
                    return
                yield frame
        finally:
            self._capture.release()
