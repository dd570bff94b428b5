"""Events in a series: first passages, spikes, and the windows around them.

A series runs along its last axis, or along `step` of a labelled array; the other axes are kept.
"""

from typing import Any

import numpy as np


def first_passage(series: Any, below: float | None = None, above: float | None = None) -> Any:
    """Step at which a series first falls below, or first rises above, a level; NaN if it never does.

    Args:
        series: (..., step); steps are counted from 0 unless a labelled array names them.
        below, above: exactly one of the two levels; the inequality is strict.
    """
    if (below is None) == (above is None):
        raise ValueError("below, above: give exactly one level")
    values, steps, frame = _steps_last(series)
    hit = values < below if above is None else values > above
    found = np.where(hit.any(-1), steps[hit.argmax(-1)], np.nan)
    return found if frame is None else frame.isel(step=0, drop=True).copy(data=found)


def spikes(series: Any, above: float, after_below: float, gap: float) -> Any:
    """Mark where spikes begin: values over `above` once the series has been under `after_below`.

    High values closer than `gap` steps to the high value before them belong to the same spike.

    Args:
        series: (..., step), every step recorded.

    Returns:
        bool, same shape and labels. Count spikes by `.sum(-1)` or `.sum("step")`; list them by
        np.flatnonzero.
    """
    values, steps, frame = _steps_last(series)
    fitted = np.logical_or.accumulate(values < after_below, axis=-1)
    high = fitted & (values > above)
    last = np.maximum.accumulate(np.where(high, steps, -np.inf), axis=-1)
    before = np.concatenate([np.full(values.shape[:-1] + (1,), -np.inf), last[..., :-1]], axis=-1)
    begin = high & (steps - before >= gap)
    return begin if frame is None else frame.copy(data=begin)


def around(events: Any, before: float, after: float) -> Any:
    """Mark the steps from `before` steps ahead of an event to `after` steps behind it (both ends included).

    Args:
        events: bool (..., step), such as the result of `spikes`.
    """
    values, steps, frame = _steps_last(events)
    total = np.concatenate([np.zeros(values.shape[:-1] + (1,), int), np.cumsum(values, axis=-1)], axis=-1)
    first = np.searchsorted(steps, steps - after, side="left")
    end = np.searchsorted(steps, steps + before, side="right")
    near = total[..., end] > total[..., first]
    return near if frame is None else frame.copy(data=near)


def _steps_last(series: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    if not hasattr(series, "dims"):
        values = np.asarray(series)
        return values, np.arange(values.shape[-1]), None
    frame = series.transpose(..., "step")
    steps = frame["step"].values if "step" in frame.coords else np.arange(frame.sizes["step"])
    return frame.values, steps, frame
