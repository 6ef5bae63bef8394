"""Chromium for the tests: found, installed, or said to be missing."""

from __future__ import annotations

import importlib.util
import subprocess

import pytest


@pytest.fixture
def install_chromium(request, monkeypatch):
    path = request.config.rootpath / "tools" / "install_chromium.py"
    spec = importlib.util.spec_from_file_location("install_chromium", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.delenv("RESNET_DET_CHROMIUM", raising=False)
    monkeypatch.setattr("sys.argv", ["install_chromium.py"])
    return module


@pytest.fixture
def machine(install_chromium, monkeypatch):
    """A machine with some programs, on which apt-get installs what it is asked for, or fails."""

    def make(*programs, user=0, status=0):
        installed, commands = set(programs), []

        def run(command, **_):
            commands.append(command)
            if command[1] == "install" and not status:
                installed.add(command[-1])
            return subprocess.CompletedProcess(command, status, "E: no space left\n", "")

        monkeypatch.setattr(install_chromium.shutil, "which", lambda name: name if name in installed else None)
        monkeypatch.setattr(install_chromium.os, "geteuid", lambda: user)
        monkeypatch.setattr(install_chromium.subprocess, "run", run)
        return commands

    return make


def test_a_second_call_does_nothing(install_chromium, machine):
    commands = machine("apt-get", "google-chrome")
    assert (install_chromium.main(), commands) == (0, [])


def test_it_is_installed_after_an_update(install_chromium, machine):
    commands = machine("apt-get")
    assert install_chromium.main() == 0
    assert [command[1] for command in commands] == ["update", "install"]
    assert install_chromium.find_chromium() == "chromium"


@pytest.mark.parametrize(
    ("programs", "options", "message"),
    [
        ((), {}, "no apt-get to install it"),
        (("apt-get",), {"user": 1000}, "apt-get install chromium, as root"),
        (("apt-get",), {"status": 100}, "apt-get update -q failed:\nE: no space left"),
    ],
)
def test_what_is_missing_is_said(install_chromium, machine, capsys, programs, options, message):
    machine(*programs, **options)
    assert install_chromium.main() == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.endswith("The tests of report.html will fail.\n")
