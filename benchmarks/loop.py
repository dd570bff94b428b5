"""Contender "loop": the plain PyTorch code of a companion repository, one model after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reprise import SGD
from reprise.models import materialise

from .workloads import Workload


def optimizer(rule: Any, params: Any) -> torch.optim.Optimizer:
    """The optimiser of torch that the rule follows."""
    if isinstance(rule, SGD):
        return torch.optim.SGD(params, lr=rule.lr, momentum=rule.momentum)
    return torch.optim.AdamW(params, lr=rule.lr, betas=rule.betas, weight_decay=rule.weight_decay)


class Loop:
    """One module, optimiser and generator a member."""

    def __init__(self, workload: Workload, members: int, device: torch.device) -> None:
        self.workload, self.device = workload, device
        self.experiments = [workload.experiment(seed, 1) for seed in range(members)]
        self.data = [workload.data(seed, device) for seed in range(members)]
        self.models = [materialise(e.model, e.seed_of("model")).to(device) for e in self.experiments]
        self.optimizers = [
            optimizer(e.update, m.parameters()) for e, m in zip(self.experiments, self.models, strict=True)
        ]
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in range(members)]

    def train(self, steps: int, batches: list[Mapping[str, Tensor]] | None = None) -> Tensor:
        """The last loss of each member (M,). batches: of every step, leaves (M, ...); drawn if None."""
        losses = []
        for i, (experiment, model, rule) in enumerate(
            zip(self.experiments, self.models, self.optimizers, strict=True)
        ):
            for t in range(steps):
                if batches is None:
                    batch = self.workload.plain_batch(self.data[i], experiment, self.generators[i])
                else:
                    batch = {name: x[i] for name, x in batches[t].items()}
                rule.zero_grad()
                loss = experiment.task.loss(model(batch["inputs"]), batch)
                loss.backward()
                rule.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def eigenvalues(self, k: int, iterations: int, start: Tensor) -> Tensor:
        """(M, k): the largest Ritz values of the Hessian of the full loss by Lanczos, double backward."""
        found = []
        for experiment, model, data in zip(self.experiments, self.models, self.data, strict=True):
            params = list(model.parameters())
            loss = experiment.task.loss(model(data["train"]["inputs"]), data["train"])
            flat = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True)])
            basis, images = [], []
            vector = start / start.norm()
            for _ in range(iterations):
                product = torch.autograd.grad(flat, params, grad_outputs=vector, retain_graph=True)
                image = torch.cat([p.flatten() for p in product])
                basis.append(vector)
                images.append(image)
                rows = torch.stack(basis)
                vector = image
                for _ in range(2):
                    vector = vector - (rows @ vector) @ rows
                vector = vector / vector.norm()
            small = torch.stack(basis) @ torch.stack(images).T
            found.append(torch.linalg.eigvalsh((small + small.T) / 2).flip(0)[:k])
        return torch.stack(found)
