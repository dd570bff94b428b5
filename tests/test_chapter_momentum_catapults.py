"""The chapter's rule, probes and formulas against independent computations, and its full-scale path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import definitions, verdicts

from reprise import MLP, SGD, Experiment, Stream, Sweep
from reprise.probes import at, every, training_loss
from reprise.tasks import Digits


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions("momentum-catapults", "(D, N, ACTIVE)")


def small(update, seed=0, steps=30):
    task = Digits(n_train=20, n_test=10, labels="one-hot", loss_name="squared", half=True)
    model = MLP((64, 4, 10), activation="tanh")
    return Experiment(model=model, task=task, update=update, steps=steps, seed=seed, dtype=torch.float64)


def losses(update):
    sweep = Sweep(lambda seed: small(update, seed), seed=[0])
    return sweep.train([every(1, training_loss)]).record.training_loss.values


def test_heavy_ball_is_torch_momentum_at_a_constant_step_only(chapter):
    warm = chapter.WarmUp(0.5, 20)
    buffer = SGD(lr=0.5, momentum=0.9)
    np.testing.assert_allclose(losses(chapter.HeavyBall(0.5, 0.9)), losses(buffer), rtol=1e-9)
    apart = losses(chapter.HeavyBall(warm, 0.9)) / losses(SGD(lr=warm, momentum=0.9)) - 1
    assert np.abs(apart).max() > 1e-3


def test_heavy_ball_follows_the_displayed_recursion(chapter):
    """One quadratic of curvature 3 with a growing step, by hand."""
    rule, schedule = chapter.HeavyBall(0.1, 0.8), chapter.WarmUp(0.2, 4)
    w, before = torch.tensor([[1.0]]), torch.tensor([[1.0]])
    state = rule.init(w)
    for t in range(8):
        lr = schedule(t, 8)
        expected = w - lr * 3 * w + 0.8 * (w - before)
        hyper = {"lr": lr.reshape(1, 1), "momentum": torch.tensor([[0.8]])}
        before = w
        w, state = rule.step(w, state, lambda p: (None, 3 * p), hyper, torch.tensor(t))
        torch.testing.assert_close(w, expected.to(w.dtype))


def test_the_warm_up_starts_at_its_share_and_stays_at_the_value(chapter):
    values = chapter.WarmUp(2.0, 10, first=0.1)(torch.tensor([0, 5, 10, 50]), 100)
    torch.testing.assert_close(values, torch.tensor([0.2, 1.1, 2.0, 2.0], dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_the_limit_separates_stable_from_unstable(chapter, beta):
    lr = chapter.step_size(beta, 7.0)
    for curvature, stable in ((6.99, True), (7.01, False)):
        step = np.array([[1 + beta - lr * curvature, -beta], [1.0, 0.0]])
        assert (np.abs(np.linalg.eigvals(step)).max() < 1) == stable


def test_the_sharpness_probe_reads_the_top_eigenvalue(chapter):
    sweep = Sweep(lambda seed: small(chapter.HeavyBall(0.5, 0.9), seed), seed=[0, 1])
    probes = [at([0, 10, 30], chapter.NudgedSharpness()), at([30], exact)]
    record = sweep.train(probes).record
    np.testing.assert_allclose(record.sharpness.isel(step=-1), record.exact.isel(step=-1), rtol=1e-3)


def exact(snapshot):
    return torch.linalg.eigvalsh(torch.func.hessian(snapshot.loss_at)(snapshot.vector))[-1]


def test_the_diagonal_networks_gradient_and_hessian(chapter):
    x, y = chapter.sparse_regression(1.0, np.array([3]))
    theta = np.random.default_rng(0).normal(0.5, 0.2, (1, 2 * chapter.D))
    inputs, targets, point = (torch.tensor(value[0]) for value in (x, y, theta))

    def loss(w):
        u, v = w[: chapter.D], w[chapter.D :]
        return (inputs @ (u * u - v * v) - targets).square().sum() / (2 * chapter.N)

    slope, value, _ = chapter.gradient(theta, x, y)
    assert value[0] == pytest.approx(float(loss(point)))
    np.testing.assert_allclose(slope[0], torch.func.grad(loss)(point), rtol=1e-10)
    top = torch.linalg.eigvalsh(torch.func.hessian(loss)(point))[-1]
    assert chapter.top_eigenvalue(theta, x, y)[0] == pytest.approx(float(top))
    assert np.isnan(chapter.top_eigenvalue(theta * np.inf, x, y)).all()  # never a fake dip


def test_dip_and_crossing_of_a_known_series(chapter):
    steps = np.arange(0, 100, 20)
    values = [[0.5, 0.9, 1.1, 0.6, 0.8], [0.5, 0.6, 0.7, 0.8, 0.9]]
    share = xr.DataArray(values, dims=("seed", "step"), coords={"seed": [0, 1], "step": steps})
    assert chapter.crossing(share).values[0] == 40 and np.isnan(chapter.crossing(share).values[1])
    assert chapter.dip(share).values[0] == 0.6 and np.isnan(chapter.dip(share).values[1])
    before, peak = chapter.spike(share, chapter.crossing(share))
    assert (before.values[0], peak.values[0]) == (1.1, 1.1)


def test_the_toy_turns_around_its_limit(chapter):
    found = chapter.toy(0.0, np.array([3e-3]), np.array([0.01]), steps=3000, keep=3000)
    share, end = found["share"][1][0, 0], int(found["ends"][1][0, 0])
    first = int((share < 1).argmax())
    assert share[:first].max() - 1 == pytest.approx(found["over"][1][0, 0])
    assert 1 - share[first:end].min() == pytest.approx(found["under"][1][0, 0])
    assert share[end] > 1 and (share[first:end] <= 1).all()


def test_the_cnn_takes_flat_pictures(chapter):
    from reprise.models import initialise

    model = chapter.SmallCNN(3, 192, maps=4)
    model.load_state_dict(initialise(model, Stream.of(0, "model")))
    pictures = torch.randn(2, 192)
    shifted = pictures.reshape(2, 3, 8, 8).transpose(2, 3).reshape(2, 192)
    assert model(pictures).shape == (2, 10)
    assert not torch.allclose(model(pictures), model(shifted))


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("momentum-catapults")
    found = verdicts(result)
    assert list(found) == ["C1", "C2", "C3", "C4", "C5"]
    assert found.pop("C4") == "reproduced"  # the two-number model has one size
    assert "reproduced" not in found.values()  # twenty steps show nothing
    labels = [check["label"] for check in result["claims"][-1]["checks"]]
    assert any(label.startswith("CNN") for label in labels)
