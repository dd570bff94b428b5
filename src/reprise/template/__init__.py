"""Starting a chapter: a notebook from the template, a line in `_toc.yml`, an entry in the bibliography."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from reprise.notebook import UsageError, chapters

_ENTRY = """
@misc{SLUG,
  title  = {TODO},
  author = {TODO},
  year   = {TODO},
  note   = {arXiv:TODO},
  url    = {https://arxiv.org/abs/TODO}
}
"""


def repository(root: Path) -> str:
    """The address of the repository, the one setting in `pyproject.toml`."""
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["reprise"]["repository"]


def add_chapter(root: Path, slug: str, title: str, part: str) -> Path:
    """Write a chapter's notebook, toc line and bib stub.

    Args:
        root: the repository.
        slug: lower-case words joined by hyphens.
        title: the heading of the chapter; the slug in words if empty.
        part: number of a part that `_toc.yml` lists.

    Returns:
        The path of the new notebook.

    Raises:
        UsageError: malformed or taken slug, unknown part. Nothing is written then.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise UsageError(f"a slug is lower-case words joined by hyphens, not {slug!r}")
    path = root / "notebooks" / f"{slug}.ipynb"
    if path.exists() or slug in chapters(root):
        raise UsageError(f"there is already a chapter {slug!r}")
    toc = _with_line((root / "_toc.yml").read_text(), slug, part)
    words = {
        "__SLUG__": slug,
        "__TITLE__": json.dumps(title or slug.replace("-", " ").capitalize())[1:-1],
        "__REPOSITORY__": repository(root),
        "__PATH__": repository(root).removeprefix("https://github.com/"),
    }
    text = (Path(__file__).parent / "chapter.ipynb").read_text()
    for word, value in words.items():
        text = text.replace(word, value)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (root / "_toc.yml").write_text(toc)
    with (root / "book/references.bib").open("a") as bibliography:
        bibliography.write(_ENTRY.replace("SLUG", slug))
    return path


def _with_line(toc: str, slug: str, part: str) -> str:
    """The table of contents with the chapter as the last of its part."""
    lines = toc.splitlines()
    numbers = [re.match(r"\s*- caption:\s*[\"']?(\d+)\b", line) for line in lines]
    captions = {i: match[1] for i, match in enumerate(numbers) if match}
    if part not in captions.values():
        known = ", ".join(captions.values())
        raise UsageError(f"no part {part!r} in _toc.yml (parts: {known}): add it with its page first")
    start = next(i for i, number in captions.items() if number == part)
    last = start
    for i in range(start + 1, len(lines)):
        if re.match(r"\s*- caption:", lines[i]):
            break
        if re.match(r"\s*- file:", lines[i]):
            last = i
    indent = re.match(r"\s*", lines[last])[0]
    return "\n".join([*lines[: last + 1], f"{indent}- file: notebooks/{slug}", *lines[last + 1 :]]) + "\n"
