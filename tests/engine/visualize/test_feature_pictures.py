"""Pictures of feature maps and of what raises the score of a detection."""

from __future__ import annotations

import cv2
import pytest

from resnet_det.errors import InputError

ALL = ("--confidence-threshold", "0")


def test_levels_and_detections_become_pictures(run, folder, weights):
    (folder / "b.png").write_bytes(b"no image")
    summary = run(
        "--features", "--input", folder / "a.jpg", folder / "b.png", *ALL, "--num-detections", "2", opts=weights
    )
    assert [path.name for path in summary.written] == ["a-features.png", "a-detection-1.png", "a-detection-2.png"]
    assert [path.name for path in summary.unreadable] == ["b.png"]
    # The image, res2 to res5 and p2 to p6 in two rows; the detection and two maps in one.
    assert cv2.imread(str(summary.written[0])).shape == (2 * (280 + 28) + 8, 5 * 360 + 4 * 8, 3)
    assert cv2.imread(str(summary.written[1])).shape == (280 + 28, 3 * 360 + 2 * 8, 3)
    page = summary.page.read_text()
    assert "a.jpg: features" in page
    assert page.count("the box is ") == 2


def test_the_level_can_be_chosen(run, folder, weights):
    args = ["--features", "--input", folder / "a.jpg", *ALL, "--num-detections", "1", "--level"]
    assert " by res5;" in run(*args, "res5", opts=weights).page.read_text()
    with pytest.raises(InputError, match="--level res9: no such feature map; there are res2, res3"):
        run(*args, "res9", opts=weights)
