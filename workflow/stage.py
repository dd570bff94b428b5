"""Make the tree that Sphinx reads: pages, executed notebooks at their repository paths, generated parts.

    python workflow/stage.py _build/stage

Run in the repository. Everything that depends on a result is made here, from `_build/chapters`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import pages

from reprise import notebook, results

FOLD = {
    "setup": ("hide-cell", "Setup"),
    "figure": ("hide-input", "Show the plotting code"),
}


def stage(root: Path, target: Path) -> None:
    """Fill `target`, which is emptied first.

    Raises KeyError for a page that asks for an unknown generated part.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(root / "book", target / "book")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, target / name)
    (target / "_generated").mkdir()
    (target / "notebooks").mkdir()
    found, cards = [], {}
    for slug in notebook.chapters(root):
        folder = root / "_build/chapters" / slug
        cells = notebook.read_cells(root / f"notebooks/{slug}.ipynb")
        result = results.read(folder) | {"title": notebook.title(cells)}
        found.append(result)
        shutil.copy(folder / result["hero"]["file"], target / f"_generated/{slug}.png")
        content = staged(json.loads((folder / "notebook.ipynb").read_text(encoding="utf-8")), result)
        (target / f"notebooks/{slug}.ipynb").write_text(json.dumps(content), encoding="utf-8")
        ask = pages.question(result, cells)
        cards[slug] = pages.card(result, ask, colab(root, slug), f"../notebooks/{slug}.ipynb")
    generated = {
        "totals": pages.totals(found),
        "scoreboard": pages.scoreboard(found),
        "gallery": "\n".join(
            f"### {caption}\n\n{pages.gallery([cards[slug] for slug in slugs])}"
            for caption, slugs in notebook.parts(root).items()
        ),
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


def staged(content: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """An executed notebook as a page: header strip, folded cells, no injected parameters."""
    cells = []
    for cell in content["cells"]:
        tags = set(cell["metadata"].get("tags", ()))
        if "injected-parameters" in tags:
            continue
        for tag, (fold, prompt) in FOLD.items():
            if tag in tags:
                cell["metadata"]["tags"] = [*cell["metadata"]["tags"], fold]
                cell["metadata"].setdefault("mystnb", {}).setdefault("code_prompt_show", prompt)
        if "figure" in tags:
            # Each output would become a figure of its own with the same name: only the image is one.
            cell["outputs"] = [out for out in cell["outputs"] if "image/png" in out.get("data", {})]
            if len(cell["outputs"]) != 1:
                raise ValueError(
                    f"a cell tagged figure shows one figure, not {len(cell['outputs'])}: {cell['id']}"
                )
        cells.append(cell)
        if len(cells) == 1:
            strip = {"cell_type": "markdown", "id": "strip", "metadata": {}, "source": pages.strip(result)}
            cells.append(strip)
    return content | {"cells": cells}


def colab(root: Path, slug: str) -> str:
    """The address that opens a chapter in Colab."""
    from reprise.template import repository

    path = repository(root).removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{slug}.ipynb"


if __name__ == "__main__":
    stage(Path.cwd(), Path(sys.argv[1]))
