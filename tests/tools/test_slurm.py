"""The SLURM script, with stand-ins for SLURM's own commands."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

COMMANDS = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo node7; echo node8; else echo "$@" > "$RECORD/queued"; fi',
    "trainer": """
echo "$@" > "$RECORD/started"
trap 'echo saved > "$RECORD/saved"; exit 1' TERM
[ "$ENDS" = no ] || exit "$ENDS"
while :; do sleep 0.1; done
""",
}


@pytest.fixture
def start(tmp_path, request):
    for name, body in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(ends, **more):
        variables = {"RECORD": tmp_path, "ENDS": ends, "PYTHON": tmp_path / "trainer", "SLURM_JOB_ID": 41, **more}
        variables |= {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": 2}
        environment = {**os.environ, **{key: str(value) for key, value in variables.items()}}
        environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
        script = str(request.config.rootpath / "tools" / "slurm_train.sh")
        return subprocess.Popen(["bash", script, "--config-file", "c.yaml", "OUTPUT_DIR", "a b"], env=environment)

    return run


@pytest.mark.parametrize(("gpus", "processes"), [({"SLURM_GPUS_ON_NODE": 8}, 8), ({}, 1)])
def test_a_run_that_ends_is_not_queued_again(start, tmp_path, gpus, processes):
    assert start(0, **gpus).wait(timeout=30) == 0
    command = (tmp_path / "started").read_text()
    assert f"--nnodes 2 --nproc-per-node {processes} " in command
    assert "--rdzv-id 41 --rdzv-endpoint node7:20041 tools/train_net.py --config-file c.yaml OUTPUT_DIR a b" in command
    assert not (tmp_path / "queued").exists()


def test_a_run_that_fails_is_not_queued_again(start, tmp_path):
    assert start(3).wait(timeout=30) == 3
    assert not (tmp_path / "queued").exists()


def test_an_interrupted_run_saves_and_is_queued_again(start, tmp_path):
    process = start("no")
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "queued").read_text() == "requeue 41\n"
