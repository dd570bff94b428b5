"""The names of a real chapter, its full-scale path at a tiny size; and a repository of one tiny chapter."""

from __future__ import annotations

import ast
import base64
import io
import json
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageDraw

from reprise.checks import Check
from reprise.claims import Claim
from reprise.cli import main
from reprise.notebook import read_cells
from reprise.verdict_table import ClaimsTable
from reprise.views import View

ROOT = Path(__file__).resolve().parent.parent

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def definitions(slug: str, *constants: str, **given) -> SimpleNamespace:
    """What a notebook imports and defines, without running anything.

    constants: left sides of the assignments that count as definitions. given: what its functions find under
    names that only a run of the notebook assigns.
    """
    names = {"__name__": __name__, **given}
    for cell in read_cells(ROOT / f"notebooks/{slug}.ipynb"):
        for node in ast.parse(cell.source).body if cell.kind == "code" else ():
            constant = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in constants
            if constant or isinstance(node, DEFINITIONS):
                exec(compile(ast.Module([node], []), "notebook", "exec", dont_inherit=True), names)
    return SimpleNamespace(**names)


@pytest.fixture
def run_shrunk(tmp_path, monkeypatch):
    """A function that runs a chapter's full-scale path at a tiny size and returns its result file."""

    def run(slug: str, shrink: int = 1000) -> dict:
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "cache"))
        options = ["--plain", "--scale", "full", "--device", "cpu", "-p", f"shrink={shrink}"]
        assert main(["run", slug, *options, "--output", str(tmp_path / "out")]) == 0
        return json.loads((tmp_path / "out/result.json").read_text())

    return run


def verdicts(result: dict) -> dict[str, str]:
    """{id of a claim: its verdict} of a result file, in order."""
    return {claim["id"]: claim["verdict"] for claim in result["claims"]}


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

VIEW = """\
View(axes, of="tiny-decay-hero", title="The curve, step by step")
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
        "from reprise import Chapter, Sweep\nfrom reprise.checks import Check\n"
        "from reprise.views import View"
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
        code(VIEW, "view"),
        markdown("## Claims"),
        code(CLAIMS, "keep_output"),
        code('chapter.finish({"C1": "reproduced"})', "expected"),
        markdown("## Try it\n\n1. `reprise run tiny-decay -p rate=0.9`: it decays more slowly."),
        markdown("## References\n\n```{footbibliography}\n```"),
    ]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "checkout")


def make_tiny(root: Path) -> Path:
    """A checkout with one chapter, `tiny-decay`, and the real book's configuration."""
    (root / "notebooks").mkdir(parents=True)
    write_notebook(root / "notebooks/tiny-decay.ipynb", tiny_cells())
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    for name in ("_static", "_extra"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    (root / "book/references.bib").write_text(
        "@misc{tiny-decay, title={Decay}, author={A, B}, year={2020}}\n"
    )
    (root / "book/index.md").write_text(
        "# Book\n\n## Chapters\n\n<!-- generated: totals -->\n\n<!-- generated: gallery -->\n"
    )
    (root / "book/scoreboard.md").write_text(
        "# Scoreboard\n\n## All claims\n\n<!-- generated: scoreboard -->\n"
    )
    (root / "book/bibliography.md").write_text("# Bibliography\n\n<!-- generated: bibliography -->\n")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n"
        "  - caption: Start\n    chapters:\n      - file: book/scoreboard\n      - file: book/bibliography\n"
        '  - caption: "1 Small things"\n    chapters:\n      - file: notebooks/tiny-decay\n'
    )
    return root


CLAIM = {
    "id": "C1",
    "title": "Falls to |c| < 1, a_b and *c*",
    "paper": "2^-n",
    "kind": "measurement",
    "origin": "paper",
    "verdict": "partly",
    "measured": "a: 0.1; b: <nothing>",
    "threshold": "< 0.1",
    "reason": "Check failed: b",
    "checks": [
        {"label": "a|b", "measured": "0.1", "threshold": "< 0.2", "passed": True},
        {"label": "b", "measured": "<nothing>", "threshold": "< 0.1", "passed": None},
    ],
    "controls": [{"label": "none", "measured": "0", "threshold": "equals 0", "passed": True}],
}
RESULT = {
    "slug": "tiny-decay",
    "title": "",
    "question": "Does it decay?",
    "scale": "quick",
    "device": "cpu",
    "device_name": "CPU <one thread>",
    "seed": 0,
    "date": "2026-01-01",
    "commit": "abc",
    "versions": {"torch": "2.13.0"},
    "cpu_seconds": 31.4,
    "seconds": 40.0,
    "members": 12,
    "hero": {"file": "hero.png", "alt": "A falling\ncurve."},
    "claims": [CLAIM, CLAIM | {"id": "C2", "verdict": "reproduced", "reason": ""}],
    "expected": {},
}


def measured(series: bool = True) -> dict:
    """What a benchmark leaves, made up: the loop is not timed at 16 members, and a step there takes 4 times
    that of 4 members."""

    def result(members: int, **rates: float) -> dict:
        contenders = {
            name.replace("_", "-"): {"start": 1.0, "rate": [0.9 * rate, rate, 1.1 * rate], "memory": 2**28}
            for name, rate in rates.items()
        }
        return {"workload": "W0", "members": members, "contenders": contenders}

    def point(members: int, width: int | None, seconds: float, predicted: float, **more: int) -> dict:
        size = {"members": members, "width": width, "parameters": 1153 if width is None else width**2}
        memory = {"predicted": int(predicted), "measured": int(1.5 * predicted)}
        return more | size | memory | {"batches": 1, "steps": 10, "seconds": [seconds, seconds]}

    whole = result(32, loop=1000.0, jax_vmap=5000.0, jax_map=4000.0, workers=10000.0)
    found = {
        "device": "CPU (made up)",
        "threads": 2,
        "instructions": "AVX2",
        "date": "2026-01-01",
        "versions": {"reprise": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "floor": {"flops": 1e11, "bytes": 1e10},
        "workloads": {"W0": whole | {"flops": 1e6}},
        "series": {},
        "scale": {},
    }
    if not series:
        return found
    first = result(1, loop=1000.0, jax_vmap=900.0, jax_map=1200.0, workers=2000.0)
    found["series"]["W0"] = [first, result(16, jax_vmap=9000.0, jax_map=8000.0, workers=20000.0)]
    members = [point(n, None, s, n * 8e6) for n, s in ((1, 1.0), (4, 4.0), (16, 16.0))]
    widths = [point(4, width, width**3 / 32.0**3, 1e4 * width**2) for width in (32, 64, 128)]
    limited = point(16, None, 16.0, 6e7, allowed=2**26) | {"batches": 3}
    found["scale"] = {"members": {"flat": members}, "width": {"flat": widths}, "limited": limited}
    return found


def draw_curve() -> bytes:
    """A transparent picture of a falling curve between grey axes."""
    picture = Image.new("RGBA", (400, 200))
    draw = ImageDraw.Draw(picture)
    draw.line([(20, 10), (20, 180), (390, 180)], fill="#808080", width=2)
    draw.line([(20 + 3.7 * x, 180 - 170 * 0.95**x) for x in range(100)], fill="#2f6fe4", width=4)
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def curve_view() -> View:
    """The falling curve as an interactive view."""
    from matplotlib.figure import Figure

    ax = Figure(figsize=(4, 2)).subplots()
    ax.plot([1000 * 0.95**x for x in range(100)], label="curve")
    ax.set_xlabel("step")
    return View(ax, of="tiny-decay-hero", title="The curve, step by step")


def execute_tiny(root: Path) -> None:
    """Put results into a tiny checkout as if its chapter had been executed, with two claims."""
    cells = tiny_cells()
    tagged = {tag: cell for cell in cells for tag in cell["metadata"].get("tags", ())}
    output = {"output_type": "display_data", "metadata": {}}
    tagged["figure"]["outputs"] = [
        output | {"data": {"text/plain": "[<Line2D>]"}},
        output | {"data": {"image/png": base64.b64encode(draw_curve()).decode(), "text/plain": "<Figure>"}},
    ]
    tagged["view"]["outputs"] = [output | {"data": {"text/html": curve_view()._repr_html_()}}]
    check = Check("last value", 0.05, "<", 0.1)
    table = ClaimsTable([Claim(claim["id"], claim["title"], "2^-n", [check]) for claim in RESULT["claims"]])
    tagged["keep_output"]["outputs"] = [output | {"data": {"text/html": table._repr_html_()}}]
    tagged["keep_output"]["source"].append('\nchapter.claim("C2", "The same", paper="2^-n", checks=[check])')
    injected = json.loads(json.dumps(cells[2])) | {"id": "injected"}
    injected["metadata"]["tags"] = ["injected-parameters"]
    folder = root / "_build/chapters/tiny-decay"
    folder.mkdir(parents=True)
    write_notebook(folder / "notebook.ipynb", [*cells[:3], injected, *cells[3:]])
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "hero.png").write_bytes(draw_curve())
