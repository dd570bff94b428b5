"""Rewrite every mention of the repository's address after a change of the setting in pyproject.toml.

python workflow/repository.py
"""

from __future__ import annotations

import re
from pathlib import Path

from reprise import notebook
from reprise.template import repository

# Addresses of this repository, wherever it is: recognised by what stands around them.
PATTERNS = (
    r"git\+https://github\.com/([\w.-]+/[\w-]+)",
    r"colab\.research\.google\.com/github/([\w.-]+/[\w-]+)/blob",
    r"git clone https://github\.com/([\w.-]+/[\w-]+)",
    r"repository-code: https://github\.com/([\w.-]+/[\w-]+)",
    r"url: https://github\.com/([\w.-]+/[\w-]+)",
)


def mentions(root: Path) -> list[Path]:
    """The files that name the repository."""
    files = [root / name for name in ("README.md", "CONTRIBUTING.md", "_config.yml", "CITATION.cff")]
    files += [*(root / "book").glob("*.md"), *(root / "notebooks").glob("*.ipynb")]
    return [path for path in files if path.exists() and addresses(path)]


def addresses(path: Path) -> set[str]:
    """The addresses of the repository in a file."""
    text = path.read_text(encoding="utf-8")
    return {f"https://github.com/{found}" for pattern in PATTERNS for found in re.findall(pattern, text)}


def main() -> None:
    root = notebook.find_root()
    setting = repository(root).removeprefix("https://github.com/")
    for path in mentions(root):
        before = text = path.read_text(encoding="utf-8")
        for pattern in PATTERNS:
            text = re.sub(pattern, lambda match: match[0].replace(match[1], setting), text)
        if text != before:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(root)} now names {setting}")


if __name__ == "__main__":
    main()
