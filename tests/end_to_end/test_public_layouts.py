"""Small folders in YOLO's and Pascal VOC's layouts, and checkpoints of many training programs, each in the shape of
what users report, through all tools. They lie beside the shared data; without them these tests are skipped, and say
so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import cases
import pytest
import torch

import resnet_det
from resnet_det.errors import InputError
from resnet_det.weights import load_weights

# Images, objects, masks and poses that each becomes, or what is said of it, and what is said besides.
LAYOUTS = {
    "v01_ok": ((3, 9, 0, 0), ""),
    "v02_float_coords": ((3, 9, 0, 0), ""),
    "v03_swapped": ((3, 9, 0, 0), "9 boxes whose corners were swapped"),
    "v04_upper_ext": ((3, 9, 0, 0), ""),
    "v05_no_ext_filename": ((3, 9, 0, 0), ""),
    "v06_sets_with_ext": ((2, 6, 0, 0), ""),
    "v07_wrong_size_swapped": (None, r"im1.xml: the size is 120 x 160, but .*im1.jpg has 160 x 120 pixels"),
    "v08_zero_based": ((3, 9, 0, 0), ""),
    "v09_one_outside": ((3, 6, 0, 0), r"3 left out, such as .*im0.xml: object 1: its box 52, 53, 1900, 75 reaches"),
    "y01_ok": ((3, 6, 0, 0), ""),
    "y02_1_0004": ((3, 3, 0, 0), "3 lines with shares just outside 0 to 1, which are clipped"),
    "y03_tiny_over": ((3, 6, 0, 0), "3 lines with shares just outside 0 to 1, which are clipped"),
    "y04_float_class": ((3, 3, 0, 0), "3 lines whose class has a decimal point"),
    "y05_pose_dim2": ((3, 3, 0, 3), ""),
    "y06_pose_dim3": ((3, 3, 0, 3), ""),
    "y08_txt_list": ((3, 3, 0, 0), ""),
    "y09_names_dict_upper_ext": ((3, 3, 0, 0), ""),
    "y10_confidence_column": (None, r"im0.txt:1: 5 numbers after the class; a box has 4, a polygon an even number"),
    "y11_dup_lines_crlf": ((3, 6, 0, 0), ""),
    "y12_obb": ((3, 3, 3, 0), ""),
    "y13_no_names": (None, "names must be a list"),
    "y14_empty_line_box": (None, r"im0.txt:1: the box is empty"),
    "y15_bom": ((3, 3, 0, 0), ""),
    "y16_class_out": (None, r"im0.txt:1: the class is 2; it must be a number from 0 to 1"),
    "y17_path_datasets": ((3, 3, 0, 0), r"\.\./datasets/y17_path_datasets has no images/train; that below .* is taken"),
    "y18_yolo_darknet_names": (None, "names must be a list"),
}
REPEATED = {"y11_dup_lines_crlf"}  # each box twice, which the checker calls an error
READ = [name for name, (counts, _) in LAYOUTS.items() if counts]
# Of 60_weights what is an error; all others load, each with all tensors of the backbone.
WRONG_WEIGHTS = {"r50_for_r18.pth": "res2.0", "script.pt": "TorchScript"}


def prepare(name, out):
    folder = cases.CASES / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in {cases.CASES} (set RESNET_DET_SHARED_CASES or RESNET_DET_SHARED_DATA to run this)")
    source = ("yolo", folder / "data.yaml") if name.startswith("y") else ("voc", folder)
    return cases.run("prepare_dataset.py", *source, "--output", out)


def written(run, out):
    """The annotation file that was written, and the folder of its images as the tool says it."""
    (file,) = out.glob("*.json")
    return file, re.search(rf"{re.escape(str(file))} (\S+): ", run.text)[1]


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_read_or_told(name, tmp_path):
    out = tmp_path / "prepared"
    run = prepare(name, out)
    counts, said = LAYOUTS[name]
    assert not run.has_traceback, run.text
    assert re.search(said, run.text), run.text
    if counts is None:
        assert run.status == 2, run.text
        assert not out.exists() or not list(out.iterdir())
        return
    assert run.status == 0, run.text
    file, images = written(run, out)
    content = json.loads(file.read_text())
    rows = content["annotations"]
    assert counts == (
        len(content["images"]),
        len(rows),
        sum("segmentation" in row for row in rows),
        sum("keypoints" in row for row in rows),
    )
    checked = cases.run("check_dataset.py", "--annotations", file, "--images", images)
    assert checked.status == (name in REPEATED), checked.text
    assert f"used: {counts[0]} images, {counts[1]} objects" in checked.text, checked.text


@pytest.mark.long
@pytest.mark.parametrize("name", READ)
def test_each_layout_trains_two_iterations_and_is_evaluated_and_drawn(name, tmp_path):
    data = written(prepare(name, tmp_path / "prepared"), tmp_path / "prepared")
    without_masks = () if LAYOUTS[name][0][2] else ("MODEL.MASK_ON", "False")
    run = cases.train(cases.CASES / name, tmp_path / "out", *without_masks, train_set=data)
    assert run.status == 0, run.text
    assert (tmp_path / "out" / "report.html").is_file(), run.text
    results = tmp_path / "results.json"
    rows = json.loads(data[0].read_text())["annotations"]
    results.write_text(
        json.dumps([{key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for row in rows])
    )
    shown = ("--annotations", data[0], "--results", results)
    evaluated = cases.run("evaluate.py", *shown, "--output", tmp_path / "report")
    assert evaluated.status == 0, evaluated.text
    drawn = cases.run("visualize.py", *shown, "--images", data[1], "--output", tmp_path / "drawn")
    assert drawn.status == 0, drawn.text
    assert len(list((tmp_path / "drawn").glob("*.png"))) == LAYOUTS[name][0][0]


@pytest.mark.long
def test_checkpoints_of_many_programs(tmp_path):
    make = cases.CASES / "60_weights" / "make.py"
    if not make.is_file():
        pytest.skip(
            f"no 60_weights in {cases.CASES} (set RESNET_DET_SHARED_CASES or RESNET_DET_SHARED_DATA to run this)"
        )
    shutil.copy(make, tmp_path)
    subprocess.run([sys.executable, "make.py"], cwd=tmp_path, check=True, capture_output=True)
    first = torch.load(tmp_path / "plain.pth")["layer1.0.conv1.weight"]
    files = sorted(path for path in tmp_path.iterdir() if path.suffix != ".py")
    assert len(files) > 30
    for path in files:
        model = resnet_det.make_resnet(18)
        if path.name in WRONG_WEIGHTS:
            with pytest.raises(InputError, match=WRONG_WEIGHTS[path.name]):
                load_weights(model, path)
            continue
        assert not load_weights(model, path).missing, path.name
        torch.testing.assert_close(model.state_dict()["res2.0.conv1.weight"], first, atol=1e-3, rtol=0, msg=path.name)
