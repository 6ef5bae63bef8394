"""The images of a unit, read and decoded by threads ahead of the model."""

from __future__ import annotations

import contextlib
import io
import lzma
import queue
import tarfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from resnet_det.data.formats.labels import IMAGE_SUFFIXES
from resnet_det.data.mapping.fast_image import decode_taken, read_taken
from resnet_det.engine.predict.inputs import TarUnit, Unit
from resnet_det.errors import InputError
from resnet_det.images.pages import list_pages

_END = None


@dataclass(frozen=True, eq=False)
class Item:
    """An image on its way to the model, or what is known of it.

    Attributes:
        file_name: its path, or its name in the tar file ``shard``; of a page of a stack with the page (``#3``).
        data: the bytes of its file, once they are read.
        image: (H, W, C) as the detector takes it, once it is decoded.
        error: why it cannot be read.
        is_other: it is a member of a tar file that is no image by its suffix.
    """

    file_name: str
    shard: str | None = None
    data: bytes | None = None
    image: np.ndarray | None = None
    error: str | None = None
    is_other: bool = False


def read_items(unit: Unit) -> Iterator[Item]:
    """What is in a unit, in order, not yet decoded; tar files are read from their beginning to their end. Each page of
    a stack is an item.

    A tar file that is damaged ends with an item without a name, whose error says why.
    """
    if not isinstance(unit, TarUnit):
        for path in unit.paths:
            yield from _make_items(path)
        return
    try:
        with tarfile.open(unit.path, tarinfo=_StrictHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # else it keeps all headers it has read
                if member.isdir():
                    continue
                if not member.name.lower().endswith(IMAGE_SUFFIXES):
                    yield Item(member.name, unit.path, is_other=True)
                    continue
                if not member.isfile():
                    yield Item(member.name, unit.path, error="a link in the tar file, which is not followed")
                    continue
                yield from _make_items(member.name, unit.path, archive.extractfile(member).read())
    except (_DamagedError, tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        yield Item("", unit.path, error=f"the tar file is damaged, or cut off, here: {error}")


def _make_items(name: str, shard: str | None = None, data: bytes | None = None) -> Iterator[Item]:
    try:
        pages = list_pages(name, None if data is None else io.BytesIO(data))
    except InputError as error:
        yield Item(name, shard, error=str(error).removeprefix(f"{name}: "))
        return
    for page in pages:
        yield Item(page, shard, data)


class _DamagedError(Exception):
    pass


class _StrictHeader(tarfile.TarInfo):
    """Why: after the first member, tarfile takes anything that is no header for the end of the file, without a word."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError:
            raise _DamagedError("it lacks the mark of its end") from None
        except tarfile.HeaderError as error:
            raise _DamagedError(str(error)) from None


class Reader:
    """Threads that read and decode images, no more than ``num_ahead`` of them ahead."""

    def __init__(self, num_threads: int, num_ahead: int) -> None:
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._num_ahead = num_ahead

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, unit: Unit) -> Iterator[Item]:
        """The items of ``unit`` in order, each with its image or error (or ``is_other``)."""
        waiting: queue.Queue[Future | BaseException | None] = queue.Queue(self._num_ahead)
        is_over = threading.Event()

        def put(value: Future | BaseException | None) -> None:
            while not is_over.is_set():
                with contextlib.suppress(queue.Full):
                    waiting.put(value, timeout=0.2)
                    return

        def feed() -> None:
            try:
                for item in read_items(unit):
                    if is_over.is_set():
                        return
                    put(self._pool.submit(decode, item))
                put(_END)
            except BaseException as error:  # raised again where the items are taken
                put(error)

        feeder = threading.Thread(target=feed, name="read", daemon=True)
        feeder.start()
        try:
            while (value := waiting.get()) is not _END:
                if isinstance(value, BaseException):
                    raise value
                yield value.result()
        finally:
            is_over.set()
            feeder.join()


def decode(item: Item) -> Item:
    """The item with its image, or with the reason why there is none."""
    if item.error is not None or item.is_other:
        return item
    try:
        if item.data is None:
            return Item(item.file_name, image=read_taken(item.file_name))
        return Item(item.file_name, item.shard, image=decode_taken(io.BytesIO(item.data), item.file_name))
    except InputError as problem:
        error = str(problem).removeprefix(f"{item.file_name}: ")
    except MemoryError:
        raise
    except Exception as problem:  # decoders raise whatever damaged files make them stumble over
        error = f"not a readable image ({type(problem).__name__}: {problem})"
    return Item(item.file_name, item.shard, error=error)
