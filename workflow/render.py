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
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from slim import slim

from reprise.provenance import today


def render(stage: Path, html: Path, builder: str = "html") -> None:
    """Build `html` from `stage`. Raises SystemExit with the exit status of a build that fails."""
    if builder == "linkcheck":
        reach("https://arxiv.org")
    work = html.with_name(f"{html.name}.partial")
    # Emptied first: an incremental build keeps stale pages.
    shutil.rmtree(work, ignore_errors=True)
    command = [Path(sys.executable).parent / "jupyter-book", "build", stage, "--path-output", work]
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]  # the extensions are found here
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
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


def reach(address: str) -> None:
    """Raises SystemExit with one line if an address does not answer: then no link of the book would."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=10)
    except HTTPError:
        pass  # it answered
    except OSError as error:
        raise SystemExit(f"linkcheck needs a network: {address} does not answer ({error})") from None


def plain(stage: Path) -> Path:
    """A configuration without the theme of the website, whose buttons no other builder can fill in."""
    config = yaml.safe_load((stage / "_config.yml").read_text(encoding="utf-8"))
    config.pop("launch_buttons", None)
    sphinx = config["sphinx"]["config"]
    sphinx["extensions"] = [name for name in sphinx["extensions"] if name != "sphinx_book_theme"]
    sphinx |= {"html_theme": "basic", "html_theme_options": {}, "html_extra_path": []}
    # No scripts: readers of e-books run none.
    styles = [f"book/_static/{name}" for name in ("custom.css", "ebook.css")]
    sphinx |= {"html_static_path": styles, "html_js_files": [], "epub_css_files": ["custom.css", "ebook.css"]}
    sphinx["pygments_style"] = "default"
    sphinx |= {"project": config["title"], "epub_basename": config["title"].lower(), "version": today()}
    sphinx |= {"epub_description": "Deep-learning papers that run", "epub_copyright": "CC BY 4.0"}
    sphinx |= {"epub_identifier": config["repository"]["url"], "epub_scheme": "URL", "epub_show_urls": "no"}
    sphinx["extensions"].append("ebook")
    sphinx["html_math_renderer"] = "mathml"
    config["sphinx"]["recursive_update"] = False
    path = stage / "_config.plain.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


if __name__ == "__main__":
    render(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
