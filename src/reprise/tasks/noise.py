"""Tasks whose labels change: anew at every visit, or once for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..streams import Stream
from .task import Task


@dataclass(frozen=True)
class Changed(Task):
    """A task with other targets; inputs, loss, accuracy and clean labels are those of `task`."""

    task: Task

    def data(self, stream: Stream) -> dict[str, Any]:
        """The data of the task."""
        return self.task.data(stream)

    def loss(self, outputs: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of the task."""
        return self.task.loss(outputs, batch)

    def accuracy(self, outputs: Any, batch: dict[str, Any]) -> Tensor:
        """The accuracy of the task, against the clean labels."""
        return self.task.accuracy(outputs, batch)


@dataclass(frozen=True)
class WrongLabels(Changed):
    """A task whose training targets are classes, int64, of which a share is wrong.

    `share` may differ between members of a stack.
    """

    share: float = 0.0
    varying: ClassVar[tuple[str, ...]] = ("share",)

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: expected a number from 0 to 1, got {self.share!r}")


@dataclass(frozen=True)
class LabelNoise(WrongLabels):
    """With probability `share` a training target is a uniformly drawn wrong class, redrawn at every visit."""

    def data(self, stream: Stream) -> dict[str, Any]:
        """The data of the task and "label_noise", the share."""
        return {**self.task.data(stream), "label_noise": torch.tensor(self.share, dtype=torch.float64)}

    def visit(self, batch: dict[str, Any], data: dict[str, Any], stream: Stream) -> dict[str, Any]:
        """The batch with some targets wrong."""
        batch = self.task.visit(batch, data, stream)
        targets = batch["targets"]
        hit = stream.uniform("label noise: whether", tuple(targets.shape)) < data["label_noise"]
        shift = 1 + stream.integers("label noise: which", self.task.classes - 1, tuple(targets.shape))
        wrong = (targets + shift) % self.task.classes
        return {**batch, "targets": torch.where(hit, wrong, targets)}


@dataclass(frozen=True)
class SmoothedLabels(WrongLabels):
    """Training classes become probabilities: 1 - share for the class, share / (classes - 1) for others.

    This is the mean of `LabelNoise` over its draws: the same mean gradient without the noise.
    """

    def data(self, stream: Stream) -> dict[str, Any]:
        """The data of the task, its training targets (n, classes) float64."""
        data = self.task.data(stream)
        classes = self.task.classes
        one_hot = torch.nn.functional.one_hot(data["train"]["targets"], classes).to(torch.float64)
        soft = one_hot * (1 - self.share) + (1 - one_hot) * self.share / (classes - 1)
        return {**data, "train": {**data["train"], "targets": soft}}


@dataclass(frozen=True)
class TargetNoise(Changed):
    """Normal noise of standard deviation `deviation` on real-valued training targets, redrawn at every visit.

    frozen: draw it once, with the data, as the control that is not gradient noise. `deviation` may differ
    between members of a stack.
    """

    deviation: float = 0.0
    frozen: bool = False
    varying: ClassVar[tuple[str, ...]] = ("deviation",)

    def __post_init__(self):
        if not self.deviation >= 0:
            raise ValueError(f"deviation: expected a number of at least 0, got {self.deviation!r}")

    def data(self, stream: Stream) -> dict[str, Any]:
        """The data of the task and "target_noise", the deviation of what is still to be added."""
        data = self.task.data(stream)
        if not self.frozen:
            return {**data, "target_noise": torch.tensor(self.deviation, dtype=torch.float64)}
        targets = data["train"]["targets"]
        noise = self.deviation * stream.normal("frozen target noise", tuple(targets.shape), targets.dtype)
        return {**data, "train": {**data["train"], "targets": targets + noise}}

    def visit(self, batch: dict[str, Any], data: dict[str, Any], stream: Stream) -> dict[str, Any]:
        """The batch with fresh noise on its targets."""
        batch = self.task.visit(batch, data, stream)
        if self.frozen:
            return batch
        targets = batch["targets"]
        noise = stream.normal("target noise", tuple(targets.shape), targets.dtype)
        return {**batch, "targets": targets + data["target_noise"] * noise}
