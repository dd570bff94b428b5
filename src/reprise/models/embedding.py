"""A fully connected network over a few symbols, each with a table of its own; the tables' rows are added."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..arguments import positive
from ..streams import Stream
from .mlp import MLP
from .model import Model


class EmbeddingMLP(Model):
    """MLP(table_1[a] + table_2[b] + ...).

    Args:
        symbols: number of symbols a slot can hold; slots: number of slots, each with its table.
        widths: as in `MLP`; widths[0] is the width of the tables.
        deviation: standard deviation of the tables' normal entries.
        activation, bias, norm, init, scale: as in `MLP`.

    Inputs are int64 (batch, slots), or their one-hot form (batch, slots * symbols), which trains faster:
    the tables then enter by one matrix product.
    """

    def __init__(
        self,
        symbols: int,
        widths: tuple[int, ...],
        slots: int = 2,
        deviation: float = 0.1,
        activation: str = "relu",
        bias: bool = True,
        norm: str | None = None,
        init: str = "torch",
        scale: float | tuple[float, ...] = 1.0,
    ):
        super().__init__()
        self.symbols, self.slots = positive("symbols", symbols), positive("slots", slots)
        self.mlp = MLP(widths, activation, bias, norm, init, scale)
        self.widths, self.deviation, self.activation, self.bias = self.mlp.widths, deviation, activation, bias
        self.norm, self.init, self.scale = norm, init, scale
        self.tables = nn.Parameter(torch.zeros(slots * symbols, self.widths[0]))

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, slots) int64 or (batch, slots * symbols) real -> (batch, widths[-1])."""
        return self.mlp(self._embed(inputs))

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """By name: "embedding", then those of the MLP."""
        x = self._embed(inputs)
        return {"embedding": x, **self.mlp.activations(x)}

    def _embed(self, inputs: Tensor) -> Tensor:
        if not inputs.is_floating_point():
            inputs = (inputs.unsqueeze(-1) == torch.arange(self.symbols, device=inputs.device)).flatten(-2)
        return inputs.to(self.tables.dtype) @ self.tables

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Tables N(0, deviation^2), the rest as `MLP.reset`."""
        tables = stream.normal("tables", tuple(self.tables.shape), dtype) * self.deviation
        return {"tables": tables, **{f"mlp.{k}": v for k, v in self.mlp.reset(stream, dtype).items()}}
