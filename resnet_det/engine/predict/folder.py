"""The folder that predictions go to: what was asked for, what is finished, and who works on what."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resnet_det.data.coco.json_files import read_json
from resnet_det.errors import InputError
from resnet_det.evaluation.prediction_folder import (
    MANIFEST_NAME,
    RECORDS_NAME,
    RESULTS_NAME,
    read_manifest,
    unit_name,
)
from resnet_det.outputs import make_folder

logger = logging.getLogger(__name__)

BAD_NAME = "bad_images.jsonl"
_LOCK_NAME = ".lock"
_MAX_DIFFERENCES = 8


class PredictionFolder:
    """Results of units, each written whole or not at all.

    ``manifest.json`` says what was asked for, ``results/000000.jsonl`` has what was found, and ``records/000000.json``
    how much that is; with it a unit is finished. Any number of processes, on any number of machines, may work on one
    folder: who works on a unit holds a lock, which ends with the process however that ends. Without locks on a file
    system, units may be computed twice, with the same result.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        """Make the folder, or go on with what is in it.

        Args:
            manifest: all that the results depend on, as JSON has it.

        Raises:
            InputError: it holds other files, or predictions that something else was asked for.
        """
        self.path = path
        self.results, self.records = path / RESULTS_NAME, path / RECORDS_NAME
        self._suffix, self._num_units = manifest["format"], manifest["inputs"]["units"]
        check_folder(path)
        make_folder(path)
        if not os.access(path, os.W_OK):
            raise InputError(f"--output {path}: no permission to write there")
        with _lock(path / _LOCK_NAME, wait=True) as is_locked:
            self._has_locks = is_locked
            if not (path / MANIFEST_NAME).exists():
                write_whole(path / MANIFEST_NAME, json.dumps(manifest, indent=1) + "\n")
        known = read_manifest(path)
        differences = _find_differences(known, json.loads(json.dumps(manifest)))
        if differences:
            more = [f"and {len(differences) - _MAX_DIFFERENCES} more"] if len(differences) > _MAX_DIFFERENCES else []
            where = (
                f"--output {path} holds predictions that were made in another way; name another folder, delete it, or "
                "ask for the same"
            )
            raise InputError.from_problems(where, differences[:_MAX_DIFFERENCES] + more)
        self.results.mkdir(exist_ok=True)
        self.records.mkdir(exist_ok=True)

    def list_finished(self) -> set[int]:
        """Places of the units that are finished, by whichever process."""
        return {int(name[:-5]) for name in os.listdir(self.records) if name.endswith(".json") and name[0] != "."}

    def read_record(self, place: int) -> dict[str, Any]:
        """How much there is in a finished unit."""
        return read_json(self._record(place))

    def results_file(self, place: int) -> Path:
        return self.results / f"{unit_name(place)}.{self._suffix}"

    @contextlib.contextmanager
    def claim(self, place: int, *, wait: bool = False) -> Iterator[bool]:
        """Whether the unit is not finished and this process alone may work on it now.

        Args:
            wait: for another process that works on it, to see whether it finishes.
        """
        if self._record(place).exists():
            yield False
            return
        path = self.records / f".{unit_name(place)}.lock"
        with _lock(path, wait=wait) as is_locked:
            yield is_locked is not False and not self._record(place).exists()
            if self._record(place).exists():
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def write_results(self, place: int) -> Iterator[Path]:
        """A temporary path, which becomes the results of a unit where no error happens."""
        temporary = _temporary(self.results_file(place))
        try:
            yield temporary
            _replace(temporary, self.results_file(place))
        finally:
            temporary.unlink(missing_ok=True)

    def finish(self, place: int, record: Mapping[str, Any]) -> None:
        """Mark a unit, whose results are written, as finished."""
        write_whole(self._record(place), json.dumps(record) + "\n")

    def finish_all(self) -> list[dict[str, Any]]:
        """Where all is finished: write bad_images.jsonl if there are any, and clear away what killed processes left.

        Returns:
            The bad images.
        """
        bad = [image for place in range(self._num_units) for image in self.read_record(place)["bad"]]
        if bad:
            write_whole(self.path / BAD_NAME, "".join(json.dumps(image) + "\n" for image in bad))
        else:  # that were bad, and have been read since
            (self.path / BAD_NAME).unlink(missing_ok=True)
        if not self._has_locks:  # somebody may still be writing
            return bad
        for left in [*self.results.glob(".*.tmp"), *self.records.glob(".*.tmp"), *self.records.glob(".*.lock")]:
            left.unlink(missing_ok=True)
        return bad

    def _record(self, place: int) -> Path:
        return self.records / f"{unit_name(place)}.json"


def check_folder(path: Path) -> None:
    """
    Raises:
        InputError: the folder is not ours: it holds other files, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise InputError(f"--output {path}: is a file; name a folder")
    names = set(os.listdir(path)) if path.is_dir() else set()
    foreign = [name for name in names if not name.startswith((_LOCK_NAME, f".{MANIFEST_NAME}"))]
    if foreign and MANIFEST_NAME not in names:
        raise InputError(f"--output {path}: is there, and holds no predictions to go on with; name a new folder")
    if MANIFEST_NAME in names:
        read_manifest(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it."""
    temporary = _temporary(path)
    temporary.write_text(text, encoding="utf-8")
    _replace(temporary, path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _replace(temporary: Path, path: Path) -> None:
    """Both the file and its name are on the disk when this returns."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool | None]:
    """Whether this process holds the lock now; the kernel takes it back when the process ends. None: there are none."""
    with path.open("ab") as file:
        is_locked: bool | None = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            is_locked = False
        except OSError as error:
            is_locked = None
            logger.warning("%s: no locks here (%s): units may be computed twice", path.parent, error.strerror)
        yield is_locked


def _find_differences(known: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys([*known, *asked]):
        name, before, now = f"{prefix}{key}", known.get(key), asked.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _find_differences(before, now, f"{name}: ")
        elif before != now:
            found.append(f"{name}: {_show(before)} there, {_show(now)} now")
    return found


def _show(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
