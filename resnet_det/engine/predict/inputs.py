"""What images are predicted on: folders, lists, patterns and tar shards, cut into units of work."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.errors import InputError
from resnet_det.images.pages import split_page

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LIST_SUFFIXES = (".txt", ".lst", ".list")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class PathUnit:
    """Image files, one after the other.

    The names are kept packed: those of ten million images take some 100 MB, where texts would take over a gigabyte.
    """

    packed: bytes
    num_images: int

    @classmethod
    def of(cls, paths: Sequence[str]) -> PathUnit:
        return cls(zlib.compress(os.fsencode("\0".join(paths)), 1), len(paths))

    @property
    def paths(self) -> list[str]:
        return os.fsdecode(zlib.decompress(self.packed)).split("\0")


@dataclass(frozen=True)
class TarUnit:
    """One tar shard; how many images are in it shows when it is read."""

    path: str
    num_bytes: int


Unit = PathUnit | TarUnit


@dataclass(frozen=True)
class Listing:
    """All inputs.

    Attributes:
        units: in the order of the inputs.
        num_others: files that are neither images nor tar shards by their suffix.
        num_repeated: images and shards that are named once more, and taken once.
        sha256: of all names in their order, and of the sizes of tar shards.
    """

    units: list[Unit]
    num_others: int
    num_repeated: int
    sha256: str

    @property
    def num_images(self) -> int:
        """Image files, without those in tar shards."""
        return sum(unit.num_images for unit in self.units if isinstance(unit, PathUnit))

    @property
    def num_shards(self) -> int:
        return sum(isinstance(unit, TarUnit) for unit in self.units)


def list_inputs(inputs: Sequence[str], shard_size: int) -> Listing:
    """Units of up to ``shard_size`` image files, and one for each tar shard.

    Args:
        inputs: folders, which are searched through; text files with a path a line; images; tar shards; glob patterns
            and {000..012} of all these. A page of a stack is named ``stack.tif#3``.

    Raises:
        InputError: one of them is not there, or there is no image in all of them.
    """
    units: list[Unit] = []
    chunk: list[str] = []
    names = hashlib.sha256()
    counts = {"others": 0, "repeated": 0}
    seen: set[str] | None = set() if len(inputs) > 1 or not os.path.isdir(os.path.expanduser(inputs[0])) else None
    for path in _find_files(inputs):
        lower = split_page(path)[0].lower()
        if not lower.endswith((*IMAGE_SUFFIXES, *TAR_SUFFIXES)):
            counts["others"] += 1
            continue
        if seen is not None:
            real = os.path.abspath(path)  # without a/../ too
            if real in seen:
                counts["repeated"] += 1
                continue
            seen.add(real)
        if lower.endswith(TAR_SUFFIXES):
            unit = TarUnit(path, _size(path))
            names.update(os.fsencode(f"{path}\0{unit.num_bytes}\n"))
            units.append(unit)
            continue
        names.update(os.fsencode(f"{path}\n"))
        chunk.append(path)
        if len(chunk) == shard_size:
            units.append(PathUnit.of(chunk))
            chunk = []
    if chunk:
        units.append(PathUnit.of(chunk))
    if not units:
        known = ", ".join((*IMAGE_SUFFIXES, *TAR_SUFFIXES))
        raise InputError(f"{' '.join(inputs)}: no images and no tar shards there (files that end in {known})")
    return Listing(units, counts["others"], counts["repeated"], names.hexdigest())


def _find_files(inputs: Iterable[str]) -> Iterator[str]:
    """All files that ``inputs`` name, in order, one after the other."""
    for text in inputs:
        for match in _match(text):
            if os.path.isdir(match):
                yield from _search(match, frozenset())
            elif match.lower().endswith(LIST_SUFFIXES):
                yield from _read_list(match)
            else:
                yield match


def _match(text: str) -> list[str]:
    """The files and folders that ``text`` names: one, those of a range such as {000..012}, or of a glob pattern."""
    expanded = os.path.expanduser(text)
    if os.path.exists(split_page(expanded)[0]):  # a name may have brackets in it
        return [expanded]
    found: list[str] = []
    for part in _expand_ranges(expanded):
        matches = [part] if os.path.exists(split_page(part)[0]) else sorted(glob.glob(part, recursive=True))
        if not matches:
            of = "" if part == expanded else f" (of {text})"
            raise InputError(f"{part}: no such file or folder{of}")
        found += matches
    return found


def _expand_ranges(text: str) -> list[str]:
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    if int(first) > int(last):
        raise InputError(f"{text}: {match[0]} begins after its end")
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [rest for number in numbers for rest in _expand_ranges(text[: match.start()] + number + text[match.end() :])]


def _search(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """The files below a folder, sorted in each; links to folders are followed, unless in a circle."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.path, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    this = status.st_dev, status.st_ino
    if this in above:
        return
    for _, path, is_folder in inside:
        if is_folder:
            yield from _search(path, above | {this})
        else:
            yield path


def _read_list(path: str) -> Iterator[str]:
    """The paths in a text file; those that are not absolute begin at its folder."""
    folder = os.path.dirname(path)
    try:
        with Path(path).open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for line in file:
                if line.strip():
                    yield os.path.join(folder, os.path.expanduser(line.strip()))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
