"""The look of the figures: settings, colours, panels, and names, thresholds and events drawn on them.

Figures are transparent, with grey axes and colours that read on white and on dark pages. Matplotlib is
imported when something is drawn; nothing is set globally unless `use` is called.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

INK = "#808080"
PALETTE = ("#2f6fe4", "#e8590c", "#23976a", "#cf5fb4", "#b07d00", "#7b3fd1")
RAMP = ("#2f6fe4", "#8a5fd0", "#cf4f8f", "#e8590c", "#b88714")
WIDTH = 6.4
SVG_LIMIT = 64_000  # characters; a heavier figure is a picture of pixels


def settings() -> dict[str, Any]:
    """The matplotlib settings of the book."""
    from cycler import cycler

    ink = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
    clear = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "savefig.edgecolor")
    return {
        **dict.fromkeys(ink, INK),
        **dict.fromkeys(clear, "none"),
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.titlecolor": INK,
        "legend.labelcolor": INK,
        "axes.axisbelow": True,
        "font.size": 10.5,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "xtick.major.width": 0.8,
        "ytick.major.width": 0.8,
        "xtick.minor.width": 0.5,
        "ytick.minor.width": 0.5,
        "image.cmap": "viridis",
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "svg.hashsalt": "reprise",  # the same figure, the same file
        "figure.constrained_layout.use": True,
    }


def style() -> Any:
    """The look of the book as a context: `with style(): ...`."""
    from matplotlib import rc_context

    return rc_context(settings())


def styled(draw: Callable) -> Callable:
    """Make a drawing function use the look, whatever the settings around it."""

    @wraps(draw)
    def drawn(*args: Any, **options: Any) -> Any:
        with style():
            return draw(*args, **options)

    return drawn


def use() -> None:
    """Take the look for a whole notebook; figures show as SVG if that is light, else at twice the pixels."""
    import matplotlib

    matplotlib.rcParams.update(settings())
    try:
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:
        return
    if (shell := get_ipython()) is not None:
        set_matplotlib_formats("retina")
        from matplotlib.figure import Figure

        shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, light_svg)


def light_svg(figure: Any) -> str | None:
    """A figure as SVG text, or None where a picture of pixels is the lighter choice."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with style():
        figure.savefig(file, format="svg", bbox_inches="tight", metadata=nothing)
    text = re.sub(r' (d|x|y|points)="[^"]*"|translate\([^)]*\)', _to_hundredths, file.getvalue())
    return text if len(text) <= SVG_LIMIT else None


def _to_hundredths(places: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point, which nobody sees."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", places[0])


def save(figure: Any, path: Any) -> None:
    """Write a figure, or the figure of some axes, as a transparent PNG at 200 dots an inch."""
    figure = np.ravel(figure)[0]
    options = dict(dpi=200, transparent=True, bbox_inches="tight", format="png")
    getattr(figure, "figure", figure).savefig(path, **options)


def panels(n: int, height: float = 1.7, width: float = WIDTH, titles: Sequence[str] = ()) -> Any:
    """Stack `n` panels on one horizontal axis; return the axes (n,), top first."""
    return _grid(n, 1, width, height * n + 0.4, titles, sharex=True)


def side_by_side(
    n: int, height: float = 3.2, width: float = 7.6, titles: Sequence[str] = (), **options: Any
) -> Any:
    """Put `n` axes next to each other (`sharey=True` for one vertical axis); return the axes (n,)."""
    return _grid(1, n, width, height, titles, **options)


def _grid(rows: int, columns: int, width: float, height: float, titles: Sequence[str], **options: Any) -> Any:
    import matplotlib.pyplot as plt

    with style():
        axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)[1].ravel()
        for ax, title in zip(axes, titles, strict=False):
            ax.set_title(title)
        for ax in axes:
            ax.grid(axis="y", color=INK, alpha=0.22, linewidth=0.6)
    return axes


def own_axes(ax: Any, height: float = 3.6, width: float = WIDTH) -> Any:
    """`ax`, or the axes of a new figure."""
    return _grid(1, 1, width, height, ())[0] if ax is None else ax


def colours(n: int, ordered: bool = False) -> list[Any]:
    """`n` colours: the palette for names, a ramp from blue to ochre for an ordered quantity.

    Raises:
        ValueError: for more names than the palette can tell apart.
    """
    if ordered:
        from matplotlib.colors import LinearSegmentedColormap

        return list(LinearSegmentedColormap.from_list("reprise", RAMP)(np.linspace(0, 1, n)))
    if n > len(PALETTE):
        raise ValueError(f"colours: at most {len(PALETTE)} unordered colours, got {n}; use ordered=True")
    return list(PALETTE[:n])


@styled
def direct_label(ax: Any, lines: Sequence[Any] | None = None, names: Sequence[str] | None = None) -> None:
    """Name lines at their right ends, in their colours, moved apart where they would touch. Call it last."""
    lines = (
        [line for line in ax.lines if not line.get_label().startswith("_")] if lines is None else list(lines)
    )
    names = names or [line.get_label() for line in lines]
    ends = []
    for line, name in zip(lines, names, strict=True):
        xy = np.column_stack([np.asarray(d, dtype=float) for d in line.get_data()])
        xy = xy[np.isfinite(xy).all(1)]
        if len(xy):
            ends.append((ax.transData.transform(xy[-1])[1], xy[-1], name, line.get_color()))
    ends.sort(key=lambda end: end[0])
    gap, points = 13.0, 72.0 / ax.figure.dpi
    wanted = np.array([end[0] * points for end in ends])
    for (_, xy, name, color), place, own in zip(ends, _apart(wanted, gap), wanted, strict=True):
        ax.annotate(
            name,
            xy,
            xytext=(6, place - own),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=10,
        )


def _apart(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Move sorted places apart to `gap` with the least squared movement (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for place in wanted - gap * np.arange(len(wanted)):
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    flat = np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])
    return flat + gap * np.arange(len(wanted))


@styled
def reference(ax: Any, value: float, label: str = "", axis: str = "y", color: str = INK) -> None:
    """Draw a thin dashed line at a threshold or a predicted value, with its name on it."""
    draw = ax.axhline if axis == "y" else ax.axvline
    draw(value, color=color, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1.5)
    if axis == "y":
        where, shift = dict(xy=(0, value), xycoords=ax.get_yaxis_transform(), ha="left", va="bottom"), (4, 2)
    else:
        where, shift = dict(xy=(value, 1), xycoords=ax.get_xaxis_transform(), ha="left", va="top"), (4, -2)
    ax.annotate(label, xytext=shift, textcoords="offset points", color=color, fontsize=9.5, **where)


@styled
def mark(axes: Any, at: Any, before: float = 0, after: float = 0, label: str = "", color: str = INK) -> None:
    """Mark events through all panels: a dotted line each, or a shaded window [at - before, at + after]."""
    axes = np.ravel(axes)
    for place in np.ravel(at):
        for ax in axes:
            if before or after:
                ax.axvspan(place - before, place + after, color=color, alpha=0.2, linewidth=0, zorder=0.5)
            else:
                ax.axvline(place, color=color, linewidth=1, linestyle=":", zorder=0.5)
    if label and np.size(at):
        first = (np.ravel(at)[0] - before, 1)
        axes[0].annotate(
            label, first, xytext=(3, -2), textcoords="offset points", va="top", fontsize=9.5, color=color,
            xycoords=axes[0].get_xaxis_transform(),
        )  # fmt: skip
