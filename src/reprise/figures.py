"""The figures of the book: curves, power laws, heat maps, planes, predictions and bars.

Every function draws on `ax`, or on a figure of its own, and returns the axes. The look comes from `look`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .heatmaps import heatmap
from .look import (
    INK,
    PALETTE,
    colours,
    direct_label,
    mark,
    own_axes,
    panels,
    reference,
    save,
    side_by_side,
    style,
    styled,
    use,
)
from .statistics import Interval, Slope, mean_interval, number, seeds_first

__all__ = [
    "INK",
    "PALETTE",
    "bars",
    "colours",
    "curves",
    "direct_label",
    "heatmap",
    "loglog",
    "mark",
    "measured_vs_predicted",
    "panels",
    "plane",
    "reference",
    "save",
    "side_by_side",
    "style",
    "use",
]


@styled
def curves(
    data: Any,
    x: str = "step",
    hue: str | None = None,
    band: str | None = "seed",
    ax: Any = None,
    log: str = "",
    labels: str | None = "direct",
    names: Sequence[str] | None = None,
    colors: Sequence[Any] | None = None,
    **line: Any,
) -> Any:
    """Draw a line per value of `hue`: the mean over `band`, shaded from its lowest to its highest member.

    Args:
        data: labelled array with dimensions `x`, and optionally `hue` and `band`.
        hue: dimension that gives a line each; found by itself when only one is left.
        log: axes with a logarithmic scale, "x", "y" or "xy"; on "y" the mean is geometric.
        labels: "direct" at the ends of the lines, "legend", or None.
        names: a label for each line; the values of `hue` when None.
        line: passed to `plot`.

    Raises:
        ValueError: when a dimension is neither x, hue nor band.
    """
    left = [dim for dim in data.dims if dim not in (x, band, hue)]
    if x not in data.dims:
        raise ValueError(f"x: one of the dimensions {data.dims}, got {x!r}")
    if hue is None and len(left) == 1:
        hue, left = left[0], []
    if left:
        raise ValueError(f"data: select or name hue for the dimensions {left}; has {data.dims}")
    ax = own_axes(ax)
    _scale(ax, log)
    keys = [None] if hue is None else data[hue].values
    ordered = hue is not None and np.issubdtype(np.asarray(keys).dtype, np.number) and len(keys) > 2
    colors = colors or colours(len(keys), ordered)
    names = names or [None if key is None else f"{hue} = {key:g}" if ordered else str(key) for key in keys]
    lines = []
    for i, color in enumerate(colors[: len(keys)]):
        one = data if hue is None else data.isel({hue: i})
        has_band = band in one.dims
        rows = np.atleast_2d(one.transpose(*([band] if has_band else []), x).values.astype(float))
        across = data[x].values
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.exp(np.log(rows).mean(0)) if "y" in log else rows.mean(0)
        lines += ax.plot(across, middle, color=color, label=names[i], **line)
        if len(rows) > 1:
            ax.fill_between(across, rows.min(0), rows.max(0), color=color, alpha=0.2, linewidth=0)
    ax.set_xlabel(x.replace("_", " "))
    ax.set_ylabel(str(data.name or "").replace("_", " "))
    if labels == "direct" and names[0] is not None:
        direct_label(ax, lines)
    elif labels == "legend":
        ax.legend()
    return ax


def _scale(ax: Any, log: str) -> None:
    if "x" in log:
        ax.set_xscale("log")
    if "y" in log:
        ax.set_yscale("log")


@styled
def loglog(
    x: Any,
    y: Any,
    fit: Slope | None = None,
    guide: float | None = None,
    name: str = "",
    ax: Any = None,
    color: Any = PALETTE[0],
) -> Any:
    """Draw points on log-log axes: the geometric mean over seeds, with the range of the seeds.

    Args:
        x: (point,) positive.
        y: (seed, point) or (point,) positive.
        fit: drawn over its fit range, with its exponent written at the end.
        guide: exponent of a thin dashed guide line through the first mean point.
        name: what the points are; begins the label of the fit.
    """
    ax = own_axes(ax)
    x, rows = np.asarray(x, dtype=float), np.atleast_2d(seeds_first(y))
    middle = np.exp(np.log(rows).mean(0))
    _scale(ax, "xy")
    spread = np.abs([rows.min(0) - middle, rows.max(0) - middle])
    ax.errorbar(x, middle, spread, fmt="o", color=color, markersize=5, linewidth=1.2)
    if guide is not None:
        ax.plot(x, middle[0] * (x / x[0]) ** guide, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
        label = f"slope {number(guide)}"
        ax.annotate(
            label,
            (x[-1], middle[0] * (x[-1] / x[0]) ** guide),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
        )
    if fit is not None:
        ends = np.array(fit.fit)
        ax.plot(ends, fit.line(ends), color=color)
        text = f"{name} slope {fit.text()}".strip()
        at = (ends.prod() ** 0.5, fit.line(ends.prod() ** 0.5))
        side = dict(va="top", xytext=(-8, -6)) if fit.value < 0 else dict(va="bottom", xytext=(-8, 6))
        ax.annotate(text, at, textcoords="offset points", color=color, ha="right", **side)
    return ax


@styled
def plane(
    paths: Any,
    theory: Any = None,
    ax: Any = None,
    names: Sequence[str] = (),
    theory_name: str = "theory",
    xlabel: str = "",
    ylabel: str = "",
    joined: bool = True,
    colors: Sequence[Any] | None = None,
) -> Any:
    """Draw trajectories in a plane over a theory curve; a ring marks each start.

    Args:
        paths: (member, step, 2), or a list of (step, 2).
        theory: (point, 2) curve, thin and dashed.
        names: a name for each path, shown in a legend.
        joined: join the points by faint lines.
    """
    ax = own_axes(ax, height=4.4, width=5.6)
    paths = [np.asarray(path, dtype=float) for path in paths]
    colors = colors or colours(len(paths), ordered=len(paths) > len(PALETTE))
    for i, (path, color) in enumerate(zip(paths, colors, strict=False)):
        if joined:
            ax.plot(*path.T, color=color, linewidth=0.6, alpha=0.35)
        name = names[i] if i < len(names) else None
        ax.plot(*path.T, ".", color=color, markersize=3.5, alpha=0.8, label=name)
        ax.plot(*path[0], "o", color=color, markersize=7, markerfacecolor="none", markeredgewidth=1.6)
    if theory is not None:
        curve = np.asarray(theory, dtype=float)
        ax.plot(*curve.T, color=INK, linewidth=1.4, linestyle=(0, (5, 3)), label=theory_name, zorder=5)
    if names or theory is not None:
        ax.legend(markerscale=2.5)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


@styled
def measured_vs_predicted(
    predicted: Any,
    measured: Any,
    ax: Any = None,
    log: bool = False,
    name: str = "",
    color: Any = PALETTE[0],
    xlabel: str = "predicted",
    ylabel: str = "measured",
) -> Any:
    """Draw measured values against predicted ones, with the diagonal and equal scales.

    Args:
        predicted, measured: arrays of one shape.
        name: of the points, for `ax.legend()` when several kinds share the axes.
    """
    ax = own_axes(ax, height=4.2, width=4.6)
    _scale(ax, "xy" if log else "")
    predicted, measured = (np.asarray(v, dtype=float).ravel() for v in (predicted, measured))
    ax.plot(
        predicted, measured, "o", color=color, markersize=5, alpha=0.75, markeredgewidth=0, label=name or None
    )
    both = np.concatenate([predicted, measured])
    both = both[np.isfinite(both)]
    if not any(line.get_gid() == "diagonal" for line in ax.lines):
        dashes = dict(color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1, gid="diagonal")
        ax.axline((both.min(),) * 2, (both.max(),) * 2, **dashes)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_aspect("equal", adjustable="datalim")
    return ax


@styled
def bars(
    names: Sequence[str],
    values: Any,
    ax: Any = None,
    predicted: Any = None,
    label: str = "",
    color: Any = PALETTE[0],
    log: bool = False,
) -> Any:
    """Draw horizontal bars, first on top: the mean, its 95 % interval, and a dot for every seed.

    Args:
        names: of the bars.
        values: (seed, bar), a list of Interval, or (bar,) numbers.
        predicted: (bar,) predictions, drawn as thin dashed marks.
        label: of the horizontal axis.
        log: logarithmic axis (then dots and intervals only, as bars have no zero).
    """
    ax = own_axes(ax, height=0.45 * len(names) + 0.9)
    rows = np.arange(len(names))
    if len(values) and isinstance(values[0], Interval):
        dots, whole = None, np.array([[float(v.value), float(v.low), float(v.high)] for v in values]).T
    else:
        dots = np.atleast_2d(seeds_first(values))
        spread = mean_interval(dots, log=log) if len(dots) > 2 else None
        whole = np.array([spread.value, spread.low, spread.high]) if spread else np.tile(dots.mean(0), (3, 1))
    if log:
        ax.set_xscale("log")
    else:
        ax.barh(rows, whole[0], height=0.62, color=color, alpha=0.35, linewidth=0)
    ax.errorbar(
        whole[0], rows, xerr=np.abs(whole[1:] - whole[0]), fmt="|", color=color, markersize=14, linewidth=2
    )
    if dots is not None and len(dots) > 1:
        nudge = 0.18 * np.linspace(-1, 1, len(dots))
        for shift, dot in zip(nudge, dots, strict=True):
            ax.plot(dot, rows + shift, "o", color=color, markersize=3.5, markeredgewidth=0)
    if predicted is not None:
        ax.vlines(
            predicted,
            rows - 0.4,
            rows + 0.4,
            color=INK,
            linewidth=1.6,
            linestyle=(0, (3, 2)),
            label="predicted",
        )
        ax.legend()
    ax.set_yticks(rows, list(names))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(False)
    ax.grid(axis="x", color=INK, alpha=0.22, linewidth=0.6)
    ax.set_xlabel(label)
    return ax
