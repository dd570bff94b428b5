"""The six workloads, each written once: what is trained, on what, by which rule, how many members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from reprise import MLP, SGD, AdamW, Experiment, Sweep, Transformer
from reprise.models import ConvNet
from reprise.streams import Stream
from reprise.tasks import Digits, Images, InContextRegression, ModularArithmetic, Task
from reprise.tasks.losses import squared


@dataclass(frozen=True)
class OnlineTeacher(Task):
    """Fresh normal inputs at every step; the targets are a fixed network's, tanh(x A) b."""

    dimension: int
    hidden: int

    def data(self, stream: Stream) -> dict[str, Any]:
        """The teacher's two matrices."""
        return {
            "A": stream.normal("A", (self.dimension, self.hidden)) * self.dimension**-0.5,
            "b": stream.normal("b", (self.hidden, 1)) * self.hidden**-0.5,
        }

    def draw(self, data: dict[str, Tensor], stream: Stream, batch: int | None) -> dict[str, Tensor]:
        """A new batch."""
        x = stream.normal("x", (batch, self.dimension), data["A"].dtype)
        return {"inputs": x, "targets": torch.tanh(x @ data["A"]) @ data["b"]}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Half the squared error, mean over the batch."""
        return squared(outputs, batch["targets"], half=True, reduction="mean")


@dataclass(frozen=True)
class Workload:
    """What every contender runs. experiment: (seed, steps) -> Experiment."""

    title: str
    members: int
    experiment: Callable[[int, int], Experiment]
    kind: str = "train"  # or "eigenpairs"

    def sweep(self, members: int | None = None, steps: int = 1) -> Sweep:
        """Members that differ in their seeds."""

        def seeded(seed: int) -> Experiment:
            return self.experiment(seed, steps)

        return Sweep(seeded, seed=list(range(members or self.members)))

    def data(self, seed: int, device: torch.device) -> dict[str, Any]:
        """The data of a member, floats in float32."""
        experiment = self.experiment(seed, 1)
        data = experiment.task.data(Stream.of(experiment.seed_of("task"), "task"))
        return tree_map(lambda x: (x.float() if x.is_floating_point() else x).to(device), data)

    def plain_batch(
        self, data: dict, experiment: Experiment, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A batch of one member as plain code draws it, from a generator of torch."""
        task, n, device = experiment.task, experiment.batch, generator.device
        if n is None:
            return data["train"]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        if isinstance(task, OnlineTeacher):
            x = normal(n, task.dimension)
            return {"inputs": x, "targets": torch.tanh(x @ data["A"]) @ data["b"]}
        if isinstance(task, InContextRegression):
            x, w = normal(n, task.pairs, task.dimension), normal(n, task.dimension, 1)
            y = (x @ w).squeeze(-1) + task.noise**0.5 * normal(n, task.pairs)
            tokens = torch.zeros(n, 2 * task.pairs, task.dimension + 1, device=device)
            tokens[:, ::2, 1:], tokens[:, 1::2, 0] = x, y
            return {"inputs": tokens[:, :-1], "targets": y}
        train = data["train"]
        rows = torch.randint(len(train["targets"]), (n,), generator=generator, device=device)
        return {"inputs": train["inputs"][rows], "targets": train["targets"][rows]}


def _teacher(seed: int, steps: int) -> Experiment:
    model = MLP([16, 64, 1], activation="relu")
    return Experiment(model, OnlineTeacher(16, 8), SGD(0.02), steps, batch=16, seed=seed)


def _digits(seed: int, steps: int) -> Experiment:
    model = MLP([64, 200, 200, 10], activation="tanh")
    seeds = {"model": seed, "task": 0, "run": seed}
    return Experiment(model, Digits(n_train=500), SGD(0.05), steps, seed=seeds)


def _modular(seed: int, steps: int) -> Experiment:
    model = Transformer(
        1, 128, 4, outputs=97, context=4, vocabulary=99, norm=None, activation="relu", bias=False, read="last"
    )
    task = ModularArithmetic(97, "+", share=0.5, encoding="tokens")
    seeds = {"model": seed, "task": 0, "run": seed}
    return Experiment(
        model, task, AdamW(1e-3, betas=(0.9, 0.98), weight_decay=1.0), steps, batch=512, seed=seeds
    )


def _in_context(seed: int, steps: int) -> Experiment:
    task = InContextRegression(dimension=8, pairs=16, noise=0.25)
    model = Transformer(2, 64, 2, outputs=1, context=31, features=9, read=task.read)
    return Experiment(model, task, AdamW(1e-3), steps, batch=64, seed=seed)


def _pictures(seed: int, steps: int) -> Experiment:
    seeds = {"model": seed, "task": 0, "run": seed}
    return Experiment(
        ConvNet(28, (8, 16)),
        Images(n_train=1500, flat=False),
        SGD(0.02, momentum=0.9),
        steps,
        batch=64,
        seed=seeds,
    )


WORKLOADS = {
    "W0": Workload("online SGD, 16-64-1, batch 16", 32, _teacher),
    "W1": Workload("full-batch GD, tanh 64-200-200-10, 500 digits", 16, _digits),
    "W2": Workload("modular addition, one-layer Transformer of width 128, batch 512, AdamW", 8, _modular),
    "W3": Workload(
        "in-context regression, two-layer Transformer of width 64, batch 64, AdamW", 8, _in_context
    ),
    "W4": Workload("top five Hessian eigenpairs of W1's networks", 16, _digits, kind="eigenpairs"),
    "W5": Workload("convolutional network on MNIST, batch 64, SGD with momentum", 8, _pictures),
}
