"""Make the tree that Sphinx reads: pages, executed notebooks at their repository paths, generated parts.

    python workflow/stage.py _build/stage

Run in the repository. Everything that depends on a result is made here, from `_build/chapters`.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))  # for benchmarks

import pages

from reprise import notebook, results

FOLD = {
    "setup": ("hide-cell", "Setup"),
    "chapter": ("hide-input", "Show how the chapter starts"),
    "figure": ("hide-input", "Show the plotting code"),
    "view": ("remove-input", ""),
}
LONG = 60  # lines; a longer cell is folded


def stage(root: Path, target: Path) -> None:
    """Fill `target`, which is emptied first.

    Raises KeyError for a page that asks for an unknown generated part.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, target / name)
    (target / "_generated/notebooks").mkdir(parents=True)
    (target / "notebooks").mkdir()
    addresses = papers(root / "book/references.bib")
    parts, cards, records = {}, {}, {}
    for caption, slugs in notebook.parts(root).items():
        for slug in slugs:
            folder = root / "_build/chapters" / slug
            cells = notebook.read_cells(root / f"notebooks/{slug}.ipynb")
            result = results.read(folder) | {"title": notebook.title(cells)}
            parts.setdefault(caption, []).append(result)
            records[slug] = record_dates(root / "data/records" / slug)
            shutil.copy(folder / result["hero"]["file"], target / f"_generated/{slug}.png")
            # For readers who download it: without outputs, and opened or run as it stands in the repository.
            shutil.copy(root / f"notebooks/{slug}.ipynb", target / "_generated/notebooks")
            strip = pages.strip(result, addresses.get(slug, ""), len(records[slug]))
            content = json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8"))
            page = json.dumps(staged(content, result, strip))
            (target / f"notebooks/{slug}.ipynb").write_text(page, encoding="utf-8")
            ask = pages.question(result, cells)
            cards[slug] = pages.card(result, ask, colab(root, slug), f"../notebooks/{slug}.ipynb")
    generated = {
        "totals": pages.totals([result for found in parts.values() for result in found]),
        "scoreboard": pages.scoreboard(parts),
        "status": pages.status(parts, records),
        "bibliography": pages.bibliography(parts),
        "gallery": "\n".join(
            f"### {caption}\n\n{pages.gallery([cards[slug] for slug in slugs])}"
            for caption, slugs in notebook.parts(root).items()
        ),
        "speed": pages.speed(root / "data/benchmarks", target / "_generated"),
        "api": pages.api(Path(notebook.__file__).parent, inner=False),
        "internals": pages.api(Path(notebook.__file__).parent, inner=True),
    }
    for caption, slugs in notebook.parts(root).items():
        generated[f"gallery {caption.split()[0]}"] = pages.gallery([cards[slug] for slug in slugs])
    for page in (target / "book").glob("*.md"):
        prose = page.read_text(encoding="utf-8")
        page.write_text(
            re.sub(r"<!-- generated: (.+?) -->", lambda match: generated[match[1]], prose), encoding="utf-8"
        )
    downloads(pages.rows(parts), target / "book/_static")
    links = social(root, [result for found in parts.values() for result in found])
    (target / "_generated/cards.json").write_text(json.dumps(links), encoding="utf-8")


def social(root: Path, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What `workflow/social.py` reads; the book is taken to stand on the pages of its repository."""
    from reprise.template import repository

    owner, name = repository(root).removeprefix("https://github.com/").split("/")
    cards: dict[str, Any] = {"site": f"https://{owner}.github.io/{name}/"}
    cards[""] = {
        "description": "Deep-learning papers that run: every claim is a line of code that can fail.",
        "image": "_static/readme.png",
        "alt": "Training loss, norm of the last layer and accuracy over 4,000 steps of Adam",
    }
    for result in found:
        slug = result["slug"]
        description = f"{result['question']} {results.tally(results.count(result))}.".strip()
        image = {"image": f"_images/{slug}.png", "alt": result["hero"]["alt"]}
        cards[f"notebooks/{slug}"] = {"description": description, **image}
    return cards


def downloads(rows: list[dict[str, str]], folder: Path) -> None:
    """The scoreboard as `scoreboard.json` and `scoreboard.csv`."""
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    (folder / "scoreboard.json").write_text(text, encoding="utf-8")
    with (folder / "scoreboard.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, pages.FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def papers(bibliography: Path) -> dict[str, str]:
    """Bib key -> the address of the paper."""
    from pybtex.database import parse_file

    entries = parse_file(str(bibliography)).entries
    return {key: entry.fields["url"] for key, entry in entries.items() if "url" in entry.fields}


def record_dates(folder: Path) -> list[str]:
    """The dates of the full-scale records in a folder, which need not exist."""
    from reprise import Record

    return [str(Record.load(path).attrs.get("date", "")) for path in sorted(folder.glob("*.nc"))]


def staged(content: dict[str, Any], result: dict[str, Any], strip: str) -> dict[str, Any]:
    """An executed notebook as a page: header strip, folded cells, no injected parameters, claims linked."""
    cells = []
    for cell in content["cells"]:
        tags = set(cell["metadata"].get("tags", ()))
        if "injected-parameters" in tags:
            continue
        made = claims_made(cell)
        if made:
            anchors = "".join(f'<div class="cell-anchor" id="{name}-cell"></div>' for name in made)
            cells.append(markdown(f"anchors-{made[0]}", anchors))
            fold(cell, "hide-input", f"Show the checks of {', '.join(made)}")
        for tag, (folded, prompt) in FOLD.items():
            if tag in tags:
                fold(cell, folded, prompt)
        if cell["cell_type"] == "code" and not made and "figure" not in tags:
            lines = "".join(cell["source"]).count("\n") + 1
            if lines > LONG:
                fold(
                    cell,
                    "hide-input",
                    f"Show the code ({lines} lines): {', '.join(defined(cell))}".strip(": "),
                )
        if "keep_output" in tags:
            link_claims(cell, [claim["id"] for claim in result["claims"]])
        if "figure" in tags:
            one_picture(cell)
        cells.append(cell)
        if len(cells) == 1:
            cells.append(markdown("strip", strip))
    return content | {"cells": cells}


def one_picture(cell: dict[str, Any]) -> None:
    """Leave one output with one image: SVG where the figure is light enough to have it, else PNG.

    Raises ValueError unless the cell shows one figure.
    """
    # Each output would become a figure of its own with the same name: only the image is one.
    cell["outputs"] = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
    if len(cell["outputs"]) != 1:
        raise ValueError(f"a cell tagged figure shows one figure, not {len(cell['outputs'])}: {cell['id']}")
    data = cell["outputs"][0]["data"]
    kept = "image/svg+xml" if "image/svg+xml" in data else "image/png"
    cell["outputs"][0]["data"] = {kept: data[kept]}


def markdown(name: str, source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def fold(cell: dict[str, Any], tag: str, prompt: str) -> None:
    cell["metadata"]["tags"] = [*cell["metadata"].get("tags", ()), tag]
    prompts = cell["metadata"].setdefault("mystnb", {})
    prompts.setdefault("code_prompt_show", prompt)
    prompts.setdefault("code_prompt_hide", re.sub("^Show", "Hide", prompt))


def claims_made(cell: dict[str, Any]) -> list[str]:
    """The ids of the claims that a code cell makes."""
    if cell["cell_type"] != "code":
        return []
    nodes = ast.walk(ast.parse("".join(cell["source"])))
    calls = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "chapter.claim"]
    given = [call.args[0] if call.args else call.keywords[0].value for call in calls]
    return [node.value for node in given if isinstance(node, ast.Constant)]


def defined(cell: dict[str, Any]) -> list[str]:
    """The functions and classes that a code cell defines."""
    body = ast.parse("".join(cell["source"])).body
    return [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def link_claims(cell: dict[str, Any], names: list[str]) -> None:
    """Give each claim of the table an anchor and a link to the cell that made it.

    Raises ValueError if the table is not the one of the result.
    """
    html = [output["data"] for output in cell["outputs"] if "text/html" in output.get("data", {})]
    for name in names:
        pattern = rf'(<tbody)( role="rowgroup">(?:(?!<tbody).)*?<span class="claim-title">{name} .*?</span>)'
        link = f' <a class="claim-cell" href="#{name}-cell" aria-label="the cell that makes {name}">cell</a>'
        for data in html:
            text, number = re.subn(
                pattern, rf'\1 id="{name}"\2{link}', "".join(data["text/html"]), count=1, flags=re.DOTALL
            )
            data["text/html"] = text
            if number != 1:
                raise ValueError(f"the claims table of the executed notebook has no claim {name}")


def colab(root: Path, slug: str) -> str:
    """The address that opens a chapter in Colab."""
    from reprise.template import repository

    path = repository(root).removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{slug}.ipynb"


if __name__ == "__main__":
    try:
        stage(Path.cwd(), Path(sys.argv[1]))
    except notebook.UsageError as error:
        sys.exit(f"the book needs its chapters executed: {error}")
