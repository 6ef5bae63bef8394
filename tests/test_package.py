"""The package as others install it."""

from __future__ import annotations

import shutil
import subprocess
import sys


def test_the_wheel_installs_and_imports_outside_the_repository(request, tmp_path):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "-q"]
    source = tmp_path / "source"
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(request.config.rootpath / name, source)
    shutil.copytree(request.config.rootpath / "resnet_det", source / "resnet_det")
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", wheels, source], check=True)
    (wheel,) = wheels.glob("resnet_det-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    code = (
        "import resnet_det, sys; from detectron2.modeling import BACKBONE_REGISTRY as names; import resnet_det.engine; "
        "assert all(f'build_{kind}' in names for kind in ('resnet_det_backbone', 'resnet_det_fpn_backbone', "
        "'retinanet_resnet_det_fpn_backbone')); from importlib.resources import files; "
        "assert all(files(f'resnet_det.{room}').joinpath('templates', page).is_file() for room, page in "
        "(('evaluation', 'report.html'), ('tradeoff', 'tradeoff.html'), ('visualization', 'page.css'))); "
        "print(resnet_det.__file__, resnet_det.__version__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[0] == str(site / "resnet_det" / "__init__.py")
