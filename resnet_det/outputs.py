"""Where tools write: into folders of the user's, without touching a file that they have not written themselves."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from resnet_det.errors import InputError


class OutputFolder:
    """The files that one call of a tool writes to a folder. What was there before is never overwritten."""

    def __init__(self, folder: Path, names: Sequence[str] = (), *, flag: str = "--output") -> None:
        """Args:
            folder: made if it is not there.
            names: of files that will be written, so that a clash is found before time is spent.
            flag: what the user called the folder by.

        Raises:
            InputError: it cannot be made, or a file of one of the names is there.
        """
        self.folder, self.flag = folder, flag
        self._written: set[Path] = set()
        make_folder(folder, flag=flag)
        for name in names:
            self._check(folder / name)

    def claim(self, name: str) -> Path:
        """The path to write a file to, once or again.

        Raises:
            InputError: somebody else's file is there.
        """
        path = self.folder / name
        self._check(path)
        self._written.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def claim_free(self, stem: str, suffix: str) -> Path:
        """The same for ``stem`` with ``suffix``, or ``stem``-2, ... if there is such a file, of whoever."""
        names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        paths = (self.folder / f"{name}{suffix}" for name in names)
        path = next(path for path in paths if path not in self._written and not path.exists())
        self._written.add(path)
        return path

    def _check(self, path: Path) -> None:
        if path not in self._written:
            check_new_file(path, flag=self.flag)


def make_folder(folder: Path, *, flag: str = "--output") -> None:
    """
    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{flag} {folder}: {error.strerror}") from None


def make_new_folder(folder: Path, *, flag: str = "--output") -> None:
    """Make a folder that must be new or empty.

    Raises:
        InputError: there is something in it, or it cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{flag} {folder}: is there, and not an empty folder; name a new one")
    make_folder(folder, flag=flag)


def link_file(source: Path, target: Path) -> None:
    """Have a file in a new place, too: as a hard link, or else as a copy. Its folder is made if it is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copy2(source, target)


def check_new_file(path: Path, *, flag: str = "--output") -> None:
    """
    Raises:
        InputError: the file is there, and would be overwritten.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{flag}: {path} is there already and stays as it is; name another, or take it away")
