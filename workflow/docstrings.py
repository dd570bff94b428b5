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
ENTRY = re.compile(r"([a-z_][\w]*(?:, [a-z_]\w*)*): (.*)")


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
    section = example = False
    listing = False  # inside a paragraph of `name: meaning` lines
    for line in lines:
        text = line.strip()
        indented = line.startswith("    ")
        if SECTION.match(line):
            section, example = True, line.startswith("Example")
            out.append(line)
            continue
        if text and not indented:
            section = False
        if not text:
            listing = False
            out.append(line)
        elif section:
            out.append(line if example else line[: len(line) - len(line.lstrip())] + literal(line.lstrip()))
        elif text.startswith((">>>", "...")):
            out.append(line)
        elif not indented and (entry := ENTRY.match(text)):
            if out and out[-1].strip() and not listing:
                out.append("")
            listing = True
            out.append(f"* **{literal(entry[1])}**: {literal(entry[2])}")
        elif listing and indented:
            out.append(f"  {literal(text)}")
        else:
            if listing:
                out.append("")
            listing = False
            out.append(literal(text))
    return out


def setup(app: Any) -> dict[str, bool]:
    def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = restructured(lines)

    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
