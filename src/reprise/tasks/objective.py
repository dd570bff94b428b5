"""The task of a model that is its own objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..streams import Stream
from .task import Task


@dataclass(frozen=True)
class Minimise(Task):
    """Make the output of the model small: the loss is the output, a scalar (`reprise.models.Objective`)."""

    def data(self, stream: Stream) -> dict[str, Any]:
        """A training split of one empty example."""
        return {"train": {"inputs": torch.zeros(1, dtype=torch.float64)}}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The output itself."""
        if outputs.numel() != 1:
            raise ValueError(f"outputs: expected a scalar objective, got shape {tuple(outputs.shape)}")
        return outputs.reshape(())
