"""Claims: statements of a paper, with checks that can fail, negative controls, and a verdict.

A claim gathers its checks and controls and judges them:

* a failed control voids the claim: `not reproduced`;
* every check passes: `reproduced`; none passes and none straddles: `not reproduced`; otherwise `partly`;
* an interval that contains its threshold straddles it, so a verdict does not flip with a library version;
* a check or control that this scale cannot run is `not tested`, and then the claim is at most `partly`;
* identities test the code. They belong among the controls, or in a claim of kind `identity`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .arguments import choose
from .checks import Check

VERDICTS = ("reproduced", "partly", "not reproduced", "not tested at this scale")
KINDS = ("identity", "theorem", "measurement", "illustration", "not testable")
ORIGINS = ("paper", "later work", "this book")


@dataclass(frozen=True)
class Claim:
    """A statement of the paper and its verdict.

    Args:
        id: "C1", "P2": a capital, a number, at most one small letter.
        title: the claim in a few words; plain text, no formulas.
        paper: what the paper says, with its numbers; plain text.
        checks: what must hold. May be empty only for kind "not testable".
        controls: negative controls, identities and gates: a failed one voids the claim.
        kind: one of KINDS.
        origin: one of ORIGINS.
        reason: what the reader should know about the verdict.
        at_most: "partly" where the checks cannot show the whole claim; needs a reason.
    """

    id: str
    title: str
    paper: str
    checks: Sequence[Check]
    controls: Sequence[Check] = ()
    kind: str = "measurement"
    origin: str = "paper"
    reason: str = ""
    at_most: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Z]\d+[a-z]?", self.id):
            raise ValueError(f"id: a capital and a number such as 'C1', got {self.id!r}")
        choose("kind", self.kind, KINDS)
        choose("origin", self.origin, ORIGINS)
        choose("at_most", self.at_most, (None, "partly"))
        for name, given in (("checks", self.checks), ("controls", self.controls)):
            if isinstance(given, Check) or not all(isinstance(check, Check) for check in given):
                raise ValueError(f"{name}: a list of Check, got {given!r} ({self.id})")
        if not self.checks and self.kind != "not testable":
            raise ValueError(f"checks: {self.id} has none; a claim needs one, or kind='not testable'")
        if not self.reason and (self.at_most or self.kind == "not testable"):
            raise ValueError(f"reason: {self.id} needs one, because of at_most or kind='not testable'")

    @property
    def evidence(self) -> bool:
        """Whether the claim counts: identities and untestable claims do not."""
        return self.kind not in ("identity", "not testable")

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        states = [check.state for check in self.checks]
        controls = [check.state for check in self.controls]
        if self.kind == "not testable" or set(states) == {"not tested"}:
            return "not tested at this scale"
        if "failed" in controls or not {"passed", "straddles"} & set(states):
            return "not reproduced"
        whole = set(states) | set(controls) == {"passed"}
        return "reproduced" if whole and self.at_most is None else "partly"

    @property
    def explanation(self) -> str:
        """Why the verdict is what it is: control failures, failing checks, and the author's reason."""
        parts = []
        for group, checks in (("Control", self.controls), ("Check", self.checks)):
            for state in ("failed", "straddles", "not tested"):
                found = [
                    f"{c.label} ({c.reason})" if c.reason else c.label for c in checks if c.state == state
                ]
                verb = {"straddles": "straddles its threshold"}.get(state, state)
                if found:
                    parts.append(f"{group} {verb}: {'; '.join(found)}")
        return ". ".join([*parts, self.reason] if self.reason else parts)

    def to_dict(self) -> dict[str, Any]:
        """The claim as JSON, in the form that the scoreboard reads."""
        texts = [(check.label, check.measured_text, check.threshold_text) for check in self.checks]
        alone = len(texts) == 1
        return {
            "id": self.id,
            "title": self.title,
            "paper": self.paper,
            "kind": self.kind,
            "origin": self.origin,
            "evidence": self.evidence,
            "verdict": self.verdict,
            "measured": "; ".join(m if alone else f"{label}: {m}" for label, m, _ in texts),
            "threshold": "; ".join(t if alone else f"{label}: {t}" for label, _, t in texts),
            "reason": self.explanation,
            "checks": [check.to_dict() for check in self.checks],
            "controls": [check.to_dict() for check in self.controls],
        }


def claims_table(claims: Sequence[Claim]) -> Any:
    """Show claims as a table: leave it as the last line of a cell.

    Returns:
        ClaimsTable, with `.verdicts` (by id) and `.to_dict()` (JSON).
    """
    from .verdict_table import ClaimsTable

    return ClaimsTable(claims)
