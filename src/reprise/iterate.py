"""Plain iteration of a map on stacked arrays, for problems too small to pay for autograd or probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

State = Any  # an array, or a dict or tuple of arrays (NumPy or torch)
Keep = int | str | Sequence[int]


def _each(function: Callable, *states: State) -> State:
    first = states[0]
    if isinstance(first, dict):
        return {name: function(*(state[name] for state in states)) for name in first}
    if isinstance(first, (tuple, list)):
        return tuple(function(*parts) for parts in zip(*states, strict=True))
    return function(*states)


def _copy(array):
    return array.clone() if isinstance(array, torch.Tensor) else np.array(array)


def _stack(*arrays):
    return torch.stack(arrays) if isinstance(arrays[0], torch.Tensor) else np.stack(arrays)


def logspaced_steps(steps: int, n: int) -> list[int]:
    """About n distinct steps from 0 to `steps`, evenly spaced on a logarithmic axis from step 1 on."""
    if steps < 1 or n < 2:
        raise ValueError(f"expected steps of at least 1 and n of at least 2, got {steps} and {n}")
    return sorted({0, *(round(float(s)) for s in np.geomspace(1, steps, n - 1)), steps})


def _kept(keep: Keep, steps: int) -> set[int]:
    if isinstance(keep, str):
        if keep != "last":
            raise ValueError(f'keep: expected "last", a number of steps or a list of steps, got {keep!r}')
        return set()
    if isinstance(keep, (int, np.integer)):
        if keep < 1:
            raise ValueError(f"keep: every {keep} steps is impossible, expected at least 1")
        return set(range(0, steps + 1, int(keep)))
    marks = {int(n) for n in keep}
    if marks and not 0 <= min(marks) <= max(marks) <= steps:
        raise ValueError(f"keep: expected steps from 0 to {steps}, got {sorted(marks)}")
    return marks


def iterate(
    step: Callable[[State, int], State],
    state: State,
    steps: int,
    keep: Keep = "last",
    until: Callable[[State], bool] | None = None,
    check: int = 1000,
) -> tuple[np.ndarray, State]:
    """Repeat `state = step(state, t)` for t = 0, 1, ..., and keep some of the states.

    The loop adds well under a microsecond a step, and no autograd. `step` may work in place: kept states, and
    the state given at the start, are copies. Values that decay into denormal numbers are slow: use `until`.

    Args:
        step: pure or in-place map of a state; t counts from 0.
        state: an array, or a dict or tuple of arrays, stacked over members as the caller likes.
        steps: largest number of steps.
        keep: "last", every so many steps, or a list of steps (`logspaced_steps`). Step n is the state after n
            steps, 0 the start. The last state reached is always kept.
        until: stop as soon as this is true of the state; looked at every `check` steps.
        check: see until.

    Returns:
        The kept steps, int64 (kept,), and the kept states stacked along a new leading axis, in the structure
        of `state`.
    """
    if steps < 0 or check < 1:
        raise ValueError(f"expected steps of at least 0 and check of at least 1, got {steps} and {check}")
    marks = _kept(keep, steps)
    checks = set(range(check, steps + 1, check)) if until else set()
    kept: dict[int, State] = {}
    with torch.no_grad():
        state, now = _each(_copy, state), 0
        for mark in sorted(marks | checks | {0, steps}):
            for t in range(now, mark):
                state = step(state, t)
            now = mark
            if mark in marks:
                kept[mark] = _each(_copy, state)
            if mark in checks and until(state):
                break
        kept.setdefault(now, _each(_copy, state))
    return np.array(list(kept), dtype=np.int64), _each(_stack, *kept.values())


Field = Callable[[np.ndarray], np.ndarray]


def euler_maruyama(
    drift: Field,
    noise: Field,
    state: np.ndarray,
    dt: float,
    steps: int,
    rng: np.random.Generator,
    sources: int | None = None,
    **options,
) -> tuple[np.ndarray, np.ndarray]:
    """Integrate dx = drift(x) dt + noise(x) dB in the sense of Ito by the Euler-Maruyama scheme.

    Args:
        drift: x -> array of the shape of x.
        noise: x -> amplitude. Without `sources`, something that broadcasts against x, each component with an
            increment of its own (a constant is additive noise, zeta * x multiplicative noise). With
            `sources=n`, (..., d, n): the n increments of a trajectory are shared by its d components.
        state: (...) or, with sources, (..., d).
        dt: time step.
        steps: number of steps.
        rng: NumPy generator of the increments.
        sources: number of shared Brownian motions.
        options: keep, until and check of `iterate`.

    Returns:
        Kept steps and kept states, as `iterate`.
    """
    if dt <= 0:
        raise ValueError(f"dt: expected a positive time step, got {dt}")
    state = np.asarray(state)
    root = dt**0.5
    if sources is None:

        def step(x, t):
            return x + drift(x) * dt + noise(x) * (root * rng.standard_normal(x.shape))
    else:

        def step(x, t):
            increments = root * rng.standard_normal((*x.shape[:-1], sources, 1))
            return x + drift(x) * dt + (noise(x) @ increments)[..., 0]

    return iterate(step, state, steps, **options)
