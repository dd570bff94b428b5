"""What an executed chapter leaves in its folder (`result.json`, `notebook.ipynb`), read and summed up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from reprise.claims import VERDICTS
from reprise.notebook import UsageError


def read(folder: Path) -> dict[str, Any]:
    """The `result.json` of an executed chapter. Raises UsageError if the chapter was not executed."""
    path = folder / "result.json"
    if not path.exists():
        raise UsageError(f"no results for {folder.name}: reprise run {folder.name} writes them")
    return json.loads(path.read_text(encoding="utf-8"))


def count(result: Mapping[str, Any]) -> Counter[str]:
    """Verdict -> number of claims of one chapter."""
    return Counter(claim["verdict"] for claim in result["claims"])


def tally(counts: Counter[str]) -> str:
    """Verdict counts in words, in the order of the verdicts, absent ones left out."""
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])


def summary(found: Iterable[Mapping[str, Any]]) -> str:
    """One line a chapter and one for the totals."""
    lines, total = [], Counter()
    for result in found:
        total += count(result)
        cost = f"{result['cpu_seconds']:.0f} CPU-s, {result['scale']}"
        lines.append(f"{result['slug']:26} {tally(count(result))}  ({cost})")
    return "\n".join([*lines, f"{'all claims':26} {tally(total)}"])


def report(result: Mapping[str, Any]) -> str:
    """The claims of one chapter with what the paper says, what was measured and why."""
    lines = [
        result["title"] or result["slug"],
        f"{result['scale']} scale, {result['device_name']}, seed {result['seed']}, "
        f"{result['cpu_seconds']:.0f} CPU-seconds, {result['members']} members, {result['date']}",
    ]
    for claim in result["claims"]:
        lines.append(f"\n{claim['id']:4} {claim['verdict'].upper()}  {claim['title']}")
        for label in ("paper", "measured", "threshold", "reason"):
            if claim.get(label):
                lines.append(f"     {label + ':':11}{claim[label]}")
    return "\n".join(lines)


def write_claims(source: Path, folder: Path) -> None:
    """Copy the executed outputs of the cells tagged `keep_output` into the source notebook, atomically.

    Args:
        source: the chapter's notebook in the repository.
        folder: the chapter's results, with the executed `notebook.ipynb`.

    Raises:
        UsageError: the chapter was not executed, or the cell changed since.
    """
    executed = folder / "notebook.ipynb"
    if not executed.exists():
        raise UsageError(f"no executed notebook for {source.stem}: reprise run {source.stem} makes one")
    kept = {"".join(cell["source"]): cell["outputs"] for cell in _kept(_load(executed))}
    content = _load(source)
    for cell in _kept(content):
        outputs = kept.get("".join(cell["source"]))
        if outputs is None:
            raise UsageError(f"the claims cell of {source.stem} changed since it was executed: run it again")
        cell["execution_count"] = None
        cell["outputs"] = [
            output | ({"execution_count": None} if "execution_count" in output else {}) for output in outputs
        ]
    partial = source.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(source)


def _load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _kept(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in content["cells"] if "keep_output" in cell["metadata"].get("tags", ())]
