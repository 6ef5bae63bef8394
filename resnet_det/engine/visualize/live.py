"""What a detector finds, as it comes: in a window, or in a single file."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from resnet_det.engine.predictor import Predictor
from resnet_det.engine.visualize.filters import Filter
from resnet_det.engine.visualize.inputs import VIDEO_SUFFIXES, Frames
from resnet_det.engine.visualize.predictions import Summary, pass_over, predict_and_draw, read_images, with_progress
from resnet_det.engine.visualize.window import Window, why_no_window
from resnet_det.errors import InputError
from resnet_det.outputs import check_new_file
from resnet_det.visualization.album import write_image
from resnet_det.visualization.video import VideoWriter

logger = logging.getLogger(__name__)


def draw_to_file(
    predictor: Predictor, source: Path | int, target: Path, *, shown: Filter, max_frames: int | None = None
) -> Summary:
    """Write a picture or video of a single image, video or camera to the file ``target``; see :func:`draw_live`."""
    check_new_file(target)
    if target.suffix.lower() in VIDEO_SUFFIXES:
        return draw_live(predictor, source, target, shown=shown, max_frames=max_frames)
    summary = Summary()
    for _, image in read_images([Path(source)], summary):
        start = time.perf_counter()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_image(target, predict_and_draw(predictor, [image], shown)[0].picture)
        summary.written, summary.num_images = [target], 1
        summary.seconds = time.perf_counter() - start
    return summary


def draw_live(
    predictor: Predictor, source: Path | int, target: Path | None, *, shown: Filter, max_frames: int | None = None
) -> Summary:
    """Frames of a video or camera, one after the other, in a window where there is a screen, and in the video file
    ``target`` if one is given. Ctrl-C ends it, too.

    Raises:
        InputError: it cannot be opened; or there is neither a screen nor a file.
    """
    if target is not None:
        check_new_file(target)
    summary = Summary()
    frames = Frames(source)
    window = Window(f"resnet_det {source}") if target is None or not why_no_window() else None
    start = time.perf_counter()
    with ExitStack() as stack:
        if window is not None:
            stack.callback(window.close)
        writer = None
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            writer = stack.enter_context(VideoWriter(target, frames.fps))
        try:
            for frame in with_progress(frames, str(source), max_frames):
                picture = predict_and_draw(predictor, [frame], shown)[0].picture
                summary.num_images += 1
                if writer is not None:  # a camera does not wait: its frames are shown when they came
                    writer.write(picture, time.perf_counter() - start if isinstance(source, int) else None)
                if window is not None and not window.show(picture, wait=False):
                    break
        except KeyboardInterrupt:
            logger.info("Ended by Ctrl-C")
    summary.seconds = time.perf_counter() - start
    if summary.num_images == 0:
        raise InputError(f"{source}: no frame of it can be read")
    summary.written = [target] if target is not None else []
    return summary


def show_in_window(
    predictor: Predictor,
    images: Sequence[Path],
    videos: Sequence[Path],
    *,
    shown: Filter,
    max_frames: int | None = None,
) -> Summary:
    """Show images, one for each key pressed, and videos in a window.

    Raises:
        InputError: there is no screen.
    """
    summary, window = Summary(), Window("resnet_det")
    start = time.perf_counter()
    for _, image in read_images(images, summary):
        summary.num_images += 1
        if not window.show(predict_and_draw(predictor, [image], shown)[0].picture, wait=True):
            break
    window.close()
    for path in videos:
        try:
            summary.num_images += draw_live(predictor, path, None, shown=shown, max_frames=max_frames).num_images
        except InputError as error:
            pass_over(path, error, summary)
    summary.seconds = time.perf_counter() - start
    return summary
