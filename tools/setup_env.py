#!/usr/bin/env python
"""Make a virtual environment with everything resnet_det needs: torch, Detectron2, OpenCV, and this project in
editable form.

``make setup`` calls it with the Python that shall be used. A second call does nothing until a file that it depends on
changes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = (
    "pyproject.toml",
    "constraints.txt",
    "tools/setup_env.py",
    "tools/install_detectron2.py",
    "tools/detectron2_v05.toml",
)
MIN_FREE_GB = 8  # the environment takes 7, most of it torch with its CUDA libraries
MIN_FREE_GB_TO_DOWNLOAD = 4  # and pip keeps what it downloads in TMPDIR until all is there


class SetupError(Exception):
    """What went wrong and what to do about it, in words for the user."""


def main() -> int:
    args = build_parser().parse_args()
    start = time.monotonic()
    try:
        if is_up_to_date(args.venv, args.source):
            return 0
        check_machine(args.venv)
        make_environment(args.venv, args.source, args.sdist)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    stamp_file(args.venv).write_text(stamp(args.source), encoding="utf-8")
    print(f"setup: done in {time.monotonic() - start:.0f} s. The environment is in {args.venv}.")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (default: .venv)")
    parser.add_argument(
        "--source", default="auto", help="where Detectron2 comes from: see tools/install_detectron2.py --help"
    )
    parser.add_argument(
        "--sdist", type=Path, help="the source archive of Detectron2 v0.5, where the package index lacks it"
    )
    return parser


def is_up_to_date(venv: Path, source: str) -> bool:
    """Whether the environment was made from these files; any Detectron2 will do if ``source`` is auto."""
    file = stamp_file(venv)
    made_with = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    wanted = stamp(source).splitlines()
    return made_with[:1] == wanted[:1] and (source == "auto" or made_with == wanted)


def stamp_file(venv: Path) -> Path:
    return venv / "resnet_det_setup.txt"


def stamp(source: str) -> str:
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return f"{digest.hexdigest()}\n{source}\n"


def check_machine(venv: Path) -> None:
    """Find out at once what would fail after minutes."""
    if sys.version_info < (3, 11):
        raise SetupError(
            f"Python {platform.python_version()} is too old: 3.11 or later is needed. Say which: make PYTHON=python3.12"
        )
    if sys.platform != "linux" or sys.maxsize < 2**32:
        raise SetupError(f"64-bit Linux is needed, this is {platform.platform()}.")
    if venv.exists():
        return
    parent, temporary = venv.resolve().parent, Path(tempfile.gettempdir())
    parent = next(folder for folder in (parent, *parent.parents) if folder.is_dir())
    free_gb, temporary_gb = (shutil.disk_usage(folder).free / 1e9 for folder in (parent, temporary))
    if free_gb < MIN_FREE_GB:
        raise SetupError(f"{free_gb:.1f} GB free in {parent}, about {MIN_FREE_GB} are needed.")
    if share_a_disk(parent, temporary):
        temporary_gb -= MIN_FREE_GB
    if temporary_gb < MIN_FREE_GB_TO_DOWNLOAD:
        step(
            f"little space: packages that are downloaded take about {MIN_FREE_GB_TO_DOWNLOAD} GB in {temporary}, "
            f"beside the {MIN_FREE_GB} of {venv}; TMPDIR=FOLDER says where else they go"
        )


def share_a_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def make_environment(venv: Path, source: str, sdist: Path | None) -> None:
    python = venv / "bin" / "python"
    step(f"virtual environment {venv} with Python {platform.python_version()}")
    if not python.is_file() or run([python, "-m", "pip", "--version"], show=False).returncode:
        made = run([sys.executable, "-m", "venv", "--clear", venv], show=False)
        if made.returncode:
            raise SetupError(
                f"no environment can be made (on Debian and Ubuntu: apt install python3-venv):\n{made.stdout.strip()}"
            )
    pip(python, "install", "--retries", "2", "pip", "setuptools", "wheel", what="the package index")
    step("torch and torchvision (several GB the first time)")
    pip(python, "install", "torch", "torchvision", what="torch and torchvision")
    step("Detectron2")
    command = [python, ROOT / "tools" / "install_detectron2.py", "--source", source]
    if run([*command, *(["--sdist", sdist] if sdist else [])]).returncode:
        raise SetupError("Detectron2 could not be installed; the reason stands above.")
    step("resnet_det and its tools")
    install_project(python)
    if run([python, "-m", "pip", "check"]).returncode:
        raise SetupError("the installed packages do not fit together; the reason stands above.")
    if run([python, ROOT / "tools" / "check_env.py"]).returncode:
        raise SetupError("the self-test failed; the reason stands above.")


def install_project(python: Path) -> None:
    """Install this project, with the headless OpenCV where the ordinary one lacks its graphics libraries."""
    options = ("install", "--no-build-isolation", "--editable")
    pip(python, *options, f"{ROOT}[dev,opencv]", what="resnet_det")
    imported = run([python, "-c", "import cv2"], show=False)
    if imported.returncode:
        reason = imported.stdout.strip().splitlines()[-1]
        print(f"opencv-python does not work here ({reason}): using opencv-python-headless, which has no windows.")
        pip(python, "uninstall", "-y", "opencv-python", what="opencv-python")
        pip(python, *options, f"{ROOT}[dev,headless]", what="resnet_det")


def step(what: str) -> None:
    print(f"setup: {what}", flush=True)


def pip(python: Path, command: str, *args: str, what: str) -> None:
    constraint = ("-c", str(ROOT / "constraints.txt")) if command == "install" else ()
    if run([python, "-m", "pip", "-q", command, *constraint, *args]).returncode:
        raise SetupError(
            f"pip could not get {what}; its reason stands above. A package index must be reached: PyPI, "
            "or the one that PIP_INDEX_URL or pip's configuration names."
        )


def run(command: list, *, show: bool = True) -> subprocess.CompletedProcess:
    """Run a command; its output goes to the terminal, or is returned."""
    output = {} if show else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run([str(part) for part in command], env=environment, check=False, **output)


if __name__ == "__main__":
    sys.exit(main())
