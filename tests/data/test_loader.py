"""Which images make a batch, what becomes of those that cannot be used, and the processes that load them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from resnet_det.data.loading.bad_images import MAX_BAD_IMAGES, collect_skipped
from resnet_det.data.loading.loader import (
    WINDOW,
    TrainBatchSampler,
    TrainDataset,
    make_train_loader,
)
from resnet_det.errors import InputError


def make_sampler(num_wide=97, num_tall=3, **options):
    groups = [0] * num_wide + [1] * num_tall
    options = {"batch_size": 16, "seed": 5, "groups": groups, **options}
    return TrainBatchSampler(num_wide + num_tall, **options)


def indices(batch):
    return [index for index, _ in batch]


@pytest.mark.parametrize("accumulate", [1, 4])
def test_no_orientation_waits_for_a_batch_of_its_own(accumulate):
    """97 wide and 3 tall images: buckets of 16 tall images are full after five epochs, of 16 x 4 after twenty."""
    epochs = 32
    batches = [indices(batch) for batch in islice(make_sampler(accumulate=accumulate), 100 * epochs // 16)]
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts.values()) <= {epochs - 1, epochs, epochs + 1}
    assert len(counts) == 100
    first_tall = next(number for number, batch in enumerate(batches) if max(batch) >= 97)
    assert first_tall < WINDOW
    for start in range(0, len(batches) - WINDOW, WINDOW):
        mixed = [batch for batch in batches[start : start + WINDOW] if min(batch) < 97 <= max(batch)]
        assert len(mixed) <= 1


def test_batches_are_of_one_orientation_and_steps_of_both():
    sampler = make_sampler(64, 64, accumulate=4)
    steps = [[{index >= 64 for index in indices(batch)} for batch in step] for step in islice(sampler._steps(), 32)]
    assert sum(len(kinds) == 1 for step in steps for kinds in step) >= 32 * 4 * (WINDOW - 1) / WINDOW
    assert sum(len(set.union(*step)) == 2 for step in steps) > 24


@pytest.mark.parametrize("grouped", [False, True])
def test_processes_share_the_batches_of_one(grouped):
    options = {} if grouped else {"groups": None}
    whole = list(islice(make_sampler(60, 40, **options), 40))
    shares = [list(islice(make_sampler(60, 40, rank=rank, world_size=4, **options), 40)) for rank in range(4)]
    assert [[image for share in shares for image in share[number]] for number in range(40)] == whole
    assert all(len(batch) == 4 for share in shares for batch in share)


@pytest.mark.parametrize("start", [1, 7, 23])
def test_a_resumed_run_has_the_batches_that_were_left(start):
    whole = list(islice(make_sampler(60, 40, accumulate=2), 100))
    assert list(islice(make_sampler(60, 40, accumulate=2, start_step=start), 100 - 2 * start)) == whole[2 * start :]
    positions = [position for batch in whole for _, position in batch]
    assert len(set(positions)) == len(positions)


class Mapper:
    """Raises ``errors[file_name]``."""

    def __init__(self, **errors):
        self.errors, self.calls = errors, 0

    def __call__(self, entry):
        self.calls += 1
        if entry["file_name"] in self.errors:
            raise self.errors[entry["file_name"]]
        return {"name": entry["file_name"]}


def make_dataset(mapper, names="abc", on_bad_image="raise"):
    dicts = [{"file_name": name, "width": 4, "height": 3} for name in names]
    return TrainDataset(dicts, mapper, seed=1, on_bad_image=on_bad_image)


@pytest.mark.parametrize("error", [OSError("truncated"), Image.DecompressionBombError("large"), InputError("no mask")])
def test_a_bad_image_is_told_or_left_out(error):
    with pytest.raises(InputError, match=rf"a: {type(error).__name__}: {error}\. .*ON_BAD_IMAGE skip"):
        collect_skipped([make_dataset(Mapper(a=error))[0, 0]])
    batch = [make_dataset(Mapper(a=error), on_bad_image="skip")[0, 0]]
    assert collect_skipped(batch) == [("a", f"{type(error).__name__}: {error}")]
    assert batch == [{"name": "b"}]


def test_a_bug_in_a_mapper_is_no_bad_image():
    with pytest.raises(KeyError, match="gt_masks") as caught:
        make_dataset(Mapper(a=KeyError("gt_masks")))[0, 0]
    assert caught.value.__notes__ == ["of a"]
    assert any(entry.name == "__call__" for entry in caught.traceback)
    with pytest.raises(KeyError):
        make_dataset(Mapper(a=KeyError("gt_masks")), on_bad_image="skip")[0, 0]


def test_not_all_of_a_large_set_is_tried():
    names = [f"image{number}" for number in range(3 * MAX_BAD_IMAGES)]
    mapper = Mapper(**{name: OSError("gone") for name in names})
    with pytest.raises(InputError, match="OSError: gone"):
        collect_skipped([make_dataset(mapper, names, "skip")[5, 0]])
    assert mapper.calls == MAX_BAD_IMAGES


def test_a_mappers_bug_in_a_worker_is_told_with_its_traceback():
    loader = make_train_loader(
        [{"file_name": "a", "width": 4, "height": 3}], Mapper(a=KeyError("gt_masks")), total_batch_size=1, num_workers=1
    )
    with pytest.raises(KeyError) as caught:
        next(iter(loader))
    assert "in __call__" in str(caught.value)


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


WORKERS = """
import time
from resnet_det.data.loading.loader import make_train_loader
data = [{"file_name": str(number), "width": 4, "height": 3} for number in range(100)]
loader = iter(make_train_loader(data, dict, total_batch_size=2, num_workers=2))
next(loader)
print("ready", flush=True)
time.sleep(600)
"""


def test_workers_end_with_the_process_that_reads_from_them():
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS], stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert process.stdout.readline() == b"ready\n"
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() < deadline, "workers are left"
        time.sleep(0.1)
