"""From a path or URI to a file: downloads are kept in a cache and checked by their hash."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from urllib.error import URLError

from torch.hub import download_url_to_file

from resnet_det.errors import InputError
from resnet_det.weights.catalog import WeightsEntry, find_entry

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where downloads are kept: $RESNET_DET_CACHE, else ~/.cache/resnet_det."""
    return Path(os.environ.get("RESNET_DET_CACHE") or Path("~/.cache/resnet_det").expanduser())


def fetch_weights(source: str | Path) -> Path:
    """The file that ``source`` means, downloaded into the cache if it is not there.

    Args:
        source: a path, or a URI that :func:`find_entry` knows.

    Raises:
        InputError: there is no such file, it cannot be downloaded, or its hash is wrong.
    """
    source = str(source).removesuffix("?matching_heuristics=True")  # Detectron2's: names are always matched here
    entry = find_entry(source)
    if entry is None:
        path = Path(source.removeprefix("file://")).expanduser()
        if not path.is_file():
            raise InputError(f"weights {source}: no such file")
        return path
    path = cache_dir() / entry.url.removeprefix("https://")
    if not path.is_file():
        _download(entry, path)
    _check_hash(entry, path)
    return path


def _download(entry: WeightsEntry, path: Path) -> None:
    logger.info("Downloading %s%s", entry.url, f" (licence: {entry.licence})" if entry.licence else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # torch's client downloads to a temporary file, and renames it once the hash is right.
        download_url_to_file(entry.url, str(path), hash_prefix=entry.sha256 or None, progress=True)
    except RuntimeError as error:
        raise InputError(f"{entry.uri}: the download is damaged, or not the file that was published: {error}") from None
    except (URLError, OSError) as error:
        raise InputError(
            f"{entry.uri}: could not get {entry.url}: {error}. Download it elsewhere, and give its path"
        ) from None


def _check_hash(entry: WeightsEntry, path: Path) -> None:
    """Hold ``path`` to the published hash, or to that of its first download, which is kept beside it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = path.with_name(f"{path.name}.sha256")
    if not entry.sha256 and not record.is_file():
        record.write_text(digest)
        logger.warning("%s: its hash is not published. From now on the file must have sha256 %s", entry.uri, digest)
    expected = entry.sha256 or record.read_text().strip()
    if not digest.startswith(expected):
        raise InputError(f"{path}: sha256 is {digest}, expected {expected}. Remove the file to download it again")
