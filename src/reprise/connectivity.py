"""Linear connectivity: does the error rise on the line between two solutions?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

POINTS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def barrier(
    error: Callable[[Tensor], Tensor], a: Tensor, b: Tensor, points: Sequence[float] = POINTS
) -> dict[str, Tensor]:
    """The error barrier between two parameter vectors, or between many pairs of them.

    barrier = max over g of error((1 - g) a + g b) - (error(a) + error(b)) / 2, with g over `points`, ends
    included, hence never negative (Frankle et al., ICML 2020). `error` runs under `torch.vmap`; a network
    with running statistics needs them refreshed inside it. For data that differ by pair, `torch.vmap` this
    function.

    Args:
        error: (P,) -> scalar.
        a, b: (..., P), one pair a row.
        points: at least 5 positions g from 0 to 1 in increasing order, both ends included.

    Returns:
        "barrier" (...), "line" (..., points) the errors along the line, "points" (points,).
    """
    points = tuple(float(g) for g in points)
    if len(points) < 5 or points[0] != 0 or points[-1] != 1 or list(points) != sorted(set(points)):
        raise ValueError(f"points: expected 5 or more increasing numbers, from 0 to 1, got {points}")
    if a.shape != b.shape:
        raise ValueError(f"a and b differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    at = torch.tensor(points, dtype=a.dtype, device=a.device)[:, None]
    # (1 - g) a + g b is exact at both ends, a + g (b - a) is not
    line = (1 - at) * a[..., None, :] + at * b[..., None, :]
    errors = torch.vmap(error)(line.reshape(-1, line.shape[-1])).reshape(line.shape[:-1])
    ends = (errors[..., 0] + errors[..., -1]) / 2
    return {"barrier": errors.amax(-1) - ends, "line": errors, "points": at[:, 0]}
