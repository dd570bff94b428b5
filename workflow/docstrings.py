"""A Sphinx extension: docstrings are plain text, made into reStructuredText before Sphinx reads them.

Formulas such as `g * min(1, c / |g|)` keep their signs, `names` in backticks become code, and paragraphs of
`name: meaning` lines become lists. Sections that napoleon knows (Args:, Returns:, ...) keep their layout.
"""

from __future__ import annotations

import re
from typing import Any

SECTION = re.compile(
    r"(Args|Arguments|Returns|Raises|Yields|Example|Examples|Attributes|Note|Source|Sources):$"
)
ENTRY = re.compile(r"((?:\w+,? ){0,3}\w+): (.*)")  # "rate, share of pairs: what it means"


def literal(text: str) -> str:
    """One line with markup characters escaped outside of backticks, which become double."""
    pieces = re.split(r"(``[^`]+``|:[a-z]+:`[^`]+`|`[^`]+`)", text)
    escaped = "".join(
        re.sub(r"([*|\\]|(?<=\w)_(?!\w)|`)", r"\\\1", piece) if i % 2 == 0 else f"\0{_code(piece)}\0"
        for i, piece in enumerate(pieces)
    )
    # Code ends where a space or a sign follows: elsewhere an escaped space, which does not show, ends it.
    escaped = re.sub(r"(?<=[^\s(\[{'\"/-])\0(?=`|:)", r"\\ \0", escaped)
    return re.sub(r"(?<=`)\0(?=\w)", r"\\ ", escaped).replace("\0", "")


def _code(piece: str) -> str:
    return piece if piece.startswith(("``", ":")) else f"`{piece}`"


def restructured(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    out: list[str] = []
    section = ""
    for paragraph in _paragraphs(lines):
        if not paragraph[0].startswith("    "):
            section = paragraph[0] if SECTION.match(paragraph[0]) else ""
        if section.startswith("Example") or any(line.lstrip().startswith(">>>") for line in paragraph):
            out += paragraph
        elif section:
            out += [_indent(line) + literal(line.lstrip()) for line in paragraph]
        elif ENTRY.match(paragraph[0]) and all(ENTRY.match(line) or _indent(line) for line in paragraph):
            out += [_entry(line) for line in paragraph]
        else:
            out += [literal(line.lstrip()) for line in paragraph]
        out.append("")
    return out[:-1]


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Lines between blank ones; a section heading begins a paragraph of its own."""
    found: list[list[str]] = [[]]
    for line in lines:
        if not line.strip() or SECTION.match(line):
            found.append([])
        if line.strip():
            found[-1].append(line.rstrip())
    return [paragraph for paragraph in found if paragraph]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _entry(line: str) -> str:
    if match := ENTRY.match(line):
        return f"* **{literal(match[1])}**: {literal(match[2])}"
    return f"  {literal(line.lstrip())}"


def setup(app: Any) -> dict[str, bool]:
    def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = restructured(lines)

    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
