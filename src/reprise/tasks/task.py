"""What a task is: its data, the batch of a step, its loss."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..streams import Stream


class Task(ABC):
    """Data, batches and loss of one member; subclasses are frozen dataclasses of options.

    `varying` names the options that members of one stack may differ in: they enter through `data` as
    tensors only. Every other option is part of the `program`, which members of a stack share.
    """

    varying: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def data(self, stream: Stream) -> dict[str, Any]:
        """All tensors a member needs, drawn once from its stream of role "task".

        Splits such as "train" and "test" are dicts with "inputs", "targets" and what else a batch holds,
        all with a leading example axis. Other keys hold single tensors.
        """

    def examples(self, data: Mapping[str, Any]) -> int:
        """Number of training examples."""
        if "train" not in data:
            raise ValueError(
                f"{type(self).__name__} has no train split: its batches are drawn, so give a batch size"
            )
        return len(pytree.tree_leaves(data["train"])[0])

    def draw(self, data: Mapping[str, Any], stream: Stream, batch: int | None) -> dict[str, Any]:
        """The training batch of a step.

        Args:
            data: what `data` returned.
            stream: role "run", standing at the step.
            batch: number of examples, or None for all of them. Batches go through a new order in each
                epoch without replacement; the last incomplete batch of an epoch is dropped.
        """
        train = data["train"] if batch is None else self._rows(data, stream, batch)
        return self.visit(train, data, stream)

    def _rows(self, data: Mapping[str, Any], stream: Stream, batch: int) -> dict[str, Any]:
        n = self.examples(data)
        if not 1 <= batch <= n:
            raise ValueError(f"batch: expected a number from 1 to the {n} training examples, got {batch!r}")
        per_epoch = n // batch
        epoch = torch.div(stream.step, per_epoch, rounding_mode="floor")
        order = epoch_order(stream.at(epoch), n)[: per_epoch * batch].reshape(per_epoch, batch)
        rows = order.index_select(0, (stream.step - epoch * per_epoch).reshape(1))[0]
        return pytree.tree_map(lambda x: x[rows], data["train"])

    def visit(self, batch: dict[str, Any], data: Mapping[str, Any], stream: Stream) -> dict[str, Any]:
        """What changes anew at every visit of an example, such as label noise; here nothing."""
        return batch

    @abstractmethod
    def loss(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor:
        """The scalar loss of a batch."""

    def accuracy(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor:
        """The share of right answers, where that makes sense."""
        raise NotImplementedError(f"{type(self).__name__} has no accuracy")

    @property
    def program(self) -> tuple[Any, ...]:
        """What two tasks must share to run in one stack: the class and the options not in `varying`."""
        parts: list[Any] = [f"{type(self).__module__}.{type(self).__qualname__}"]
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.name not in self.varying:
                value = getattr(self, field.name)
                parts.append((field.name, value.program if isinstance(value, Task) else value))
        return tuple(parts)


def epoch_order(stream: Stream, n: int) -> Tensor:
    """The order in which an epoch visits n examples, int64 (n,); the stream stands at the epoch's number."""
    return stream.permutation("epoch order", n)
