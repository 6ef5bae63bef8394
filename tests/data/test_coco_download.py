"""Downloading COCO, on small files made here."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile

import pytest

from resnet_det.data.loading import coco_download
from resnet_det.data.loading.coco_download import Archive, download_coco
from resnet_det.errors import InputError


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def archive(tmp_path, monkeypatch):
    path = tmp_path / "server" / "val2017.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("val2017/000000000139.jpg", b"picture")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    handler = functools.partial(QuietHandler, directory=path.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/val2017.zip"
        monkeypatch.setitem(coco_download.ARCHIVES, "val", Archive(url, md5, "val2017/000000000139.jpg"))
        yield path
        server.shutdown()


def test_an_archive_is_fetched_checked_and_unpacked(archive, tmp_path):
    folder = download_coco(tmp_path / "data", ["val"])
    assert (folder / "val2017" / "000000000139.jpg").read_bytes() == b"picture"
    assert not (folder / "val2017.zip").exists()
    archive.unlink()
    assert download_coco(tmp_path / "data", ["val"]) == folder, "what is there is not fetched again"


def test_an_interrupted_unpacking_is_done_again(archive, tmp_path, monkeypatch):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("val2017/z.jpg", b"last")
    known = coco_download.ARCHIVES["val"]
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(coco_download.ARCHIVES, "val", Archive(known.url, md5, known.gives))

    def die(path, folder):
        with zipfile.ZipFile(path) as file:
            file.extract("val2017/000000000139.jpg", folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(coco_download, "extract_archive", die)
        with pytest.raises(KeyboardInterrupt):
            download_coco(tmp_path / "data", ["val"])
    folder = download_coco(tmp_path / "data", ["val"])
    assert (folder / "val2017" / "z.jpg").read_bytes() == b"last"
    assert sorted(path.name for path in folder.iterdir()) == ["val2017"]


def test_a_wrong_hash_is_refused_and_nothing_unpacked(archive, tmp_path):
    archive.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"val2017.zip: its MD5 is not [0-9a-f]{32}"):
        download_coco(tmp_path / "data", ["val"])
    assert not (tmp_path / "data" / "coco" / "val2017").exists()


def test_no_network_is_said(archive, tmp_path):
    archive.unlink()
    with pytest.raises(InputError, match=r"val2017.zip: Not Found|val2017.zip: File not found"):
        download_coco(tmp_path / "data", ["val"])


def test_all_parts_have_a_hash():
    assert all(len(archive.md5) == 32 and archive.url.endswith(".zip") for archive in coco_download.ARCHIVES.values())
