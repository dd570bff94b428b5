"""Figures are drawn, are not blank, and read on white and on dark pages."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import xarray as xr  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from reprise import figures as fg  # noqa: E402
from reprise.look import _apart, light_svg  # noqa: E402
from reprise.statistics import Interval, slope  # noqa: E402
from reprise.views import POINTS, View  # noqa: E402

PAGES = ("#ffffff", "#121212")
rng = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def luminance(color):
    part = np.array(to_rgb(color))
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    """Contrast ratio of WCAG 2.2."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("page", PAGES)
def test_colours_read_on_both_pages(page):
    shown = [fg.INK, *fg.PALETTE, *(tuple(c[:3]) for c in fg.colours(7, ordered=True))]
    assert min(contrast(color, page) for color in shown) >= 3


def record():
    t = np.arange(0, 400, 5)
    loss = np.exp(-t / np.array([40, 80, 160])[:, None, None]) + 1e-3
    loss = loss * np.exp(0.15 * rng.normal(size=(3, 4, len(t))).cumsum(-1) / 4)
    coords = {"lr": [0.02, 0.05, 0.1], "seed": range(4), "step": t}
    return xr.DataArray(loss, dims=("lr", "seed", "step"), coords=coords, name="training_loss")


def draw_curves():
    ax = fg.curves(record(), log="y")
    fg.reference(ax, 0.01, "threshold")
    return ax


def draw_panels():
    axes = fg.panels(3, titles=["loss", "norm", "accuracy"])
    one = record().sel(lr=0.05)
    for ax in axes:
        fg.curves(one, ax=ax, log="y")
    for ax in axes[:-1]:
        ax.set_xlabel("")
    fg.mark(axes, [120, 300], before=15, after=15, label="spike")
    fg.mark(axes, 220)
    return axes


def draw_named():
    data = record().rename(lr="rule").assign_coords(rule=["Adam", "SGD", "RMSProp"])
    left, right = fg.side_by_side(2, titles=["by rule", "by name"])
    fg.curves(data, ax=left, log="y", labels="legend")
    return fg.curves(data.sel(rule=["Adam", "SGD"]), ax=right)


def draw_loglog():
    x = np.geomspace(1, 100, 8)
    y = 3 * x**-1.5 * np.exp(0.1 * rng.normal(size=(5, 8)))
    return fg.loglog(x, y, fit=slope(x, y, fit=(2, 60)), guide=-1, name="barrier")


def draw_heatmap():
    coords = {"rewind": [0, 10, 25, 50, 100], "level": range(8)}
    data = xr.DataArray(
        rng.uniform(size=(5, 8)).cumsum(1), dims=("rewind", "level"), coords=coords, name="barrier"
    )
    return fg.heatmap(data, level=2.0)


def draw_plane():
    t = np.arange(200)
    paths = [
        np.column_stack([a * np.cos(t * 3) * np.exp(-t / 60), 1 - 0.3 * np.exp(-t / 60) * a**2])
        for a in (0.6, 0.8, 1.0)
    ]
    p = np.linspace(-1, 1, 50)
    return fg.plane(
        paths, np.column_stack([p, 1 - 0.3 * p**2]), names=["a", "b", "c"], xlabel="p", ylabel="q"
    )


def draw_predictions():
    x = rng.uniform(1, 5, 40)
    return fg.measured_vs_predicted(x, x + 0.2 * rng.normal(size=40))


def draw_bars():
    values = np.array([1.0, 0.6, 0.3]) + 0.08 * rng.normal(size=(4, 3))
    return fg.bars(
        ["one-shot", "iterative", "random mask"], values, predicted=[0.9, 0.62, 0.35], label="error"
    )


def draw_intervals():
    return fg.bars(
        ["a", "b"], [Interval(2.0, 1.0, 4.0, 4), Interval(8.0, 7.0, 9.0, 4)], log=True, label="ratio"
    )


DRAWINGS = [v for k, v in sorted(globals().items()) if k.startswith("draw_")]


@pytest.mark.parametrize("draw", DRAWINGS, ids=lambda f: f.__name__[5:])
def test_figures_are_drawn_and_read_on_both_pages(draw, tmp_path):
    before = dict(matplotlib.rcParams)
    ax = np.ravel(draw())[0]
    fg.save(ax, tmp_path / "figure.png")
    picture = plt.imread(tmp_path / "figure.png")
    assert picture.shape[1] > 700 and picture.shape[2] == 4
    assert 0.005 < (picture[..., 3] > 0.5).mean() and picture[0, 0, 3] == 0
    written = [t for t in ax.figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    assert len(written) >= 4
    for text in written:
        if text.get_gid() != "in cell":
            assert min(contrast(text.get_color(), page) for page in PAGES) >= 3, text
    assert dict(matplotlib.rcParams) == before
    plt.close("all")


def test_curves_show_mean_and_range_of_seeds():
    data = record().sel(lr=[0.02])
    ax = fg.curves(data, labels=None)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), data.mean("seed").values[0])
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(data.min()) and heights.max() == pytest.approx(data.max())
    with pytest.raises(ValueError, match="dimensions"):
        fg.curves(record().expand_dims(width=[1, 2]))
    with pytest.raises(ValueError, match="x: one of"):
        fg.curves(record(), x="epoch")
    plt.close("all")


def test_too_many_names_for_the_palette():
    with pytest.raises(ValueError, match="at most 6"):
        fg.colours(7)


def test_direct_labels_move_apart_as_little_as_needed():
    moved = _apart(np.array([0.0, 1.0, 50.0]), 10.0)
    np.testing.assert_allclose(moved, [-4.5, 5.5, 50.0])


def test_importing_figures_imports_no_plotting():
    code = "import sys, reprise.figures, reprise.claims; print([m for m in ('matplotlib', 'scipy', 'pandas', \
'seaborn', 'IPython') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in done.stdout and "IPython" not in done.stdout and "scipy" not in done.stdout


def drawn(view):
    return [line for panel in view.spec["panels"] for line in panel["lines"]]


def test_a_view_holds_the_lines_of_its_figure():
    t = np.arange(5000)
    axes = fg.panels(2, titles=["loss", "norm"])
    axes[0].plot(t, np.where(t == 777, 5.0, 1e-3), label="Adam")
    axes[0].set_yscale("log")
    axes[1].plot(t, t / 7, color=fg.PALETTE[0])
    axes[1].plot(t, t / 9, color=fg.PALETTE[1])
    fg.reference(axes[0], 0.5)
    fg.mark(axes, [100], before=20, after=80)
    view = View(axes, of="x-hero")
    loss, limit, norm, other = drawn(view)
    assert max(loss["y"]) == 5 and loss["x"][loss["y"].index(5)] == 777 and len(loss["x"]) <= POINTS
    assert limit["still"] and limit["dashed"] and limit["y"] == [0.5, 0.5]
    assert [line["name"] for line in (loss, norm, other)] == ["Adam", "Adam", "norm"]
    top, bottom = view.spec["panels"]
    assert top["y"]["log"] and not bottom["y"]["log"] and top["title"] == "loss"
    assert top["spans"] == bottom["spans"] == [[80, 180]]
    assert top["box"][2] > bottom["box"][3] and bottom["x"]["ticks"] and not top["x"]["ticks"]
    assert "<" not in view.to_json() and json.loads(view.to_json()) == view.spec


def test_a_view_of_runs_keeps_every_step():
    paths = [np.column_stack([np.linspace(-1, 1, 900), rng.uniform(size=900)]) for _ in range(2)]
    ax = fg.plane(paths, theory=[(-1, 0), (0, 1), (1, 0)], joined=False)
    runs, theory = drawn(View(ax, of="x-plane", slider="trail"))[:2], drawn(View(ax, of="x-plane"))[-1]
    assert [len(run["x"]) for run in runs] == [900, 900] and runs[0]["name"] == "run 1"
    assert runs[0]["dots"] and not runs[0]["width"] and theory["still"]


def test_a_view_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match='slider: expected "cursor" or "trail"'):
        View(fg.curves(record(), log="y"), of="x", slider="both")
    with pytest.raises(ValueError, match="figure: expected a matplotlib figure"):
        View(3, of="x")
    ax = fg.plane([rng.normal(size=(20_000, 2))], joined=False)
    with pytest.raises(ValueError, match="figure: its lines make"):
        View(ax, of="x", slider="trail")


def test_a_light_figure_is_svg_and_a_heavy_one_is_not():
    def figure():
        ax = fg.panels(1, titles=["0.015625"])[0]
        ax.plot(np.sin(np.arange(50) / 3), label="sine")
        return ax.figure

    text = light_svg(figure())
    assert text.startswith("<?xml") and text == light_svg(figure()) and fg.INK in text
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert not re.search(r' (d|x|y)="[^"]*\.\d{3}', text) and "scale(0.015625)" in text
    ax = fg.plane([rng.normal(size=(20_000, 2))], joined=False)
    assert light_svg(ax.figure) is None
