"""Folders, lists, patterns and tar shards become units; what is in them is read in order."""

from __future__ import annotations

import os
import tarfile
import threading
import time

import numpy as np
import pytest

from resnet_det.engine.predict import reading
from resnet_det.engine.predict.inputs import PathUnit, TarUnit, list_inputs
from resnet_det.engine.predict.reading import Reader
from resnet_det.errors import InputError


def paths_of(listing):
    return [path for unit in listing.units for path in (unit.paths if isinstance(unit, PathUnit) else [unit.path])]


@pytest.fixture
def read():
    reader = Reader(2, 4)
    yield lambda unit: list(reader.read(unit))
    reader.close()


def test_a_folder_is_searched_in_order_and_cut_into_units(tmp_path):
    names = ["a.jpg", "b/1.PNG", "b/2.txt", "b/c/3.webp", "b.jpg", "notes.md", os.fsdecode(b"z\xff.png")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "circle").symlink_to(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path / "b" / "c")
    listing = list_inputs([str(tmp_path)], 2)
    expected = ["a.jpg", "b/1.PNG", "b/c/3.webp", "b.jpg", "other/3.webp", os.fsdecode(b"z\xff.png")]
    assert paths_of(listing) == [str(tmp_path / name) for name in expected]
    assert [unit.num_images for unit in listing.units] == [2, 2, 2]
    assert (listing.num_images, listing.num_shards, listing.num_others) == (6, 0, 2)
    assert list_inputs([str(tmp_path)], 3).sha256 == listing.sha256
    (tmp_path / "a.jpg").rename(tmp_path / "a2.jpg")
    assert list_inputs([str(tmp_path)], 2).sha256 != listing.sha256


def test_lists_ranges_patterns_and_tar_shards_go_together(tmp_path, write_tar, encode):
    for number in range(3):
        write_tar(tmp_path / f"data-{number:02d}.tar", {"x.png": encode()})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "some.txt").write_text(
        f"\ufeffa.jpg\r\n\n/abs/b.png\nsub/c.gif \nlabels.csv\n{tmp_path}/x.jpg\n"
    )
    for name in ("x.jpg", "y.jpg", "{0..1}.jpg"):
        (tmp_path / name).touch()
    inputs = ["lists/some.txt", "data-{00..01}.tar", "*.jpg", "data-*.tar", "{0..1}.jpg"]
    listing = list_inputs([str(tmp_path / name) for name in inputs], 100)
    first, second, third, rest = listing.units
    assert [first.path, second.path, third.path] == [str(tmp_path / f"data-{n:02d}.tar") for n in range(3)]
    in_list = [str(tmp_path / "lists/a.jpg"), "/abs/b.png", str(tmp_path / "lists/sub/c.gif"), str(tmp_path / "x.jpg")]
    assert rest.paths == [*in_list, str(tmp_path / "y.jpg"), str(tmp_path / "{0..1}.jpg")]
    assert (listing.num_others, listing.num_repeated) == (1, 4)  # x.jpg, two shards, {0..1}.jpg


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no.jpg", "no.jpg: no such file or folder"),
        ("data-{00..03}.tar", r"data-02.tar: no such file or folder \(of .*data-\{00..03\}.tar\)"),
        ("data-{3..1}.tar", "{3..1} begins after its end"),
        ("*.png", r"\*.png: no such file"),
        ("empty", "no images and no tar shards there"),
        ("only.txt", "no images and no tar shards there"),
    ],
)
def test_an_input_that_is_not_there_is_named(tmp_path, text, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "only.txt").write_text("a.csv\n")
    for number in range(2):
        (tmp_path / f"data-{number:02d}.tar").touch()
    with pytest.raises(InputError, match=message):
        list_inputs([str(tmp_path / text)], 10)


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz")])
def test_members_of_a_tar_file_are_read_in_order(tmp_path, write_tar, encode, read, suffix, mode):
    members = {"b.png": encode(5), "b.json": b"{}", "d/a.jpg": encode(9, suffix=".jpg"), "c.png": b"no image"}
    path = write_tar(tmp_path / f"x{suffix}", members, mode)
    items = read(TarUnit(str(path), 0))
    assert [item.file_name for item in items] == list(members)
    assert {item.shard for item in items} == {str(path)}
    assert [item.is_other for item in items] == [False, True, False, False]
    np.testing.assert_array_equal(items[0].image, np.full((10, 12, 3), (5, 0, 255), np.uint8))
    assert items[2].image.shape == (10, 12, 3)
    assert (items[3].image, items[3].error) == (None, "not a readable image")


@pytest.mark.parametrize("place", ["data", "header", "noise", "mark"])
def test_a_tar_file_that_is_cut_off_is_told(tmp_path, write_tar, encode, read, place):
    """Of Python's tarfile some of these end a file as if it were whole."""
    data = encode(4, size=(40, 50))
    members = {f"{i}.png": data for i in range(4)}
    path = write_tar(tmp_path / "x.tar", members)
    whole = path.read_bytes()
    size = 512 + -(-len(data) // 512) * 512  # of a member
    cut = {"data": 2 * size + 600, "header": 2 * size + 100, "mark": 4 * size}.get(place)
    path.write_bytes(whole[:cut] if cut else whole[: 2 * size] + b"\x07" * 512 + whole[2 * size + 512 :])
    items = read(TarUnit(str(path), 0))
    read_names = list(members)[: 4 if place == "mark" else 2]
    assert [item.file_name for item in items] == [*read_names, ""]
    assert all(item.image is not None for item in items[:-1])
    assert items[-1].error.startswith("the tar file is damaged, or cut off, here: ")


def test_links_in_a_tar_file_are_told(tmp_path, encode, read):
    (tmp_path / "a.png").write_bytes(encode())
    os.link(tmp_path / "a.png", tmp_path / "b.png")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.add(tmp_path / name, name)
    first, second = read(TarUnit(str(tmp_path / "x.tar"), 0))
    assert (first.file_name, first.error) == ("a.png", None)
    assert (second.file_name, second.error) == ("b.png", "a link in the tar file, which is not followed")


def test_a_shard_that_is_no_tar_file_is_told(tmp_path, read):
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b not gzip")
    (item,) = read(TarUnit(str(tmp_path / "x.tar.gz"), 0))
    assert (item.file_name, item.shard) == ("", str(tmp_path / "x.tar.gz"))
    assert "the tar file is damaged" in item.error


def test_images_that_cannot_be_read_say_why(tmp_path, write_images, read):
    (good,) = write_images(1)
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "folder.jpg").mkdir()
    names = ["gone.jpg", "text.jpg", "folder.jpg"]
    items = read(PathUnit.of([good, *(str(tmp_path / name) for name in names)]))
    assert [item.error for item in items[:3]] == [None, "no such file", "not a readable image"]
    assert "directory" in items[3].error


def test_no_more_images_are_read_ahead_than_asked_for(write_images, monkeypatch):
    started, lock = [], threading.Lock()

    def decode(item):
        with lock:
            started.append(item.file_name)
        return item

    monkeypatch.setattr(reading, "decode", decode)
    reader = Reader(2, 3)
    unit = PathUnit.of(write_images(30))
    items = reader.read(unit)
    next(items)
    time.sleep(0.1)
    assert len(started) <= 1 + 3 + 1  # one is taken, three wait, one waits to get in
    items.close()
    reader.close()
