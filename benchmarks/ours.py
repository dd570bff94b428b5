"""Contender "Reprise": `Sweep.train`, in a gear and a number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reprise import at, training_loss
from reprise.curvature import hessian_operator, lanczos
from reprise.stack import stacks
from reprise.train import Run

from .workloads import Workload


class Ours:
    """Whole calls of `Sweep.train`."""

    def __init__(
        self, workload: Workload, members: int, device: torch.device, gear: str, workers: int
    ) -> None:
        self.workload, self.members, self.device = workload, members, device
        self.gear, self.workers = gear, workers
        self.chunk = 16 if workload.kind == "train" else 1  # steps that a compiled call may take

    def train(self, steps: int, batches: list[Mapping[str, Tensor]] | None = None) -> Tensor:
        """The last loss of each member (M,); losses are returned only where batches are given."""
        if batches is not None:
            return self._losses(steps)
        options = {"gear": self.gear, "workers": self.workers, "device": self.device}
        self.workload.sweep(self.members, steps).train([], progress=False, **options)
        return torch.empty(0)

    def _losses(self, steps: int) -> Tensor:
        probe = at([steps - 1], training_loss)
        options = {"gear": self.gear, "workers": self.workers, "device": self.device}
        record = self.workload.sweep(self.members, steps).train([probe], progress=False, **options).record
        return torch.from_numpy(record.training_loss.values).reshape(self.members)

    def spectra(self, k: int, iterations: int, start: Tensor, times: int) -> Tensor:
        """(M, k) of the initial networks; measured before each of so many training steps."""
        sweep = self.workload.sweep(self.members, times)
        options = {"gear": self.gear, "workers": self.workers, "device": self.device}
        probe = at(range(times), Spectrum(k, iterations, start))
        record = sweep.train([probe], progress=False, **options).record
        return torch.from_numpy(record.spectrum.isel(step=0).values)


@dataclass(frozen=True)
class Spectrum:
    """Probe: the k largest Ritz values of the Hessian of the training loss, by Lanczos."""

    k: int
    products: int
    start: Tensor

    def __call__(self, snapshot: Any) -> dict:
        operator = hessian_operator(snapshot.loss_at, snapshot.vector)
        return {"spectrum": (("eigenvalue",), lanczos(operator, self.start, self.products).values[: self.k])}


def first_batches(workload: Workload, members: int, steps: int, device: torch.device) -> list[dict]:
    """The batches that ours draws in its first steps, leaves (M, ...), for the others to start alike."""
    (stack,) = stacks(workload.sweep(members, steps).members(), device)
    if stack.full_batch:
        whole = Run(stack, [], []).program().batch
        names = list(stack.data["train"])
        return [{n: x.expand(members, *x.shape) for n, x in zip(names, whole, strict=True)}] * steps
    drawn = stack.batches(0, steps)
    return [{n: x[t] for n, x in drawn.items()} for t in range(steps)]
