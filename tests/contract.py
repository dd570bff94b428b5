"""The chapter contract of CONTRIBUTING.md as a function: what is wrong with a notebook, in words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from reprise import notebook
from reprise.notebook import Cell, UsageError
from reprise.template import repository

HEADINGS = (
    "The question",
    "The idea",
    "The experiment",
    "Results",
    "Claims",
    "Where this differs from the paper",
    "Cost",
    "Try it",
    "References",
)


def violations(path: Path, root: Path) -> list[str]:
    """Every breach of the contract by one notebook; an empty list for a good chapter."""
    cells = notebook.read_cells(path)
    checks = (opening, headings, code_cells, outputs, figures, claims, links)
    return [found for check in checks for found in check(cells, path, root)]


def opening(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    slug, first = path.stem, cells[0]
    if first.kind != "markdown" or not first.source.startswith("# "):
        yield "the first cell is Markdown and starts with `# Title`"
    if sum(len(re.findall(r"^# ", cell.source, re.M)) for cell in cells if cell.kind == "markdown") != 1:
        yield "there is exactly one level-one heading"
    if not re.search(rf"\{{(foot)?cite(:\w+)?\}}`{slug}`", first.source):
        yield f"the title cell cites the paper: {{footcite}}`{slug}`"
    place = repository(root).removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{slug}.ipynb"
    if f"[![Open in Colab](../book/_static/colab.svg)]({colab})" not in first.source:
        yield f"the title cell has the Colab badge, with the address {colab}"
    tags = [cell.tags for cell in cells[1:4]]
    for position, tag in enumerate(("setup", "parameters", "chapter")):
        if len(tags) <= position or tag not in tags[position]:
            yield f"cell {position + 2} is a code cell tagged {tag}"
    setup = cells[1].source if len(cells) > 1 else ""
    if f'"reprise @ git+{repository(root)}"' not in setup or '"google.colab" in sys.modules' not in setup:
        yield "the setup cell installs the library, from the repository, under Colab only"
    if re.search(r"""["'](torch|numpy)\b""", setup) or "upgrade" in setup or "requirements" in setup:
        yield "the setup cell never touches torch or numpy"
    try:
        defaults = notebook.defaults(cells)
    except UsageError as error:
        yield str(error)
        return
    if (defaults.get("scale"), defaults.get("device"), defaults.get("seed")) != ("quick", "auto", 0):
        yield 'the parameters begin with scale = "quick", device = "auto", seed = 0'


def headings(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    found = re.findall(
        r"^## (.+?)\s*$", "\n\n".join(c.source for c in cells if c.kind == "markdown"), re.MULTILINE
    )
    if found != list(HEADINGS):
        yield f"the level-two headings are {', '.join(HEADINGS)}, in this order; found {', '.join(found)}"
    starts = [cell.source.split("\n")[0] for cell in cells if cell.kind == "markdown"]
    for heading in HEADINGS:
        if heading in found and f"## {heading}" not in starts:
            yield f"## {heading} begins a cell of its own"
    if any(cell.kind == "code" for cell in cells[4:5]):
        yield "prose comes right after the chapter cell"
    if (tries := notebook.section(cells, "Try it")) and len(re.findall(r"`reprise run ", tries)) < 3:
        yield "Try it has three changes, each with its `reprise run` command"


def code_cells(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    for number, cell in enumerate(cells, 1):
        if cell.kind != "code":
            continue
        try:
            ast.parse(cell.source)
        except SyntaxError:
            yield f"cell {number} is plain Python, without % or ! lines"
            continue
        if re.search(r"^(from|import) (IPython|ipywidgets|tqdm)", cell.source, re.MULTILINE):
            yield f"cell {number} needs nothing of Jupyter"
    ids = [raw.get("id") for raw in json.loads(path.read_text())["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        yield "every cell has an id of its own"


def outputs(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    kept = [cell for cell in cells if "keep_output" in cell.tags]
    if len(kept) != 1:
        yield f"exactly one cell is tagged keep_output, not {len(kept)}"
    for number, cell in enumerate(cells, 1):
        if cell.outputs and cell not in kept:
            yield f"cell {number} holds outputs: only the claims table is kept"
    if kept and "nbval-skip" not in kept[0].tags:
        yield "the claims table is also tagged nbval-skip: nbval refuses an output without an execution count"
    if kept and not kept[0].outputs:
        yield f"the claims table is missing: reprise run {path.stem}, then reprise claims {path.stem} --write"
    for raw in json.loads(path.read_text())["cells"]:
        if raw.get("execution_count") is not None:
            yield "execution counts are not kept"
            break


def figures(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    shown = [(n, cell) for n, cell in enumerate(cells, 1) if "figure" in cell.tags]
    if not shown:
        yield "there is at least one figure (a code cell tagged figure)"
    for number, cell in shown:
        image = cell.metadata.get("mystnb", {}).get("image", {})
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if len(image.get("alt", "")) < 20:
            yield f"figure cell {number} has alt text that says what one should see"
        if "dark-light" not in image.get("classes", "").split():
            yield f"figure cell {number} has the class dark-light"
        if not figure.get("name", "").startswith(path.stem):
            yield f"figure cell {number} has a name that starts with {path.stem}"
        if not re.search(r"[Ff]ig(ure|\.)|not in the paper", figure.get("caption", "")):
            yield f"the caption of figure cell {number} names the paper's figure, or says: not in the paper"
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for _, cell in shown]
    if len(set(names)) != len(names):
        yield "figure names differ"
    for number, cell in enumerate(cells, 1):
        if "view" in cell.tags and not any(f'of="{name}"' in cell.source for name in names):
            yield f"the view in cell {number} names its figure: of=..."
    if not any("chapter.hero(" in cell.source for cell in cells):
        yield "one figure is the hero: chapter.hero(figure, alt)"


def claims(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    try:
        made = [ast.literal_eval(_argument(call, "id")) for call in _calls(cells, "chapter.claim")]
        finished = [ast.literal_eval(_argument(call, "expected")) for call in _calls(cells, "chapter.finish")]
    except ValueError:
        yield "claim ids and expected verdicts are written out, not computed"
        return
    if not made:
        yield "there is at least one chapter.claim(...)"
    if len(finished) != 1:
        yield "the notebook calls chapter.finish({id: expected verdict, ...}) once"
        return
    expected = finished[0]
    if sorted(expected) != sorted(made):
        yield f"claims are made for {', '.join(made)}, but verdicts are expected for {', '.join(expected)}"
    series: dict[str, set[int]] = {}
    for name in made:
        series.setdefault(name[0], set()).add(int(re.match(r"\d+", name[1:])[0]))
    for letter, numbers in series.items():
        if numbers != set(range(1, max(numbers) + 1)):
            yield f"claims {letter}1 to {letter}{max(numbers)} are complete"
    table = json.dumps([cell.outputs for cell in cells if "keep_output" in cell.tags])
    for name, verdict in expected.items():
        if table != "[[]]" and f"{name}  {verdict}:" not in table:
            yield f"the kept claims table says {name}  {verdict}: reprise claims {path.stem} --write"


def _calls(cells: list[Cell], name: str) -> Iterator[ast.Call]:
    for cell in cells:
        try:
            nodes = ast.walk(ast.parse(cell.source if cell.kind == "code" else ""))
        except SyntaxError:
            continue
        yield from (n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == name)


def _argument(call: ast.Call, name: str) -> ast.expr:
    named = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return call.args[0] if call.args else named[0]


def links(cells: list[Cell], path: Path, root: Path) -> Iterator[str]:
    if path.stem not in notebook.chapters(root):
        yield f"_toc.yml lists notebooks/{path.stem}"
    keys = set(re.findall(r"^@\w+\{([^,\s]+)", (root / "book/references.bib").read_text(), re.MULTILINE))
    prose = "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    labels = set(re.findall(r"\$\$ \(([\w-]+)\)|^\(([\w-]+)\)=|:label: ([\w-]+)", prose, re.MULTILINE))
    labels = {label for group in labels for label in group if label}
    figure_names = {cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells}
    for group in re.findall(r"\{(?:foot)?cite(?::\w+)?\}`([^`]+)`", prose):
        for key in group.split(","):
            if key.strip() not in keys:
                yield f"the citation {key.strip()} is in references.bib"
    for label in re.findall(r"\{eq\}`([^`]+)`", prose):
        if label not in labels:
            yield f"the equation {label} exists"
    for label in re.findall(r"\{numref\}`(?:[^`<]*<)?([^`>]+)>?`", prose):
        if label not in figure_names:
            yield f"the figure {label} exists"
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://", target):
            continue
        file, _, _ = target.partition("#")
        if file and not (path.parent / file).exists():
            yield f"the link {target} leads to a file"
