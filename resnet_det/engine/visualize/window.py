"""Pictures in a window, where there is a screen."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from resnet_det.errors import InputError

_QUIT_KEYS = (ord("q"), 27)  # 27: Escape


def why_no_window() -> str:
    """Why pictures cannot be shown in a window here; empty if they can.

    Asked beforehand, as OpenCV's Qt ends the whole process where there is no screen.
    """
    if not cv2.currentUIFramework():
        return "this OpenCV is built without windows (opencv-python-headless)"
    if sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
        return "there is no screen (DISPLAY is not set)"
    return ""


class Window:
    """A window that shows one picture after the other."""

    def __init__(self, title: str) -> None:
        """
        Raises:
            InputError: windows cannot be shown here.
        """
        reason = why_no_window()
        if reason:
            raise InputError(f"no window can be shown, as {reason}: give --output to write files")
        self.title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)

    def show(self, picture: np.ndarray, *, wait: bool) -> bool:
        """Show a BGR picture, with ``wait`` until a key is pressed.

        Returns:
            Whether to go on: not after q, Escape, or when the window was closed.
        """
        cv2.imshow(self.title, picture)
        key = cv2.waitKey(0 if wait else 1) & 0xFF
        return key not in _QUIT_KEYS and cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1

    def close(self) -> None:
        cv2.destroyWindow(self.title)
