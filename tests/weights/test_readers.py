"""Files of weights: what is read, and what is refused without being run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from resnet_det import make_resnet
from resnet_det.errors import InputError
from resnet_det.weights import read_tensors, write_tensors


@pytest.fixture
def tensors():
    return {"res2.0.conv1.weight": torch.randn(4, 3, 1, 1), "stem.conv1.weight": torch.randn(2, 3).half()}


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pyth", ".pkl", ".safetensors"])
def test_what_is_written_is_read(tensors, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    write_tensors(tensors, path)
    read = read_tensors(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"model": a}, lambda a: {"blobs": OrderedDict(a), "cfg": "x"}])
def test_pickles_of_arrays(tmp_path, wrap, protocol):
    arrays = {"conv1_w": np.random.randn(3, 2).astype(np.float32), "number": np.float32(2)}
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(wrap(arrays), protocol=protocol))
    read = read_tensors(path)
    assert torch.equal(read["conv1_w"], torch.from_numpy(arrays["conv1_w"]))


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state", "state_dict_ema"])
def test_checkpoints_are_unwrapped(tensors, tmp_path, wrapper):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}, wrapper: tensors}, path)
    assert read_tensors(path).keys() == tensors.keys()


def dump_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def dump_legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "dump"), [("a.pkl", dump_pickle), ("a.pth", torch.save), ("a.pkl", torch.save), ("a.pth", dump_legacy)]
)
def test_a_file_that_runs_a_command_is_refused_by_name(tmp_path, name, dump):
    marker, path = tmp_path / "marker", tmp_path / name
    dump({"model": {"a": torch.ones(1) if dump is not dump_pickle else np.ones(1)}, "x": Evil(marker)}, path)
    with pytest.raises(InputError, match=r"refused, as it asks to run (posix|nt)\.system"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["builtins.eval", "numpy.load", "torch.storage._load_from_bytes", "copyreg._reconstructor"]
)
def test_other_functions_in_a_pickle_are_refused_by_name(tmp_path, name):
    module, _, function = name.rpartition(".")
    path = tmp_path / "a.pkl"
    path.write_bytes(f"c{module}\n{function}\n(S'x'\ntR.".encode())
    with pytest.raises(InputError, match=name):
        read_tensors(path)


def test_damaged_files(tensors, tmp_path):
    for suffix, message in ((".pth", "cut off"), (".pkl", "cut off"), (".safetensors", "cut off")):
        path = tmp_path / f"whole{suffix}"
        write_tensors(tensors, path)
        cut = tmp_path / f"cut{suffix}"
        cut.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(InputError, match=message):
            read_tensors(cut)
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 3}, empty)
    with pytest.raises(InputError, match="there are no tensors in it"):
        read_tensors(empty)


def test_wrong_paths(tensors, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tensors(tmp_path / "no.pth")
    with pytest.raises(InputError, match=r"written to \.pth"):
        write_tensors(tensors, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="strip the optimizer"):
        write_tensors(tensors, tmp_path / "a.pkl", extra={"optimizer": {}})


def test_detectron2_finds_the_place_of_a_backbone_in_a_pkl_file(tmp_path):
    """By the ends of names, which it looks at where the file asks for it."""
    ours = make_resnet(14)
    write_tensors(ours.state_dict(), tmp_path / "a.pkl")
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": make_resnet(14)})})
    DetectionCheckpointer(model).load(str(tmp_path / "a.pkl"))
    loaded = model["backbone"]["bottom_up"].state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in ours.state_dict().items())
