"""What the book shows of the results, as Markdown made from the chapters' `result.json` files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from reprise import results
from reprise.claims import VERDICTS
from reprise.notebook import Cell, section
from reprise.verdict_table import BADGES

Result = Mapping[str, Any]
# The API reference: what comes first, and what has a page of its own for those who work on the library.
FIRST = "experiment sweep record states schedules streams iterate chapter claims checks".split()
INNER = (
    "checkpoint device digest layout notebook plain provenance results snapshot stack store trace train "
    "verdict_table wording"
).split()


def verdict_badge(verdict: str, label: str = "") -> str:
    return f'<span class="verdict verdict-{BADGES[verdict]}">{escape(label or verdict)}</span>'


def counts(result: Result) -> str:
    """One badge a verdict that occurs, with its count."""
    found = results.count(result)
    return " ".join(verdict_badge(v, f"{found[v]} {v}") for v in VERDICTS if found[v])


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def cost(result: Result) -> str:
    seconds = result["cpu_seconds"]
    return f"{seconds:.0f} CPU-seconds" if seconds < 600 else f"{seconds / 3600:.1f} CPU-hours"


def question(result: Result, cells: Sequence[Cell]) -> str:
    """The chapter's question: from its result, else the first sentence under that heading."""
    prose = result.get("question") or section(cells, "The question").split("\n\n")[0]
    prose = re.sub(r"\s+", " ", prose)
    return prose if result.get("question") else re.split(r"(?<=[.?!]) ", prose)[0]


def strip(result: Result) -> str:
    """The line under a chapter's title: verdicts, device, time, date, commit, version."""
    commit = str(result.get("commit") or "")[:10]
    version = result.get("versions", {}).get("torch")
    facts = [
        f"{result['scale']} scale",
        result["device_name"],
        cost(result),
        plural(result["members"], "member"),
        str(result["date"])[:10],
        f"commit {commit}" if commit else "",
        f"torch {version}" if version else "",
    ]
    line = " · ".join(escape(str(fact)) for fact in facts if fact)
    return (
        f'<div class="strip"><p class="strip-verdicts">{counts(result)}'
        f'<a href="#claims">the claims</a></p><p class="strip-facts">{line}</p></div>'
    )


def card(result: Result, ask: str, colab: str, notebook: str) -> str:
    """A gallery card; `notebook` is the page's path from the page that holds the card."""
    slug, price = result["slug"], cost(result).replace(" ", "&nbsp;").replace("-", "&#8209;")
    return f"""
::::{{grid-item-card}} [{result["title"]}]({notebook})
:img-top: ../_generated/{slug}.png
:img-alt: {result["hero"]["alt"].replace(chr(10), " ")}
:class-card: chapter-card

{ask}

:::{{card-footer}}
<p class="card-verdicts">{counts(result)}</p>

[Read]({notebook}) · [Colab]({colab}) · {{download}}`notebook <{notebook}>` · {price}
:::
::::
"""


def gallery(cards: Sequence[str]) -> str:
    return ":::::{grid} 1 1 2 2\n:gutter: 3\n" + "\n".join(cards) + "\n:::::\n"


def totals(found: Sequence[Result]) -> str:
    """All verdicts of the book as badges, and the cost of having got them."""
    everything = {"claims": [claim for result in found for claim in result["claims"]]}
    seconds = sum(result["cpu_seconds"] for result in found)
    size = f"{plural(len(everything['claims']), 'claim')} in {plural(len(found), 'chapter')}"
    return f'<p class="totals">{counts(everything)}</p>\n\n{size}, {seconds:.0f} CPU-seconds of computing.\n'


def scoreboard(found: Sequence[Result]) -> str:
    """A heading and a table for each chapter."""
    return "\n".join(_chapter_table(result) for result in found)


def _chapter_table(result: Result) -> str:
    slug = result["slug"]
    facts = (result["device_name"], f"{result['scale']} scale", f"{result['seconds']:.0f} s", cost(result))
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Paper", "Measured", "Threshold"))
    rows = "".join(_claim_rows(claim, f"../notebooks/{slug}.html#claims") for claim in result["claims"])
    return (
        f"## [{result['title']}](../notebooks/{slug}.ipynb)\n\n"
        f"<p>{counts(result)}</p>\n"
        f"<p>{escape(' · '.join([*facts, str(result['date'])[:10]]))}</p>\n\n"
        '<div class="full-width scoreboard-box"><table class="scoreboard">'
        f"<thead><tr>{head}</tr></thead>{rows}</table></div>\n"
    )


def _claim_rows(claim: Mapping[str, Any], link: str) -> str:
    """A claim with its first check, the other checks and the controls folded below."""
    reason = f"<p>{escape(claim['reason'])}</p>" if claim["verdict"] != "reproduced" else ""
    first, *others = claim["checks"] or [claim | {"label": ""}]
    label = f"<p>{escape(first['label'])}</p>" if first["label"] else ""
    rows = (
        f'<tr><th scope="row"><a href="{link}">{claim["id"]}</a> {escape(claim["title"])} '
        f"{verdict_badge(claim['verdict'])}{reason}</th><td>{escape(claim['paper'])}</td>"
        f"<td>{label}{escape(first['measured'])}</td><td>{escape(first['threshold'])}</td></tr>"
    )
    if not others and not claim["controls"]:
        return f"<tbody>{rows}</tbody>"
    more = [
        plural(n, noun) for n, noun in ((len(others), "more check"), (len(claim["controls"]), "control")) if n
    ]
    inner = "".join(
        map(_check_row, [*others, *({**c, "label": f"control: {c['label']}"} for c in claim["controls"])])
    )
    return (
        f'<tbody>{rows}<tr class="more"><td colspan="4"><details>'
        f"<summary>{claim['id']}: {' and '.join(more)}</summary>"
        f"<table>{inner}</table></details></td></tr></tbody>"
    )


def _check_row(check: Mapping[str, Any]) -> str:
    asked = check["threshold"] or check.get("reason", "")
    state = {True: "passed", False: "failed", None: "open"}[check["passed"]]
    return (
        f'<tr><th scope="row">{escape(check["label"])}</th><td>{escape(check["measured"])}</td>'
        f"<td>{escape(asked)}</td><td>{escape(check.get('state', state))}</td></tr>"
    )


def api(library: Path, inner: bool) -> str:
    """An autodoc block for each module of the library: those that a reader uses, or the inner ones."""
    names = []
    for path in sorted(library.rglob("*.py")):
        module = path.parent if path.name == "__init__.py" else path.with_suffix("")
        names.append(".".join(module.relative_to(library).parts))
    names = [name for name in names if name not in ("", ".", "cli") and not name.startswith("template")]
    rank = {name: place for place, name in enumerate(FIRST)}
    chosen = sorted((name for name in names if (name in INNER) == inner), key=lambda n: (rank.get(n, 99), n))
    packages = {name.partition(".")[0] for name in names if "." in name}
    return "\n".join(_module(f"{library.name}.{name}", name in packages) for name in chosen)


def _module(name: str, package: bool) -> str:
    # Names are described where they are defined, not where a package gathers them.
    members = "" if package else "   :members:\n   :ignore-module-all:\n"
    return f"## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n{members}```\n"
