"""Render the staged tree: Sphinx with warnings as errors, and the finished pages moved into place.

python workflow/render.py _build/stage _build/html
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def render(stage: Path, html: Path) -> None:
    """Build `html` from `stage`. Raises SystemExit with the exit status of a build that fails."""
    work = html.with_name(f"{html.name}.partial")
    # Emptied first: an incremental build keeps stale pages.
    shutil.rmtree(work, ignore_errors=True)
    command = [Path(sys.executable).parent / "jupyter-book", "build", stage, "--path-output", work]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # for the extension docstrings.py
    done = subprocess.run([*command, "-W", "-n", "--keep-going"], env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)
    shutil.rmtree(html, ignore_errors=True)
    (work / "_build/html").rename(html)
    shutil.rmtree(work)


if __name__ == "__main__":
    render(Path(sys.argv[1]), Path(sys.argv[2]))
