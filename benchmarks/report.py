"""The table and the figure of a benchmark's result."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

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


def best_jax(result: dict) -> str | None:
    """The faster of vmap and map."""
    names = [n for n in result["contenders"] if n.startswith("jax")]
    return max(names, key=lambda n: statistics.median(result["contenders"][n]["rate"]), default=None)


def _times(values: tuple[float, float, float]) -> str:
    digits = 0 if values[0] >= 30 else 1 if values[0] >= 10 else 2
    middle, low, high = (f"{v:.{digits}f}" for v in values)
    return f"{middle} ({low}–{high})"


def markdown(found: dict) -> str:
    """A table a workload: every contender's throughput, its ratios, its start and its memory."""
    lines = [
        f"{found['device']}, {found['threads']} threads, torch {found['versions']['torch']}, "
        f"{found['date']}. "
        f"The machine: {found['floor']['flops'] / 1e9:.0f} GFLOP/s of float32 products, "
        f"{found['floor']['bytes'] / 1e9:.0f} GB/s of memory.",
        "",
    ]
    for name, result in found["workloads"].items():
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
                f"| {CONTENDERS[contender]} | {rate:,.0f} | {_times(ratio(result, contender, 'loop'))} | "
                f"{_times(ratio(result, contender, jax)) if jax else '–'} | "
                f"{f'{share:.0%}' if share >= 0.01 else '–'} | {values['start']:.1f} | "
                f"{f'{memory / 2**20:.0f}' if (memory := values['memory']) else '–'} |"
            )
        lines.append("")
    return "\n".join(lines)


def reach(found: dict) -> list[str]:
    """What ours had to reach and what it did, a line a workload."""
    lines = []
    for name, result in found["workloads"].items():
        jax, (over_loop, over_jax) = best_jax(result), WANTED[name]
        ours = max(
            (n for n in OURS if n in result["contenders"]),
            key=lambda n: statistics.median(result["contenders"][n]["rate"]),
        )
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
