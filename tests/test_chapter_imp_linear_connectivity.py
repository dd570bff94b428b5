"""The chapter's theory against a closed form, and its full-scale path at a size that takes seconds."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import definitions, verdicts

from reprise import Stream
from reprise.curvature import lanczos


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines, for ten parameters of which the first two are never pruned."""
    return definitions(
        "imp-linear-connectivity", epsilon=0.1, prunable=torch.arange(10) >= 2, size=dict(steps=1)
    )


def test_the_largest_cut_in_a_round_bowl_solves_a_quadratic(chapter):
    curvature, length = 0.7, 3.0  # share = c / (c + share) with c = r^2 / |v|^2
    c = 2 * 0.1 / curvature / length
    expected = (-c + math.sqrt(c * c + 4 * c)) / 2
    removed = torch.linspace(0, 1, 10_001) * length
    found = chapter.largest_cut(torch.full((50,), curvature), torch.full((50,), 1 / 50), removed)
    assert found.item() == pytest.approx(expected, abs=2e-4)


def test_flat_directions_may_all_be_cut(chapter):
    curvatures = torch.tensor([0.0] * 30 + [1e9] * 70)
    found = chapter.largest_cut(curvatures, torch.full((100,), 0.01), torch.linspace(0, 1, 101))
    assert found.item() == pytest.approx(0.3)


def test_lanczos_weights_stand_for_the_whole_spectrum(chapter):
    size, removed = 400, torch.linspace(0, 1, 1001) * 30
    curvatures = torch.logspace(1, -5, size)
    basis = torch.linalg.qr(Stream.of(0, "probe").normal("basis", (size, size)))[0]
    start = Stream.of(1, "probe").normal("spectrum", (size,))
    pairs = lanczos(lambda rows: (rows @ basis * curvatures) @ basis.T, start, 100)
    weights = (pairs.vectors @ start) ** 2 / (start @ start)
    exact = chapter.largest_cut(curvatures, torch.full((size,), 1 / size), removed)
    found = chapter.largest_cut(pairs.values.nan_to_num(0), weights, removed)
    assert weights.sum().item() == pytest.approx(1, abs=1e-3)
    assert found.item() == pytest.approx(exact.item(), abs=0.05) and 0.2 < exact < 0.8


def test_cuts_leave_what_is_not_prunable(chapter):
    values, everything = torch.arange(10.0), torch.ones(10, dtype=torch.bool)
    kept = chapter.cut(values, everything, 0.5)
    assert kept.tolist() == [True, True, False, False, False, False, True, True, True, True]
    drawn = chapter.random_cut(3, 0, everything, 0.5)
    assert drawn[:2].all() and drawn.sum() == 6


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("imp-linear-connectivity")
    assert list(verdicts(result)) == ["C1", "C2", "C3", "C4", "C5"]
