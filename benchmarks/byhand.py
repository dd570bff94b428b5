"""Contender "vmap(grad)": torch.func by hand, all members in one dictionary of stacked parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, jvp, vmap

from reprise import SGD
from reprise.models import materialise

from .workloads import Workload


class ByHand:
    """Stacked modules, the update written on dictionaries."""

    def __init__(self, workload: Workload, members: int, device: torch.device) -> None:
        self.workload, self.members = workload, members
        self.experiment = workload.experiment(0, 1)
        seeds = [workload.experiment(seed, 1).seed_of("model") for seed in range(members)]
        models = [materialise(workload.experiment(s, 1).model, seed) for s, seed in enumerate(seeds)]
        self.params = {
            name: torch.stack([m.get_parameter(name).detach() for m in models]).to(device)
            for name, _ in models[0].named_parameters()
        }
        self.model = models[0].to(device)
        self.data = [workload.data(seed, device) for seed in range(members)]
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in range(members)]
        self.moments = [{k: torch.zeros_like(p) for k, p in self.params.items()} for _ in range(2)]
        self.t = 0

    def loss(self, params: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
        outputs = functional_call(self.model, params, (batch["inputs"],))
        return self.experiment.task.loss(outputs, batch)

    def batch(self) -> dict[str, Tensor]:
        """All members' batches; those of a shared training set are one gather."""
        drawn = [
            self.workload.plain_batch(d, self.experiment, g)
            for d, g in zip(self.data, self.generators, strict=True)
        ]
        return {name: torch.stack([b[name] for b in drawn]) for name in drawn[0]}

    def train(self, steps: int, batches: list[Mapping[str, Tensor]] | None = None) -> Tensor:
        """The last loss of each member (M,)."""
        gradient = vmap(grad_and_value(self.loss))
        full = self.batch() if self.experiment.batch is None else None
        for t in range(steps):
            batch = dict(batches[t]) if batches is not None else full or self.batch()
            grads, losses = gradient(self.params, batch)
            self._update(grads)
        return losses

    @torch.no_grad()
    def _update(self, grads: dict[str, Tensor]) -> None:
        rule, self.t = self.experiment.update, self.t + 1
        mean, square = self.moments
        for name, g in grads.items():
            p = self.params[name]
            if isinstance(rule, SGD):
                if rule.momentum:
                    g = mean[name].mul_(rule.momentum).add_(g)
                p.sub_(g, alpha=rule.lr)
                continue
            b1, b2 = rule.betas
            p.mul_(1 - rule.lr * rule.weight_decay)
            mean[name].lerp_(g, 1 - b1)
            square[name].mul_(b2).addcmul_(g, g, value=1 - b2)
            scale = (square[name] / (1 - b2**self.t)).sqrt_().add_(rule.eps)
            p.addcdiv_(mean[name], scale, value=-rule.lr / (1 - b1**self.t))

    def eigenvalues(self, k: int, iterations: int, start: Tensor) -> Tensor:
        """(M, k): Lanczos with vmap(jvp(grad))."""
        train = self.data[0]["train"]
        shapes = [p.shape[1:] for p in self.params.values()]
        sizes = [shape.numel() for shape in shapes]

        def unflatten(vector: Tensor) -> dict[str, Tensor]:
            parts = vector.split(sizes)
            return {n: x.reshape(s) for n, x, s in zip(self.params, parts, shapes, strict=True)}

        def product(params: dict[str, Tensor], vector: Tensor) -> Tensor:
            _, image = jvp(grad(lambda p: self.loss(p, train)), (params,), (unflatten(vector),))
            return torch.cat([x.flatten() for x in image.values()])

        products = vmap(product)
        with torch.no_grad():
            vector = (start / start.norm()).expand(self.members, -1)
            basis, images = [], []
            for _ in range(iterations):
                image = products(self.params, vector)
                basis.append(vector)
                images.append(image)
                rows, vector = torch.stack(basis, 1), image
                for _ in range(2):
                    vector = vector - ((rows @ vector[..., None]).mT @ rows)[:, 0]
                vector = vector / vector.norm(dim=1, keepdim=True)
            small = torch.stack(basis, 1) @ torch.stack(images, 1).mT
            return torch.linalg.eigvalsh((small + small.mT) / 2).flip(-1)[:, :k]
