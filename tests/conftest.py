"""A repository of one tiny chapter, for the tests of the command line, the workflow and the book."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PARAMETERS = """\
scale = "quick"
device = "auto"
seed = 0
rate = 0.5  # of decay
steps = 10
widths = [2, 3]
half = False
"""

EXPERIMENT = """\
import inspect


class Decay:
    def __init__(self, rate):
        self.rate = rate


def run(steps):
    return [Decay(rate).rate ** n for n in range(steps)]


source = inspect.getsource(run)
curve = run(steps)
"""

FIGURE = """\
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(4, 2))
axes.plot(curve)
"""

CLAIMS = """\
import json
import os
from pathlib import Path

output = Path(os.environ["REPRISE_OUTPUT"])
figure.savefig(output / "hero.png")
verdict = "reproduced" if curve[-1] < 0.1 else "not reproduced"
claim = {"id": "C1", "title": "The curve |c| decays, c < 1", "paper": "$2^{-n}$", "kind": "identity", "origin": "paper",
         "verdict": verdict, "measured": f"{curve[-1]:.3g}", "threshold": "< 0.1", "reason": "too slow",
         "checks": [], "controls": []}
result = {"slug": "tiny-decay", "title": "Tiny decay", "question": "Does it decay?", "scale": scale, "device": "cpu",
          "device_name": "CPU", "seed": seed, "date": "2026-01-01", "commit": "abc", "versions": {"torch": "2.13.0"},
          "cpu_seconds": 1.0, "seconds": 1.0, "members": 1, "digest": "d",
          "hero": {"file": "hero.png", "alt": "A falling curve."}, "claims": [claim], "expected": {"C1": "reproduced"}}
(output / "result.json").write_text(json.dumps(result))
print("C1", verdict)
"""


def code(source: str, *tags: str, **mystnb) -> dict:
    metadata = {"tags": list(tags)} if tags else {}
    metadata |= {"mystnb": mystnb} if mystnb else {}
    return _cell("code", source) | {"metadata": metadata, "outputs": [], "execution_count": None}


def markdown(source: str) -> dict:
    return _cell("markdown", source)


def _cell(kind: str, source: str) -> dict:
    name = f"{kind}-{abs(hash(source)) % 10**8}"
    return {"cell_type": kind, "id": name, "metadata": {}, "source": source.strip("\n").splitlines(keepends=True)}


def write_notebook(path: Path, cells: list[dict]) -> None:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content, indent=1))


def tiny_cells() -> list[dict]:
    caption = {"name": "tiny-decay-hero", "caption": "It falls."}
    return [
        markdown("# Tiny decay\n\nA test, {footcite}`tiny-decay`. One curve."),
        code("import sys", "setup"),
        code(PARAMETERS, "parameters"),
        markdown("## The question\n\nDoes it decay? Nobody knows."),
        markdown("## The idea\n\n$$\nc_n = r^n\n$$ (tiny-decay-law)"),
        markdown("## The experiment\n\nEquation {eq}`tiny-decay-law`."),
        code(EXPERIMENT),
        markdown("## Results"),
        code(FIGURE, "figure", image={"alt": "A falling curve.", "classes": "dark-light"}, figure=caption),
        markdown("## Claims"),
        code(CLAIMS, "keep_output"),
        markdown("## References\n\n```{footbibliography}\n```"),
    ]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A checkout with one chapter, `tiny-decay`, and the real book's configuration."""
    root = tmp_path / "checkout"
    (root / "notebooks").mkdir(parents=True)
    write_notebook(root / "notebooks/tiny-decay.ipynb", tiny_cells())
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "book/_static", root / "book/_static")
    (root / "book/references.bib").write_text("@misc{tiny-decay, title={Decay}, author={A, B}, year={2020}}\n")
    (root / "book/index.md").write_text("# Book\n\n## Chapters\n\n<!-- generated: totals -->\n\n<!-- generated: gallery -->\n")
    (root / "book/scoreboard.md").write_text("# Scoreboard\n\n<!-- generated: scoreboard -->\n")
    (root / "book/bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n:all:\n```\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "  - caption: Start\n    chapters:\n      - file: book/scoreboard\n      - file: book/bibliography\n"
        '  - caption: "1 Small things"\n    chapters:\n      - file: notebooks/tiny-decay\n'
    )
    return root
