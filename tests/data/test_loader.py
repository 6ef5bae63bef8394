"""Loaders whose workers are processes."""

from __future__ import annotations

import subprocess
import sys

AFTER_OPENCV = """
import cv2, numpy
from resnet_det.data.loading.loader import ListLoader
cv2.setNumThreads(4)
cv2.resize(numpy.zeros((2000, 2000, 3), numpy.uint8), (3000, 3000))
print(list(ListLoader([1, 2, 3], num_workers=2)), cv2.getNumThreads())
"""


def test_workers_start_where_opencv_has_threads():
    # In a process of its own, which can be ended where workers wait for threads that were not forked.
    done = subprocess.run([sys.executable, "-c", AFTER_OPENCV], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "[[1], [2], [3]] 4\n"
