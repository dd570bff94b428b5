"""Heat maps: a labelled array over two axes."""

from typing import Any

import numpy as np

from .look import own_axes, styled
from .statistics import number


@styled
def heatmap(
    data: Any,
    x: str | None = None,
    y: str | None = None,
    ax: Any = None,
    level: float | None = None,
    numbers: bool | None = None,
    log: bool = False,
    label: str = "",
    **image: Any,
) -> Any:
    """Draw a labelled array over two axes, one cell a point, with its ticks at the coordinates.

    Args:
        data: labelled array with two dimensions.
        x, y: dimensions along the axes; the last and the first when None.
        level: value whose boundary between cells is drawn.
        numbers: write the values into the cells; by default up to 60 of them.
        log: logarithmic colours.
        label: of the colour bar; the name of the array by default.
        image: passed to `imshow`, such as cmap, vmin and vmax.
    """
    from matplotlib.colors import LogNorm

    x, y = x or data.dims[-1], y or data.dims[0]
    if {x, y} != set(data.dims) or data.ndim != 2:
        raise ValueError(
            f"data: needs exactly the two dimensions x and y, got {data.dims} for x={x!r}, y={y!r}"
        )
    frame = data.transpose(y, x)
    values = frame.values.astype(float)
    ax = own_axes(ax, height=4.2)
    ax.grid(False)
    scale = {"norm": LogNorm(image.pop("vmin", None), image.pop("vmax", None))} if log else {}
    drawn = ax.imshow(values, origin="lower", aspect="auto", **scale, **image)
    for axis, dim in ((ax.xaxis, x), (ax.yaxis, y)):
        coords = frame[dim].values
        keep = np.unique(np.linspace(0, len(coords) - 1, min(len(coords), 9)).round().astype(int))
        texts = [number(v) if isinstance(v, (int, float, np.number)) else str(v) for v in coords[keep]]
        axis.set_ticks(keep, texts)
        axis.set_label_text(dim.replace("_", " "))
    if level is not None:
        _boundary(ax, values >= level)
    if numbers or (numbers is None and values.size <= 60):
        for (i, j), value in np.ndenumerate(values):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
            color = "black" if light > 0.18 else "white"
            ax.text(j, i, number(value, 2), ha="center", va="center", color=color, fontsize=9, gid="in cell")
    bar = ax.figure.colorbar(drawn, ax=ax, label=label or str(data.name or "").replace("_", " "), pad=0.02)
    bar.outline.set_visible(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _boundary(ax: Any, inside: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    edges = [
        ((j + 0.5, i - 0.5), (j + 0.5, i + 0.5)) for i, j in np.argwhere(inside[:, 1:] != inside[:, :-1])
    ]
    edges += [((j - 0.5, i + 0.5), (j + 0.5, i + 0.5)) for i, j in np.argwhere(inside[1:] != inside[:-1])]
    ax.add_collection(LineCollection(edges, colors="black", linewidths=3, capstyle="projecting"))
    ax.add_collection(LineCollection(edges, colors="white", linewidths=1.4, capstyle="projecting"))
