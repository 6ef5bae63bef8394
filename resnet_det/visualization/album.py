"""A folder of pictures and videos, with thumbnails and a page to look through them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from resnet_det.errors import InputError
from resnet_det.outputs import OutputFolder
from resnet_det.visualization.gallery import Kind
from resnet_det.visualization.page import render_page

THUMBNAIL_PX = 480  # the longer side
THUMBNAIL_FOLDER = "thumbnails"
PAGE_NAME = "gallery.html"
PICTURE_FORMATS = ("png", "jpg")  # the first is lossless, the second about a tenth of its size for photos


@dataclass(frozen=True)
class Entry:
    """A picture or video on the page.

    Attributes:
        counts: of the objects shown, by class.
        best_score: of them; None where there are no scores.
        note: what else is to be said.
        shape: width over height.
    """

    path: Path
    thumbnail: Path
    title: str
    counts: Mapping[str, int]
    best_score: float | None
    note: str
    is_video: bool
    shape: float

    @property
    def num_objects(self) -> int:
        return sum(self.counts.values())


class Album:
    """Writes pictures to a folder, and ``gallery.html`` beside them."""

    def __init__(self, folder: Path, picture_format: str = PICTURE_FORMATS[0]) -> None:
        """Args:
            folder: made if it is not there. Files that are in it stay; pictures get other names than theirs.
            picture_format: one of :data:`PICTURE_FORMATS`.

        Raises:
            InputError: it cannot be made, or has a page or thumbnails already.
        """
        self.folder = folder
        self.picture_format = picture_format
        self.entries: list[Entry] = []
        self.files = OutputFolder(folder, [PAGE_NAME, THUMBNAIL_FOLDER])
        self.thumbnails = OutputFolder(folder / THUMBNAIL_FOLDER)

    @property
    def paths(self) -> list[Path]:
        """The pictures and videos in the order in which they were added."""
        return [entry.path for entry in self.entries]

    def new_path(self, stem: str, suffix: str) -> Path:
        """``stem`` with ``suffix`` in the folder, or ``stem``-2, ... if there is a file of that name."""
        return self.files.claim_free(stem, suffix)

    def add_picture(
        self,
        picture: np.ndarray,
        stem: str,
        *,
        title: str,
        counts: Mapping[str, int],
        best_score: float | None = None,
        note: str = "",
    ) -> Path:
        """Write a BGR picture (H, W, 3) uint8 in the album's format, and its thumbnail.

        Args:
            stem: of the file's name; pictures of the same name are numbered.

        Raises:
            InputError: it cannot be written.
        """
        path = self.new_path(stem, f".{self.picture_format}")
        write_image(path, picture)
        self._add(path, picture, title, counts, best_score, note, is_video=False)
        return path

    def add_video(self, path: Path, still: np.ndarray, *, title: str, counts: Mapping[str, int], note: str) -> None:
        """Take a video that was written to ``new_path`` into the page, with one of its frames as thumbnail."""
        self._add(path, still, title, counts, None, note, is_video=True)

    def _add(
        self,
        path: Path,
        picture: np.ndarray,
        title: str,
        counts: Mapping[str, int],
        best_score: float | None,
        note: str,
        *,
        is_video: bool,
    ) -> None:
        scale = min(1.0, THUMBNAIL_PX / max(picture.shape[:2]))
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        thumbnail = self.thumbnails.claim_free(path.stem, ".jpg")
        write_image(thumbnail, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        self.entries.append(Entry(path, thumbnail, title, dict(counts), best_score, note, is_video, size[0] / size[1]))

    def write_page(self, title: str, subtitle: str = "", *, kinds: Mapping[str, Kind] | None = None) -> Path:
        """Write the page, and return where it is.

        Args:
            kinds: of the boxes, if their colours tell it.
        """
        classes = sorted({name for entry in self.entries for name in entry.counts})
        html = render_page(
            "resnet_det.visualization",
            "gallery.html",
            title=title,
            subtitle=subtitle,
            entries=self.entries,
            classes=classes,
            kinds=kinds or {},
            shape=min(3.0, max(1.0, statistics.median(entry.shape for entry in self.entries))) if self.entries else 1.0,
            link=lambda path: quote(path.relative_to(self.folder).as_posix()),
        )
        path = self.files.claim(PAGE_NAME)
        path.write_text(html, encoding="utf-8")
        return path


def write_image(path: Path, picture: np.ndarray) -> None:
    """Write a BGR picture in the format of the path's suffix.

    Raises:
        InputError: it cannot be written.
    """
    try:
        is_written = cv2.imwrite(str(path), picture)
    except cv2.error:  # no such format
        is_written = False
    if not is_written:
        raise InputError(f"--output {path}: cannot be written")
