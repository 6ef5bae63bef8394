"""Videos: sizes, times, formats."""

from __future__ import annotations

import av
import numpy as np
import pytest

from resnet_det.errors import InputError
from resnet_det.visualization.video import VideoWriter


def read(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="bgr24") for frame in frames], [float(frame.time) for frame in frames]


def test_odd_sizes_are_filled_up_and_colours_stay(tmp_path):
    picture = np.full((61, 93, 3), (200, 120, 30), dtype=np.uint8)
    picture[:30, :40] = (20, 220, 240)
    with VideoWriter(tmp_path / "a.mp4", 30000 / 1001) as writer:
        for _ in range(5):
            writer.write(picture)
        writer.write(picture[:30, :40])  # of another size: scaled
    pictures, times = read(tmp_path / "a.mp4")
    assert [p.shape for p in pictures] == [(62, 94, 3)] * 6
    assert np.abs(pictures[0][:61, :93].astype(int) - picture).mean() < 6
    assert np.abs(pictures[5][30, 45].astype(int) - (20, 220, 240)).max() < 25
    assert times == pytest.approx(np.arange(6) * 1001 / 30000, abs=1e-4)


def test_frames_of_a_camera_are_shown_when_they_came(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for seconds in (0.0, 0.5, 0.5, 1.25):
            writer.write(np.zeros((32, 32, 3), np.uint8), seconds)
    assert read(tmp_path / "a.mp4")[1] == pytest.approx([0, 0.5, 0.5, 1.25], abs=1e-3)


def test_what_was_written_is_whole_when_something_goes_wrong(tmp_path):
    def write_and_stop():
        with VideoWriter(tmp_path / "a.mkv", 5) as writer:
            writer.write(np.zeros((32, 32, 3), np.uint8))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop()
    assert len(read(tmp_path / "a.mkv")[0]) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.gif", r"a.gif: videos are written as .mkv, .mov, .mp4"), ("no/a.mp4", "a.mp4: No such file or directory")],
)
def test_wrong_files_are_named(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        VideoWriter(tmp_path / name, 25)
