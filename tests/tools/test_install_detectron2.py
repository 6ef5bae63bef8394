"""The installer: what it takes first, and what it refuses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile

import pytest


@pytest.fixture
def installer(request):
    path = request.config.rootpath / "tools" / "install_detectron2.py"
    spec = importlib.util.spec_from_file_location("install_detectron2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def rules():
    return {
        "edit": [{"files": ["a.py"], "find": "np.int", "replace": "int", "count": 2}],
        "file": [{"path": "new.py", "text": "\nX = 1\n"}],
    }


def test_edits_are_made_where_they_match(installer, rules, tmp_path):
    (tmp_path / "a.py").write_text("np.int np.int")
    installer.apply_edits(tmp_path, rules)
    assert (tmp_path / "a.py").read_text() == "int int"
    assert (tmp_path / "new.py").read_text() == "X = 1\n"


@pytest.mark.parametrize("text", ["np.int", "np.int np.int np.int", ""])
def test_an_edit_that_does_not_match_stops_and_is_named(installer, rules, tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(
        installer.InstallError, match=r"edit 1 expects in detectron2/a.py: 'np.int' occurs \d times, expected 2"
    ):
        installer.apply_edits(tmp_path, rules)
    assert (tmp_path / "a.py").read_text() == text


def test_a_wrong_hash_is_refused(installer, tmp_path):
    archive = tmp_path / "detectron2_cdo-0.5.tar.gz"
    with tarfile.open(archive, "w:gz"):
        pass
    with pytest.raises(
        installer.InstallError, match=r"SHA-256 of .*tar.gz is [0-9a-f]{64}, expected 53c9e79e.*Not used"
    ):
        installer.install_v05(archive)


def test_a_missing_archive_is_named(installer, tmp_path):
    with pytest.raises(installer.InstallError, match=r"no.tar.gz: no such file"):
        installer.install_v05(tmp_path / "no.tar.gz")


def test_a_folder_that_is_no_checkout_is_refused(installer, tmp_path):
    with pytest.raises(installer.InstallError, match="not a checkout of Detectron2"):
        installer.install(str(tmp_path), None)


def test_what_works_is_kept(installer, monkeypatch):
    for name in ("install_v05", "install_upstream", "why_not_upstream"):
        monkeypatch.setattr(installer, name, lambda *_: pytest.fail("nothing is to be installed"))
    installer.install("auto", None)


def test_without_upstream_the_package_index_is_used(installer, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(installer, "detectron2_works", lambda: None)
    monkeypatch.setattr(installer, "why_not_upstream", lambda: "Upstream Detectron2 is not reached: no answer.")
    monkeypatch.setattr(installer, "install_v05", taken.append)
    installer.install("auto", None)
    assert taken == [None]
    assert "not reached: no answer.\nUsing the Python-only Detectron2 0.5" in capsys.readouterr().out


def test_upstream_that_does_not_build_falls_back(installer, monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(installer, "detectron2_works", lambda: None)
    monkeypatch.setattr(installer, "why_not_upstream", lambda: None)
    failed = subprocess.CompletedProcess([], 1, "", "error: no nvcc")
    monkeypatch.setattr(installer, "python", lambda *_: failed)
    monkeypatch.setattr(installer, "install_v05", taken.append)
    installer.install("auto", None)
    assert taken == [None]
    assert "Building upstream failed" in (out := capsys.readouterr().out)
    assert "error: no nvcc" in out
    with pytest.raises(installer.InstallError, match="no nvcc"):
        installer.install("upstream", None)


def test_no_index_is_one_clear_error_with_hidden_credentials(installer, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess(
        [], 1, "", "ERROR: no matching distribution at https://me:secret@index.example/simple"
    )
    monkeypatch.setattr(installer, "python", lambda *_: failed)
    sdist = {"name": "detectron2-cdo", "version": "0.5", "sha256": "0" * 64}
    with pytest.raises(installer.InstallError, match="Give it with --sdist FILE") as error:
        installer.fetch_sdist(sdist, tmp_path)
    assert "secret" not in str(error.value)
    assert "https://***@index.example" in str(error.value)


def test_python_too_old_is_said(installer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    monkeypatch.setattr(sys, "version_info", (3, 8, 0))
    assert installer.main() == 1
    assert "too old" in capsys.readouterr().err


def test_the_rules_of_v05_are_sound(installer):
    import tomllib

    rules = tomllib.loads(installer.EDITS_FILE.read_text())
    assert sum(edit.get("count", 1) * len(edit["files"]) for edit in rules["edit"]) == 46
    assert len({name for edit in rules["edit"] for name in edit["files"]}) == 25
    assert all(edit["why"] and edit["find"] != edit["replace"] for edit in rules["edit"])
