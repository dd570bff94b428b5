"""What the book shows of the results, as Markdown made from the chapters' `result.json` files."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reprise import results
from reprise.claims import VERDICTS
from reprise.notebook import Cell, section
from reprise.verdict_table import BADGES

Result = Mapping[str, Any]
# The API reference: what comes first, and what has a page of its own for those who work on the library.
FIRST = "experiment sweep record states schedules streams iterate chapter claims checks".split()
INNER = (
    "capture checkpoint device digest gears layout notebook outcomes plain products provenance results "
    "rewrites shards share snapshot stack store trace train verdict_table wording"
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


def strip(result: Result, paper: str = "", number: int = 0) -> str:
    """The header of a chapter: verdicts and links, then device, time, date, commit, versions.

    paper: address of the paper; number: of full-scale records in the repository.
    """
    commit = str(result.get("commit") or "")[:10]
    versions = result.get("versions", {})
    facts = {
        "scale": result["scale"] + (f", {plural(number, 'full-scale record')}" if number else ""),
        "device": result["device_name"],
        "cost": f"{cost(result)}, {plural(result['members'], 'member')}",
        "date": str(result["date"])[:10],
        "commit": commit,
        "versions": ", ".join(f"{n} {versions[n]}" for n in ("reprise", "torch") if n in versions),
    }
    rows = "".join(f"<div><dt>{n}</dt><dd>{escape(str(v))}</dd></div>" for n, v in facts.items() if v)
    links = [("#claims", "the claims"), ("#try-it", "try it"), (escape(paper), "the paper")]
    anchors = "".join(f'<a href="{address}">{text}</a>' for address, text in links if address)
    return (
        f'<div class="strip"><p class="strip-verdicts">{counts(result)}</p>'
        f'<p class="strip-links">{anchors}</p><dl class="strip-facts">{rows}</dl></div>'
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
    """All verdicts of the book as badges that lead to the scoreboard, and the cost of having got them."""
    everything = {"claims": [claim for result in found for claim in result["claims"]]}
    number = results.count(everything)
    badges = " ".join(
        f'<a class="verdict verdict-{BADGES[v]}" href="scoreboard.html?verdict={quote(v)}">'
        f"{number[v]} {v}</a>"
        for v in VERDICTS
        if number[v]
    )
    seconds = sum(result["cpu_seconds"] for result in found)
    size = f"{plural(len(everything['claims']), 'claim')} in {plural(len(found), 'chapter')}"
    return f'<p class="totals">{badges}</p>\n\n{size}, {seconds:.0f} CPU-seconds of computing.\n'


FIELDS = (
    "part chapter title claim statement kind origin verdict paper measured threshold reason scale device date"
).split()


def rows(parts: Mapping[str, Sequence[Result]]) -> list[dict[str, str]]:
    """Every claim of the book as one flat row with the names of FIELDS, for the downloads."""
    return [
        {
            "part": part,
            "chapter": result["slug"],
            "title": result["title"],
            "claim": claim["id"],
            "statement": claim["title"],
            **{name: claim[name] for name in ("kind", "origin", "verdict", "paper", "measured")},
            **{name: claim[name] for name in ("threshold", "reason")},
            "scale": result["scale"],
            "device": result["device_name"],
            "date": str(result["date"])[:10],
        }
        for part, found in parts.items()
        for result in found
        for claim in result["claims"]
    ]


def scoreboard(parts: Mapping[str, Sequence[Result]]) -> str:
    """Filters, which a script shows, and one table: a row for each chapter, then its claims."""
    kinds = sorted({row["kind"] for row in rows(parts)})
    filters = "".join(
        f'<label>{label} <select id="filter-{label}"><option value="">all</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for label, values in (("part", parts), ("verdict", VERDICTS), ("kind", kinds))
    )
    orders = {"": "chapter", "verdict": "verdict", "kind": "kind", "date": "date, newest first"}
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in orders.items())
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Claim", "Paper", "Measured", "Threshold"))
    body = "".join(_chapter_rows(part, result) for part, found in parts.items() for result in found)
    return (
        f'<form class="scoreboard-filters" hidden>{filters}'
        f'<label>sort by <select id="sort">{options}</select></label>'
        '<p class="scoreboard-count" role="status"></p></form>\n'
        '<div class="full-width scoreboard-box" role="region" aria-label="Claims" tabindex="0">'
        f'<table class="scoreboard"><thead><tr>{head}</tr></thead>{body}</table></div>\n'
    )


def _chapter_rows(part: str, result: Result) -> str:
    page = f"../notebooks/{result['slug']}.html"
    facts = (result["device_name"], f"{result['scale']} scale", cost(result), str(result["date"])[:10])
    return (
        f'<tbody class="chapter" id="{result["slug"]}"><tr><th colspan="4" scope="rowgroup">'
        f'<a href="{page}">{escape(result["title"])}</a> {counts(result)}'
        f"<p>{escape(' · '.join(facts))}</p></th></tr></tbody>"
    ) + "".join(_claim_rows(part, result, claim, page) for claim in result["claims"])


def _claim_rows(part: str, result: Result, claim: Mapping[str, Any], page: str) -> str:
    """A claim with its first check, the other checks and the controls folded below."""
    reason = f"<p>{escape(claim['reason'])}</p>" if claim["verdict"] != "reproduced" else ""
    first, *others = claim["checks"] or [claim | {"label": ""}]
    label = f"<p>{escape(first['label'])}</p>" if first["label"] else ""
    tags = [claim["kind"]] if claim["kind"] != "measurement" else []
    tags += [f"from {claim['origin']}"] if claim["origin"] != "paper" else []
    data = {
        "part": part,
        "verdict": claim["verdict"],
        "kind": claim["kind"],
        "date": str(result["date"])[:10],
    }
    begin = '<tbody class="claim" ' + " ".join(f'data-{n}="{escape(v)}"' for n, v in data.items()) + ">"
    shown = (
        f'<tr><th scope="row"><a href="{page}#{claim["id"]}">{claim["id"]}'
        f'<span class="of-chapter"> of {escape(result["title"])}</span></a> {escape(claim["title"])} '
        f"{verdict_badge(claim['verdict'])}"
        + (f" <span>({escape(', '.join(tags))})</span>" if tags else "")
        + f"{reason}</th>"
        f'<td><span class="cell-name">paper </span>{escape(claim["paper"])}</td>'
        f'<td><span class="cell-name">measured </span>{label}{escape(first["measured"])}</td>'
        f'<td><span class="cell-name">asked </span>{escape(first["threshold"])}</td></tr>'
    )
    if not others and not claim["controls"]:
        return f"{begin}{shown}</tbody>"
    more = [
        plural(n, noun) for n, noun in ((len(others), "more check"), (len(claim["controls"]), "control")) if n
    ]
    inner = "".join(
        map(_check_row, [*others, *({**c, "label": f"control: {c['label']}"} for c in claim["controls"])])
    )
    return (
        f'{begin}{shown}<tr class="more"><td colspan="4"><details>'
        f"<summary>{claim['id']}: {' and '.join(more)}</summary>"
        f"<table>{inner}</table></details></td></tr></tbody>"
    )


def status(parts: Mapping[str, Sequence[Result]], records: Mapping[str, Sequence[str]]) -> str:
    """A table of the last run of each chapter; records: slug -> dates of its full-scale records."""
    found = [result for results in parts.values() for result in results]
    usual = Counter(_versions(result) for result in found).most_common(1)[0][0]
    names = ("Chapter", "Verdicts", "Run", "Cost", "Memory", "Device", "Full-scale record")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = ""
    for result in found:
        dates, versions = records.get(result["slug"], ()), _versions(result)
        changed = any(made.get("changed") for made in result.get("computations", {}).values())
        cells = {
            "Verdicts": counts(result),
            "Run": f"{escape(str(result['date'])[:10])}, {escape(result['scale'])}, seed {result['seed']}, "
            f"commit {escape(str(result['commit'] or 'unknown')[:10])}"
            + (", from a record older than the library" if changed else "")
            + (f", with {escape(versions)}" if versions != usual else ""),
            "Cost": f"{cost(result)}, {result['seconds']:.0f} s on the clock, "
            f"{plural(result['members'], 'member')}",
            "Memory": f"{result['peak_mb']:,} MB" if result.get("peak_mb") else "unknown",
            "Device": escape(result["device_name"]),
            "Full-scale record": age(dates),
        }
        body += (
            f'<tr><th scope="row"><a href="../notebooks/{result["slug"]}.html">'
            f"{escape(result['title'])}</a></th>"
            + "".join(f'<td><span class="cell-name">{n} </span>{v}</td>' for n, v in cells.items())
            + "</tr>"
        )
    return (
        f"Versions, where a row does not say otherwise: {usual}.\n\n"
        '<div class="full-width scoreboard-box" role="region" aria-label="Chapters" tabindex="0">'
        f'<table class="scoreboard status"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>\n"
    )


def _versions(result: Result) -> str:
    return ", ".join(f"{name} {version}" for name, version in result["versions"].items())


def bibliography(parts: Mapping[str, Sequence[Result]]) -> str:
    """The papers by part, each with a link back to its chapter."""
    blocks = []
    for part, found in parts.items():
        blocks.append(f"## {part}\n")
        for result in found:
            entry = f'```{{bibliography}}\n:list: bullet\n:filter: key == "{result["slug"]}"\n```\n'
            place = f"Reproduced in [{result['title']}](../notebooks/{result['slug']}.ipynb)"
            blocks.append(f"{entry}\n:::{{div}} reproduced\n{place}\n:::\n")
    return "\n".join(blocks)


def age(dates: Sequence[str], today: datetime.date | None = None) -> str:
    """The number of full-scale records, the date of the newest, and its age on the day of the build."""
    if not dates:
        return "none yet"
    newest = datetime.date.fromisoformat(max(dates)[:10])
    days = ((today or datetime.datetime.now(datetime.UTC).date()) - newest).days
    return f"{plural(len(dates), 'file')}, newest of {newest}, {plural(days, 'day')} old at the build"


def _check_row(check: Mapping[str, Any]) -> str:
    asked = check["threshold"] or check.get("reason", "")
    state = {True: "passed", False: "failed", None: "open"}[check["passed"]]
    return (
        f'<tr><th scope="row">{escape(check["label"])}</th><td>{escape(check["measured"])}</td>'
        f"<td>{escape(asked)}</td><td>{escape(check.get('state', state))}</td></tr>"
    )


def speed(folder: Path, pictures: Path) -> str:
    """What `make bench` left, a section a machine, the fastest first: a summary, figures, all tables.

    pictures: the folder `_generated` of the staging tree.
    """
    from benchmarks import figure, report

    kept = [(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("*.json")]
    parts = []
    for stem, found in sorted(kept, key=lambda each: -each[1]["floor"]["flops"]):
        title = ", ".join(filter(None, [found["device"], found["instructions"]]))
        parts += [f"## {title}", report.heading(found), "\n".join(report.summary(found))]
        parts += [_figure(*drawn) for drawn in figure.pictures(found, pictures, stem)]
        parts += [f"### Every contender on {title}", report.details(found)]
    return "\n\n".join(parts) or "*No measurement is kept yet: `make bench` makes one.*"


def _figure(file: str, alt: str, caption: str) -> str:
    """A generated picture that reads on both grounds, for a page in `book/`."""
    name = file.partition(".")[0]
    options = f":name: {name}\n:alt: {alt}\n:class: dark-light\n:width: 100%"
    return f"```{{figure}} ../_generated/{file}\n{options}\n\n{caption}\n```"


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
