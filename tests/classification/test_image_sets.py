"""Images by class: what is found, in which order, and what is said of what cannot be used."""

from __future__ import annotations

import io
import pickle
import tarfile

import numpy as np
import pytest
import torchvision
from labelled_images import CLASSES, write_images
from PIL import Image

from resnet_det.classification import load_image_set, memory
from resnet_det.classification.image_sets import find_splits
from resnet_det.classification.memory import keep_in_memory
from resnet_det.errors import InputError


def read_all(images):
    return [images.read(entry) for entry in images.dicts]


def add(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_a_folder_is_torchvisions_image_folder(photos):
    images, theirs = load_image_set(photos / "train"), torchvision.datasets.ImageFolder(str(photos / "train"))
    assert list(images.classes) == theirs.classes
    assert [(entry["file_name"], entry["label"]) for entry in images.dicts] == theirs.samples
    assert all(
        np.array_equal(mine, np.asarray(image)) for mine, (image, _) in zip(read_all(images), theirs, strict=True)
    )


def test_a_tar_file_of_classes_is_the_folder_of_them(photos, tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(photos / "train", "./train")
        archive.addfile(tarfile.TarInfo(f"./train/{CLASSES[0]}/._0.png"))  # as macOS packs them
    folder, packed = load_image_set(photos / "train"), load_image_set(tmp_path / "train.tar")
    assert packed.classes == folder.classes
    order = {entry["file_name"].rpartition("train/")[2]: entry["place"] for entry in folder.dicts}
    for entry, image in zip(packed.dicts, read_all(packed), strict=True):
        twin = folder.dicts[order[entry["file_name"].rpartition("train/")[2]]]
        assert entry["label"] == twin["label"]
        assert np.array_equal(image, folder.read(twin))


def test_shards_with_classes_beside_the_images(tmp_path):
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for number in (3, 11, 2):
                add(archive, f"{number}.cls", str(number).encode())
                add(archive, f"{number}.png", png(10 * number + shard))
                add(archive, f"{number}.json", b"{}")
    images = load_image_set(tmp_path)
    assert images.classes == ("11", "2", "3"), "sorted as text, as folders are"
    assert images.labels.tolist() == [2, 0, 1] * 2
    assert [image[0, 0, 0] for image in read_all(images)] == [30, 110, 20, 31, 111, 21]


def test_classes_that_are_numbers_have_one_order(tmp_path):
    write_images(tmp_path / "train", [str(number) for number in range(11)], per_class=1)
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(tmp_path / "train", "train")
    theirs = torchvision.datasets.ImageFolder(str(tmp_path / "train")).classes
    assert theirs[:3] == ["0", "1", "10"]
    for path in (tmp_path / "train", tmp_path / "train.tar"):
        assert list(load_image_set(path).classes) == theirs


@pytest.mark.parametrize("cut", [100, 700, 3000])
def test_a_tar_file_that_is_cut_off_is_told(photos, tmp_path, cut):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(photos / "train", ".")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"train\.tar: (not a whole tar file|there are no images)"):
        load_image_set(path)


def test_a_compressed_tar_file_is_refused(tmp_path):
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as archive:
        add(archive, "a/1.png", png(0))
    with pytest.raises(InputError, match=r"train\.tar\.gz: compressed, .* unpack it"):
        load_image_set(tmp_path / "train.tar.gz")


def write_cifar(folder, *, form, name, count=4, seed=0):
    """Returns the images (N, 32, 32, 3) and labels."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = generator.integers(0, 3, count)
    labels[:3] = (0, 1, 2)
    rows = np.stack([np.concatenate([image[..., channel].ravel() for channel in range(3)]) for image in images])
    if form == "pickle":
        content = {"data": rows, "labels": labels.tolist(), "filenames": ["x"] * count}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    else:
        data = np.concatenate([labels[:, None].astype(np.uint8), rows], axis=1)
        (folder / f"{name}.bin").write_bytes(data.tobytes())
    return images, labels


@pytest.mark.parametrize("form", ["pickle", "binary"])
def test_cifars_files(tmp_path, form):
    names = [b"plane", b"bird", b"frog"]
    if form == "pickle":
        content = {"label_names": [name.decode() for name in names]}
        (tmp_path / "batches.meta").write_bytes(pickle.dumps(content, protocol=2))
    else:
        (tmp_path / "batches.meta.txt").write_bytes(b"\n".join(names))
    parts = [write_cifar(tmp_path, form=form, name=f"data_batch_{number}", seed=number) for number in (1, 2)]
    tests = write_cifar(tmp_path, form=form, name="test_batch", seed=9)
    images = load_image_set(tmp_path)
    assert images.classes == ("plane", "bird", "frog")
    assert np.array_equal(images.pixels, np.concatenate([part[0] for part in parts]))
    assert np.array_equal(images.labels, np.concatenate([part[1] for part in parts]))
    assert np.array_equal(load_image_set(tmp_path, split="test").pixels, tests[0])
    assert find_splits(tmp_path) == (str(tmp_path), str(tmp_path))


class _Evil:
    def __reduce__(self):
        return print, ("never",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}, r"not one of CIFAR's files: 'data' \(N, 3072\)"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "not one of CIFAR's files"),
        ([1], "it holds a list"),
        ({"data": _Evil()}, "refused"),
    ],
)
def test_other_pickles_are_refused_and_not_run(tmp_path, content, message, capsys):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        load_image_set(tmp_path)
    assert "never" not in capsys.readouterr().out


def test_folders_that_are_not_images_by_class_are_told(photos, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        load_image_set(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there are no folders in it; one for each class"):
        load_image_set(photos / "train" / "ant")
    with pytest.raises(InputError, match=r"holds test, train, which are no classes: name one of them, such as .*/test"):
        load_image_set(photos)
    write_images(tmp_path / "half" / "train", per_class=1)
    with pytest.raises(InputError, match="there is no val or test in it"):
        find_splits(tmp_path / "half")
    one = write_images(tmp_path / "one", CLASSES[:1])
    with pytest.raises(InputError, match=r"one class only \(ant\)"):
        load_image_set(one)
    write_images(tmp_path / "empty", per_class=1)
    (tmp_path / "empty" / "zoo").mkdir()
    with pytest.raises(InputError, match="no images of zoo; 7 classes are there"):
        load_image_set(tmp_path / "empty")


def test_images_of_one_size_are_kept_in_memory_if_they_fit(photos, tmp_path):
    images = load_image_set(photos / "train")
    kept = keep_in_memory(images, 1)
    assert np.array_equal(kept.pixels, np.stack(read_all(images)))
    assert keep_in_memory(images, 0.001).pixels is None
    write_images(tmp_path / "two", CLASSES[:2])
    write_images(tmp_path / "two" / "third", ["x"], size=(16, 17))
    assert keep_in_memory(load_image_set(tmp_path / "two"), 1).pixels is None


def test_an_image_that_cannot_be_read_is_told_or_left_out(tmp_path, caplog):
    write_images(tmp_path / "a", CLASSES[:2], per_class=2)
    for name in ("ant/1.png", "bee/1.png"):
        path = tmp_path / "a" / name
        path.write_bytes(path.read_bytes()[:60])
    images = load_image_set(tmp_path / "a")
    with pytest.raises(InputError, match=r"ant/1\.png: not a readable image.*ON_BAD_IMAGE skip"):
        keep_in_memory(images, 1)
    kept = keep_in_memory(images, 1, on_bad_image="skip")
    assert sorted(kept.problems) == [1, 3]
    assert kept.labels.tolist() == [0, 1, 1, 0], "the next sound image stands in, with its class"
    assert np.array_equal(kept.pixels[1], kept.pixels[2])
    assert np.array_equal(kept.pixels[3], kept.pixels[0])
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.split(": ")[0].rpartition("/a/")[2] for message in told] == ["ant/1.png", "bee/1.png"]


def test_only_bad_images_in_a_row_end_the_skipping(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MAX_BAD_IMAGES", 2)
    write_images(tmp_path / "a", CLASSES[:2], per_class=3)
    for name in ("ant/0.png", "ant/2.png", "bee/1.png"):
        (tmp_path / "a" / name).write_bytes(b"")
    assert len(keep_in_memory(load_image_set(tmp_path / "a"), 1, on_bad_image="skip").problems) == 3
    (tmp_path / "a" / "bee" / "0.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"bee/0\.png: not a readable image"):
        keep_in_memory(load_image_set(tmp_path / "a"), 1, on_bad_image="skip")
