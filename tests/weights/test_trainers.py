"""Weights as training programs leave them: found by content, whatever they are wrapped in, and whatever lies beside."""

from __future__ import annotations

import argparse
import pathlib
import pickle
import re
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from resnet_det import load_weights, make_resnet
from resnet_det.errors import InputError
from resnet_det.weights import (
    convert_weights,
    fetch_weights,
    find_conventions,
    naming_of,
    read_checkpoint,
    read_tensors,
    to_detectron2_names,
)
from resnet_det.weights.catalog import TORCHVISION


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    return torchvision.models.resnet18()


@pytest.fixture(scope="module")
def state(net):
    return net.state_dict()


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def to_huggingface(name):
    """The name in transformers' ResNetForImageClassification."""
    for own, theirs in (("conv1.", "embedder.embedder.convolution."), ("bn1.", "embedder.embedder.normalization.")):
        if name.startswith(own):
            return f"resnet.{theirs}{name.removeprefix(own)}"
    if name.startswith("fc."):
        return f"classifier.1.{name.removeprefix('fc.')}"
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(\w+)", name)
    layer = f"layer.{int(found[4]) - 1}" if found[3] else "shortcut"
    block = f"resnet.encoder.stages.{int(found[1]) - 1}.layers.{found[2]}"
    return f"{block}.{layer}.{kinds[found[3] or found[5]]}.{found[6]}"


def to_sequence(state, prefix):
    """The names in ``nn.Sequential(*net.children())``."""
    children = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
    split = {name: name.partition(".") for name in state if name.partition(".")[0] in children}
    return {f"{prefix}{children.index(child)}.{rest}": state[name] for name, (child, _, rest) in split.items()}


class Settings(dict):
    """What somebody's own program keeps its settings in; a dict, as yacs' CfgNode and mmengine's ConfigDict."""


class History(list):
    pass


LIGHTNING = {"epoch": 3, "global_step": 10, "pytorch-lightning_version": "2.1.0", "callbacks": {}, "loops": {}}
OPTIMIZER = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3), "step": torch.tensor(1.0)}}, "param_groups": [{}]}}
# What trainers save of a torchvision ResNet-18, by the name of the file.
TRAINERS = {
    "imagenet_example.pth.tar": lambda s: {
        "arch": "r",
        "state_dict": prefixed(s, "module."),
        "best_acc1": torch.ones(()),
    },
    "lightning.ckpt": lambda s: {**LIGHTNING, "state_dict": prefixed(s, "model.")},
    "lightning_backbone.ckpt": lambda s: {
        **LIGHTNING,
        "state_dict": prefixed(s, "backbone."),
        "optimizer_states": [OPTIMIZER],
    },
    "lightning_arguments.ckpt": lambda s: {
        "state_dict": prefixed(s, "net."),
        "hyper_parameters": argparse.Namespace(lr=1),
    },
    "vissl.torch": lambda s: {
        "classy_state_dict": {"base_model": {"model": {"trunk": prefixed(s, "_feature_blocks."), "heads": {}}}},
        "phase_idx": 3,
    },
    "lightly.ckpt": lambda s: {
        "state_dict": to_sequence(s, "backbone.") | {"projection_head.weight": torch.ones(2, 2)}
    },
    "fastai.pth": lambda s: {"model": to_sequence(s, "0."), "opt": OPTIMIZER},
    "pytorch_model.bin": lambda s: {to_huggingface(name): tensor for name, tensor in s.items()},
    "mmengine.pth": lambda s: {
        "meta": {"seed": np.int64(1), "time": np.float64(2), "cfg": Settings(a=1), "path": pathlib.PurePosixPath("a")},
        "message_hub": {"log_scalars": {"loss": History([1.0])}},
        "state_dict": prefixed(s, "backbone."),
    },
    "own_program.pt": lambda s: {"net": s, "config": Settings(lr=0.1), "counts": defaultdict(int, a=1), **OPTIMIZER},
    "averaged.pth": lambda s: {"ema_state_dict": s, "args": argparse.Namespace(model="resnet18")},
    "unknown_key.pth": lambda s: {"the_weights_of_it": s, "acc": 0.7},
    "list.pth": lambda s: [s, {"epoch": 3}],
    "ordered.weights": lambda s: OrderedDict(s),
    "no_suffix": lambda s: s,
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", TRAINERS)
def test_what_a_trainer_saves_is_loaded(name, legacy, state, tmp_path):
    path = tmp_path / name
    torch.save(TRAINERS[name](state), path, _use_new_zipfile_serialization=not legacy)
    model = make_resnet(18)
    report = load_weights(model, path)
    assert not report.missing
    own = to_detectron2_names(state)
    for theirs, ours in own.items():
        if not ours.startswith("linear"):
            assert torch.equal(model.state_dict()[ours], state[theirs]), ours
    assert find_conventions(path) == TORCHVISION


def test_all_of_huggingfaces_names_have_their_place(state):
    names = [to_huggingface(name) for name in state]
    assert naming_of(names) == "huggingface"
    assert to_detectron2_names(names) == {to_huggingface(key): own for key, own in to_detectron2_names(state).items()}
    bottleneck = torchvision.models.resnet50().state_dict()
    found = to_detectron2_names([to_huggingface(name) for name in bottleneck])
    assert set(found.values()) == set(to_detectron2_names(bottleneck).values())
    without_head = [to_huggingface(name).removeprefix("resnet.") for name in state if not name.startswith("fc")]
    assert set(to_detectron2_names(without_head)) == set(without_head)


def test_a_numbered_net_of_another_kind_is_no_resnet():
    with pytest.raises(InputError, match="no ResNet or DenseNet in the naming"):
        naming_of(["features.4.0.conv1.weight", "features.5.0.conv1.weight"])


@pytest.mark.parametrize("key", [None, "teacher"])
def test_of_student_and_teacher_the_teacher_is_taken(key, state, tmp_path):
    student = {name: tensor + 1 for name, tensor in state.items()}
    together = {**prefixed(student, "student.backbone."), **prefixed(state, "teacher.backbone.")}
    apart = {"student": prefixed(student, "module.backbone."), "teacher": prefixed(state, "backbone.")}
    torch.save(apart | {"args": argparse.Namespace(arch="r")} if key else {"state_dict": together}, tmp_path / "a.pth")
    model = make_resnet(18)
    load_weights(model, tmp_path / "a.pth")
    assert torch.equal(model.stem.conv1.weight, state["conv1.weight"])


def test_the_group_with_a_resnet_is_taken_however_large_others_are(state, tmp_path, caplog):
    caplog.set_level("INFO", logger="resnet_det")
    others = {f"decoder.{number}.weight": torch.ones(1) for number in range(200)}
    torch.save({"model": others, "encoder": state}, tmp_path / "a.pth")
    assert set(read_tensors(tmp_path / "a.pth")) == set(state)
    assert "taken are the weights under encoder; not used: model" in caplog.text


def test_a_model_that_was_saved_whole_gives_its_weights(net, state, tmp_path):
    torch.save(nn.DataParallel(net), tmp_path / "model.pth")
    assert read_tensors(tmp_path / "model.pth").keys() == prefixed(state, "module.").keys()
    torch.save({"model": net, "epoch": 3}, tmp_path / "wrapped.pt")
    tensors, extra = read_checkpoint(tmp_path / "wrapped.pt")
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert extra == {"epoch": 3}


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickled_tensors_are_read(state, tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": state, "args": argparse.Namespace(a=1)}, protocol=protocol))
    read = read_tensors(path)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_extras_are_passed_over_and_named(state, tmp_path, caplog):
    caplog.set_level("INFO", logger="resnet_det")
    beside = {
        "args": argparse.Namespace(a=1),
        "cfg": {"path": pathlib.PurePosixPath("a"), "lr": 1},
        "epoch": np.int64(7),
    }
    torch.save({"state_dict": state, **beside}, tmp_path / "a.pth")
    _, extra = read_checkpoint(tmp_path / "a.pth")
    assert extra == {"cfg": {"lr": 1}, "epoch": 7}
    assert "passed over, and not run: argparse.Namespace, pathlib.PurePosixPath" in caplog.text
    convert_weights(tmp_path / "a.pth", tmp_path / "b.pth")
    assert read_checkpoint(tmp_path / "b.pth")[1] == extra


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def own_function(marker):
    pathlib.Path(marker).touch()


def test_functions_of_somebodys_program_are_not_called(state, tmp_path):
    marker = tmp_path / "marker"
    torch.save({"state_dict": state, "x": Runs(own_function, str(marker))}, tmp_path / "a.pth")
    assert read_tensors(tmp_path / "a.pth").keys() == state.keys()
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, exec, open, getattr, torch.load, torch.jit.load, torch.hub.load, np.load])
def test_functions_that_run_something_are_refused(function, state, tmp_path):
    torch.save({"state_dict": state, "x": Runs(function, "1")}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=rf"a.pth: refused, as it asks to run \S*{function.__name__}"):
        read_tensors(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
            "a Git LFS pointer in place of the file",
        ),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page or XML: the download has failed"),
        (b"\n <html>", "a web page or XML"),
        (b"", "the file is empty"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x1f\x8b\x08\x00", "compressed by gzip"),
        (b"some text", "not a pickle of arrays, or cut off"),
        (b"PK\x03\x04 cut off", "not a file of torch.save, or cut off"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_files_that_are_no_weights_are_told_apart(content, message, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_tensors(path)
    assert "PyTorch 2.6" not in str(raised.value)
    assert str(raised.value).count("a" + suffix) == 1


def test_programs_and_other_archives_are_told_apart(tmp_path):
    torch.jit.script(nn.Linear(1, 1)).save(str(tmp_path / "script.pt"))
    with pytest.raises(InputError, match=r"TorchScript.*state_dict"):
        read_tensors(tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", a=np.ones(1))
    with pytest.raises(InputError, match=r"a zip archive of a.npy"):
        read_tensors(tmp_path / "arrays.npz")
    with pytest.raises(InputError, match="a folder; name the file in it"):
        read_tensors(tmp_path)


def test_suffixes_do_not_count(state, tmp_path):
    safetensors.torch.save_file(state, tmp_path / "really_safetensors.pth")
    torch.save(state, tmp_path / "really_torch.safetensors")
    (tmp_path / "really_pickle.pth").write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in state.items()}))
    for path in tmp_path.iterdir():
        assert read_tensors(path).keys() == state.keys(), path


def test_an_error_lists_what_was_found(tmp_path):
    torch.save({"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a.pth: there are no tensors in it: it holds epoch, optimizer"):
        read_tensors(tmp_path / "a.pth")
    torch.save(argparse.Namespace(a=1), tmp_path / "b.pth")
    with pytest.raises(InputError, match=r"there are no tensors in it: it holds an object of argparse.Namespace"):
        read_tensors(tmp_path / "b.pth")
    torch.save({"patch_embed.weight": torch.ones(1), "blocks.0.weight": torch.ones(1)}, tmp_path / "vit.pth")
    with pytest.raises(InputError, match=r"no ResNet .*2 keys: patch_embed.weight, blocks.0.weight") as raised:
        find_conventions(tmp_path / "vit.pth")
    assert str(raised.value).count("vit.pth") == 1


def test_the_home_folder_is_known(state, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state, tmp_path / "x.pth")
    assert fetch_weights("~/x.pth") == tmp_path / "x.pth"
