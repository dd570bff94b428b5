"""A Sphinx extension: the picture, title and sentence that a link to a page shows elsewhere (Open Graph).

`workflow/stage.py` writes them to `_generated/cards.json`, by page; "" holds those of every other page.
"""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path
from typing import Any


def tags(cards: dict[str, Any], page: str, title: str) -> str:
    """The meta elements of a page."""
    card, site = cards.get(page) or cards[""], cards["site"]
    found = {
        "og:type": "article",
        "og:site_name": "Reprise",
        "og:title": unescape(re.sub(r"<[^>]+>", "", title)),
        "og:description": card["description"],
        "og:url": f"{site}{page}.html",
        "og:image": f"{site}{card['image']}",
        "og:image:alt": card["alt"],
        "twitter:card": "summary_large_image",
    }
    return "".join(f'<meta property="{name}" content="{escape(text)}" />\n' for name, text in found.items())


def setup(app: Any) -> dict[str, bool]:
    def add(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
        cards = json.loads((Path(app.srcdir) / "_generated/cards.json").read_text(encoding="utf-8"))
        context["metatags"] = context.get("metatags", "") + tags(cards, pagename, context.get("title", ""))

    app.connect("html-page-context", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
