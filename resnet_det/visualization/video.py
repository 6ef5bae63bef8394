"""Videos of pictures, as browsers and phones play them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from resnet_det.errors import InputError

_TICKS = 30_000  # a second; with it 29.97 frames a second are exact
CODECS = ("libx264", "mpeg4")  # the first that is there: browsers play H.264, but not MPEG-4's older part 2
SUFFIXES = (".mkv", ".mov", ".mp4")


class VideoWriter:
    """Writes BGR pictures to a video file; a context manager that makes the file whole however it is left.

    Why PyAV (supervision installs it): OpenCV's wheels have no encoder for H.264, write MPEG-4 that no browser plays,
    and need 0.4 s for a frame of VP8. Pictures also carry their own times here, which a camera needs.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Args:
            path: its suffix is one of ``SUFFIXES``.

        Raises:
            InputError: it is not, or the file cannot be written.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"--output {path}: videos are written as {', '.join(SUFFIXES)}")
        self.path, self.fps, self.num_frames = path, fps, 0
        self._size: tuple[int, int] | None = None  # width, height
        self._last_tick = -1
        try:
            path.touch()  # PyAV opens it with the first picture only
            self._container = av.open(str(path), "w")
        except OSError as error:
            raise InputError(f"--output {path}: {error.strerror}") from None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Add a picture (H, W, 3) uint8.

        Args:
            picture: of another size than the first it is scaled to that.
            seconds: when it is shown, from the start; if not given, at the pace of ``fps``.
        """
        if self._size is None:
            self._start(picture)
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="bgr24")
        time_s = self.num_frames / self.fps if seconds is None else seconds
        self._last_tick = max(self._last_tick + 1, round(time_s * _TICKS))
        frame.pts, frame.time_base = self._last_tick, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1

    def _start(self, picture: np.ndarray) -> None:
        self._size = (picture.shape[1], picture.shape[0])
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=Fraction(self.fps).limit_denominator(1001))
        self._stream.width, self._stream.height = (side + side % 2 for side in self._size)  # colours have half the size
        self._stream.pix_fmt = "yuv420p"  # what all players take
        self._stream.codec_context.time_base = Fraction(1, _TICKS)
        if codec == "libx264":
            self._stream.options = {"preset": "veryfast", "crf": "20"}
        else:
            self._stream.bit_rate = 12 * self._size[0] * self._size[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._size is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
