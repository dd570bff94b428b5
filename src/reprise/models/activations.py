"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu_tanh(x: Tensor) -> Tensor:
    """x Phi(x) with the tanh approximation of Phi (Hendrycks & Gimpel 2016), as GPT-2 uses it."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "identity": lambda x: x,
    "gelu": gelu_tanh,
    "gelu-erf": F.gelu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "softplus": F.softplus,
}
