"""The book: its settings agree with each other, and a staged chapter becomes the page it should be."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from conftest import RESULT, ROOT, draw_curve, execute_tiny, measured
from PIL import Image

from reprise import notebook
from reprise.template import repository

sys.path.insert(0, str(ROOT / "workflow"))
import docstrings  # noqa: E402
import pages  # noqa: E402
import slim  # noqa: E402
import stage  # noqa: E402
from repository import addresses, mentions  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# --- settings that must agree


def test_every_mention_of_the_repository_is_the_setting():
    address = repository(ROOT)
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address)
    wrong = {str(path): found for path in mentions(ROOT) if (found := addresses(path) - {address})}
    assert wrong == {}, "python workflow/repository.py rewrites them"
    assert {path.name for path in mentions(ROOT)} >= {"README.md", "_config.yml", "CITATION.cff"}


def test_config_is_the_one_the_book_needs():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    extensions = config["sphinx"]["config"]["extensions"]
    assert config["execute"]["execute_notebooks"] == "off" and config["only_build_toc_files"]
    assert "sphinx_thebe" not in extensions and "sphinxcontrib.bibtex" in extensions
    assert config["repository"]["url"] == repository(ROOT)


def test_requirements_and_extras_hold_the_same_pins():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = {line for line in lines if line and not line.startswith("#")}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    assert set(PROJECT["project"]["optional-dependencies"]["book"]) <= pins
    lock = set((ROOT / "lock.txt").read_text().replace("_", "-").lower().splitlines())
    assert {pin.replace("_", "-").lower() for pin in pins} <= lock
    for dependency in PROJECT["project"]["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)", dependency).groups()
        assert any(pin.startswith(f"{name}==") for pin in pins), f"{name} is pinned"


def test_every_page_of_the_contents_exists_and_every_chapter_has_a_reference():
    files = re.findall(r"- file: (\S+)", (ROOT / "_toc.yml").read_text())
    pages_listed = [name for name in files if name.startswith("book/")]
    assert all((ROOT / f"{name}.md").exists() for name in pages_listed)
    on_disk = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")} - {"book/index"}
    assert on_disk == set(pages_listed)
    keys = re.findall(r"^@\w+\{([^,\s]+)", (ROOT / "book/references.bib").read_text(), re.MULTILINE)
    assert set(notebook.chapters(ROOT)) <= set(keys) and len(set(keys)) == len(keys)


def test_versions_and_licences_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"] == "MIT"
    assert "CC BY 4.0" in (ROOT / "LICENSE-CC-BY-4.0").read_text()


@pytest.mark.parametrize("page", ["guide.md", "add-a-paper.md"])
def test_the_code_of_a_page_runs(page):
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "book" / page).read_text(), re.DOTALL))
    exec(compile(code, page, "exec"), {"__name__": "page"})


def test_the_readme_shows_the_sweep_of_the_guide():
    first = re.search(r"```python\n(.*?)```", (ROOT / "book/guide.md").read_text(), re.DOTALL)[1]
    assert first in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_front_pages_lead_somewhere(page):
    text = (ROOT / page).read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#\s]+)", text) + re.findall(r'src="(?!https?:)([^"]+)"', text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_launchers_name_what_exists():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    target = container["postCreateCommand"].removeprefix("make ")
    assert f"\n{target}:" in (ROOT / "Makefile").read_text()
    environment = yaml.safe_load((ROOT / "binder/environment.yml").read_text())
    assert any(str(name).startswith("pytorch") for name in environment["dependencies"])
    build = ROOT / "binder/postBuild"
    assert os.access(build, os.X_OK) and "pip install" in build.read_text()
    assert subprocess.run(["bash", "-n", build]).returncode == 0


def test_linkcheck_says_in_one_line_that_there_is_no_network(tmp_path):
    environment = os.environ | dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    command = [sys.executable, ROOT / "workflow/render.py", tmp_path, tmp_path / "links", "linkcheck"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("linkcheck needs a network: https://arxiv.org")
    assert done.stderr.count("\n") == 1


def test_styles_icons_and_pictures_are_made_light_without_a_change(tmp_path):
    css = (
        '@charset "UTF-8";.used,.unused:hover{color:red}.gone>p{x:y}@media print{.gone{a:b}}'
        "@media (width>9px){.used:not(.gone){c:d}}@font-face{font-family:F}html[data-x] p{e:f}"
    )
    assert slim.pruned(css, {"used"}) == (
        '@charset "UTF-8";.used{color:red}@media (width>9px){.used:not(.gone){c:d}}'
        "@font-face{font-family:F}html[data-x] p{e:f}"
    )
    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text('<p class="used">')
    sheet = tmp_path / "_static/theme.css"
    sheet.write_text("/*! Licence, by X.org */.used{a:b}/* note { */.gone{c:d}")
    slim.styles(tmp_path)
    assert sheet.read_text() == ".used{a:b}/*! Licence, by X.org */"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 4), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    slim.repack(path)
    assert (np.asarray(Image.open(path)) == noise).all()  # a palette would change it
    path.write_bytes(draw_curve())
    slim.repack(path)
    before, after = (np.asarray(Image.open(p).convert("RGBA")) for p in (io.BytesIO(draw_curve()), path))
    assert (before == after).all() and path.stat().st_size <= len(draw_curve())


# --- pages made from results


def test_the_question_comes_from_the_result_or_the_prose():
    cells = [notebook.Cell("markdown", "## The question\n\nWhy\nso? Because. Yes.", (), {}, [])]
    assert pages.question({"question": "What?"}, cells) == "What?"
    assert pages.question({"question": ""}, cells) == "Why so?"


@pytest.fixture
def executed(tiny):
    """The tiny checkout with results as if its chapter had been executed."""
    execute_tiny(tiny)
    return tiny


def test_staging(executed):
    target = executed / "_build/stage"
    stage.stage(executed, target)
    cells = json.loads((target / "notebooks/tiny-decay.ipynb").read_text())["cells"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    assert "1 partly" in cells[1]["source"] and "31 CPU-seconds" in cells[1]["source"]
    assert "CPU &lt;one thread&gt;" in cells[1]["source"]
    made = next(cell for cell in cells if cell["id"] == "anchors-C1")
    assert made["source"].count("cell-anchor") == 2 and 'id="C2-cell"' in made["source"]
    table = next(cell for cell in cells if "keep_output" in cell["metadata"].get("tags", []))
    assert table["metadata"]["mystnb"]["code_prompt_show"] == "Show the checks of C1, C2"
    html = "".join(table["outputs"][0]["data"]["text/html"])
    assert '<tbody id="C2" role="rowgroup">' in html and 'href="#C2-cell"' in html
    assert ["setup", "hide-cell"] in tags and ["figure", "hide-input"] in tags
    assert not any("injected-parameters" in found for found in tags)
    figure = cells[tags.index(["figure", "hide-input"])]
    assert len(figure["outputs"]) == 1 and "image/png" in figure["outputs"][0]["data"]
    assert figure["metadata"]["mystnb"]["image"]["alt"] == "A falling curve."
    index = (target / "book/index.md").read_text()
    assert "Does it decay?" in index and "tiny-decay.ipynb" in index and "generated:" not in index
    board = (target / "book/scoreboard.md").read_text()
    assert '<a href="../notebooks/tiny-decay.html#C1">C1<' in board
    assert "</a> Falls to |c| &lt; 1, a_b and *c*" in board and 'data-kind="measurement"' in board
    assert "C1: 1 more check and 1 control" in board and "control: none" in board
    assert (
        "&lt;nothing&gt;" in board and "<p>Check failed: b</p>" in board and "CPU &lt;one thread&gt;" in board
    )
    assert (target / "_generated/tiny-decay.png").read_bytes() == draw_curve()


def test_the_status_page_says_what_a_run_needed():
    row = pages.status({"1 Small": [RESULT | {"title": "T", "peak_mb": 1234}]}, {"tiny-decay": []})
    assert "31 CPU-seconds" in row and "1,234 MB" in row and "torch 2.13.0" in row and "none yet" in row
    old = pages.age(["2026-01-01", "2026-01-03"], datetime.date(2026, 1, 13))
    assert old == "2 files, newest of 2026-01-03, 10 days old at the build"


def test_downloads_hold_every_claim(executed):
    stage.stage(executed, executed / "_build/stage")
    folder = executed / "_build/stage/book/_static"
    rows = json.loads((folder / "scoreboard.json").read_text())
    assert [(row["chapter"], row["claim"], row["verdict"]) for row in rows] == [
        ("tiny-decay", "C1", "partly"),
        ("tiny-decay", "C2", "reproduced"),
    ]
    with (folder / "scoreboard.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert rows[0]["part"] == "1 Small things" and rows[0]["measured"] == "a: 0.1; b: <nothing>"


def test_staging_refuses_what_it_cannot_show(executed):
    path = executed / "_build/chapters/tiny-decay/notebook.ipynb"
    text = path.read_text()
    path.write_text(text.replace("image/png", "text/html"))
    with pytest.raises(ValueError, match="a cell tagged figure shows one figure, not 0"):
        stage.stage(executed, executed / "_build/stage")
    path.write_text(text)
    path.write_text(text.replace('class=\\"claim-title\\">C2', 'class=\\"claim-title\\">C3'))
    with pytest.raises(ValueError, match="the claims table of the executed notebook has no claim C2"):
        stage.stage(executed, executed / "_build/stage")
    path.write_text(text)
    (executed / "book/index.md").write_text("# B\n\n<!-- generated: nothing -->\n")
    with pytest.raises(KeyError, match="nothing"):
        stage.stage(executed, executed / "_build/stage")


def test_docstrings_become_restructured_text():
    lines = ["One |g| and a_ * b with `code`.", "", "p: a prime", "    or not.", "q, r: the `rest`."]
    assert docstrings.restructured(lines) == [
        r"One \|g\| and a\_ \* b with ``code``.",
        "",
        "* **p**: a prime",
        "  or not.",
        "* **q, r**: the ``rest``.",
    ]
    running = ["slug: a name; scale: one of", "two. More", "    of it."]
    assert docstrings.restructured(running) == ["slug: a name; scale: one of", "two. More", "of it."]
    section = ["Args:", "    x: |x| in [0, 1]", "Example:", "    >>> a * b"]
    assert docstrings.restructured(section) == [
        "Args:",
        r"    x: \|x\| in [0, 1]",
        "",
        "Example:",
        "    >>> a * b",
    ]


REAL_PAGES = "how-to-read guide api internals status run-it speed add-a-paper".split()


class Page(HTMLParser):
    """What a page loads, links to and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.links, self.names, self.images = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.names |= {found.get("id"), found.get("name")} - {None}
        if tag in ("script", "img", "iframe", "source", "video") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev", "search", "index"):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found)


def read_site(html: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in html.rglob("*.html") if "_static" not in path.parts}


def faults(html: Path) -> list[str]:
    """What is wrong with a built book: loads from the network, dead links, images without alt text."""
    site = read_site(html)
    found = []
    for path, page in site.items():
        name = path.relative_to(html)
        for source in page.loads:
            if re.match(r"(https?:)?//", source):
                found.append(f"{name} loads {source}")
            elif not source.startswith("data:") and not (path.parent / source.split("?")[0]).exists():
                found.append(f"{name} lacks {source}")
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file.split("?")[0]).resolve() if file else path.resolve()
            if not target.exists():
                found.append(f"{name} links to {link}")
            elif anchor and target in site and anchor not in site[target].names:
                found.append(f"{name} links to {link}, which has no such place")
        found += [f"{name}: {image['src']} has no alt text" for image in page.images if not image.get("alt")]
    return found


def test_the_built_book_reads_without_a_network(executed):
    # The real pages around the tiny chapter: prose, guide, API reference of the whole library.
    for path in (ROOT / "book").glob("*.md"):
        if not path.name.startswith("part-"):
            shutil.copy(path, executed / "book" / path.name)
    toc = (executed / "_toc.yml").read_text()
    more = "".join(f"      - file: book/{name}\n" for name in REAL_PAGES)
    (executed / "_toc.yml").write_text(
        toc.replace("      - file: book/bibliography\n", more, 1)
        + ("  - caption: End\n    chapters:\n      - file: book/bibliography\n")
    )
    (executed / "data/benchmarks").mkdir(parents=True)
    (executed / "data/benchmarks/cpu.json").write_text(json.dumps(measured()))
    (executed / "data/benchmarks/cpu.md").write_text("**W0**: a table\n")
    target, html = executed / "_build/stage", executed / "_build/html"
    stage.stage(executed, target)
    command = [sys.executable, ROOT / "workflow/render.py", target, html]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)[-6000:]
    assert faults(html) == []
    text = (html / "notebooks/tiny-decay.html").read_text()
    assert 'alt="A falling curve."' in text and "Show the plotting code" in text
    assert "mathjax/startup.js" in text and (html / "_static/mathjax/input/tex.js").exists()
    assert '<span class="verdict verdict-partly">1 partly</span>' in text
    assert 'property="og:description" content="Does it decay? 1 reproduced, 1 partly."' in text
    assert re.search(r'property="og:image" content="https://[\w.-]+/\w+/_images/tiny-decay.png"', text)
    assert (html / "_images/tiny-decay.png").exists()
    assert {
        i["class"] for i in Page((html / "book/speed.html").read_text()).images if "cpu-" in i["src"]
    } == {"dark-light"}
    assert sum(path.stat().st_size for path in html.rglob("*") if path.is_file()) < 20e6


def test_the_book_that_stands_has_no_fault():
    html = ROOT / "_build/html"
    if not html.exists():
        pytest.skip("no book built yet: make book")
    assert faults(html) == []


def test_the_epub_is_sound(executed):
    stage.stage(executed, executed / "_build/stage")
    command = [
        sys.executable,
        ROOT / "workflow/render.py",
        executed / "_build/stage",
        executed / "_build/epub",
    ]
    done = subprocess.run([*command, "epub"], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    with zipfile.ZipFile(next((executed / "_build/epub").glob("*.epub"))) as book:
        files = {name: book.read(name) for name in book.namelist()}
    trees = {name: ElementTree.fromstring(files[name]) for name in files if name.endswith((".xhtml", ".opf"))}
    elements = {name: [(e.tag.split("}")[-1], e) for e in tree.iter()] for name, tree in trees.items()}
    named = {name: {e.get("id") for _, e in found} for name, found in elements.items()}
    wrong = []
    for name, found in elements.items():
        for tag, e in found:
            target = e.get("src") if tag == "img" else e.get("href") if tag == "a" else None
            if tag == "script" or tag == "img" and not e.get("alt"):
                wrong.append((name, tag))
            if target and not re.match(r"\w+:", target):
                file, _, anchor = target.partition("#")
                place = posixpath.normpath(posixpath.join(posixpath.dirname(name), file)) if file else name
                if place not in files or anchor and anchor not in named[place]:
                    wrong.append((name, target))
    assert wrong == []
    chapter = elements["notebooks/tiny-decay.xhtml"]
    assert [tag for tag, _ in chapter].count("math") == 1 and "img" in dict(chapter)
    assert "view" not in {e.get("class") for _, e in chapter}
