#!/usr/bin/env python
"""Put Detectron2 into the environment of the Python that runs this script.

Detectron2 is not on the package index and has had no release since 2021. This script takes, in this order, the first
that
can be had: the Detectron2 that is installed already and works; upstream at a pinned commit, compiled here; the Python
files of
v0.5 from the package index, edited to run on today's NumPy, Pillow, setuptools and torch (detectron2_v05.toml lists
each edit).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

UPSTREAM_URL = "https://github.com/facebookresearch/detectron2.git"
UPSTREAM_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
UPSTREAM_TIMEOUT_S = 15
EDITS_FILE = Path(__file__).with_name("detectron2_v05.toml")
VERSIONS = ("0.5", "0.6")

TORCH_CHECK = """
import torch, torchvision
torchvision.ops.nms(torch.rand(2, 4), torch.rand(2), 0.5)
"""

# One small forward pass through proposals and heads says more than an import.
DETECTRON2_CHECK = """
import json, logging, warnings
warnings.simplefilter("ignore")
import torch, detectron2, detectron2.layers, detectron2.engine, detectron2.evaluation
from detectron2.config import get_cfg
from detectron2.modeling import build_model
cfg = get_cfg()
cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
with torch.no_grad():
    build_model(cfg).eval()([{"image": torch.zeros(3, 64, 64)}])
try:
    import detectron2._C
    compiled = True
except ImportError:
    compiled = False
print(json.dumps({"version": detectron2.__version__, "compiled": compiled, "path": detectron2.__path__[0]}))
"""


class InstallError(Exception):
    """What went wrong and what to do about it, in words for the user."""


def main() -> int:
    args = build_parser().parse_args()
    if sys.version_info < (3, 11):
        return fail(f"Python {sys.version.split()[0]} is too old: Detectron2 is set up for Python >= 3.11.")
    try:
        check_torch()
        install(args.source, args.sdist)
        return report()
    except InstallError as error:
        return fail(str(error))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source",
        default="auto",
        help="auto (default): the order above | upstream: the pinned commit | pypi: the edited v0.5 | PATH: a checkout",
    )
    parser.add_argument(
        "--sdist", type=Path, metavar="FILE", help="the v0.5 source archive, where the package index lacks it"
    )
    return parser


def fail(message: str) -> int:
    print(f"install_detectron2: {message}", file=sys.stderr)
    return 1


def install(source: str, sdist: Path | None) -> None:
    """Install Detectron2 from ``source`` (see ``--source``).

    Raises:
        InstallError: it cannot be had from there.
    """
    if source == "auto":
        if sdist is not None:
            install_v05(sdist)
        elif not detectron2_works():
            reason = why_not_upstream()
            if reason is None:
                try:
                    install_upstream()
                    return
                except InstallError as error:
                    reason = str(error)
            print(
                f"{reason}\nUsing the Python-only Detectron2 0.5 from the package index. Not available with it: "
                "rotated boxes, Detectron2's own deformable convolution v2 (and v1 on CUDA)."
            )
            install_v05(None)
    elif source == "upstream":
        reason = why_not_upstream()
        if reason is not None:
            raise InstallError(reason)
        install_upstream()
    elif source == "pypi":
        install_v05(sdist)
    else:
        install_checkout(Path(source))


def check_torch() -> None:
    run = python("-c", TORCH_CHECK)
    if run.returncode:
        raise InstallError(
            "torch and torchvision are not importable as a pair. Install the tested one: "
            f"pip install torch torchvision -c constraints.txt\n{tail(run, 1)}"
        )


def detectron2_works() -> dict | None:
    """Version and place of the installed Detectron2, or None where there is none that works."""
    run = python("-c", DETECTRON2_CHECK)
    if run.returncode:
        if "No module named 'detectron2'" not in run.stderr:
            print(f"The installed Detectron2 does not work: {tail(run, 1)}")
        return None
    found = json.loads(run.stdout.splitlines()[-1])
    return found if found["version"] in VERSIONS else None


def report() -> int:
    found = detectron2_works()
    if found is None:
        raise InstallError(
            f"Detectron2 was installed, but does not work here. See: {sys.executable} -c 'import detectron2.engine'"
        )
    kind = "with its compiled operators" if found["compiled"] else "Python only"
    print(f"Detectron2 {found['version']} ({kind}): {found['path']}")
    return 0


def why_not_upstream() -> str | None:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return "Upstream Detectron2 is not built: no C++ compiler."
    if not shutil.which("git"):
        return "Upstream Detectron2 is not built: no git."
    try:
        command = ["git", "-c", "core.askPass=", "ls-remote", UPSTREAM_URL, "HEAD"]
        subprocess.run(
            command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=UPSTREAM_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"Upstream Detectron2 is not reached: no answer within {UPSTREAM_TIMEOUT_S} s."
    except subprocess.CalledProcessError as error:
        return f"Upstream Detectron2 is not reached: {(error.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    return None


def install_upstream() -> None:
    pip("Building upstream failed.", "install", "--no-build-isolation", f"git+{UPSTREAM_URL}@{UPSTREAM_COMMIT}")


def install_checkout(checkout: Path) -> None:
    """Build a copy of ``checkout``, so that nothing is written into it."""
    if not (checkout / "detectron2" / "__init__.py").is_file() or not (checkout / "setup.py").is_file():
        raise InstallError(
            f"--source {checkout}: not a checkout of Detectron2 (needs setup.py and detectron2/__init__.py)."
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "detectron2")
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info", "*.so"))
        pip(
            f"Building {checkout} failed.",
            "install",
            "--force-reinstall",
            "--no-deps",
            "--no-build-isolation",
            str(copy),
        )
        pip(f"The dependencies of {checkout} cannot be had.", "install", "--no-build-isolation", str(copy))


def install_v05(sdist: Path | None) -> None:
    import tomllib

    rules = tomllib.loads(EDITS_FILE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        archive = fetch_sdist(rules["sdist"], work) if sdist is None else sdist
        check_sha256(archive, rules["sdist"]["sha256"])
        with tarfile.open(archive) as tar:
            tar.extractall(work, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        root = next(path for path in work.iterdir() if path.is_dir())
        apply_edits(root / "detectron2", rules)
        write_build_files(root, rules)
        pip(
            "Building Detectron2 0.5 failed.",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(work),
            str(root),
        )
        wheel = next(work.glob("*.whl"))
        pip("Installing Detectron2 0.5 failed.", "install", "-q", "--force-reinstall", "--no-deps", str(wheel))
        pip("The dependencies of Detectron2 0.5 cannot be had.", "install", "-q", str(wheel))


def fetch_sdist(sdist: dict, folder: Path) -> Path:
    """Download the archive with the user's own pip settings; its hash is checked before anything of it runs."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{sdist['name']}=={sdist['version']} --hash=sha256:{sdist['sha256']}\n")
    options = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes")
    run = python("-m", "pip", "download", *options, "-r", str(requirement), "-d", str(folder))
    if run.returncode:
        raise InstallError(
            f"Could not get {sdist['name']} {sdist['version']} from the package index (it takes pip < 26.3). "
            f"Give it with --sdist FILE (sha256 {sdist['sha256']}).\n{tail(run, 4)}"
        )
    return next(folder.glob("*.tar.gz"))


def check_sha256(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InstallError(f"{path}: no such file.")
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise InstallError(f"SHA-256 of {path} is {actual}, expected {expected}. Not used.")


def apply_edits(package: Path, rules: dict) -> None:
    """Edit the Python files below ``package`` in place.

    Raises:
        InstallError: a text to replace does not occur exactly as often as the rule says.
    """
    for number, edit in enumerate(rules["edit"], start=1):
        expected = edit.get("count", 1)
        for name in edit["files"]:
            path = package / name
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            if text.count(edit["find"]) != expected:
                raise InstallError(
                    f"Source differs from what edit {number} expects in detectron2/{name}: "
                    f"{edit['find'].strip()!r} occurs {text.count(edit['find'])} times, expected {expected}. Stopped."
                )
            path.write_text(text.replace(edit["find"], edit["replace"]), encoding="utf-8")
    for file in rules["file"]:
        (package / file["path"]).write_text(file["text"].lstrip(), encoding="utf-8")


def write_build_files(root: Path, rules: dict) -> None:
    """Replace the setup.py that needs torch and C++ sources by a plain description of the same packages."""
    for project in (root / "projects").glob("*/*"):
        shutil.copytree(project, root / "detectron2" / "projects" / project.name)
    for name in ("setup.py", "setup.cfg"):
        (root / name).unlink(missing_ok=True)
    (root / "pyproject.toml").write_text(
        f"""
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "{rules["sdist"]["version"]}+pure.{rules["revision"]}"
description = "Detectron2 v{rules["sdist"]["version"]} without compiled operators, edited to run on current libraries"
license = "Apache-2.0"
license-files = ["LICENSE"]
dependencies = {json.dumps(rules["wheel"]["dependencies"])}

[tool.setuptools.packages.find]
include = ["detectron2*"]
namespaces = false

[tool.setuptools.package-data]
"detectron2.model_zoo" = ["configs/**/*.yaml", "configs/**/*.py"]
"""
    )


def python(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True)


def pip(failure: str, *args: str) -> None:
    run = python("-m", "pip", *args)
    if run.returncode:
        raise InstallError(f"{failure} The last lines of pip {args[0]}:\n{tail(run, 20)}")


def tail(run: subprocess.CompletedProcess, lines: int) -> str:
    """The last lines a process printed, with credentials in addresses hidden."""
    text = "\n".join((run.stderr.strip() or run.stdout.strip()).splitlines()[-lines:])
    return re.sub(r"(https?://)[^/@\s]+@", r"\1***@", text)


if __name__ == "__main__":
    sys.exit(main())
