"""Losses with their conventions spelled out."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("mean", "mean-examples", "sum")


def squared(outputs: Tensor, targets: Tensor, *, half: bool, reduction: str) -> Tensor:
    """Squared error.

    Args:
        outputs, targets: (example, ...), of equal shape or different only by axes of length one at the end.
        half: whether to multiply by 1/2.
        reduction: "mean" over all numbers; "mean-examples": summed over outputs, mean over examples; or
            "sum".
    """
    error = (outputs.reshape(targets.shape) - targets).square()
    total = error.mean() if reduction == "mean" else error.sum()
    if reduction == "mean-examples":
        total = total / targets.shape[0]
    return 0.5 * total if half else total


def cross_entropy(outputs: Tensor, targets: Tensor, *, logits: torch.dtype | None = None) -> Tensor:
    """Mean cross-entropy in nats.

    Args:
        outputs: logits (example, class).
        targets: classes (example,) int64, or probabilities (example, class).
        logits: dtype to which the logits are cast before the logarithm; default their own.
    """
    outputs = outputs if logits is None else outputs.to(logits)
    logarithm = torch.log_softmax(outputs, -1)
    if targets.is_floating_point():
        return -(targets * logarithm).sum(-1).mean()
    return -logarithm.gather(-1, targets.unsqueeze(-1)).mean()


def accuracy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Share of examples whose largest output is the label; one output: whose sign is the label's (0 or 1)."""
    guess = outputs.argmax(-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).to(labels.dtype)
    return (guess == labels).to(outputs.dtype).mean()
