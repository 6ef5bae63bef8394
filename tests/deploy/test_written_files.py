"""What is written for each runtime, and what comes out of it again; by a network that is small and quickly traced."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx
import openvino
import pytest
import torch
from exported import METADATA
from torch import nn

from resnet_det.deploy import Detector
from resnet_det.deploy.detector import make_batch
from resnet_det.deploy.export import (
    FILES,
    PRECISIONS,
    check_libraries,
    check_precision,
    find_what_stays,
    trace,
    write_files,
    write_onnx,
)
from resnet_det.errors import InputError

KINDS = list(FILES)
pytestmark = pytest.mark.skipif(not hasattr(torch.export.Dim, "DYNAMIC"), reason="this torch.export lacks Dim.DYNAMIC")


class Toy(nn.Module):
    """Two boxes for each image, the second of half its sides; the score of both is from convolutions over it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))

    def forward(self, images, sizes):
        whole = torch.cat([torch.zeros_like(sizes), sizes.flip(1)], 1).float()
        boxes = torch.stack([whole, whole / 2], 1)
        score = self.layers(images / 255).mean((1, 2, 3)).sigmoid()
        scores, _ = torch.stack([score, score / 2], 1).topk(2)
        count = torch.full_like(sizes[:, 0], 2)
        masks = torch.ones(28, 28) * scores.reshape(-1, 1, 1).sign()
        return boxes, scores, torch.zeros_like(scores, dtype=torch.int64), count, masks


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    return Toy().eval()


@pytest.fixture(scope="module")
def program(toy):
    return trace(toy, 3)


@pytest.fixture(scope="module")
def plain(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "float32.onnx"
    write_onnx(program, path, METADATA["outputs"])
    return path


@pytest.fixture(scope="module")
def files(program, plain, tmp_path_factory):
    return dict(write_files(program, plain, tmp_path_factory.mktemp("toy"), KINDS, METADATA))


@pytest.fixture
def write(program, plain, tmp_path):
    def write(kind, metadata, calibration=()):
        ((_, file),) = write_files(program, plain, tmp_path, [kind], metadata, calibration)
        return file

    return write


def images_of(*shapes):
    return [np.random.randint(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shapes", [[(40, 70)], [(40, 70), (64, 33), (32, 32)]], ids=["one", "three"])
def test_any_number_of_images_of_any_size(toy, files, kind, shapes):
    images = images_of(*shapes)
    detector = Detector(files[kind], threads=1)
    assert detector.metadata == METADATA
    found = detector(images)
    with torch.no_grad():
        expected = toy(*map(torch.from_numpy, make_batch(images, METADATA)))[1].numpy()
    for one, scores, (height, width) in zip(found, expected, shapes, strict=True):
        np.testing.assert_allclose(one.scores, scores, atol=1e-5)
        np.testing.assert_allclose(one.boxes, [[0, 0, width, height], [0, 0, width / 2, height / 2]], rtol=1e-5)
        assert one.class_names == ["cat", "cat"]
        assert one.make_masks().shape == (2, height, width)


def test_a_folder_is_a_detector_too(files):
    assert Detector(files["openvino"].parent)(images_of((40, 70))[0]).category_ids == [3, 3]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_is_as_near_as_256_values_allow(write, files, kind):
    images = images_of((40, 70), (64, 33), (50, 50))
    batches = [make_batch([image], METADATA) for image in images]
    detector = Detector(write(kind, {**METADATA, "precision": "int8"}, batches))
    assert detector.metadata["precision"] == "int8"
    scores, others = (np.stack([one.scores for one in d(images)]) for d in (detector, Detector(files[kind])))
    assert 0 < np.abs(scores - others).max() < 0.02


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_openvino_has_halves(write, files, precision):
    file = write("openvino", {**METADATA, "precision": precision})
    image = images_of((40, 70))[0]
    np.testing.assert_allclose(Detector(file)(image).scores, Detector(files["onnx"])(image).scores, atol=0.01)
    sizes = [path.with_suffix(".bin").stat().st_size for path in (file, files["openvino"])]
    assert (sizes[0] < sizes[1]) == (precision == "float16")


def test_only_what_is_learned_becomes_int8():
    graph = {
        "normalize": ("Sub", []),
        "stem": ("Conv", ["normalize"]),
        "relu": ("Relu", ["stem"]),
        "sum": ("Add", ["relu", "stem"]),
        "rpn": ("Conv", ["sum"]),
        "rpn scores": ("Conv", ["rpn"]),
        "shape": ("Shape", ["sum"]),
        "anchors": ("Range", ["shape"]),
        "best": ("TopK", ["rpn scores"]),
        "decode": ("Add", ["best", "anchors"]),
        "pool": ("RoiAlign", ["sum", "decode"]),
        "head": ("Gemm", ["pool"]),
        "predictor": ("Gemm", ["head"]),
        "scores": ("Softmax", ["predictor"]),
        "output scores": ("Result", ["scores"]),
        "output boxes": ("Result", ["decode"]),
    }
    stays = ["normalize", "rpn scores", "shape", "anchors", "best", "decode", "pool", "predictor", "scores"]
    assert find_what_stays(graph) == stays


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut off", "text", "empty"])
def test_a_damaged_file_is_one_error(files, tmp_path, kind, damage):
    for name in FILES[kind]:
        content = (files[kind].parent / name).read_bytes()
        content = {"cut off": content[: len(content) // 2], "text": b"not a network\n", "empty": b""}[damage]
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{FILES[kind][0]}: .*(cannot load it|does not say)") as caught:
        Detector(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_belong_to_the_network_are_an_error(files, tmp_path):
    (tmp_path / "model.xml").write_bytes(files["openvino"].read_bytes())
    with pytest.raises(InputError, match=r"model.xml: OpenVINO .* cannot load it"):
        Detector(tmp_path)


@pytest.mark.parametrize("version", ["opset", "ir"])
def test_a_file_for_a_later_runtime_is_an_error(files, tmp_path, version):
    model = onnx.load(files["onnx"])
    if version == "opset":
        model.opset_import[0].version = 99
    else:
        model.ir_version = 99
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"model.onnx: ONNX Runtime [\d.]+ cannot load it: .*99"):
        Detector(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_program_has_written_is_told(write, program, files, kind):
    file = write(kind, METADATA)
    if kind == "onnx":
        model = onnx.load(file)
        del model.metadata_props[:]
        onnx.save(model, file)
    elif kind == "openvino":
        openvino.save_model(openvino.convert_model(files["onnx"]), file)
    else:
        torch.export.save(program, file)
    with pytest.raises(InputError, match=r"does not say its outputs, precision.*tools/export_model.py writes"):
        Detector(file)


def test_an_unknown_format_of_images_is_told(write):
    file = write("torch", {**METADATA, "input_format": "YUV-BT.601"})
    with pytest.raises(InputError, match=r"takes images in YUV-BT.601; BGR, RGB, L, CHANNELS are known here"):
        Detector(file)


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "bfloat16"), ("torch", "int8"), ("onnx", "float16")])
def test_what_a_format_does_not_have_is_told(kind, precision):
    others = "openvino" if precision != "int8" else "onnx or openvino"
    with pytest.raises(
        InputError, match=rf"--precision {precision} is not for {kind}, which has .*; --format {others} has it"
    ):
        check_precision(kind, precision)
    for known in PRECISIONS[kind]:
        check_precision(kind, known)


def test_a_missing_library_is_named_before_any_work(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs nncf, onnx, onnxruntime, onnxscript, which .*resnet_det\[export\]"):
        check_libraries(["onnx"], "int8")
    check_libraries(["torch"], "float32")


def test_a_torch_that_cannot_export_is_told(monkeypatch):
    monkeypatch.delattr(torch.export.Dim, "DYNAMIC")
    with pytest.raises(InputError, match=r"exporting needs a later torch than \d.*lacks Dim.DYNAMIC"):
        check_libraries(["torch"], "float32")


def test_what_depends_on_values_cannot_be_traced():
    class Branch(nn.Module):
        def forward(self, images, sizes):
            return images if images.sum() > 0 else sizes

    with pytest.raises(ValueError, match=r"torch.export cannot follow this model"):
        trace(Branch(), 3)


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_it_runs_with_neither_torch_nor_detectron2(files, kind):
    code = """
import sys
sys.modules["torch"] = sys.modules["detectron2"] = None
import json
import numpy as np
from resnet_det.deploy import Detector
image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
print(json.dumps(Detector(sys.argv[1])(image).to_coco(1)))
"""
    command = [sys.executable, "-c", code, str(files[kind])]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    expected = Detector(files["torch"])(image).to_coco(1)
    for one, other in zip(json.loads(run.stdout), expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)
        assert one["bbox"] == pytest.approx(other["bbox"])
        assert one["segmentation"] == other["segmentation"]


def test_metadata_is_plain_json(files):
    text = onnx.load(files["onnx"]).metadata_props[0].value
    assert json.loads(text) == METADATA
