"""A chapter's notebook as a file: finding it, reading its cells and checking its parameters.

Notebooks are read as JSON, so that a server needs neither Jupyter nor nbformat.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALES = ("quick", "full")


class UsageError(ValueError):
    """What the caller asked for is not possible; the message is one line for a terminal."""


@dataclass(frozen=True)
class Cell:
    """One cell: its type ("code" or "markdown"), source text, tags, metadata and outputs."""

    kind: str
    source: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    outputs: list[dict[str, Any]]


def find_root(start: Path | str = ".") -> Path:
    """The repository that holds the book: `start` or the nearest parent with a `_toc.yml`.

    Raises UsageError outside such a repository.
    """
    start = Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").exists():
            return folder
    raise UsageError(f"no _toc.yml in {start} or above it: run reprise inside a checkout of the book")


def parts(root: Path) -> dict[str, list[str]]:
    """Part caption -> slugs of its chapters, in the order of the table of contents; empty parts left out."""
    found: dict[str, list[str]] = {}
    caption = ""
    for line in (root / "_toc.yml").read_text().splitlines():
        if match := re.match(r"\s*-\s*caption:\s*(.+?)\s*$", line):
            caption = match[1].strip("\"'")
        elif match := re.match(r"\s*-\s*file:\s*notebooks/([\w-]+?)(\.ipynb)?\s*$", line):
            found.setdefault(caption, []).append(match[1])
    return found


def chapters(root: Path) -> list[str]:
    """The slugs of all chapters, in the order of the table of contents."""
    return [slug for slugs in parts(root).values() for slug in slugs]


def locate(root: Path, slug: str) -> Path:
    """The notebook of a chapter. Raises UsageError for a slug that is not a chapter of the book."""
    known = chapters(root)
    if slug not in known:
        raise UsageError(f"no chapter {slug!r}{_nearest(slug, known)}: reprise list names them")
    path = root / "notebooks" / f"{slug}.ipynb"
    if not path.exists():
        raise UsageError(f"chapter {slug!r} is in _toc.yml, but notebooks/{slug}.ipynb does not exist")
    return path


def read_cells(path: Path) -> list[Cell]:
    """The cells of a notebook file, in order."""
    cells = []
    for raw in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        metadata = raw.get("metadata", {})
        source = "".join(raw["source"])
        cells.append(
            Cell(raw["cell_type"], source, tuple(metadata.get("tags", ())), metadata, raw.get("outputs", []))
        )
    return cells


def title(cells: Iterable[Cell]) -> str:
    """The first level-one heading, or an empty string."""
    for cell in cells:
        if cell.kind == "markdown" and (match := re.search(r"^#\s+(.+?)\s*$", cell.source, re.MULTILINE)):
            return match[1]
    return ""


def section(cells: Iterable[Cell], heading: str) -> str:
    """The Markdown right under a level-two heading, up to the next heading or cell; empty if absent."""
    for cell in cells:
        if cell.kind == "markdown":
            pattern = rf"^##\s+{re.escape(heading)}\s*\n(.*?)(?=^#|\Z)"
            if match := re.search(pattern, cell.source, re.MULTILINE | re.DOTALL):
                return match[1].strip()
    return ""


def defaults(cells: Iterable[Cell]) -> dict[str, Any]:
    """The names and default values that the cell tagged `parameters` assigns.

    Raises UsageError if there is not exactly one such cell, or if a default is not a literal.
    """
    tagged = [cell for cell in cells if cell.kind == "code" and "parameters" in cell.tags]
    if len(tagged) != 1:
        raise UsageError(f"expected one code cell tagged parameters, found {len(tagged)}")
    values: dict[str, Any] = {}
    for node in ast.parse(tagged[0].source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        target = node.target if isinstance(node, ast.AnnAssign) and node.value else target
        if not isinstance(target, ast.Name):
            raise UsageError(f"the parameters cell holds more than `name = value`: {ast.unparse(node)}")
        try:
            values[target.id] = ast.literal_eval(node.value)
        except ValueError:
            raise UsageError(f"the default of parameter {target.id} is not a literal value") from None
    return values


def checked(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters given by a caller, each checked against the notebook's own name and type of default.

    Args:
        given: name -> text as typed (parsed here as a Python literal) or value.
        known: name -> default, from `defaults`.

    Returns:
        name -> value, in the order given. An int is accepted for a float, anything for a default of None.

    Raises:
        UsageError: unknown name, other type than the default's, wrong scale or device.
    """
    values = {}
    for name, text in given.items():
        if name not in known:
            raise UsageError(
                f"no parameter {name!r}{_nearest(name, known)}: this chapter has {', '.join(known)}"
            )
        default = known[name]
        value = text if isinstance(default, str) else _literal(text)
        if default is not None and not _same_type(value, default):
            kind = type(default).__name__
            raise UsageError(
                f"parameter {name} takes {_article(kind)} {kind} (default {default!r}), not {text!r}"
            )
        values[name] = float(value) if isinstance(default, float) else value
    if values.get("scale", "quick") not in SCALES:
        raise UsageError(f"scale is quick or full, not {values['scale']!r}")
    if "device" in values:
        check_device(values["device"])
    return values


def check_device(device: str) -> None:
    """Raises UsageError unless `device` is auto, cpu, or a CUDA device of this machine (cuda, cuda:N)."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(f"device is auto, cpu, cuda or cuda:N, not {device!r}")
    if device.startswith("cuda"):
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(device.partition(":")[2] or 0) >= count:
            raise UsageError(f"device {device!r} is not there: this machine has {count} CUDA devices")


def _literal(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
