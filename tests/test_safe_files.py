"""Files that ask to run something are refused by name, and nothing of them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import detectron2
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data.build import load_proposals_into_dataset
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model

from resnet_det import add_resnet_det_config
from resnet_det.config import merge_cfg
from resnet_det.config.yaml_files import evaluate_arithmetic, merge_yaml_file, read_yaml
from resnet_det.data.loading.proposals import add_proposals
from resnet_det.engine.initial_weights import load_initial_weights, load_trained_weights
from resnet_det.engine.lazy import load_lazy_config
from resnet_det.errors import InputError

ZOO = Path(detectron2.__path__[0]) / "model_zoo" / "configs"


class MakeFolder:
    """Pickled, it makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


EVIL = [
    "OUTPUT_DIR: !!python/object/apply:os.system ['touch {marker}']",
    "OUTPUT_DIR: !!python/object/new:os.system ['touch {marker}']",
    "OUTPUT_DIR: !!python/name:os.system",
    "OUTPUT_DIR: !!python/module:os",
    "SEED: !!python/object/apply:eval [\"__import__('os').system('touch {marker}')\"]",
    "SEED: !!python/object/apply:eval ['[x for x in open(\"/etc/passwd\")]']",
    "SEED: !!python/object/apply:eval ['9**9**9**9']",
    "SEED: !!python/object/apply:eval ['(1).__class__']",
    "SEED: !!python/object/apply:eval [{{a: 1}}]",
    "SEED: !!python/object/apply:exec ['1']",
]


@pytest.mark.parametrize("line", EVIL)
@pytest.mark.parametrize("in_base", [False, True])
def test_a_config_runs_nothing(line, in_base, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "config.yaml"
    path.write_text(line.format(marker=marker) + "\n")
    if in_base:
        path = tmp_path / "above.yaml"
        path.write_text("_BASE_: config.yaml\nSEED: 3\n")
    with pytest.raises(InputError, match=r"config.yaml.*(refused|eval|arithmetic)"):
        merge_cfg(str(path), [])
    assert not marker.exists()


OF_BASE_RETINANET = "[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"


@pytest.mark.parametrize("text", [OF_BASE_RETINANET, "1 + 2 * -3 / 4", "[1, [2.5, 7 // 2]]"])
def test_arithmetic_is_evaluated_as_python_does(text):
    assert evaluate_arithmetic(text) == eval(text)


@pytest.mark.parametrize("path", sorted(ZOO.rglob("*.yaml")), ids=lambda path: path.stem)
def test_detectron2s_own_configs_are_what_detectron2_makes_of_them(path):
    ours, theirs = get_cfg(), get_cfg()
    merge_yaml_file(ours, str(path))
    theirs.merge_from_file(str(path), allow_unsafe=True)
    assert ours == theirs


def test_tuples_and_dumped_configs_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("SOLVER:\n  STEPS: !!python/tuple [1, 2]\n")
    cfg = get_cfg()
    add_resnet_det_config(cfg)
    merge_yaml_file(cfg, str(path))
    assert cfg.SOLVER.STEPS == (1, 2)
    path.write_text(cfg.dump())
    assert yaml.safe_load(merge_cfg(str(path), []).dump()) == yaml.safe_load(cfg.dump())
    assert read_yaml(path) == yaml.safe_load(cfg.dump())


@pytest.mark.parametrize("tag", ["object", "object/new"])
def test_shapes_in_saved_lazy_configs_are_read_as_data(tmp_path, tag):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.dump({"shape": ShapeSpec(channels=3, stride=8)}))
    assert read_yaml(path) == {"shape": ShapeSpec(channels=3, stride=8)}
    by_name, by_position = "{channels: 3, height: null, width: null, stride: 8}", "[3, null, null, 8]"
    for sizes in (by_name, by_position):
        path.write_text(f"shape: !!python/{tag}:detectron2.layers.shape_spec.ShapeSpec {sizes}\n")
        assert read_yaml(path) == {"shape": ShapeSpec(channels=3, stride=8)}
    for sizes in ("{depth: 3}", "{channels: 3.5}", "[3, [1]]", "[true]", "[1, 2, 3, 4, 5]"):
        path.write_text(f"shape: !!python/{tag}:detectron2.layers.shape_spec.ShapeSpec {sizes}\n")
        with pytest.raises(InputError, match=r"line 1: a ShapeSpec has channels, height, width, stride, whole numbers"):
            read_yaml(path)


def test_a_lazy_config_in_yaml_runs_nothing_when_it_is_read(tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "config.yaml"
    path.write_text(f"train: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(InputError, match=r"yaml, line 1: refused, as it asks for !!python/object/apply:os.system"):
        load_lazy_config(str(path), [])
    assert not marker.exists()


@pytest.mark.parametrize("load", [load_initial_weights, load_trained_weights])
@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
def test_weights_of_any_backbone_run_nothing(load, ours, suffix, default_cfg, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / f"weights{suffix}"
    content = {"model": {"x": torch.zeros(1)}, "__author__": MakeFolder(marker), "matching_heuristics": True}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content | {"model": {"x": np.zeros(1)}}))
    else:
        torch.save(content, path)
    name = "build_resnet_det_backbone" if ours else "build_resnet_backbone"
    default_cfg.MODEL.BACKBONE.NAME, default_cfg.MODEL.WEIGHTS = name, str(path)
    with pytest.raises(InputError, match=r"refused, as it asks to run .*mkdir"):
        load(default_cfg, build_model(default_cfg))
    assert not marker.exists()


def test_weights_of_detectron2s_backbone_load(default_cfg, tmp_path):
    model = build_model(default_cfg)
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    files = {
        "plain.pth": lambda path: torch.save({"model": state}, path),
        "bare.pth": lambda path: torch.save(state, path),
        "zoo.pkl": lambda path: path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"})),
        "heuristics.pkl": lambda path: path.write_bytes(
            pickle.dumps({"model": arrays, "__author__": "x", "matching_heuristics": True})
        ),
    }
    for name, write in files.items():
        write(tmp_path / name)
        default_cfg.MODEL.WEIGHTS = str(tmp_path / name)
        for load in (load_initial_weights, load_trained_weights):
            fresh = build_model(default_cfg)
            load(default_cfg, fresh)
            assert all(torch.equal(tensor, state[key]) for key, tensor in fresh.state_dict().items()), name
    default_cfg.MODEL.WEIGHTS = str(tmp_path / "gone.pth")
    with pytest.raises(InputError, match=r"gone.pth: no such file"):
        load_trained_weights(default_cfg, model)
    torch.save({"model": {key: value for key, value in state.items() if "rpn" not in key}}, tmp_path / "less.pth")
    default_cfg.MODEL.WEIGHTS = str(tmp_path / "less.pth")
    load_initial_weights(default_cfg, model)
    with pytest.raises(InputError, match=r"tensors of this detector are not in them"):
        load_trained_weights(default_cfg, model)


def make_proposals(**changes):
    rng = np.random.default_rng(0)
    boxes = [rng.random((3, 4)).astype("float32") for _ in range(2)]
    return {"ids": [7, "b"], "boxes": boxes, "objectness_logits": [rng.random(3) for _ in range(2)], **changes}


def test_proposals_are_those_that_detectron2_reads(tmp_path):
    from detectron2.structures import BoxMode

    path = tmp_path / "proposals.pkl"
    for changes in ({}, {"bbox_mode": BoxMode.XYWH_ABS}, {"bbox_mode": 1}):
        path.write_bytes(pickle.dumps(make_proposals(**changes)))
        ours = list(add_proposals([{"image_id": "b"}, {"image_id": 7}], str(path)))
        theirs = load_proposals_into_dataset([{"image_id": "b"}, {"image_id": 7}], str(path))
        for one, other in zip(ours, theirs, strict=True):
            assert one["proposal_bbox_mode"] == other["proposal_bbox_mode"]
            for key in ("proposal_boxes", "proposal_objectness_logits"):
                assert np.array_equal(one[key], other[key])
    path.write_bytes(b"cdetectron2.structures.boxes\nBoxMode\n(dVconvert\nI1\nsb.")  # would change the class
    with pytest.raises(InputError):
        list(add_proposals([{"image_id": 7}], str(path)))
    assert callable(BoxMode.convert)
    old = make_proposals()
    path.write_bytes(pickle.dumps({"indexes": old["ids"], "boxes": old["boxes"], "scores": old["objectness_logits"]}))
    assert len(list(add_proposals([{"image_id": 7}], str(path)))) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda marker: make_proposals(ids=MakeFolder(marker)), r"refused, as it asks to run .*mkdir"),
        (lambda _: [1], r"a pickled dict of ids, boxes"),
        (lambda _: {"ids": []}, r"it has no boxes, objectness_logits"),
        (lambda _: make_proposals(ids=[7, 8]), r"no proposals for image b"),
    ],
)
def test_wrong_proposals_have_their_error_and_run_nothing(content, message, tmp_path):
    path, marker = tmp_path / "proposals.pkl", tmp_path / "marker"
    path.write_bytes(pickle.dumps(content(marker)))
    with pytest.raises(InputError, match=message):
        list(add_proposals([{"image_id": "b"}], str(path)))
    assert not marker.exists()
