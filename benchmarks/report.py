"""What was measured as Markdown: a table a workload, a table a series, sentences on scale."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .runner import CONTENDERS, ratio
from .workloads import WORKLOADS

# Throughput over the plain loop's and over JAX's that ours has to reach.
WANTED = {
    "W0": (30, 2.2),
    "W1": (1.9, 1.5),
    "W2": (1.6, 1.4),
    "W3": (1.6, 1.8),
    "W4": (1.4, 1.3),
    "W5": (3.0, 2.3),
}
OURS = ("eager", "flat", "compiled", "workers")
FULL = 4  # the machine counts as full where a step takes so many times that of the smallest stack
CLEAR = 64 * 2**20  # bytes from which a batch stands out from what else a process takes


def best_jax(result: dict) -> str | None:
    """The faster of vmap and map."""
    names = [n for n in result["contenders"] if n.startswith("jax")]
    return max(names, key=lambda n: statistics.median(result["contenders"][n]["rate"]), default=None)


def best_of_ours(result: dict) -> str | None:
    """The fastest of ours."""
    names = [n for n in OURS if n in result["contenders"]]
    return max(names, key=lambda n: statistics.median(result["contenders"][n]["rate"]), default=None)


def _times(values: tuple[float, float, float]) -> str:
    digits = 0 if values[0] >= 30 else 1 if values[0] >= 10 else 2
    middle, low, high = (f"{v:.{digits}f}" for v in values)
    return f"{middle} ({low}–{high})"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def markdown(found: dict) -> str:
    """All that was found: what the machine is, a summary, every contender's throughput, start and memory."""
    return "\n".join([heading(found), "", *summary(found), "", details(found)])


def heading(found: dict) -> str:
    """The machine and what it can do."""
    instructions = f", {found['instructions']}" if found["instructions"] else ""
    peak, plain = found["floor"]["flops"], found["floor"].get("mm", 0)
    alone = f" ({plain / 1e9:.0f} by `torch.mm`)" if 0 < plain < 0.9 * peak else ""
    return (
        f"{found['device']}{instructions}, {found['threads']} threads, torch {found['versions']['torch']}, "
        f"{found['date']}. The machine: {peak / 1e9:.0f} GFLOP/s of float32 products{alone}, "
        f"{found['floor']['bytes'] / 1e9:.0f} GB/s of memory."
    )


def summary(found: dict) -> list[str]:
    """The throughput of ours over the others', a line a workload."""
    rows = []
    for name, result in sorted(found["workloads"].items()):
        if ours := best_of_ours(result):
            jax = best_jax(result)
            rows.append(
                f"| **{name}**: {WORKLOADS[name].title} | {result['members']} | "
                f"{_times(ratio(result, ours, 'loop'))} | "
                f"{_times(ratio(result, ours, jax)) if jax else '–'} |"
            )
    head = ["| Reprise at its fastest | members | × loop | × JAX |", "|---|---|---|---|"]
    return [*head, *rows] if rows else []


def details(found: dict) -> str:
    """A table a workload, a table a series, and sentences on scale."""
    lines = []
    for name, result in sorted(found["workloads"].items()):
        jax = best_jax(result)
        lines += [
            f"**{name}**: {WORKLOADS[name].title}, {result['members']} members",
            "",
            "| contender | member steps a second | × loop | × JAX | share of peak | start, s | memory, MB |",
            "|---|---|---|---|---|---|---|",
        ]
        for contender, values in result["contenders"].items():
            if contender.startswith("jax") and contender != jax:
                continue
            rate = statistics.median(values["rate"])
            share = result.get("flops", 0) / result["members"] * rate / found["floor"]["flops"]
            lines.append(
                f"| {CONTENDERS[contender]} | {_rate(rate)} | {_times(ratio(result, contender, 'loop'))} | "
                f"{_times(ratio(result, contender, jax)) if jax else '–'} | "
                f"{f'{share:.0%}' if share >= 0.01 else '–'} | {values['start']:.1f} | "
                f"{f'{memory / 2**20:.0f}' if (memory := values['memory']) else '–'} |"
            )
        lines.append("")
    for name, results in found.get("series", {}).items():
        lines += [*_series(name, results), ""]
    if found.get("scale"):
        lines += [*_scale(found["scale"]), ""]
    return "\n".join(lines)


def rates(results: Sequence[dict]) -> dict[str, dict[int, list[float]]]:
    """{contender: {members: throughput by repetition}} of a series; of JAX the faster form at each number."""
    found: dict[str, dict[int, list[float]]] = {}
    for result in results:
        jax = best_jax(result)
        for name, values in result["contenders"].items():
            if name == jax or not name.startswith("jax"):
                key = "jax" if name == jax else name
                found.setdefault(key, {})[result["members"]] = values["rate"]
    return found


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float] | None:
    """(power of the size that the time follows once the machine is full, the size from which it is).

    None where the machine is full at fewer than two sizes.
    """
    sizes, seconds = np.asarray(sizes, dtype=float), np.asarray(seconds, dtype=float)
    full = seconds >= FULL * seconds[0]
    if full.sum() < 2:
        return None
    return float(np.polyfit(np.log(sizes[full]), np.log(seconds[full]), 1)[0]), float(sizes[full][0])


def step_seconds(points: Sequence[dict]) -> list[float]:
    """Median seconds of a step of all members, a point each."""
    return [statistics.median(point["seconds"]) for point in points]


def _series(name: str, results: list[dict]) -> list[str]:
    counts = [result["members"] for result in results]
    lines = [
        f"**{name} against members**: member steps a second",
        "",
        f"| contender | {' | '.join(f'{n:,}' for n in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    for contender, found in rates(results).items():
        title = "JAX, the faster form" if contender == "jax" else CONTENDERS[contender]
        cells = [_rate(statistics.median(found[n])) if n in found else "–" for n in counts]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _scale(scale: dict) -> list[str]:
    """How a step's time and the memory grow, in sentences."""
    sentences = []
    for gear, points in scale["members"].items():
        fit = exponent([p["members"] for p in points], step_seconds(points))
        if fit:
            sentences.append(
                f"Reprise, {gear}, in one process: from {fit[1]:,.0f} to {points[-1]['members']:,} members "
                f"of W0 the time of a step follows their number to the power {fit[0]:.2f}."
            )
    points = scale["width"]["flat"]
    fit = exponent([p["parameters"] for p in points], step_seconds(points))
    if fit:
        sentences.append(
            f"With {points[0]['members']} members of W1 at widths up to {points[-1]['width']:,} it follows "
            f"the number of parameters to the power {fit[0]:.2f}, from {fit[1]:,.0f} parameters a member on."
        )
    large = [p for p in every_point(scale) if p["measured"] is not None and p["predicted"] >= CLEAR]
    if large:
        ratios = [p["measured"] / p["predicted"] for p in large]
        sentences.append(
            f"Where a batch is predicted to need {CLEAR / 2**20:.0f} MB or more, the process grew by "
            f"{min(ratios):.2f} to {max(ratios):.2f} times the prediction ({len(large)} points)."
        )
    limited = scale["limited"]
    if limited["measured"] is not None:
        sentences.append(
            f"Told that {limited['allowed'] / 2**20:.0f} MB are free, it trained {limited['members']:,} "
            f"members of W0 in {limited['batches']} batches and grew by "
            f"{limited['measured'] / 2**20:.0f} MB."
        )
    return ["**Scale**: " + " ".join(sentences)] if sentences else []


def every_point(scale: dict) -> list[dict]:
    """All points at which nothing was withheld."""
    return [p for kind in ("members", "width") for points in scale[kind].values() for p in points]


def reach(found: dict) -> list[str]:
    """What ours had to reach and what it did, a line a workload."""
    lines = []
    for name, result in sorted(found["workloads"].items()):
        jax, (over_loop, over_jax), ours = best_jax(result), WANTED[name], best_of_ours(result)
        if ours is None:
            continue
        loop = ratio(result, ours, "loop")[0]
        line = f"{name} {ours}: {loop:.2f} x loop (wanted {over_loop})"
        if jax:
            line += f", {ratio(result, ours, jax)[0]:.2f} x JAX (wanted {over_jax})"
        lines.append(line)
    return lines


if __name__ == "__main__":
    for path in sys.argv[1:]:
        result = json.loads(Path(path).read_text())
        print(markdown(result), *reach(result), sep="\n")
