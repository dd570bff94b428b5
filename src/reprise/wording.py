"""How a check reads: "6 6 6 6" against "≥ 3 in each seed"."""

from typing import Any

import numpy as np

from .statistics import number

SIGNS = {">": ">", ">=": "≥", "<": "<", "<=": "≤", "equals": "="}
TRENDS = {"increasing": 1.0, "decreasing": -1.0}


def needed(at_least: int | float | None, n: int) -> int:
    """How many of `n` must pass: all when `at_least` is None, a count, or a share as a float."""
    if at_least is None:
        return n
    return at_least if isinstance(at_least, int) else int(np.ceil(at_least * n - 1e-9))


def _plural(word: str, n: int) -> str:
    return word if n == 1 or word.endswith("s") else f"{word}s"


def listed(values: np.ndarray, digits: int = 3) -> list[str]:
    """Write numbers of one list with common decimals where their sizes allow it."""
    size = np.abs(values[values != 0])
    integer = (values == np.round(values)).all()
    if integer or not len(size) or not np.isfinite(values).all() or size.max() >= 1e5 or size.min() < 1e-3:
        return [number(value, digits) for value in values]
    largest, smallest = (int(np.floor(np.log10(s))) for s in (size.max(), size.min()))
    decimals = max(0, digits - 1 - largest, min(3, 1 - smallest) if largest < 2 else 0)
    return [f"{value:.{decimals}f}" for value in values]


def _spread(values: np.ndarray, across: str) -> str:
    flat = values.ravel()
    what = _plural(across if values.ndim == 1 else "value", flat.size)
    if flat.size <= 8:
        return " ".join(listed(flat))
    low, high = (
        listed(np.array([np.nanmin(flat), np.nanmax(flat)])) if np.isfinite(flat).any() else ("nan",) * 2
    )
    same = f"{low} each" if low == high else f"{low} to {high}"
    return f"{same} ({flat.size} {what})"


def _trend(values: np.ndarray, check: Any) -> str:
    curves = np.atleast_2d(values)
    n, middle = len(curves), curves
    middle = np.exp(np.log(curves).mean(0)) if check.log and (curves > 0).all() else curves.mean(0)
    middle = middle.reshape(-1, middle.shape[-1])[0] if middle.ndim > 1 else middle
    shown = listed(middle)
    if len(shown) > 8:
        shown = [*shown[:3], "…", *shown[-2:]]
    text = " → ".join(shown) + check.unit
    if n == 1:
        return text
    holds = f"; {check._passing} of {n} {_plural(check.across, n)}" if check.over in ("each", "share") else ""
    return f"{text} (mean of {n} {_plural(check.across, n)}{holds})"


def measured_text(check: Any) -> str:
    """What a check measured, as one line."""
    values = check._values
    if check.state == "not tested":
        return "not tested"
    if values is None:
        n = check.interval.n
        return check.interval.text(check.unit, f"{n} {_plural(check.across, n)}")
    if isinstance(check.threshold, bool | np.bool_):
        return (
            f"{int(values.sum())} of {values.size} yes" if values.size > 1 else "yes" if values[0] else "no"
        )
    if check.op in TRENDS:
        return _trend(values, check)
    n = len(values)
    count = f"{n} {_plural(check.across, n)}"
    if check.over == "share":
        return f"{check._passing} of {count} ({_spread(values, check.across)}{check.unit})"
    if check.over in ("mean", "interval") and np.isfinite(values).all():
        if check.interval is not None:
            return check.interval.text(check.unit, count)
        columns = np.exp(np.log(values).mean(0)) if check.log and (values > 0).all() else values.mean(0)
        return f"{_spread(np.atleast_1d(columns), 'value')}{check.unit} (mean of {count})"
    return _spread(values, check.across) + check.unit


def threshold_text(check: Any) -> str:
    """What a check asks, as one line."""
    if check.state == "not tested":
        return ""
    if check.op == "between":
        low, high = check.threshold
        need = f"between {number(low)} and {number(high)}{check.unit}"
    elif check.op in TRENDS:
        plain = float(check.threshold) == (1.0 if check.log else 0.0)
        step = "each step by a factor" if check.log else "each step"
        need = (
            f"strictly {check.op}" if plain else f"{check.op}, {step} > {number(check.threshold)}{check.unit}"
        )
    elif isinstance(check.threshold, bool | np.bool_):
        need = "yes" if check.threshold else "no"
    else:
        need = f"{SIGNS[check.op]} {number(check.threshold)}{check.unit}"
    n = 0 if check._values is None else len(check._values)
    if check.over == "interval":
        level = check.interval.level if check.interval else 0.95
        return f"{number(100 * level)} % interval {need}"
    if check.over == "mean":
        return f"mean {need}"
    if check.over == "share":
        return f"{need} in at least {needed(check.at_least, n)} of {n} {_plural(check.across, n)}"
    if n == 1 or (check.op in TRENDS and check._values.ndim == 1):
        return need
    return f"{need} in each {check.across if check._values.ndim == 1 or check.op in TRENDS else 'case'}"
