"""COCO 2017: downloaded, hash-checked and unpacked into the tree that Detectron2 reads."""

from __future__ import annotations

import os
import tempfile
import urllib.error
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import download_url, extract_archive

from resnet_det.errors import InputError


@dataclass(frozen=True)
class Archive:
    """A zip file of COCO, its published MD5, and a path that is there once it is unpacked."""

    url: str
    md5: str
    gives: str


ARCHIVES = {
    "annotations": Archive(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        "annotations/instances_val2017.json",
    ),
    "val": Archive(
        "http://images.cocodataset.org/zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", "val2017/000000000139.jpg"
    ),
    "train": Archive(
        "http://images.cocodataset.org/zips/train2017.zip",
        "cced6f7f71b7629ddf16f17bbcfab6b2",
        "train2017/000000000009.jpg",
    ),
}


def download_coco(root: str | os.PathLike[str], parts: Sequence[str] = tuple(ARCHIVES), *, keep: bool = False) -> Path:
    """Put ``parts`` of COCO 2017 into ``root``/coco; those that are there already are not fetched again.

    Args:
        root: the folder that DETECTRON2_DATASETS names.
        parts: keys of ``ARCHIVES``.
        keep: do not delete the zip files.

    Returns:
        ``root``/coco.

    Raises:
        InputError: a file cannot be fetched, or does not have its hash; it is not unpacked then.
    """
    folder = Path(root, "coco")
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        archive = ARCHIVES[part]
        if (folder / archive.gives).is_file():
            continue
        zip_file = folder / archive.url.rsplit("/", 1)[-1]
        try:
            download_url(archive.url, str(folder), md5=archive.md5)
        except urllib.error.URLError as error:
            raise InputError(f"{archive.url}: {error.reason}") from None
        except RuntimeError:
            raise InputError(f"{zip_file}: its MD5 is not {archive.md5}: damaged on the way; try again") from None
        _unpack(zip_file, folder, archive.gives)
        if not keep:
            zip_file.unlink()
    return folder


def _unpack(zip_file: Path, folder: Path, gives: str) -> None:
    """Unpack into ``folder``, the file ``gives``, by which it is known to be complete, last of all."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking_") as temporary:
        extract_archive(str(zip_file), temporary)
        files = [path.relative_to(temporary) for path in Path(temporary).rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda file: file == Path(gives)):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Path(temporary, file).replace(folder / file)
