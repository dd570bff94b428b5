"""The parts of a Transformer around its attention: norms, the MLP, the residual block, tables of ids."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activations import ACTIVATIONS
from .attention import Attention
from .model import Linear


class Norm(nn.Module):
    """Layer norm or RMS norm over the last axis, with or without gain (and bias, for layer norm)."""

    def __init__(self, kind: str, width: int, affine: bool, bias: bool, eps: float):
        super().__init__()
        self.kind, self.width, self.eps = kind, width, eps
        self.weight = nn.Parameter(torch.zeros(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine and bias and kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width) -> the same shape."""
        if self.kind == "layer":
            x = F.layer_norm(x, (self.width,), eps=self.eps)
        else:
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        if self.weight is not None:
            x = x * self.weight
        return x if self.bias is None else x + self.bias


class MLPBlock(nn.Module):
    """W2 act(W1 x), or with "gated" W2 (gelu(A x) * (B x)), where `hidden.weight` stacks A and B."""

    def __init__(self, width: int, hidden: int, activation: str, bias: bool):
        super().__init__()
        self.activation = activation
        self.hidden = Linear(width, 2 * hidden if activation == "gated" else hidden, bias)
        self.output = Linear(hidden, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., width) -> the same shape."""
        x = self.hidden(x)
        if self.activation == "gated":
            gate, value = x.chunk(2, -1)
            return self.output(ACTIVATIONS["gelu"](gate) * value)
        return self.output(ACTIVATIONS[self.activation](x))


class Block(nn.Module):
    """Attention and MLP on a residual stream: x + f(N x), N(x + f x) or N'(x + f(N x))."""

    def __init__(self, attention: Attention, mlp: MLPBlock, norm: Callable[[], Norm | None], placement: str):
        super().__init__()
        self.attention, self.mlp = attention, mlp
        before, after = "pre" in placement, "post" in placement
        self.norm1 = norm() if before else None
        self.norm2 = norm() if after else None
        self.norm3 = norm() if before else None
        self.norm4 = norm() if after else None

    def forward(self, x: Tensor, bias: Tensor | None, rows: Callable[[Tensor], Tensor] | None):
        """x: (batch, position, width) -> the stream at the rows, and the attention weights."""
        mixed, weights = self.attention(normed(self.norm1, x), bias, rows)
        x = normed(self.norm2, (x if rows is None else rows(x)) + mixed)
        return normed(self.norm4, x + self.mlp(normed(self.norm3, x))), weights


class Table(nn.Module):
    """A row of numbers for each id."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (...) int64 -> (..., width)."""
        return F.embedding(ids, self.weight)


def normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    """x, normed if there is a norm."""
    return x if norm is None else norm(x)
