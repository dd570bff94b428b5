"""The pictures of a benchmark's result: throughput against members, and how time and memory grow."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reprise.figures import INK, PALETTE, direct_label, measured_vs_predicted, reference, save, side_by_side
from reprise.look import light_svg, styled

from .report import every_point, exponent, rates, step_seconds
from .workloads import WORKLOADS

NAMES = {
    "loop": "loop",
    "vmap": "vmap by hand",
    "jax": "JAX",
    "eager": "Reprise, eager",
    "flat": "Reprise, flat",
    "compiled": "Reprise",
    "workers": "Reprise, workers",
}
COLOURS = {
    "loop": PALETTE[4],
    "vmap": PALETTE[2],
    "jax": PALETTE[1],
    "eager": INK,
    "flat": PALETTE[3],
    "compiled": PALETTE[5],
    "workers": PALETTE[0],
}


def throughput(found: dict) -> Any:
    """Axes, one a series: member steps a second against members, the range of the repetitions shaded."""
    axes = side_by_side(len(found["series"]), titles=list(found["series"]))
    for ax, results in zip(axes, found["series"].values(), strict=True):
        _throughput(ax, results)
    axes[0].set_ylabel("member steps a second")
    return axes


@styled
def _throughput(ax: Any, results: Sequence[dict]) -> None:
    counts, lines = [result["members"] for result in results], []
    for name, values in rates(results).items():
        members = list(values)
        middle = [statistics.median(values[n]) for n in members]
        lines += ax.plot(members, middle, ".-", color=COLOURS[name], label=NAMES[name])
        low, high = (list(map(end, values.values())) for end in (min, max))
        ax.fill_between(members, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        if name == "loop" and members[-1] < counts[-1]:  # one model after another: nothing can change
            rest = {"color": COLOURS[name], "linestyle": (0, (5, 3)), "linewidth": 1.1}
            lines[-1] = ax.plot([members[-1], counts[-1]], middle[-1:] * 2, label=NAMES[name], **rest)[0]
    ax.set(xscale="log", yscale="log", xlabel="members")
    ticks = counts if len(counts) < 5 else counts[::2]
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.minorticks_off()
    direct_label(ax, lines)


def growth(found: dict) -> Any:
    """Two axes: the time of a step against the parameters of all members, and memory beside the plan's."""
    scale, axes = found["scale"], side_by_side(2, titles=["time of a step", "memory of a batch"])
    kinds = [(f"W0, {gear}", points) for gear, points in scale["members"].items()]
    kinds += [("W1, widths", scale["width"]["flat"])]
    _times(axes[0], kinds)
    colours = dict(zip((name for name, _ in kinds), PALETTE, strict=False))
    for name, points in kinds:
        told = [(p["predicted"] / 2**20, p["measured"] / 2**20) for p in points if p["measured"] is not None]
        if told:
            measured_vs_predicted(*zip(*told, strict=True), axes[1], True, name, colours[name])
    if scale["limited"]["measured"] is not None:
        point = {n: scale["limited"][n] / 2**20 for n in ("predicted", "measured", "allowed")}
        axes[1].plot(point["predicted"], point["measured"], "o", color=INK, markerfacecolor="none")
        reference(axes[1], point["allowed"], f"{point['allowed']:.0f} MB free", axis="x")
    axes[1].set(xlabel="predicted, MB", ylabel="measured, MB")
    axes[1].minorticks_off()
    return axes


@styled
def _times(ax: Any, kinds: Sequence[tuple[str, Sequence[dict]]]) -> None:
    lines = []
    for (name, points), color in zip(kinds, PALETTE, strict=False):
        size = [p["members"] * p["parameters"] for p in points]
        lines += ax.plot(size, step_seconds(points), ".-", color=color, label=name)
        low, high = ([end(p["seconds"]) for p in points] for end in (min, max))
        ax.fill_between(size, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="parameters of all members", ylabel="seconds")
    ax.minorticks_off()
    direct_label(ax, lines)


def pictures(found: dict, folder: Path, stem: str) -> list[tuple[str, str, str]]:
    """Draw what a result holds into files of `folder`: (name of the file, alt text, caption) each."""
    made = []
    if found.get("series"):
        name = _keep(throughput(found), folder / f"{stem}-throughput")
        made.append((name, _throughput_alt(found), _throughput_caption(found)))
    if found.get("scale"):
        name = _keep(growth(found), folder / f"{stem}-growth")
        made.append((name, _growth_alt(found["scale"]), GROWTH_CAPTION))
    return made


def _keep(axes: Any, path: Path) -> str:
    """Write a figure as SVG, or as PNG where it is too heavy for that; the name of the file."""
    from matplotlib.pyplot import close

    text = light_svg(axes[0].figure)
    file = path.with_name(f"{path.name}.{'svg' if text else 'png'}")
    if text:
        file.write_text(text, encoding="utf-8")
    else:
        save(axes, file)
    close(axes[0].figure)
    return file.name


def _throughput_alt(found: dict) -> str:
    """What one sees, a sentence a workload."""
    sentences = []
    for name, results in found["series"].items():
        ends = {who: list(values.items())[-1] for who, values in rates(results).items()}
        told = [f"{NAMES[who]} {statistics.median(rate):,.0f} at {n:,}" for who, (n, rate) in ends.items()]
        sentences.append(f"{name}, member steps a second at the most members measured: {', '.join(told)}.")
    return f"Throughput against the number of members on logarithmic axes. {' '.join(sentences)}"


def _throughput_caption(found: dict) -> str:
    titles = "; ".join(f"{name} is {WORKLOADS[name].title}" for name in found["series"])
    return (
        f"Throughput against the number of members: {titles}. A band is the range of the repetitions. JAX is "
        "the faster of its two forms. A contender stops where one step of all members is longer than a "
        "repetition; a dashed line continues the loop, whose throughput does not depend on the number of "
        "members."
    )


def _growth_alt(scale: dict) -> str:
    fits = []
    for gear, points in scale["members"].items():
        fit = exponent([p["members"] for p in points], step_seconds(points))
        fits += [f"W0 {gear} ends with slope {fit[0]:.2f}"] if fit else []
    points = every_point(scale)
    most = max(p["predicted"] for p in points) / 2**20
    return (
        f"Left: the time of a step against the parameters of all members, on logarithmic axes. "
        f"{'; '.join(fits)}. Right: measured against predicted memory, up to {most:,.0f} MB, with the "
        "diagonal."
    )


GROWTH_CAPTION = (
    "Reprise alone, in one process. Left: the time of a step, for W0 at 1 to 4,096 members and for four "
    "members of W1 at widths from 32 to 1,024. Right: what the plan of a batch predicts before the run, and "
    "by how much the process grew, in the colours of the left; small batches vanish in what else a process "
    "takes. The ring: the largest W0 where the library is told that less memory is free, and splits it."
)
