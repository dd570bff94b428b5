"""The chapter contract for every notebook of the book."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT, markdown, write_notebook
from contract import violations

from reprise import notebook
from reprise.template import add_chapter

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_contents_and_notebooks_agree():
    assert sorted(notebook.chapters(ROOT)) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_contract(path):
    assert violations(path, ROOT) == []


UNFINISHED = {
    "the claims table is missing: reprise run new-one, then reprise claims new-one --write",
    "there is at least one chapter.claim(...)",
}


def test_the_template_lacks_only_what_the_author_adds(tiny):
    path = add_chapter(tiny, "new-one", "A new one", "1")
    (tiny / "book/_static").mkdir(exist_ok=True)
    assert set(violations(path, tiny)) == UNFINISHED


def broken(path, change):
    content = json.loads(path.read_text())
    change(content["cells"])
    path.write_text(json.dumps(content))


def drop_alt(cells):
    figure = next(c for c in cells if "figure" in c["metadata"].get("tags", ()))
    figure["metadata"]["mystnb"]["image"]["alt"] = ""


def add_output(cells):
    cells[3]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "hello"}]


def swap_headings(cells):
    cells[4], cells[5] = cells[5], cells[4]


def magic(cells):
    cells[3]["source"] = ["%matplotlib inline"]


def cite_unknown(cells):
    cells[4]["source"].append("\nAs {cite}`nobody` says.")


def dead_link(cells):
    cells[4]["source"].append("\nSee [this](../book/nowhere.md).")


def numpy_pin(cells):
    cells[1]["source"].append('\n"numpy==1.26"')


def claim_without_verdict(cells):
    cell = next(c for c in cells if c["id"] == "claims-made")
    cell["source"] = ['chapter.claim("C2", "t", paper="p", checks=[])']


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_alt, "alt text that says what one should see"),
        (add_output, "cell 4 holds outputs"),
        (swap_headings, "the level-two headings are"),
        (magic, "cell 4 is plain Python"),
        (cite_unknown, "the citation nobody is in references.bib"),
        (dead_link, "the link ../book/nowhere.md leads to a file"),
        (numpy_pin, "never touches torch or numpy"),
        (claim_without_verdict, "claims are made for C2, but verdicts are expected for"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_breach_is_found(tiny, change, message):
    path = add_chapter(tiny, "new-one", "A new one", "1")
    broken(path, change)
    found = [text for text in violations(path, tiny) if text not in UNFINISHED]
    assert any(message in text for text in found), found


def test_a_notebook_without_structure_breaks_most_rules(tiny):
    write_notebook(tiny / "notebooks/bare.ipynb", [markdown("hello")])
    assert len(violations(tiny / "notebooks/bare.ipynb", tiny)) > 8
