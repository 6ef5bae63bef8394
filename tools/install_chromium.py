#!/usr/bin/env python3
"""Install Chromium, in which the tests open report.html, if there is none: as root, from Debian's or Ubuntu's packages.

``make test`` calls it. Where it cannot be installed, the reason is said, and those tests fail.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if find_chromium():
        return 0
    problem = install()
    if problem:
        print(f"install_chromium: {problem} The tests of report.html will fail.", file=sys.stderr)
    return 1 if problem else 0


def find_chromium() -> str | None:
    """The browser that RESNET_DET_CHROMIUM names, or the first that is installed."""
    return os.getenv("RESNET_DET_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def install() -> str:
    """What went wrong, in words for the user; nothing if Chromium is there now."""
    if not shutil.which("apt-get"):
        return "there is no Chromium, and no apt-get to install it: install it, or name one in RESNET_DET_CHROMIUM."
    if os.geteuid() != 0:
        return "there is no Chromium: apt-get install chromium, as root, or name one in RESNET_DET_CHROMIUM."
    print("install_chromium: Chromium, for the tests of report.html", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", "chromium"]):
        run = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            return f"apt-get {' '.join(command)} failed:\n{(run.stdout + run.stderr).strip()[-1500:]}\n"
    return "" if find_chromium() else "apt-get has installed Chromium under a name that is not known here."


if __name__ == "__main__":
    sys.exit(main())
