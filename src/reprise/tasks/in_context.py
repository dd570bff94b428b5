"""Linear regression in context: a sequence shows pairs (x, y) of one weight vector, which changes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import vmap

from ..arguments import choose, positive
from ..streams import Stream
from .losses import squared
from .task import Task


@dataclass(frozen=True)
class InContextRegression(Task):
    """y_k = w . x_k + noise, w from a fixed pool or fresh in each sequence (Raventos et al. 2023, section 3).

    dimension: D, x_k ~ N(0, I_D). pairs: K in a sequence. noise: variance of the noise.
    pool: number M of weight vectors w ~ N(0, I_D) in the pool; None: fresh ones, the limit of an infinite
        pool.
    max_pool: rows that the pool is padded to, so that members with different pools share a stack (default M).
    shuffled: give each sequence the y of another one; nothing can then be learned but the mean.

    A batch holds "inputs" (n, 2K - 1, D + 1), the tokens (0, x_1), (y_1, 0), (0, x_2), ..., (0, x_K);
    "targets" y (n, K); "x" (n, K, D); "weights" (n, D). Predictions are read at the places 0, 2, ..., 2K -
    2 (`read`). A pool of M is the first M rows of any larger one of the same seed.
    """

    dimension: int
    pairs: int
    noise: float
    pool: int | None = None
    max_pool: int | None = None
    shuffled: bool = False

    varying: ClassVar[tuple[str, ...]] = ("pool", "noise", "max_pool")

    def __post_init__(self):
        positive("dimension", self.dimension)
        positive("pairs", self.pairs)
        if not self.noise >= 0:
            raise ValueError(f"noise: expected a variance of at least 0, got {self.noise!r}")
        if self.pool is not None and positive("pool", self.pool) > self._rows_of_pool:
            raise ValueError(f"max_pool: expected at least the pool of {self.pool}, got {self.max_pool!r}")

    @property
    def _rows_of_pool(self) -> int:
        return self.max_pool or self.pool or 1

    @property
    def read(self) -> tuple[int, ...]:
        """The places of the tokens x_k, where y_k is predicted."""
        return tuple(range(0, 2 * self.pairs - 1, 2))

    def data(self, stream: Stream) -> dict[str, Any]:
        """The tensors "pool" (max_pool, D), "size" int64 (), "fresh" bool () and "noise", a variance ()."""
        row = lambda i: stream.fold(i).normal("pool", (self.dimension,), torch.float64)  # noqa: E731
        return {
            "pool": vmap(row)(torch.arange(self._rows_of_pool)),
            "size": torch.tensor(self.pool or 1),
            "fresh": torch.tensor(self.pool is None),
            "noise": torch.tensor(self.noise, dtype=torch.float64),
        }

    def draw(self, data: dict[str, Tensor], stream: Stream, batch: int | None) -> dict[str, Tensor]:
        """New sequences: w, x and noise from the stream."""
        if batch is None:
            raise ValueError(
                "batch: expected a number of sequences, got None (this task has no training set)"
            )
        return self._sequences(data, stream, batch, data["fresh"], "")

    def evaluation(self, data: dict[str, Tensor], stream: Stream, n: int, tasks: str) -> dict[str, Tensor]:
        """n sequences whose w come from the pool (tasks="pretrain") or are fresh ("true").

        The "true" sequences depend on the stream only, not on the pool.
        """
        choose("tasks", tasks, ("pretrain", "true"))
        return self._sequences(data, stream, n, tasks == "true" or data["fresh"], f"{tasks}: ")

    def _sequences(self, data, stream: Stream, n: int, fresh: Tensor | bool, name: str) -> dict[str, Tensor]:
        d, k, dtype = self.dimension, self.pairs, data["pool"].dtype
        w = stream.normal(f"{name}weights", (n, d), dtype)
        if fresh is not True:  # the true set is one for all members of a stack
            index = (stream.words(f"{name}task", n) * data["size"]) >> 32
            w = torch.where(fresh, w, data["pool"][index])
        x = stream.normal(f"{name}x", (n, k, d), dtype)
        noise = stream.normal(f"{name}noise", (n, k), dtype) * data["noise"].sqrt()
        y = (x * w.unsqueeze(1)).sum(-1) + noise
        if self.shuffled:
            y = torch.roll(y, 1, 0)
        questions = torch.cat([torch.zeros_like(y).unsqueeze(-1), x], -1)
        answers = torch.cat([y.unsqueeze(-1), torch.zeros_like(x)], -1)
        tokens = torch.stack([questions, answers], 2).reshape(n, 2 * k, d + 1)[:, :-1]
        return {"inputs": tokens, "targets": y, "x": x, "weights": w}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Mean over sequences and pairs of (f - y)^2; outputs (n, K) or (n, K, 1)."""
        return squared(outputs, batch["targets"], half=False, reduction="mean")

    def ridge(self, batch: dict[str, Tensor]) -> Tensor:
        """Posterior mean of y_k for w ~ N(0, I), from the k - 1 pairs before: ridge regression.

        w_k = (X^T X + noise I)^-1 X^T y.

        Returns:
            predictions (n, K) float64.
        """
        x, y = batch["x"].to(torch.float64), batch["targets"].to(torch.float64)
        gram = _before(x.unsqueeze(-1) * x.unsqueeze(-2))
        moment = _before(x * y.unsqueeze(-1))
        eye = torch.eye(self.dimension, dtype=torch.float64, device=x.device)
        w = torch.linalg.solve(gram + self.noise * eye, moment)
        return (w * x).sum(-1)

    def posterior_mean(self, batch: dict[str, Tensor], data: dict[str, Tensor]) -> Tensor:
        """Posterior mean of y_k for w uniform on the pool, from the k - 1 pairs before (dMMSE).

        w_k = sum_i p_i w_i with p = softmax_i(-sum_{j<k} (y_j - w_i . x_j)^2 / (2 variance)).

        Returns:
            predictions (n, K) float64, NaN for a member without a pool: `ridge` is its posterior mean.
        """
        pool, noise = data["pool"].to(torch.float64), data["noise"].to(torch.float64)
        x, y = batch["x"].to(torch.float64), batch["targets"].to(torch.float64)
        outside = torch.arange(len(pool), device=pool.device) >= data["size"]
        chunk = max(1, 2**22 // (len(pool) * self.pairs))
        parts = []
        for some_x, some_y in zip(x.split(chunk), y.split(chunk), strict=True):
            guesses = some_x @ pool.T  # (n, K, M)
            errors = _before((some_y.unsqueeze(-1) - guesses).square())
            scores = torch.where(outside, -torch.inf, errors / (-2 * noise))
            parts.append((torch.softmax(scores, -1) * guesses).sum(-1))
        return torch.where(data["fresh"], torch.nan, torch.cat(parts))


def _before(x: Tensor) -> Tensor:
    """Sums over the earlier places of axis 1: 0, x_1, x_1 + x_2, ..."""
    return torch.cumsum(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1), 1)
