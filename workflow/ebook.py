"""A Sphinx extension for the EPUB, whose pages are XML and whose readers run no script.

Formulas become MathML, with the numbers and anchors of the web pages. What only a script can use goes, and
links lead to the pages of the book in hand.
"""

from __future__ import annotations

import re
from typing import Any

from bs4 import BeautifulSoup
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.math import get_node_equation_number

SCREEN_ONLY = "script, form, .cell:has(.view), summary .expanded, .strip-links"


def inline(self: Any, node: Any) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(self: Any, node: Any) -> None:
    text = node.astext()
    if re.search(r"&|\\\\", text) and "\\begin{" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
    self.body.append(f"{convert(text, display='block')}</div>")
    raise nodes.SkipNode


def page(body: str) -> str:
    """The body of a page as well-formed XML, for paper and for a screen without scripts."""
    soup = BeautifulSoup(body, "html.parser")
    for element in soup.select(SCREEN_ONLY):
        element.decompose()
    for link in soup.select("a[href]"):
        target = link["href"]
        if "_static/" in target or "_downloads/" in target:
            link.unwrap()  # files beside the pages are not in the book
        elif not re.match(r"\w+:", target):
            link["href"] = re.sub(r"\.html(\?[^#]*)?(?=#|$)", ".xhtml", target)
    for details in soup.select("details"):  # nothing is folded on paper
        details["open"] = "open"
    for prompt in soup.select("summary .collapsed"):
        prompt.string = prompt.get_text().removeprefix("Show ").strip().capitalize()
    return soup.decode(formatter="minimal")


def setup(app: Any) -> dict[str, bool]:
    def clean(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
        if "body" in context:
            context["body"] = page(context["body"])

    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    app.connect("html-page-context", clean)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
