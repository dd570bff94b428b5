"""The chapter's measurements on series made by hand, and its full-scale path at a size that takes seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import definitions, verdicts

from reprise import Record


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions("slingshot-grokking")


@pytest.fixture
def record():
    """Fitted at step 100, spikes at 1,000 and 2,000; the norm moves by 3 near spikes and by 1 elsewhere."""
    steps = np.arange(3000)
    loss = np.where(steps < 100, 1.0, 1e-8)
    loss[1000:1010] = loss[2000:2010] = 0.5
    near = (np.abs(steps - 1000) <= 60) | (np.abs(steps - 2000) <= 60)
    norm = np.concatenate([[0.0], np.cumsum(np.where(near, 3.0, 1.0))])
    seen = np.arange(0, 3001, 10)
    accuracy = 0.5 + 0.01 * ((seen >= 1100).astype(float) + (seen >= 2100) + (seen >= 2900))
    arrays = {
        "training_loss": (loss, steps),
        "weight_norm": (norm, np.arange(3001)),
        "test_accuracy": (accuracy, seen),
    }
    return Record(
        {
            name: xr.DataArray(values[None], dims=("seed", "step"), coords={"seed": [0], "step": at})
            for name, (values, at) in arrays.items()
        }
    )


def test_the_norm_signature_of_a_known_series(chapter, record):
    ratio, growth, time = (x.item() for x in chapter.signature(record))
    assert ratio == 3
    assert time == pytest.approx(242 / 2900)
    assert growth == pytest.approx(3 * 242 / (3 * 242 + 2900 - 242))


def test_gains_fall_to_the_windows_they_lie_in(chapter, record):
    starts = chapter.spike_starts(record, 100)
    assert np.flatnonzero(starts).tolist() == [1000, 2000]
    inside, outside = chapter.gain_by_place(record, starts)
    assert inside.item() == pytest.approx(0.02) and outside.item() == pytest.approx(0.01)
    around_spikes = chapter.after_spikes(record, starts, np.array([0, 90, 110]))
    np.testing.assert_allclose(around_spikes, [[0, 0, 0.01]] * 2)


def test_rounding_removes_the_pull_on_the_right_class_in_float32_only(chapter):
    right, wrong = chapter.pull(20, torch.float32)
    exact = 9 * np.exp(-20.0) / (1 + 9 * np.exp(-20.0))
    assert right == 0 and wrong == pytest.approx(exact, rel=1e-5)
    assert chapter.pull(20, torch.float64) == pytest.approx((-exact, exact), rel=1e-5)


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("slingshot-grokking")
    assert list(verdicts(result)) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert "reproduced" not in verdicts(result).values()  # twenty steps show nothing
