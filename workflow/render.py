"""Render the staged tree: Sphinx with warnings as errors, and the finished pages moved into place.

    python workflow/render.py _build/stage _build/html

A third argument names another builder: epub, linkcheck.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from slim import slim


def render(stage: Path, html: Path, builder: str = "html") -> None:
    """Build `html` from `stage`. Raises SystemExit with the exit status of a build that fails."""
    work = html.with_name(f"{html.name}.partial")
    # Emptied first: an incremental build keeps stale pages.
    shutil.rmtree(work, ignore_errors=True)
    command = [Path(sys.executable).parent / "jupyter-book", "build", stage, "--path-output", work]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}  # for the extension docstrings.py
    if builder == "html":
        command += ["-W", "-n", "--keep-going"]
    else:
        command += ["--builder", "custom", "--custom-builder", builder, "--config", plain(stage)]
    done = subprocess.run(command, env=environment)
    if done.returncode:
        raise SystemExit(done.returncode)
    shutil.rmtree(html, ignore_errors=True)
    if builder == "html":
        slim(work / "_build/html", stage / "_generated/notebooks")
    (work / "_build" / builder).rename(html)
    shutil.rmtree(work)


def plain(stage: Path) -> Path:
    """A configuration without the theme of the website, whose buttons no other builder can fill in."""
    config = yaml.safe_load((stage / "_config.yml").read_text(encoding="utf-8"))
    config.pop("launch_buttons", None)
    sphinx = config["sphinx"]["config"]
    sphinx["extensions"] = [name for name in sphinx["extensions"] if name != "sphinx_book_theme"]
    sphinx |= {"html_theme": "basic", "html_theme_options": {}, "html_extra_path": []}
    sphinx |= {"project": config["title"], "epub_basename": config["title"].lower()}
    config["sphinx"]["recursive_update"] = False
    path = stage / "_config.plain.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


if __name__ == "__main__":
    render(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
