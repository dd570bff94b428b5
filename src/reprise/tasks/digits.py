"""The 8x8 handwritten digits that come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .pictures import Pictures


@dataclass(frozen=True)
class Digits(Pictures):
    """1,797 handwritten digits of 8x8 pixels (UCI optical recognition of handwritten digits, test part).

    Options: see `Pictures`. Unit scaling divides by 16.

    Example:
        >>> Digits(n_train=200, scaling="centred").data(Stream.of(0))["train"]["inputs"].shape
        torch.Size([200, 64])
    """

    def load(self) -> tuple[Tensor, Tensor, None, None]:
        """Pictures (1797, 8, 8) uint8 of 0 to 16, classes (1797,)."""
        return *_digits(), None, None

    @property
    def _white(self) -> int:
        return 16


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    raw = load_digits()
    return torch.from_numpy(raw.images.astype("uint8")), torch.from_numpy(raw.target.astype("int64"))
