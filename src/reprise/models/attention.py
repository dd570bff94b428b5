"""Multi-head attention, with the weights beside the outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .model import Linear, affine


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis. Written out below 33 numbers, where the built-in is slow."""
    if scores.shape[-1] >= 33:
        return torch.softmax(scores, -1)
    e = torch.exp(scores - scores.detach().amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(head_size) + bias) V, all heads in one product.

    `qkv.weight` stacks the query, key and value maps, each (heads * head_size, width), heads in order.
    """

    def __init__(self, width: int, heads: int, head_size: int, bias: bool):
        super().__init__()
        self.heads, self.head_size = heads, head_size
        self.qkv = Linear(width, 3 * heads * head_size, bias)
        self.output = Linear(heads * head_size, width, bias)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, rows: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            x: (batch, position, width).
            bias: added to the scores, broadcast to (batch, head, query, key); -inf forbids.
            rows: selects the positions (axis 1) that ask, default all.

        Returns:
            outputs (batch, query, width), weights (batch, head, query, key).
        """
        batch, length, _ = x.shape
        inner = self.heads * self.head_size
        if rows is None:
            q, k, v = self._heads(self.qkv(x), 3)
        else:
            w, c = self.qkv.weight, self.qkv.bias
            first, rest = (None, None) if c is None else (c[:inner], c[inner:])
            (q,) = self._heads(affine(rows(x), w[:inner], first), 1)
            k, v = self._heads(affine(x, w[inner:], rest), 2)
        scores, scale = q @ k.transpose(-1, -2), self.head_size**-0.5
        scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
        weights = softmax(scores)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, -1, inner)
        return self.output(mixed), weights

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        batch, length, _ = x.shape
        return x.reshape(batch, length, parts, self.heads, self.head_size).permute(2, 0, 3, 1, 4).unbind(0)
