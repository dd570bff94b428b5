"""Regression on random points whose targets come from a known function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..arguments import choose, positive
from ..streams import Stream
from .losses import REDUCTIONS, squared
from .task import Task


@dataclass(frozen=True)
class TeacherRegression(Task):
    """y = f(x) + noise at n_train random points; n_test other points without noise.

    function: f, from x (n, dimension) float64 to (n,) or (n, outputs); None: targets N(0, 1), independent
        of x.
    inputs: "normal", x ~ N(0, I), or "sphere", uniform on the unit sphere.
    noise: standard deviation, drawn once. half, reduction: of the squared loss (see `reprise.tasks.losses`).
    Targets (n, outputs).
    """

    function: Callable[[Tensor], Tensor] | None
    dimension: int
    n_train: int
    n_test: int = 0
    inputs: str = "normal"
    noise: float = 0.0
    half: bool = True
    reduction: str = "mean"

    varying: ClassVar[tuple[str, ...]] = ("function", "n_train", "n_test", "inputs", "noise")

    def __post_init__(self):
        for name in ("dimension", "n_train"):
            positive(name, getattr(self, name))
        choose("inputs", self.inputs, ("normal", "sphere"))
        choose("reduction", self.reduction, REDUCTIONS)

    def data(self, stream: Stream) -> dict[str, Any]:
        """Splits "train" and "test", float64."""
        train = self._split(stream, "train", self.n_train)
        noise = self.noise * stream.normal("noise", tuple(train["targets"].shape), torch.float64)
        train["targets"] = train["targets"] + noise
        return {"train": train, "test": self._split(stream, "test", self.n_test)}

    def _split(self, stream: Stream, name: str, n: int) -> dict[str, Tensor]:
        x = stream.normal(f"{name} inputs", (n, self.dimension), torch.float64)
        if self.inputs == "sphere":
            x = x / x.norm(dim=1, keepdim=True)
        y = (
            stream.normal(f"{name} targets", (n,), torch.float64)
            if self.function is None
            else self.function(x)
        )
        return {"inputs": x, "targets": y.unsqueeze(1) if y.dim() == 1 else y}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Squared error with the task's half and reduction."""
        return squared(outputs, batch["targets"], half=self.half, reduction=self.reduction)
