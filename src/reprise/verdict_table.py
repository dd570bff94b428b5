"""Claims as a table: HTML for the book and the notebook, Markdown for plain text."""

from collections.abc import Sequence
from html import escape
from typing import Any

from .checks import Check
from .claims import Claim

BADGES = {
    "reproduced": "reproduced",
    "partly": "partly",
    "not reproduced": "not",
    "not tested at this scale": "untested",
}
MARKS = {"passed": "✓", "failed": "✗", "straddles": "≈", "not tested": "–"}
STYLE = """
.claims{width:100%;border-collapse:collapse;color:inherit;font-size:.92em;line-height:1.4;margin:0 0 1rem}
.claims th,.claims td{text-align:left;vertical-align:top;padding:.3rem .6rem;font-weight:400;border:0;
  background:none;color:inherit;white-space:normal;overflow-wrap:anywhere}
.claims thead th{font-weight:600;border-bottom:1px solid #808080}
.claims tbody{border-bottom:1px solid #80808080}
.claims tbody tr:first-child>*{padding-top:.7rem}
.claims tbody tr:last-child>*{padding-bottom:.7rem}
.claims .claim-title{font-weight:600}
.claims .claim-paper,.claims .claim-reason{display:block;margin-top:.15rem}
.claims .claim-reason{font-style:italic}
.claims .mark{display:inline-block;text-indent:0;width:1.4em;font-weight:700}
.claims .control{font-style:italic}
.claims .cell-name{display:none}
.verdict{display:inline-block;padding:.1em .6em;border-radius:1em;font-weight:600;font-size:.88em;
  color:#fff!important;white-space:nowrap}
.verdict-reproduced{background:#1a7f37}.verdict-partly{background:#8a5a00}
.verdict-not{background:#c0242e}.verdict-untested{background:#59636e}
@media(max-width:640px){
.claims,.claims tbody,.claims tr,.claims td,.claims tbody th{display:block}
.claims thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.claims th,.claims td{padding:.1rem 0}
.claims tr.check>td{padding-left:1.5em}
.claims tr.check>th{padding-left:1.5em;text-indent:-1.5em}
.claims tbody tr.check>*{padding-top:.1rem;padding-bottom:.1rem}
.claims tr.check{padding:.25rem 0}
.claims .cell-name{display:inline;font-weight:600}
}
"""


def badge(verdict: str) -> str:
    """The verdict as an HTML badge; the colours come with the table or the book's style sheet."""
    return f'<span class="verdict verdict-{BADGES[verdict]}">{escape(verdict)}</span>'


def _tags(claim: Claim) -> str:
    tags = [] if claim.kind == "measurement" else [claim.kind]
    tags += [] if claim.origin == "paper" else [f"from {claim.origin}"]
    tags += ["tests the code, no evidence"] if claim.kind == "identity" else []
    return ", ".join(tags)


class ClaimsTable(Sequence):
    """Claims with their checks, shown as a table; also a sequence of `Claim`.

    Args:
        claims: the claims of a chapter, each id once.
    """

    def __init__(self, claims: Sequence[Claim]) -> None:
        ids = [claim.id for claim in claims]
        if double := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"claims: ids must differ, got {', '.join(double)} more than once")
        self.claims = list(claims)

    def __getitem__(self, index: Any) -> Any:
        return self.claims[index]

    def __len__(self) -> int:
        return len(self.claims)

    @property
    def verdicts(self) -> dict[str, str]:
        """Verdict by claim id."""
        return {claim.id: claim.verdict for claim in self.claims}

    def to_dict(self) -> list[dict[str, Any]]:
        """The claims as JSON."""
        return [claim.to_dict() for claim in self.claims]

    def __repr__(self) -> str:
        return "\n".join(f"{claim.id}  {claim.verdict}: {claim.title}" for claim in self.claims)

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th role="columnheader" scope="col">{t}</th>' for t in ("Claim", "Measured", "Threshold")
        )
        body = "".join(map(_claim_html, self.claims))
        return (
            f'<style>{STYLE}</style><table class="claims" role="table"><thead role="rowgroup"><tr role="row">'
            f"{head}</tr></thead>{body}</table>"
        )

    def _repr_markdown_(self) -> str:
        lines = ["| Claim | Measured | Threshold | Verdict |", "|---|---|---|---|"]
        for claim in self.claims:
            tags = f" ({_tags(claim)})" if _tags(claim) else ""
            reason = f" *{claim.explanation}*" if claim.explanation else ""
            paper = f" Paper: {claim.paper}{reason}"
            lines.append(_row(f"**{claim.id} {claim.title}**{tags}{paper}", "", "", f"**{claim.verdict}**"))
            for check, control in _rows(claim):
                label = f"*control:* {check.label}" if control else check.label
                mark = f"{MARKS[check.state]} {check.state}"
                lines.append(_row(label, check.measured_text, check.threshold_text, mark))
        return "\n".join(lines)


def _rows(claim: Claim) -> list[tuple[Check, bool]]:
    return [(check, False) for check in claim.checks] + [(check, True) for check in claim.controls]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _claim_html(claim: Claim) -> str:
    tags = f" <span>({escape(_tags(claim))})</span>" if _tags(claim) else ""
    reason = f'<span class="claim-reason">{escape(claim.explanation)}</span>' if claim.explanation else ""
    title = f'<span class="claim-title">{escape(claim.id)} {escape(claim.title)}</span>'
    rows = [
        f'<tr role="row"><th role="rowheader" scope="rowgroup" colspan="3">'
        f"{title} {badge(claim.verdict)}{tags}"
        f'<span class="claim-paper">Paper: {escape(claim.paper)}</span>{reason}</th></tr>'
    ]
    for check, control in _rows(claim):
        label = (
            f'<span class="control">control:</span> {escape(check.label)}' if control else escape(check.label)
        )
        mark = f'<span class="mark" role="img" aria-label="{check.state}">{MARKS[check.state]}</span>'
        cells = "".join(
            f'<td role="cell"><span class="cell-name">{name} </span>{escape(text)}</td>'
            for name, text in (
                ("measured", check.measured_text),
                ("asked", check.threshold_text or check.reason),
            )
        )
        rows.append(
            f'<tr role="row" class="check"><th role="rowheader" scope="row">{mark}{label}</th>{cells}</tr>'
        )
    return f'<tbody role="rowgroup">{"".join(rows)}</tbody>'
