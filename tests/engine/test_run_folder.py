"""Whose files are in OUTPUT_DIR."""

from __future__ import annotations

import os
from argparse import Namespace

import pytest
import torch

from resnet_det.engine.checkpoint import Checkpointer, find_checkpoint, load_last_weights
from resnet_det.engine.run import _inputs
from resnet_det.engine.run_folder import (
    choose_start,
    clear_run,
    continue_run,
    find_jobs,
    find_numbered,
    holds_run,
    read_record,
    start_run,
)
from resnet_det.errors import InputError


@pytest.fixture(autouse=True)
def _no_jobs(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


def make_checkpointer(folder, value=0.0):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, value)
    return Checkpointer(model, str(folder))


def make_run(folder, iterations, value=0.0):
    folder.mkdir(exist_ok=True)
    checkpointer = make_checkpointer(folder, value)
    checkpointer.begin()
    for iteration in iterations:
        checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
    return checkpointer


def test_a_used_folder_needs_a_word_from_the_user(tmp_path):
    assert not choose_start(tmp_path / "new", resume=False, overwrite=False)
    assert choose_start(tmp_path / "new", resume=True, overwrite=False)
    folder = tmp_path / "out"
    make_run(folder, [7, 9])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=r"out holds a run: --resume .* another OUTPUT_DIR .* --overwrite"):
        choose_start(folder, resume=False, overwrite=False)
    assert choose_start(folder, resume=True, overwrite=False)
    assert not choose_start(folder, resume=False, overwrite=True)
    with pytest.raises(InputError, match="give one of them"):
        choose_start(folder, resume=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_that_failed_at_its_start_bars_nothing(tmp_path):
    start_run(tmp_path)
    (tmp_path / "metrics.json").touch()
    (tmp_path / "config.yaml").write_text("x: 1")
    assert not holds_run(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    assert holds_run(tmp_path)


@pytest.mark.parametrize("job", ["torchrun", "slurm"])
def test_a_restart_goes_on_with_its_own_run_alone(tmp_path, monkeypatch, job):
    make_run(tmp_path / "old", [7])
    if job == "torchrun":
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    else:
        monkeypatch.setenv("SLURM_JOB_ID", "41")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(InputError, match="holds a run"):
        choose_start(tmp_path / "old", resume=False, overwrite=False)
    make_run(tmp_path / "own", [3])
    assert choose_start(tmp_path / "own", resume=False, overwrite=False)
    assert choose_start(tmp_path / "own", resume=False, overwrite=True), "what a restart overwrites is not its own run"
    if job == "slurm":
        monkeypatch.setenv("SLURM_JOB_ID", "42")
    else:
        monkeypatch.setattr("resnet_det.engine.run_folder.os.getppid", os.getpid)
    with pytest.raises(InputError, match="holds a run"):
        choose_start(tmp_path / "own", resume=False, overwrite=False)
    continue_run(tmp_path / "own", read_record(tmp_path / "own")["id"])
    assert choose_start(tmp_path / "own", resume=False, overwrite=False)
    assert len(find_jobs()) == 1


def test_a_first_start_of_a_job_is_no_restart(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    make_run(tmp_path, [3])
    with pytest.raises(InputError, match="holds a run"):
        choose_start(tmp_path, resume=False, overwrite=False)


def test_overwriting_deletes_what_runs_write_and_nothing_else(tmp_path):
    make_run(tmp_path, [7])
    for name in ("metrics.json", "model_best.pth", "results.json", "log.txt", "log.txt.rank1", "events.out.tfevents.1"):
        (tmp_path / name).write_text("x")
    (tmp_path / "inference").mkdir()
    (tmp_path / "inference" / "coco_instances_results.json").write_text("x")
    for name in ("notes.md", "model_mine.pth", "weights.pth"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"model_best.pth is among the files that --overwrite deletes"):
        clear_run(tmp_path, keep=["", "a/config.yaml", tmp_path / "model_best.pth"])
    assert (tmp_path / "model_0000007.pth").exists()
    clear_run(tmp_path, keep=["torchvision://resnet18"])
    assert {path.name for path in tmp_path.iterdir()} == {"notes.md", "model_mine.pth", "weights.pth"}


def test_a_run_neither_deletes_nor_continues_another_ones_checkpoints(tmp_path):
    make_run(tmp_path, [7, 9], value=1.0)
    new = make_run(tmp_path, [2], value=2.0)
    new.keep_last(1)
    assert [path.name for path in find_numbered(tmp_path)] == [f"model_000000{number}.pth" for number in (2, 7, 9)]
    assert find_checkpoint(tmp_path).name == "model_0000002.pth"
    (tmp_path / "model_0000002.pth").unlink()
    assert find_checkpoint(tmp_path) is None
    new.save("model_0000003", iteration=3)
    new.save("model_0000004", iteration=4)
    new.keep_last(1)
    assert [path.name for path in find_numbered(tmp_path)][:1] == ["model_0000004.pth"]
    resumed = make_checkpointer(tmp_path)
    assert resumed.resume_last() == 4
    assert resumed.run_id == new.run_id
    assert resumed.model.weight.item() == 2.0


def test_numbers_of_checkpoints_are_numbers(tmp_path):
    checkpointer = make_run(tmp_path, [999_999, 12_345_678])
    assert [path.name for path in find_numbered(tmp_path)] == ["model_0999999.pth", "model_12345678.pth"]
    checkpointer.keep_last(1)
    assert [path.name for path in find_numbered(tmp_path)] == ["model_12345678.pth"]


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    make_run(tmp_path, [1])
    with pytest.raises(
        InputError, match=r"of another model: 2 tensors differ, such as bias: \(1,\) there, \(3,\) here"
    ):
        Checkpointer(torch.nn.Linear(1, 3), str(tmp_path)).resume_last()


def test_a_process_that_cannot_read_the_checkpoint_says_so(tmp_path, monkeypatch):
    make_run(tmp_path, [1])
    load = torch.load

    def fail(path, **options):
        if options.get("mmap"):  # what the first process looks at
            return load(path, **options)
        raise FileNotFoundError(path)

    monkeypatch.setattr("torch.load", fail)
    with pytest.raises(InputError, match="OUTPUT_DIR has to be where all machines see it"):
        make_checkpointer(tmp_path).resume_last()


def test_what_a_run_would_be_evaluated_by_is_loaded(tmp_path):
    make_run(tmp_path, [1], value=3.0)
    model = torch.nn.Linear(1, 1)
    assert load_last_weights(tmp_path, model, averaged=False).name == "model_0000001.pth"
    assert model.weight.item() == 3.0
    with pytest.raises(InputError, match="has no moving average"):
        load_last_weights(tmp_path, model, averaged=True)
    path = tmp_path / "model_0000001.pth"
    average = {"weight": torch.full((1, 1), 4.0), "bias": torch.zeros(1)}
    torch.save(torch.load(path) | {"trainer": {"_trainer": {"ema": {"module": average}}}}, path)
    load_last_weights(tmp_path, model, averaged=True)
    assert model.weight.item() == 4.0
    assert load_last_weights(tmp_path / "none", model, averaged=True) is None
    assert os.path.isdir(tmp_path)


def test_files_that_a_run_reads_are_not_overwritten(default_cfg):
    default_cfg.RESNET_DET.DATA.COCO = [["mine", "out/annotations.json", "out/images"]]
    default_cfg.DATASETS.PROPOSAL_FILES_TRAIN = ("out/proposals.pkl",)
    default_cfg.MODEL.WEIGHTS = "out/start.pth"
    read = _inputs(default_cfg, Namespace(config_file="out/config.yaml"))
    names = ("annotations.json", "images", "proposals.pkl", "start.pth", "config.yaml")
    assert {f"out/{name}" for name in names} <= set(read)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []

    def sync(number):
        seen.append((os.fstat(number).st_size, [path.name for path in tmp_path.iterdir()]))

    monkeypatch.setattr("os.fsync", sync)
    make_checkpointer(tmp_path).save("model_0000001")
    ((size, present),) = seen
    assert size == (tmp_path / "model_0000001.pth").stat().st_size
    assert present == ["model_0000001.tmp"]
