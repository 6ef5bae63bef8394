"""The catalogue, and downloads: into a cache, and checked by their hash. Files are served by the test itself."""

from __future__ import annotations

import hashlib

import pytest
import torch

from resnet_det.errors import InputError
from resnet_det.weights import fetch_weights, find_conventions, find_entry, list_entries, sources, write_tensors


@pytest.fixture
def web(tmp_path, monkeypatch):
    """Lets addresses be answered from a folder, through torch's own client."""
    folder = tmp_path / "web"
    folder.mkdir()
    asked = []

    def download(url, dst, **kwargs):
        asked.append(url)
        torch.hub.download_url_to_file((folder / url.rpartition("/")[2]).as_uri(), dst, **kwargs)

    monkeypatch.setenv("RESNET_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "download_url_to_file", download)
    return folder, asked


def publish(folder, name):
    path = folder / name
    write_tensors({"layer1.0.conv1.weight": torch.randn(2, 2)}, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_download_is_checked_and_kept(web):
    folder, asked = web
    digest = publish(folder, "net.pth")
    source = f"https://example.org/a/net.pth#sha256={digest}"
    path = fetch_weights(source)
    assert path.read_bytes() == (folder / "net.pth").read_bytes()
    assert fetch_weights(source) == path
    assert asked == ["https://example.org/a/net.pth"], "the second time it comes out of the cache"
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match=f"expected {digest}"):
        fetch_weights(source)


def test_a_download_with_the_wrong_hash_is_not_kept(web, tmp_path):
    publish(web[0], "net.pth")
    with pytest.raises(InputError, match="damaged, or not the file that was published"):
        fetch_weights(f"https://example.org/net.pth#sha256={'0' * 64}")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_without_a_published_hash_the_first_download_counts(web, caplog):
    digest = publish(web[0], "model.safetensors")
    path = fetch_weights("timm://resnet50d.ra2_in1k")
    assert web[1] == ["https://huggingface.co/timm/resnet50d.ra2_in1k/resolve/main/model.safetensors"]
    assert digest in caplog.text
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match=f"expected {digest}"):
        fetch_weights("timm://resnet50d.ra2_in1k")


@pytest.mark.usefixtures("web")
def test_no_network_says_what_to_do():
    with pytest.raises(InputError, match=r"could not get https://download.pytorch.org.* give its path"):
        fetch_weights("torchvision://resnet18")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision://resnet51", "choose one of resnet18, resnet34"),
        ("torchvision://resnet50/V2", "choose one of IMAGENET1K_V1, IMAGENET1K_V2"),
        ("timm://resnet50", "not in the catalogue; choose one of resnet14t"),
        ("catalog://nothing", "choose one of ImageNetPretrained/MSRA/R-50"),
        ("s3://bucket/a.pth", "give a path, or one of torchvision://"),
        ("https://example.org/a.pth", "give the file's hash with the address"),
        ("no/such.pth", "no such file"),
    ],
)
def test_wrong_sources(source, message):
    with pytest.raises(InputError, match=message):
        fetch_weights(source)


def test_every_entry_is_complete():
    entries = list_entries()
    assert len({entry.uri for entry in entries}) == len(entries) >= 45
    for entry in entries:
        assert entry.url.startswith("https://")
        assert entry.licence
        assert entry.paper.startswith("arXiv ")
        assert len(entry.conventions.pixel_mean) == len(entry.conventions.pixel_std) == 3
    assert find_entry("torchvision://resnet18").sha256 == "f37072fd"
    assert find_entry("torchvision://resnet50/IMAGENET1K_V2").sha256 == "11ad3fa6"
    assert find_entry("detectron2://ImageNetPretrained/MSRA/R-50.pkl").conventions.stride_in_1x1
    assert find_entry("detectron2://COCO-Detection/x/1/model_final_b275ba.pkl").conventions is None


def test_conventions_of_own_files(tmp_path):
    publish(tmp_path, "own.pth")
    assert find_conventions(tmp_path / "own.pth").channel_order == "RGB"
    write_tensors({"res2.0.conv1.weight": torch.ones(1)}, tmp_path / "d2.pth")
    assert find_conventions(tmp_path / "d2.pth") is None
