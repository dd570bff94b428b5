"""Events in a series against a brute-force loop."""

import numpy as np
import pytest
import xarray as xr

from reprise import events

rng = np.random.default_rng(5)


def brute_spikes(series, above, after_below, gap):
    fitted, last, found = False, -np.inf, []
    for t, value in enumerate(series):
        fitted = fitted or value < after_below
        if fitted and value > above:
            if t - last >= gap:
                found.append(t)
            last = t
    return found


def test_spikes_match_a_loop_and_keep_labels():
    series = np.exp(rng.normal(size=(4, 300)) * 2)
    mask = events.spikes(series, above=8.0, after_below=0.05, gap=9)
    for row, begins in zip(series, mask, strict=True):
        assert list(np.flatnonzero(begins)) == brute_spikes(row, 8.0, 0.05, 9)
    labelled = xr.DataArray(series, dims=("seed", "step"), coords={"step": 10 * np.arange(300)})
    marked = events.spikes(labelled, above=8.0, after_below=0.05, gap=90)
    assert marked.dims == ("seed", "step") and (marked.values == mask).all()
    assert mask.sum() > 4


def test_around_marks_a_window_of_each_event():
    marks = np.zeros(20, bool)
    marks[[0, 10]] = True
    assert list(np.flatnonzero(events.around(marks, before=2, after=3))) == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13]


def test_first_passage_names_the_step():
    values = [[3.0, 1.0, 0.0], [3.0, 3.0, 3.0]]
    series = xr.DataArray(values, dims=("seed", "step"), coords={"step": [0, 5, 10]})
    np.testing.assert_allclose(events.first_passage(series, below=2.0), [5, np.nan])
    assert events.first_passage(np.array([0.0, 1.0, 2.0]), above=1.0) == 2
    with pytest.raises(ValueError, match="exactly one"):
        events.first_passage(series)
