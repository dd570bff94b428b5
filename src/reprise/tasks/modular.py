"""Arithmetic modulo a prime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..arguments import choose
from ..streams import Stream
from .losses import accuracy, cross_entropy
from .task import Task

OPERATIONS = ("+", "-", "*", "/")
ENCODINGS = ("ids", "one-hot", "tokens")


@dataclass(frozen=True)
class ModularArithmetic(Task):
    """a o b mod p over all pairs (for "/" those with b not 0), split into training and test pairs.

    p: a prime for "/", else any integer from 2. operation: "+", "-", "*" or "/".
    share: of the pairs that train, rounded down.
    encoding: of the inputs: "ids" int64 (n, 2); "one-hot" (n, 2 p); "tokens" int64 (n, 4), the string a o
        b = with o = p and "=" = p + 1, the answer read at the last place.
    logits: dtype of the logits in the cross-entropy; default that of the outputs.
    Targets and labels: the answers, int64 (n,).
    """

    p: int
    operation: str = "+"
    share: float = 0.5
    encoding: str = "ids"
    logits: torch.dtype | None = None

    varying: ClassVar[tuple[str, ...]] = ("share", "operation")

    def __post_init__(self):
        choose("operation", self.operation, OPERATIONS)
        choose("encoding", self.encoding, ENCODINGS)
        if not isinstance(self.p, int) or self.p < 2:
            raise ValueError(f"p: expected an integer of at least 2, got {self.p!r}")
        if self.operation == "/" and any(self.p % k == 0 for k in range(2, int(self.p**0.5) + 1)):
            raise ValueError(f"p: expected a prime for '/', got {self.p!r}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: expected a number above 0 and up to 1, got {self.share!r}")

    @property
    def classes(self) -> int:
        """Number of answers."""
        return self.p

    def pairs(self) -> tuple[Tensor, Tensor]:
        """All pairs int64 (n, 2) in order, and their answers (n,)."""
        a, b = torch.cartesian_prod(torch.arange(self.p), torch.arange(self.p)).T
        if self.operation == "/":
            a, b = a[b != 0], b[b != 0]
            inverse = torch.tensor([0] + [pow(k, -1, self.p) for k in range(1, self.p)])
            return torch.stack([a, b], 1), a * inverse[b] % self.p
        answer = {"+": a + b, "-": a - b, "*": a * b}[self.operation] % self.p
        return torch.stack([a, b], 1), answer

    def data(self, stream: Stream) -> dict[str, Any]:
        """Splits "train" and "test"."""
        pairs, answers = self.pairs()
        order = stream.permutation("split", len(pairs))
        n = int(self.share * len(pairs) + 1e-9)
        inputs = self._encode(pairs)
        split = lambda rows: {"inputs": inputs[rows], "targets": answers[rows], "labels": answers[rows]}  # noqa: E731
        return {"train": split(order[:n]), "test": split(order[n:])}

    def _encode(self, pairs: Tensor) -> Tensor:
        if self.encoding == "one-hot":
            return torch.nn.functional.one_hot(pairs, self.p).flatten(1).to(torch.float64)
        if self.encoding == "tokens":
            sign = torch.full_like(pairs[:, 0], self.p)
            return torch.stack([pairs[:, 0], sign, pairs[:, 1], sign + 1], 1)
        return pairs

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of outputs (n, p)."""
        return cross_entropy(outputs, batch["targets"], logits=self.logits)

    def accuracy(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Share of right answers."""
        return accuracy(outputs, batch["labels"])
