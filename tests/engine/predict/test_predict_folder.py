"""Every image exactly once, whatever is interrupted, in whichever process, and in either format."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pycocotools.mask
import pytest

from resnet_det.engine.predict import build_predict_parser
from resnet_det.engine.predict.folder import PredictionFolder
from resnet_det.engine.predict.inputs import list_inputs
from resnet_det.engine.predict.progress import Progress
from resnet_det.engine.predict.run import make_manifest, predict_units
from resnet_det.engine.predict.units import Options
from resnet_det.errors import InputError
from resnet_det.evaluation.files import evaluate_files
from resnet_det.evaluation.prediction_folder import read_predictions, read_rows

OPTIONS = Options(batch_size=3, num_workers=2, confidence_threshold=0.1, shard_size=4)


@pytest.fixture
def inputs(tmp_path, write_images, write_tar, encode):
    """10 images in a folder, a shard with two images, one of them broken, and a shard that is cut off."""
    write_images(10)
    members = {"k/1.png": encode(2, 1, 200), "k/1.json": b"{}", "k/2.png": b"broken"}
    write_tar(tmp_path / "shards" / "a.tar", members)
    path = write_tar(tmp_path / "shards" / "b.tar", {"k/3.png": encode(1)})
    path.write_bytes(path.read_bytes()[:1024])
    return [str(tmp_path / name) for name in ("photos", "shards")]


@pytest.fixture
def predict(inputs, tmp_path, detector):
    def call(output="out", options=OPTIONS, *, by=detector, description=None, **ranks):
        listing = list_inputs(inputs, options.shard_size)
        flags = ["--format", options.format, "--batch-size", options.batch_size, "--output", tmp_path / output]
        flags += ["--confidence-threshold", options.confidence_threshold, "--shard-size", options.shard_size]
        args = build_predict_parser().parse_args(list(map(str, [*inputs, *flags])))
        manifest = make_manifest(args, listing, by, description or {"sha256": "1"})
        folder = PredictionFolder(tmp_path / output, manifest)
        return predict_units(by, listing.units, folder, options, **ranks)

    return call


def read_files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def read_all(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "results").iterdir()) for row in read_rows(path)]


def test_each_image_has_one_row_with_what_was_found(predict, inputs, tmp_path, detector):
    summary = predict()
    rows = read_all(tmp_path / "out")
    shards = [str(Path(inputs[1]) / name) for name in ("a.tar", "b.tar")]
    expected = [(None, str(Path(inputs[0]) / f"{i:03d}.png")) for i in range(10)]
    expected += [(shards[0], "k/1.png"), (shards[0], "k/2.png"), (shards[1], "k/3.png")]
    assert Counter((row["shard"], row["file_name"]) for row in rows) == Counter(expected)
    assert summary.all.__dict__ == {"images": 13, "detections": 12, "bad": 2, "others": 1}
    assert [row["error"] for row in rows].count(None) == 12
    by_name = {row["file_name"]: row for row in rows}
    two = by_name[str(Path(inputs[0]) / "008.png")]
    assert (two["height"], two["width"]) == (10, 12)
    first, second = two["detections"]
    assert (first["category_id"], first["category"], first["bbox"]) == (3, "cat", [1, 2, 8, 6])
    assert (first["score"], second["score"]) == pytest.approx((247 / 255, 247 / 510), abs=1e-7)
    assert pycocotools.mask.area(first["segmentation"]) == 8 * 6
    assert by_name[str(Path(inputs[0]) / "003.png")]["detections"] == []
    bad = [json.loads(line) for line in (tmp_path / "out" / "bad_images.jsonl").read_text().splitlines()]
    assert [(row["shard"], row["file_name"]) for row in bad] == [(shards[0], "k/2.png"), (shards[1], "")]
    assert bad == summary.bad
    assert detector.batches == [3, 1, 3, 1, 1, 1, 2]


def test_scores_below_the_threshold_are_left_out(predict, tmp_path):
    predict(options=replace(OPTIONS, confidence_threshold=0.5))
    scores = [found["score"] for row in read_all(tmp_path / "out") for found in row["detections"]]
    assert min(scores) >= 0.5
    assert len(scores) == 3 + 3 + 1 + 1


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(predict, tmp_path, detector):
    class Interrupted(Exception):  # noqa: N818
        pass

    run, calls = detector.run, []

    def run_three_times(images):
        calls.append(len(images))
        if len(calls) % 4 == 0:
            raise Interrupted
        return run(images)

    predict("undisturbed")
    detector.run = run_three_times
    interruptions = 0
    while True:
        try:
            summary = predict("out")
            break
        except Interrupted:
            interruptions += 1
            assert list((tmp_path / "out").rglob("*.tmp")) == []
    assert interruptions == 2
    assert read_files(tmp_path / "out") == read_files(tmp_path / "undisturbed")
    assert summary.all.images == 13
    assert summary.new.images < 13
    again = len(calls)
    assert predict("out").new.images == 0
    assert len(calls) == again


def test_processes_share_the_units_and_the_first_takes_over(predict, tmp_path, detector):
    predict("alone")
    theirs = []

    class Second(type(detector)):
        def run(self, images):
            theirs.append(len(images))
            return super().run(images)

    assert predict("out", by=Second(), rank=1, world_size=2) is None  # the first has not come yet: it does all
    assert sum(theirs) == 12
    assert predict("out", rank=0, world_size=2).all.images == 13
    assert read_files(tmp_path / "out") == read_files(tmp_path / "alone")


def make_small_manifest(num_units):
    return {"format": "jsonl", "confidence_threshold": 0.1, "inputs": {"units": num_units}, "detector": {}}


def test_two_processes_never_work_on_one_unit(tmp_path):
    folder = PredictionFolder(tmp_path / "out", make_small_manifest(2))
    with folder.claim(0) as mine, folder.claim(0) as theirs, folder.claim(1) as other:
        assert (mine, theirs, other) == (True, False, True)
    with folder.claim(0) as mine:
        folder.finish(0, {"bad": []})
    with folder.claim(0) as theirs, folder.claim(0, wait=True) as waited:
        assert (mine, theirs, waited) == (True, False, False)
    assert folder.list_finished() == {0}


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path):
    folder = PredictionFolder(tmp_path / "out", make_small_manifest(1))
    code = (
        "import fcntl, os, sys; f = open(sys.argv[1], 'ab'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    )
    path = folder.records / ".000000.lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        holder.stdout.readline()
        with folder.claim(0) as mine:
            assert not mine
        holder.kill()
        holder.wait()
        with folder.claim(0, wait=True) as mine:
            assert mine


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence_threshold": 0.3}, "confidence_threshold: 0.1 there, 0.3 now"),
        ({"batch_size": 2}, "batch_size: 3 there, 2 now"),
        ({"format": "parquet"}, "format: jsonl there, parquet now"),
        ({"shard_size": 100}, "inputs: units: 5 there, 3 now"),
        ({"description": {"sha256": "2"}}, "detector: sha256: 1 there, 2 now"),
        ({"new image": True}, "inputs: images: 10 there, 11 now"),
    ],
)
def test_going_on_with_anything_else_names_the_difference(predict, inputs, tmp_path, changes, message, encode):
    predict()
    before = read_files(tmp_path / "out")
    if changes.pop("new image", False):
        (Path(inputs[0]) / "x.png").write_bytes(encode())
    description = changes.pop("description", None)
    with pytest.raises(InputError, match="made in another way; name another folder, delete it, or ask") as error:
        predict(options=replace(OPTIONS, **changes), description=description)
    assert message in str(error.value)
    assert read_files(tmp_path / "out") == before


def test_a_folder_with_other_files_is_refused(predict, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is there, and holds no predictions to go on with"):
        predict()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("manifest", ["[1]", '{"name": "an app"}', '{"inputs": 3, "detector": "x", "format": "jsonl"}'])
def test_a_manifest_of_another_program_is_refused(predict, tmp_path, manifest):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=r"manifest.json: was not written by tools/predict.py"):
        predict()
    with pytest.raises(InputError, match=r"manifest.json: was not written by tools/predict.py"):
        read_predictions(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_an_image_that_is_read_again_is_bad_no_more(predict, inputs, tmp_path, encode):
    del inputs[1]
    image = tmp_path / "photos" / "003.png"
    image.write_bytes(b"away")
    assert [bad["file_name"] for bad in predict().bad] == [str(image)]
    assert (tmp_path / "out" / "bad_images.jsonl").is_file()
    image.write_bytes(encode())
    (tmp_path / "out" / "records" / "000000.json").unlink()
    assert predict().bad == []
    assert not (tmp_path / "out" / "bad_images.jsonl").exists()


def test_where_there_are_no_locks_files_of_others_stay(predict, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("resnet_det.engine.predict.folder.fcntl.flock", fail)
    (tmp_path / "out" / "results").mkdir(parents=True)
    (tmp_path / "out" / "results" / ".000000.jsonl.other.7.tmp").write_text("half a line")
    (tmp_path / "out" / "records").mkdir()
    monkeypatch.setattr("resnet_det.engine.predict.folder.check_folder", lambda _: None)
    assert predict().all.images == 13
    assert "no locks here (Operation not supported): units may be computed twice" in caplog.text
    assert (tmp_path / "out" / "results" / ".000000.jsonl.other.7.tmp").is_file()


def test_images_of_the_same_name_cannot_be_told_apart_in_evaluation(predict, tmp_path, write_tar, encode):
    for name in "ab":
        write_tar(tmp_path / "shards" / f"{name}.tar", {"same.png": encode(1)})
    predict()
    with pytest.raises(InputError, match=r"same.png is there twice"):
        read_predictions(tmp_path / "out")


def test_an_image_that_the_detector_refuses_is_told_and_the_others_of_its_batch_are_not(predict, inputs, encode):
    (Path(inputs[0]) / "001.png").write_bytes(encode(size=(10, 1)))
    summary = predict()
    assert ("nothing is left of it", str(Path(inputs[0]) / "001.png")) in [
        (b["error"], b["file_name"]) for b in summary.bad
    ]
    assert summary.all.__dict__ == {"images": 13, "detections": 11, "bad": 3, "others": 1}


def test_parquet_has_what_json_lines_have(predict, tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow: pip install 'resnet_det[parquet]'")
    predict("lines")
    predict("columns", replace(OPTIONS, format="parquet"))

    def plain(rows):
        """Without fields that are not there, and with scores as float32."""
        for row in rows:
            for found in row["detections"]:
                found["score"] = pytest.approx(found["score"], rel=1e-7)
                if found.get("keypoints") is None:
                    found.pop("keypoints", None)
        return rows

    assert plain(read_all(tmp_path / "columns")) == read_all(tmp_path / "lines")
    assert len(read_predictions(tmp_path / "columns")) == 12


def test_evaluation_takes_the_folder_once_it_is_whole(predict, inputs, tmp_path, caplog):
    del inputs[1]
    predict()
    truth = []
    for i in range(10):
        truth += [{"image_id": i + 50, "category_id": (3, 7)[i % 2], "bbox": [1 + k, 2, 8, 6]} for k in range(i % 3)]
    truth = [{**one, "id": n + 1, "area": 48, "iscrowd": 0} for n, one in enumerate(truth)]
    images = [{"id": i + 50, "file_name": f"photos/{i:03d}.png", "height": 10, "width": 12} for i in range(10)]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    (analysis,), _ = evaluate_files(
        path, tmp_path / "out", output=tmp_path / "report", iou_types=["bbox"], num_draws=10
    )
    assert analysis.metrics["AP"] == pytest.approx(100)
    assert "has only detections with a score of at least 0.1" in caplog.text
    assert "could not be read" not in caplog.text
    (tmp_path / "out" / "records" / "000001.json").unlink()
    with pytest.raises(InputError, match="1 of 3 units are not predicted yet; the same call"):
        evaluate_files(path, tmp_path / "out")
    with pytest.raises(InputError, match=r"a folder without manifest.json"):
        evaluate_files(path, tmp_path / "photos")


def test_the_time_to_go_counts_what_all_processes_finish(inputs, caplog, monkeypatch):
    caplog.set_level("INFO", "resnet_det")
    units = list_inputs(inputs, 4).units
    finished = {0}
    progress = Progress(units, lambda: finished, shown=True, shard_size=6)
    assert [type(unit).__name__ for unit in units] == ["PathUnit"] * 2 + ["TarUnit"] * 2 + ["PathUnit"]
    assert progress.estimate() == (4, 10 + 6 + 6)
    progress.end_unit(2, 2)  # two images
    assert progress.estimate() == (4 + 2, 10 + 2 + 2)
    finished |= {1, 2}  # 1 by another process
    monkeypatch.setattr(progress, "_seconds", 0)
    progress.advance()
    assert "11 of about 14 images, " in caplog.text
    assert caplog.text.endswith(" to go\n")
