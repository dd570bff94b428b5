"""Named scalings of pictures; everything estimated comes from the training examples."""

from __future__ import annotations

import torch
from torch import Tensor

SCALINGS = ("unit", "centred", "standardised", "fixed norm")


def scaled(train: Tensor, test: Tensor, scaling: str, scale: float | None) -> tuple[Tensor, Tensor]:
    """Scale pictures whose pixels lie in [0, 1].

    Args:
        train, test: (example, pixel) float64.
        scaling: "unit": as they are, times `scale` (default 1). "centred": minus the mean training
            picture, divided by `scale` (default: the standard deviation over all training pixels
            together). "standardised": minus the mean picture, divided pixel by pixel by the training
            standard deviation (1 where a pixel is constant), times `scale`. "fixed norm": each picture
            divided by its own norm, times `scale`.

    Returns:
        the two tensors, scaled.
    """
    if scaling == "centred":
        mean = train.mean(0)
        divisor = (train - mean).std(correction=0) if scale is None else scale
        return (train - mean) / divisor, (test - mean) / divisor
    factor = 1.0 if scale is None else scale
    if scaling == "standardised":
        mean, deviation = train.mean(0), train.std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        return (train - mean) / deviation * factor, (test - mean) / deviation * factor
    if scaling == "fixed norm":
        return tuple(x / x.norm(dim=1, keepdim=True).clamp_min(1e-12) * factor for x in (train, test))
    return train * factor, test * factor


def principal_components(train: Tensor, test: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Coordinates on the first `count` principal components of the training pictures, of unit variance there.

    A component's sign makes its entry of largest magnitude positive.
    """
    mean = train.mean(0)
    values, vectors = torch.linalg.eigh((train - mean).T @ (train - mean) / len(train))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * torch.sign(largest) / values.sqrt()
    return (train - mean) @ vectors, (test - mean) @ vectors
