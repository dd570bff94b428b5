"""Run and render one chapter again whenever something that it shows changes.

python workflow/watch.py SLUG
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from reprise import notebook

HERE = Path(__file__).parent


def state(root: Path, slug: str) -> dict[Path, float]:
    """The files that the page depends on, with their times."""
    files = [root / f"notebooks/{slug}.ipynb", root / "_config.yml", root / "_toc.yml"]
    files += [path for path in (root / "book").rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime for path in files if path.exists()}


def main(slug: str) -> None:
    root = notebook.find_root()
    path = notebook.locate(root, slug)
    python, before = sys.executable, {}
    while True:
        now = state(root, slug)
        if now.get(path) != before.get(path):
            subprocess.run([python, "-m", "reprise.cli", "run", slug], cwd=root)
        if now != before:
            steps = ([HERE / "stage.py", "_build/stage"], [HERE / "render.py", "_build/stage", "_build/html"])
            if all(subprocess.run([python, *step], cwd=root).returncode == 0 for step in steps):
                print(f"rendered: _build/html/notebooks/{slug}.html", flush=True)
        before = now
        time.sleep(1)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
    except (notebook.UsageError, IndexError) as error:
        sys.exit(f"watch: {error if isinstance(error, notebook.UsageError) else 'make watch NAME=slug'}")
