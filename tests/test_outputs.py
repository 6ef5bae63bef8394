"""No tool overwrites a file that it has not written itself in this call."""

from __future__ import annotations

import hashlib
import json

import pytest

from resnet_det.data import judge_content
from resnet_det.data.formats.labels import Classes, LabelledImage, Split, write_coco
from resnet_det.errors import InputError
from resnet_det.evaluation.files import evaluate_files
from resnet_det.outputs import OutputFolder, check_new_file, make_new_folder
from resnet_det.tradeoff.run import Measuring, compare_configs


def hashes(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_claimed_once_and_then_ones_own(tmp_path):
    (tmp_path / "a.png").write_text("mine")
    files = OutputFolder(tmp_path / "new" / "folder")
    files.claim("b.txt").write_text("1")
    files.claim("b.txt").write_text("2")
    files = OutputFolder(tmp_path)
    with pytest.raises(InputError, match=r"--output: .*a\.png is there already and stays as it is; name another"):
        files.claim("a.png")
    assert files.claim_free("a", ".png").name == "a-2.png"
    assert files.claim_free("a", ".png").name == "a-3.png"
    with pytest.raises(InputError, match=r"a\.png is there already"):
        OutputFolder(tmp_path, ["other", "a.png"])
    with pytest.raises(InputError, match=r"--fix .*: is there, and not an empty folder"):
        make_new_folder(tmp_path, flag="--fix")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dangling is there already"):
        check_new_file(tmp_path / "dangling")
    assert (tmp_path / "a.png").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.html", "evaluation.json"])
def test_evaluation_leaves_an_earlier_report(coco_files, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name} is there already"):
        evaluate_files(coco_files[0], tmp_path / "no results are looked at", output=out)
    assert hashes(out) == {out / name: hashlib.sha256(b"mine").hexdigest()}


def test_annotation_files_and_comparisons_are_left_too(coco_files, tmp_path):
    images = json.loads(coco_files[0].read_text())["images"]
    split = Split("train", coco_files[1], [LabelledImage(images[0]["file_name"], 64, 48, [])])
    write_coco([split], Classes(["cat"]), tmp_path / "out")
    assert len(judge_content(json.loads((tmp_path / "out" / "train.json").read_text())).images) == 1
    with pytest.raises(InputError, match=r"train\.json is there already"):
        write_coco([split], Classes(["cat"]), tmp_path / "out")
    (tmp_path / "out" / "tradeoff.html").write_text("mine")
    with pytest.raises(InputError, match=r"tradeoff\.html is there already"):
        compare_configs(["no.yaml"], [], tmp_path / "out", Measuring("cpu", "fp32", 1))
