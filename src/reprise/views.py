"""Interactive views: a figure that was drawn, read back as data that a page can let the reader explore.

A view shows the lines of the figure itself, so picture and view come from one record. The page draws it when
a reader asks; the picture is what is seen before, in print and without JavaScript.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

POINTS = 600  # of one line in a view; a longer line keeps its extremes
LIMIT = 150_000  # bytes of one view in the page
DIGITS = 4  # of a number in a view
NOTHING = ("None", "", " ", None)  # as matplotlib says that there is no line or no marker


class View:
    """The lines of a matplotlib figure as an interactive view; shown by naming it last in a cell.

    figure: drawn from lines, with linear or logarithmic axes; of the rest, shaded spans are kept.
    of: name of the figure on the page that the view replaces when the reader asks for it.
    slider: what the slider does. "cursor" reads all lines at one x; "trail" shows each run (any line that is
    neither a threshold nor dashed) up to one of its points.
    title: what the view shows, for those who hear it.

    Raises ValueError naming the argument, also when the lines make more than LIMIT bytes.
    """

    def __init__(self, figure: Any, of: str, slider: str = "cursor", title: str = "") -> None:
        if slider not in ("cursor", "trail"):
            raise ValueError(f'slider: expected "cursor" or "trail", got {slider!r}')
        figure = getattr(np.ravel(figure)[0], "figure", figure)
        if not getattr(figure, "axes", None):
            raise ValueError(f"figure: expected a matplotlib figure with axes, got {type(figure).__name__}")
        figure.draw_without_rendering()  # panels find their places when a figure is drawn
        self.of = of
        panels = [_panel(ax, slider) for ax in figure.axes]
        _name(panels, slider)
        width, height = figure.get_size_inches()
        self.spec = {"title": title or of, "slider": slider, "shape": round(float(height / width), 3)}
        self.spec["panels"] = panels
        size = len(self.to_json())
        if size > LIMIT:
            raise ValueError(f"figure: its lines make {size:,} bytes; a view holds {LIMIT:,}")

    def to_json(self) -> str:
        """The view as compact JSON that is safe inside a page."""
        return json.dumps(self.spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")

    def __repr__(self) -> str:
        number = sum(len(panel["lines"]) for panel in self.spec["panels"])
        return f"View of {self.of}: {number} lines. On the page of the book it answers the pointer."

    def _repr_html_(self) -> str:
        return (
            f'<div class="view" data-of="{self.of}"><p class="view-note">{self!r}</p>'
            f'<script type="application/json">{self.to_json()}</script></div>'
        )


def _panel(ax: Any, slider: str) -> dict[str, Any]:
    box = ax.get_position()
    return {
        "title": ax.get_title(loc="left") or ax.get_title(),
        "box": [round(float(v), 3) for v in (box.x0, box.x1, box.y0, box.y1)],
        **{
            name: {
                "label": axis.get_label_text(),
                "log": axis.get_scale() == "log",
                "range": _rounded(axis.get_view_interval()),
                "ticks": any(tick.label1.get_visible() for tick in axis.get_major_ticks()),
            }
            for name, axis in (("x", ax.xaxis), ("y", ax.yaxis))
        },
        "lines": [found for line in ax.lines if (found := _line(ax, line, slider))],
        "spans": [span for patch in ax.patches if (span := _span(patch))],
    }


def _line(ax: Any, line: Any, slider: str) -> dict[str, Any] | None:
    """A line as data; None where fewer than two points have a place on the axes."""
    from matplotlib.colors import to_hex

    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    across = line.get_transform() != ax.transData  # a threshold or an event, from edge to edge
    if across:
        places = line.get_transform().transform(np.column_stack([x, y]))
        x, y = ax.transData.inverted().transform(places).T
    if np.isfinite(x * y).sum() < 2:
        return None
    style, label = line.get_linestyle(), str(line.get_label())
    joined, dashed = style not in NOTHING, style not in ("-", *NOTHING)
    still = across or dashed
    chosen = np.arange(len(x)) if slider == "trail" and not still else _thinned(x, y, POINTS)
    return {
        "name": "" if label.startswith("_") else label,
        "color": to_hex(line.get_color()),
        "width": round(float(line.get_linewidth()), 2) if joined else 0,
        "dots": line.get_marker() not in NOTHING,
        "dashed": dashed,
        "still": still,
        "x": _rounded(x[chosen]),
        "y": _rounded(y[chosen]),
    }


def _name(panels: list[dict[str, Any]], slider: str) -> None:
    """Name each nameless line: after one of its colour, else after its panel, or by number among the runs."""
    lines = [line for panel in panels for line in panel["lines"]]
    known = {line["color"]: line["name"] for line in lines if line["name"]}
    runs = 0
    for panel in panels:
        for line in panel["lines"]:
            line["legend"] = bool(line["name"])
            if not line["name"] and not line["still"]:
                runs += 1
                other = panel["title"] if slider == "cursor" else f"run {runs}"
                line["name"] = known.get(line["color"], other or f"run {runs}")


def _span(patch: Any) -> list[float | None] | None:
    """Left and right of a shaded window over the whole height of a panel; None for another patch."""
    corners = patch.get_path().transformed(patch.get_patch_transform()).vertices
    if (corners[:, 1].min(), corners[:, 1].max()) != (0, 1):
        return None
    return _rounded([corners[:, 0].min(), corners[:, 0].max()])


def _thinned(x: np.ndarray, y: np.ndarray, points: int) -> np.ndarray:
    """Places of at most `points` values that keep the lowest and the highest of each stretch."""
    if len(x) <= points:
        return np.arange(len(x))
    chosen = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), points // 2):
        values = y[part]
        if np.isfinite(values).any():
            chosen |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
        else:
            chosen.add(int(part[0]))
    return np.array(sorted(chosen))


def _rounded(values: Any) -> list[float | None]:
    """Numbers of a few digits, whole ones without a fraction; None where there is no number."""
    found = [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]
    return [int(v) if v is not None and v == int(v) and abs(v) < 1e9 else v for v in found]
