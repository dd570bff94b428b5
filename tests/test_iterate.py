import time

import numpy as np
import pytest
import torch

from reprise.iterate import euler_maruyama, iterate, logspaced_steps


def test_the_last_state_is_kept_after_all_steps():
    steps, states = iterate(lambda x, t: x + t, np.zeros(3), 10)
    assert steps.tolist() == [10] and states.tolist() == [[45.0] * 3]


def test_every_k_steps_a_list_and_the_end():
    steps, states = iterate(lambda x, t: x + 1, np.zeros(()), 10, keep=4)
    assert steps.tolist() == [0, 4, 8, 10] and states.tolist() == [0, 4, 8, 10]
    steps, states = iterate(lambda x, t: x + 1, np.zeros(()), 10, keep=[3, 7])
    assert steps.tolist() == [3, 7, 10] and states.tolist() == [3, 7, 10]
    assert iterate(lambda x, t: x + 1, np.zeros(()), 0)[0].tolist() == [0]


def test_structure_is_preserved_and_in_place_steps_are_safe():
    start = {"x": np.zeros(2), "w": torch.zeros(3, dtype=torch.float64)}

    def step(state, t):
        state["x"] += 1
        state["w"] -= 1
        return state

    steps, states = iterate(step, start, 5, keep=1)
    assert states["x"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert isinstance(states["w"], torch.Tensor) and states["w"][:, 0].tolist() == [0, -1, -2, -3, -4, -5]
    assert start["x"].tolist() == [0, 0] and start["w"].tolist() == [0, 0, 0]
    _, (x, y) = iterate(lambda s, t: (s[1], s[0] + s[1]), (np.array(0), np.array(1)), 6, keep=1)
    assert x.tolist() == [0, 1, 1, 2, 3, 5, 8] and y.tolist() == [1, 1, 2, 3, 5, 8, 13]


def test_no_gradient_is_recorded():
    weight = torch.ones(2, requires_grad=True)
    _, states = iterate(lambda x, t: x * weight, torch.ones(2), 3)
    assert not states.requires_grad


def test_it_stops_when_the_predicate_holds_at_a_check():
    steps, states = iterate(
        lambda x, t: x / 2, np.ones(2), 100, keep=20, check=8, until=lambda x: x.max() < 1e-9
    )
    assert steps.tolist() == [0, 20, 32] and states[-1, 0] == 2.0**-32


def test_logspaced_steps():
    steps = logspaced_steps(10_000, 30)
    assert steps[:3] == [0, 1, 2] and steps[-1] == 10_000 and 20 < len(steps) <= 30
    assert logspaced_steps(1, 5) == [0, 1]


def test_the_overhead_is_below_a_few_microseconds_a_step():
    state, steps = np.zeros(1), 200_000
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        iterate(lambda x, t: x, state, steps, keep=1000, until=lambda x: False, check=1000)
        times.append((time.perf_counter() - begin) / steps)
    assert min(times) < 3e-6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"keep": 0}, "expected at least 1"),
        ({"keep": "all"}, 'expected "last"'),
        ({"keep": [3, 11]}, "expected steps from 0 to 10"),
        ({"check": 0}, "check of at least 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        iterate(lambda x, t: x, np.zeros(1), 10, **options)


def test_multiplicative_noise_has_the_lyapunov_exponent_of_ito():
    rng = np.random.default_rng(0)
    drift, noise, dt, steps = 0.3, 1.2, 2e-3, 1500
    _, x = euler_maruyama(lambda x: drift * x, lambda x: noise * x, np.ones(2000), dt, steps, rng)
    logs, time_ = np.log(np.abs(x[-1])), dt * steps
    spread = noise * time_**0.5 / 2000**0.5
    assert abs(logs.mean() - (drift - noise**2 / 2) * time_) < 4 * spread + 0.01
    assert logs.std() == pytest.approx(noise * time_**0.5, rel=0.08)


def test_additive_noise_has_the_stationary_variance():
    rng = np.random.default_rng(1)
    _, x = euler_maruyama(lambda x: -x, lambda x: 0.5, np.zeros((4, 1000)), 0.01, 600, rng)
    assert x[-1].var() == pytest.approx(0.5**2 / (2 - 0.01), rel=0.08)


def test_shared_increments_move_all_components_together():
    rng = np.random.default_rng(2)
    amplitudes = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    _, x = euler_maruyama(lambda x: 0 * x, lambda x: amplitudes, np.zeros((500, 3)), 0.1, 50, rng, sources=2)
    np.testing.assert_allclose(x[-1][:, 1], 2 * x[-1][:, 0])
    covariance = np.cov(x[-1].T)
    assert covariance[0, 0] == pytest.approx(5, rel=0.25) and covariance[2, 2] == pytest.approx(45, rel=0.25)
    assert abs(covariance[0, 2]) < 3


def test_a_time_step_must_be_positive():
    with pytest.raises(ValueError, match="dt: expected a positive"):
        euler_maruyama(lambda x: x, lambda x: x, np.ones(1), 0.0, 1, np.random.default_rng(0))
