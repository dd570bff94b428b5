"""A repository of one tiny chapter, for the tests of the command line, the workflow and the book."""

from __future__ import annotations

import json
import shutil
import zlib
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

CHAPTER = """\
chapter = Chapter("tiny-decay", question="Does it decay?", scale=scale, device=device, seed=seed)
"""

EXPERIMENT = """\
class Decay:
    def __init__(self, rate):
        self.rate = rate

    def at(self, steps):
        return self.rate ** np.arange(steps)


def decay(seed):
    return {"curve": (("step",), Decay(rate).at(steps) + 0.0 * seed)}


record = chapter.map("decay", Sweep(decay, seed=chapter.seeds(3)))
last = record["curve"].values[:, -1]
"""

FIGURE = """\
figure, axes = plt.subplots(figsize=(4, 2))
axes.plot(record["curve"].values.T)
chapter.hero(figure, "A curve that falls towards zero and stays there.");
"""

CLAIMS = """\
check = Check("last value", last, "<", 0.1)
chapter.claim("C1", "The curve |c| decays, c < 1", paper="2^-n", checks=[check])
chapter.claims()
"""


def code(source: str, *tags: str, **mystnb) -> dict:
    metadata = {"tags": list(tags)} if tags else {}
    metadata |= {"mystnb": mystnb} if mystnb else {}
    return _cell("code", source) | {"metadata": metadata, "outputs": [], "execution_count": None}


def markdown(source: str) -> dict:
    return _cell("markdown", source)


def _cell(kind: str, source: str) -> dict:
    name = f"{kind}-{zlib.crc32(source.encode())}"
    return {
        "cell_type": kind,
        "id": name,
        "metadata": {},
        "source": source.strip("\n").splitlines(keepends=True),
    }


def write_notebook(path: Path, cells: list[dict]) -> None:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content, indent=1))


def tiny_cells() -> list[dict]:
    caption = {"name": "tiny-decay-hero", "caption": "It falls. Not in the paper."}
    imports = (
        "import matplotlib.pyplot as plt\nimport numpy as np\n\n"
        "from reprise import Chapter, Sweep\nfrom reprise.checks import Check"
    )
    return [
        markdown("# Tiny decay\n\nA test, {footcite}`tiny-decay`. One curve."),
        code(imports, "setup"),
        code(PARAMETERS, "parameters"),
        code(CHAPTER, "chapter"),
        markdown("## The question\n\nDoes it decay? Nobody knows."),
        markdown("## The idea\n\n$$\nc_n = r^n\n$$ (tiny-decay-law)"),
        markdown("## The experiment\n\nEquation {eq}`tiny-decay-law`."),
        code(EXPERIMENT),
        markdown("## Results"),
        code(FIGURE, "figure", image={"alt": "A falling curve.", "classes": "dark-light"}, figure=caption),
        markdown("## Claims"),
        code(CLAIMS, "keep_output"),
        code('chapter.finish({"C1": "reproduced"})', "expected"),
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
    (root / "book/references.bib").write_text(
        "@misc{tiny-decay, title={Decay}, author={A, B}, year={2020}}\n"
    )
    (root / "book/index.md").write_text(
        "# Book\n\n## Chapters\n\n<!-- generated: totals -->\n\n<!-- generated: gallery -->\n"
    )
    (root / "book/scoreboard.md").write_text("# Scoreboard\n\n<!-- generated: scoreboard -->\n")
    (root / "book/bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n:all:\n```\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "  - caption: Start\n    chapters:\n      - file: book/scoreboard\n      - file: book/bibliography\n"
        '  - caption: "1 Small things"\n    chapters:\n      - file: notebooks/tiny-decay\n'
    )
    return root
