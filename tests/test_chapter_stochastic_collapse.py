"""The chapter's simulations against brute force, and its full-scale path at a size that takes seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import definitions, verdicts

from reprise.iterate import euler_maruyama
from reprise.models import MLP
from reprise.snapshot import Snapshot


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions("stochastic-collapse")


def test_two_sums_stand_for_all_increments_of_the_scalar_neuron(chapter):
    level, runs, times = np.array([0.8, 1.2]), 400, [10]
    found = chapter.one_neuron([7], level, "shared", runs, times, dt=0.05)
    x, noise = np.random.default_rng([7, 2]).standard_normal((2, 32))
    y, rng = x + 0.1 * noise, np.random.default_rng(0)
    for i, rel in enumerate(level):
        eta = 2 * rel * abs((x * y).sum()) / (x * x).sum()

        def parts(w):
            s = np.tanh(w[..., :1] * x)
            return w[..., 1:] * s - y, w[..., 1:] * (1 - s * s) * x, s

        def drift(w):
            r, first, second = parts(w)
            return -np.stack([(r * first).mean(-1), (r * second).mean(-1)], -1)

        def amplitude(w, eta=eta):
            return np.sqrt(eta / 32) * np.stack(parts(w)[1:], -2)

        start = 1e-3 * rng.standard_normal((runs, 2))
        _, w = euler_maruyama(drift, amplitude, start, 0.05, 200, rng, sources=32)
        share = (np.linalg.norm(w[-1], axis=-1) < 1e-2).mean()
        assert found["near"][1][0, i, 0].mean() == pytest.approx(share, abs=0.11)  # 3 standard errors


def test_errors_of_modes_are_errors_of_matrices(chapter):
    s, share, norm = chapter.linear_problem(3)
    rng = np.random.default_rng([3, 4])
    X, left, right = (np.linalg.qr(rng.standard_normal(shape))[0] for shape in ((1024, 64), (64, 8), (64, 8)))
    W = left * np.linspace(0.5, 1, 8) @ right.T
    y = X @ W + 0.5 * rng.standard_normal((1024, 64)) / 8
    U, singular, Vt = np.linalg.svd(X.T @ y)
    np.testing.assert_allclose(s, singular)
    s_hat = np.linspace(0, 1, 64)
    learned = U * s_hat @ Vt
    train, test = chapter.errors(s_hat, s, share, norm)
    assert train == pytest.approx(((learned - X.T @ y) ** 2).mean())
    assert test == pytest.approx(((learned - W) ** 2).mean())


def test_neurons_are_counted_in_every_hidden_layer(chapter):
    model = MLP([3, 4, 4, 2])
    weights = {
        name: torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
        for name, p in model.named_parameters()
    }
    for name in ("layers.0.weight", "layers.0.bias"):
        weights[name][1] = weights[name][0]
        weights[name][2] = 0
    weights["layers.1.weight"][:, 1] = weights["layers.1.weight"][:, 0]
    weights["layers.1.weight"][:, 2] = 0

    class Fake(Snapshot):
        params = weights

    found = chapter.neurons(object.__new__(Fake))
    dims, fraction, labels = found["fraction"]
    assert dims == ("layer",) and labels["layer"] == ["layers.0", "layers.1"]
    assert fraction[0] == 0.5 and found["vanished"][1][0] == 0.25


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("stochastic-collapse")
    assert list(verdicts(result)) == ["C1", "C2", "C3", "B1", "C4", "C5"]
    assert {"vgg", "vgg-drop"} <= set(result["computations"])
