"""Each tool says how it is used, and what is wrong with a wrong input."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def run_tool(request):
    def run(name, *args, python=sys.executable):
        command = [python, str(request.config.rootpath / "tools" / name), *map(str, args)]
        return subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, timeout=300)

    return run


def test_every_tool_has_help(request, run_tool):
    tools = sorted(path.name for path in (request.config.rootpath / "tools").glob("*.py"))
    assert {"train_net.py", "visualize.py", "install_detectron2.py", "setup_env.py"} <= set(tools)
    for tool in tools:
        run = run_tool(tool, "--help")
        assert run.returncode == 0, run.stderr
        assert "usage:" in run.stdout, tool


@pytest.mark.parametrize(
    ("tool", "args", "message"),
    [
        ("train_net.py", ["--config-file", "no.yaml"], "train_net: --config-file no.yaml: no such file"),
        ("train_net.py", ["MODEL.DEPTH", "18"], "train_net: command line: MODEL.DEPTH 18: there is no key MODEL.DEPTH"),
        ("visualize.py", ["--input", "no.jpg", "--output", "x"], "visualize: "),
    ],
)
def test_a_wrong_input_gives_one_line_and_status_2(run_tool, tool, args, message):
    run = run_tool(tool, *args)
    assert run.returncode == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr + run.stdout


def test_the_environment_is_described_and_tested(run_tool):
    run = run_tool("check_env.py")
    assert run.returncode == 0, run.stderr
    assert "self-test passed" in run.stdout
    assert "Detectron2 0." in run.stdout
