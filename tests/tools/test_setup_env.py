"""Set-up: what stops it at once, and that a second call costs nothing."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest


@pytest.fixture
def setup_env(request):
    spec = importlib.util.spec_from_file_location("setup_env", request.config.rootpath / "tools" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_too_old_stops_make(request, tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.10\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path}/venv"],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    assert "is Python 3.8.10: Python 3.11 or later is needed. Say which: make PYTHON=python3.12" in run.stderr
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize(
    ("free_gb", "said"), [(3, "error"), (7.9, "error"), (9, "little space"), (11.9, "little space"), (12.1, "")]
)
def test_too_little_space_is_said_at_once(setup_env, monkeypatch, tmp_path, capsys, free_gb, said):
    monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free_gb * 1e9}))
    monkeypatch.setattr(setup_env.tempfile, "gettempdir", lambda: str(tmp_path))
    venv = tmp_path / "made" / "later" / "venv"
    if said == "error":
        with pytest.raises(setup_env.SetupError, match=rf"{free_gb:.1f} GB free in {tmp_path}, about 8 are needed"):
            setup_env.check_machine(venv)
    else:
        setup_env.check_machine(venv)
    assert ("TMPDIR=FOLDER" in capsys.readouterr().out) == (said == "little space")


@pytest.mark.parametrize(("free_gb", "is_little"), [(3.9, True), (4.1, False)])
def test_space_for_downloads_may_be_on_another_disk(setup_env, monkeypatch, tmp_path, capsys, free_gb, is_little):
    free = {str(tmp_path): 9, "/elsewhere": free_gb}
    monkeypatch.setattr(setup_env.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[str(path)] * 1e9}))
    monkeypatch.setattr(setup_env.tempfile, "gettempdir", lambda: "/elsewhere")
    monkeypatch.setattr(setup_env, "share_a_disk", lambda *_: False)
    setup_env.check_machine(tmp_path / "venv")
    assert ("GB in /elsewhere" in capsys.readouterr().out) == is_little


def test_no_index_stops_with_one_message(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    with pytest.raises(setup_env.SetupError, match=r"pip could not get the package index.*PIP_INDEX_URL"):
        setup_env.make_environment(tmp_path / "venv", "auto", None)


@pytest.mark.parametrize(
    ("made_with", "wanted", "expected"),
    [("auto", "auto", True), ("/src/d2", "auto", True), ("/src/d2", "/src/d2", True), ("auto", "/src/d2", False)],
)
def test_a_second_call_does_nothing_unless_another_detectron2_is_wanted(
    setup_env, tmp_path, made_with, wanted, expected
):
    setup_env.stamp_file(tmp_path).write_text(setup_env.stamp(made_with))
    assert setup_env.is_up_to_date(tmp_path, wanted) is expected


def test_changed_files_are_noticed(setup_env, tmp_path):
    setup_env.stamp_file(tmp_path).write_text("0" * 64 + "\nauto\n")
    assert not setup_env.is_up_to_date(tmp_path, "auto")
    assert not setup_env.is_up_to_date(tmp_path / "none", "auto")


def test_opencv_without_graphics_libraries_is_replaced(setup_env, monkeypatch, tmp_path, capsys):
    calls = []

    def fake_run(command, **_):
        calls.append([str(part) for part in command])
        failed = "import cv2" in calls[-1]
        output = "ImportError: libGL.so.1: cannot open shared object file" if failed else ""
        return subprocess.CompletedProcess(command, int(failed), output)

    monkeypatch.setattr(setup_env, "run", fake_run)
    setup_env.install_project(tmp_path / "python")
    assert "using opencv-python-headless" in capsys.readouterr().out
    assert any("uninstall" in call and "opencv-python" in call for call in calls)
    assert calls[-1][-1].endswith("[dev,headless]")
