"""Contender "Reprise": `Sweep.train`, in a gear and a number of workers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reprise import end
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
        from reprise import at, training_loss

        probe = at([steps - 1], training_loss)
        options = {"gear": self.gear, "workers": self.workers, "device": self.device}
        record = self.workload.sweep(self.members, steps).train([probe], progress=False, **options).record
        return torch.from_numpy(record.training_loss.values).reshape(self.members)

    def eigenvalues(self, k: int, iterations: int, start: Tensor) -> Tensor:
        """(M, k) by `reprise.curvature.lanczos` as a probe at the end of no training."""

        def spectrum(snapshot) -> dict:
            pairs = lanczos(hessian_operator(snapshot.loss_at, snapshot.vector), start, iterations)
            return {"spectrum": (("eigenvalue",), pairs.values[:k])}

        sweep = self.workload.sweep(self.members, 0)
        options = {"gear": self.gear, "workers": self.workers, "device": self.device}
        record = sweep.train([end(spectrum)], progress=False, **options).record
        return torch.from_numpy(record.spectrum.values)


def first_batches(workload: Workload, members: int, steps: int, device: torch.device) -> list[dict]:
    """The batches that ours draws in its first steps, leaves (M, ...), for the others to start alike."""
    (stack,) = stacks(workload.sweep(members, steps).members(), device)
    if stack.full_batch:
        whole = Run(stack, [], []).program().batch
        names = list(stack.data["train"])
        return [{n: x.expand(members, *x.shape) for n, x in zip(names, whole, strict=True)}] * steps
    drawn = stack.batches(0, steps)
    return [{n: x[t] for n, x in drawn.items()} for t in range(steps)]
