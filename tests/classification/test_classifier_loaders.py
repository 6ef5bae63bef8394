"""Batches: the same for any number of processes and workers, and what is in them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from labelled_images import write_images
from PIL import Image

from resnet_det.classification import build_test_loader, build_train_loader, load_images
from resnet_det.data.loading.bad_images import SKIPPED
from resnet_det.data.loading.loader import TrainBatchSampler
from resnet_det.errors import InputError

ON_FILES = ["RESNET_DET.CLASSIFICATION.MEMORY_MIB", 0]
STRONG = ["RESNET_DET.CLASSIFICATION.CROP", "resized", "RESNET_DET.CLASSIFICATION.AUTO_AUGMENT", "trivial"]
STRONG += ["RESNET_DET.CLASSIFICATION.ERASING", 0.5]


def first_batches(cfg, count=4, **options):
    loader = build_train_loader(cfg, load_images(cfg, "train"), seed=5, **options)
    return [batch[0] for batch in itertools.islice(loader, count)]


def assert_same(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine["image_id"] == theirs["image_id"]
        assert torch.equal(mine["image"], theirs["image"])
        assert torch.equal(mine["label"], theirs["label"])


@pytest.mark.parametrize("opts", [[], STRONG, [*ON_FILES, *STRONG]], ids=["memory", "transforms", "files"])
def test_a_later_start_and_more_processes_give_the_same_batches(make_cfg, monkeypatch, opts):
    cfg = make_cfg(*opts)
    whole = first_batches(cfg, 6)
    assert_same(whole[4:], first_batches(cfg, 2, start_step=4))
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        parts.append(first_batches(cfg, 6))
    for one, *halves in zip(whole, *parts, strict=True):
        assert torch.equal(one["image"], torch.cat([half["image"] for half in halves]))
        assert one["image_id"] == [name for half in halves for name in half["image_id"]]


def test_workers_do_not_change_the_images(make_cfg):
    batches = [first_batches(make_cfg(*ON_FILES, *STRONG, "DATALOADER.NUM_WORKERS", workers)) for workers in (0, 2)]
    assert_same(*batches)


def test_an_epoch_has_each_image_once_with_its_label(make_cfg, photos):
    batches = first_batches(make_cfg("SOLVER.IMS_PER_BATCH", 6), 3)
    names = [name for batch in batches for name in batch["image_id"]]
    assert len(set(names)) == 18
    labels = [int(label) for batch in batches for label in batch["label"]]
    classes = sorted(path.name for path in (photos / "train").iterdir())
    assert all(name.split("/")[-2] == classes[label] for name, label in zip(names, labels, strict=True))


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
def test_crops_are_windows_of_the_padded_image_turned_or_not(make_cfg, image_format):
    mean = [17.0] if image_format == "L" else [10.0, 20.0, 30.0]
    std = [1.0] * len(mean)
    cfg = make_cfg("INPUT.FORMAT", image_format, "MODEL.PIXEL_MEAN", mean, "MODEL.PIXEL_STD", std)
    seen = set()
    for batch in first_batches(cfg, 12):
        for name, image in zip(batch["image_id"], batch["image"], strict=True):
            pixels = np.asarray(Image.open(name))
            channels = {"RGB": [0, 1, 2], "BGR": [2, 1, 0]}.get(image_format)
            original = pixels[..., channels] if channels else np.asarray(Image.open(name).convert("L"))[..., None]
            padded = np.empty((24, 24, len(mean)))
            padded[:] = mean
            padded[4:20, 4:20] = original
            windows = {
                (top, left, flip): np.flip(padded[top : top + 16, left : left + 16], 1) if flip
                else padded[top : top + 16, left : left + 16]
                for top in range(9) for left in range(9) for flip in (False, True)
            }  # fmt: skip
            shown = image.permute(1, 2, 0).numpy()
            most = 1 if image_format == "L" else 0  # OpenCV and Pillow round grey otherwise
            found = [place for place, window in windows.items() if np.abs(window - shown).max() <= most]
            assert len(found) == 1
            seen.add(found[0])
    assert {place[2] for place in seen} == {False, True}
    assert len({place[:2] for place in seen}) > 20


def test_both_ways_to_augment_draw_from_the_same_images(make_cfg):
    """In memory whole batches are cropped, of files one image at a time: all windows alike."""
    fast = first_batches(make_cfg("RESNET_DET.CLASSIFICATION.FLIP", 0.0, "RESNET_DET.CLASSIFICATION.PADDING", 0))
    slow = first_batches(
        make_cfg(*ON_FILES, "RESNET_DET.CLASSIFICATION.FLIP", 0.0, "RESNET_DET.CLASSIFICATION.PADDING", 0)
    )
    assert_same(fast, slow)


def test_repeated_images_follow_each_other_and_are_augmented_anew(make_cfg):
    batches = first_batches(make_cfg("RESNET_DET.CLASSIFICATION.REPEATS", 4), 8)
    for batch in batches[:4]:
        assert len(set(batch["image_id"])) == 1
    assert any(not torch.equal(batch["image"][0], batch["image"][1]) for batch in batches)
    names = [name for batch in batches for name in batch["image_id"]]
    assert len(set(names[:18])) == 5, "18 images an epoch, of five in a row"


@pytest.mark.parametrize("options", [{}, {"groups": [0, 1] * 5}, {"repeat_factors": [1.5] * 10}, {"repeats": 3}])
def test_steps_that_are_left_out_change_nothing_of_the_rest(options):
    def take(start, count):
        sampler = TrainBatchSampler(10, batch_size=4, seed=2, accumulate=3, start_step=start, **options)
        return list(itertools.islice(iter(sampler), count))

    assert take(0, 40)[21:] == take(7, 19)


@pytest.mark.parametrize(
    "opts", [[], ON_FILES, [*ON_FILES, "DATALOADER.NUM_WORKERS", 1]], ids=["memory", "files", "workers"]
)
def test_an_image_that_cannot_be_read_is_named(make_cfg, tmp_path, opts):
    write_images(tmp_path / "train")
    bad = tmp_path / "train" / "bee" / "0.png"
    bad.write_bytes(bad.read_bytes()[:60])
    data = ["DATASETS.TRAIN", (str(tmp_path / "train"),), "DATASETS.TEST", (str(tmp_path / "train"),)]
    cfg = make_cfg(*opts, *data)
    with pytest.raises(InputError, match=r"^\S+bee/0\.png: not a readable image.*ON_BAD_IMAGE skip"):
        first_batches(cfg, 5)
    with pytest.raises(InputError, match=r"^\S+bee/0\.png: not a readable image.*mend this one, or take it away$"):
        list(build_test_loader(cfg, load_images(cfg, "test")))
    cfg.RESNET_DET.DATA.ON_BAD_IMAGE = "skip"
    images = load_images(cfg, "train")
    batches = [batch[0] for batch in itertools.islice(build_train_loader(cfg, images, seed=5), 5)]
    notes = [*images.problems.values(), *(note for batch in batches for note in batch.get(SKIPPED, ()))]
    assert {name for name, _ in notes} == {str(bad)}
    assert all(len(batch["label"]) == 4 for batch in batches)


def test_tests_show_the_middle_of_the_resized_image(make_cfg, tmp_path):
    for size in ((40, 60), (60, 40)):
        write_images(tmp_path / str(size[0]), ["a", "b"], per_class=1, size=size)
        root = str(tmp_path / str(size[0]))
        cfg = make_cfg("DATASETS.TEST", (root,), "RESNET_DET.CLASSIFICATION.RESIZE_TEST", 20)
        (batch,) = build_test_loader(cfg, load_images(cfg, "test"))
        for name, image in zip(batch[0]["image_id"], batch[0]["image"], strict=True):
            resized = Image.open(name).resize((20 * size[1] // min(size), 20 * size[0] // min(size)), Image.BILINEAR)
            left, top = (resized.width - 16) // 2, (resized.height - 16) // 2
            expected = np.asarray(resized.crop((left, top, left + 16, top + 16)), dtype=int)
            assert np.abs(expected - image.permute(1, 2, 0).numpy()).max() <= 1


def test_a_limit_takes_images_from_all_over_the_set(make_cfg):
    cfg = make_cfg("RESNET_DET.TEST.MAX_IMAGES", 6, "RESNET_DET.TEST.BATCH_SIZE", 4)
    batches = [batch[0] for batch in build_test_loader(cfg, load_images(cfg, "test"))]
    assert [len(batch["label"]) for batch in batches] == [4, 2]
    assert [int(label) for batch in batches for label in batch["label"]] == list(range(6))
