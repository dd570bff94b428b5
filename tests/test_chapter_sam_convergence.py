"""The chapter's formulas against independent computations, and its full-scale path at a tiny size."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import definitions, verdicts

from reprise.iterate import iterate
from reprise.updates import SAM, SGD


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions("sam-convergence", "HEIGHT", power=0.5, chapter=SimpleNamespace(quick=True), shrink=1)


@pytest.mark.parametrize("normalised", [True, False])
def test_a_step_is_the_step_of_the_library(chapter, normalised):
    h, rng = np.array([[1.0], [0.1], [3.0]]), np.random.default_rng(0)
    x = rng.standard_normal((3, 5))
    gradient = lambda x, t: h * x + x**3  # noqa: E731
    ours = chapter.sam(gradient, gradient, lambda t: 0.2, lambda t: 0.4, normalised)(x, 0)

    def by_torch(params, batch=None):
        losses = (torch.tensor(h.T) * params**2 / 2 + params**4 / 4).sum(-1)
        return losses.detach(), torch.autograd.grad(losses.sum(), params)[0]

    params = torch.tensor(x.T, requires_grad=True)
    number = lambda value: torch.full((5, 1), value, dtype=torch.float64)  # noqa: E731
    hyper = {"radius": number(0.4), "rule": {"lr": number(0.2)}}
    theirs, _ = SAM(SGD(), normalised=normalised).step(params, {}, by_torch, hyper, torch.tensor(0))
    np.testing.assert_allclose(ours, theirs.detach().numpy().T, rtol=1e-12)


def test_a_zero_gradient_stays_and_a_tiny_one_is_normalised(chapter):
    g = np.array([[0.0, 3.0], [0.0, 4.0]])
    np.testing.assert_allclose(chapter.direction(g), [[0, 0.6], [0, 0.8]])
    np.testing.assert_allclose(chapter.direction(np.array([[3e-150], [4e-150]])), [[0.6], [0.8]])


def test_the_radius_of_each_variant(chapter):
    for algorithm, at_3 in (("SAM", 0.4), ("m-SAM", 0.4), ("USAM", 0.4), ("decayed", 0.2), ("GD", 0.0)):
        radius, normalised = chapter.radius(algorithm, 0.4)
        assert radius(3) == pytest.approx(at_3)
        assert normalised == (algorithm != "USAM")


def test_the_cycle_and_the_time_to_arrive(chapter):
    """From (1, 1) the valley of the error lies at log(1 + 1/rho)/(mu T); right of it is the two-cycle."""
    found = chapter.quadratic("SAM", 0.1, 0, [3200], [], 1, points=400)
    etas, error = chapter.step_sizes([3200], 0.1, 400), found["single"][1][-1]
    late = np.flatnonzero(etas > 1.5 * np.log(11) / 320)
    np.testing.assert_allclose(error[late], (0.1 * etas[late] / (2 - etas[late])) ** 2 / 2, rtol=1e-4)
    early = np.flatnonzero(etas[:400] < 0.9 * np.log(11) / 320)
    assert (error[early] > 10 * (0.1 * etas[early] / 2) ** 2 / 2).all()


def test_a_coordinate_does_not_get_stuck_at_zero(chapter):
    """For mu = 0.05 double precision underflows on the way in; the two-cycle must come back."""
    found = chapter.quadratic("SAM", 0.05, 0, [4000], [], 1, points=20)
    etas, error = chapter.step_sizes([4000], 0.05, 20), found["single"][1][-1]
    late = np.flatnonzero((etas > 2 * np.log(11) / 200) & (etas < 1))
    np.testing.assert_allclose(error[late], (0.1 * etas[late] / (2 - etas[late])) ** 2 / 2, rtol=1e-4)


def test_the_sine(chapter):
    x, rho = np.linspace(-2, 2, 2001), 0.7
    f = 9 * rho**2 / (25 * np.pi**2) * np.sin(5 * np.pi * x / (3 * rho))
    np.testing.assert_allclose(np.gradient(f, x)[1:-1], chapter.sine_slope(x, rho)[1:-1], atol=1e-5)
    assert abs(np.gradient(chapter.sine_slope(x, rho), x)).max() <= 1
    stuck = -0.1 * rho  # one radius below a minimum of f
    assert chapter.sine_slope(stuck + rho, rho) == pytest.approx(0, abs=1e-15)
    assert chapter.sine_slope(stuck, rho) ** 2 == pytest.approx(27 * rho**2 / (100 * np.pi**2))


def test_the_averages_of_one_dimension(chapter):
    options = dict(rho=1.0, steps=7, marks=[0, 3])
    found = chapter.one_dimension("SAM", "sine", np.array([0.3, 0.1]), np.array([0.2, -0.7]), **options)
    x, squares = 0.2, []
    for _ in range(7):
        slope = np.cos(5 * np.pi * x / 3) * 3 / (5 * np.pi)
        squares.append(slope**2)
        x -= 0.1 * np.cos(5 * np.pi * (x + np.sign(slope)) / 3) * 3 / (5 * np.pi)
    assert found["x"][1][1, -1, 0] == pytest.approx(x)
    assert found["average"][1][1, -1, 0] == pytest.approx(np.mean(squares))
    assert found["average"][1][1, 1, 0] == pytest.approx(np.mean(squares[:3]))


def test_the_noise_has_mean_zero_and_variance_one(chapter):
    p = np.array([0.1, 0.5])
    xi = chapter.skewed_noise([3, 4], p, (2, 1, 5000), 2, block=4)
    assert np.shares_memory(xi(5), xi(5))  # one draw a step, however often it is asked for
    xi = chapter.skewed_noise([3, 4], p, (2, 1, 5000), 2, block=4)
    draws = np.stack([xi(t) for t in range(8)], -1)
    np.testing.assert_allclose(draws.mean((2, 3, 4)), 0, atol=0.02)
    np.testing.assert_allclose(draws.var((2, 3, 4)), 1, atol=0.03)
    again = chapter.skewed_noise([4], p, (2, 1, 5000), 2, block=4)
    np.testing.assert_array_equal(again(0)[:, :, 0], draws[:, :, 1, :, 0])  # a seed's noise is its own


@pytest.mark.parametrize("algorithm", ["m-SAM", "n-SAM"])
def test_the_mean_update_has_the_bias(chapter, algorithm):
    """The noise sends the ascent down with probability 1 - p: a step of rho eta (1 - 2p) beside SGD's."""
    options = dict(sigma=1.0, start=0.1, steps=1, replicas=5000, marks=[1])
    settings = "quadratic", np.array([0.4]), np.array([0.1]), [0]
    means = [chapter.stochastic(name, *settings, **options)["mean"][1].item() for name in (algorithm, "GD")]
    assert means[0] - means[1] == pytest.approx(0.2 * 0.4 * 0.8, abs=3e-3)


def test_the_convex_gradient_is_that_of_its_function(chapter):
    found = chapter.convex(50)
    x, total = torch.tensor([3.0, 20.0], dtype=torch.float64, requires_grad=True), 0.0
    f = lambda x: torch.log(torch.cosh(x[0])) + torch.log(torch.cosh(x[1] / 10))  # noqa: E731
    for _ in range(50):
        g = torch.autograd.grad(f(x), x)[0]
        total += float(g @ g)
        y = (x + 0.5 * g / g.norm()).detach().requires_grad_()
        x = (x - 1.5 / 50**0.5 * torch.autograd.grad(f(y), y)[0]).detach().requires_grad_()
    assert found["average"] == pytest.approx(total / 50)


def test_the_virtual_loss(chapter):
    x = np.linspace(-1.3, 1.3, 26001)
    slope_of_J, J = chapter.virtual(chapter.sine_slope, 1.0, x)
    np.testing.assert_allclose(chapter.minima(x, J), [-0.5, -0.1, 0.7, 1.1], atol=2e-4)
    gradient = lambda x, t: chapter.sine_slope(x)  # noqa: E731
    start = np.array([[-0.62, 0.05, 0.5]])
    _, by_sam = iterate(chapter.sam(gradient, gradient, lambda t: 0.1, lambda t: 1.0), start, 50)
    by_descent = start
    for _ in range(50):
        by_descent = by_descent - 0.1 * np.interp(by_descent, x, slope_of_J)
    np.testing.assert_allclose(by_sam[-1], by_descent, atol=1e-4)


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("sam-convergence")
    found = verdicts(result)
    assert sorted(found) == ["B1", "B2", "C1", "C2", "C3", "C4", "C5", "C6"]
    assert found["C6"] == "reproduced"
