"""Masks of parameters: which weights survive a round of pruning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .streams import Stream


def _cut(scores: Tensor, mask: Tensor, share: float | Tensor) -> Tensor:
    """mask without its round(share * survivors) survivors of smallest score, ties in index order."""
    share = torch.as_tensor(share, dtype=torch.float64, device=mask.device)
    if not bool(((share >= 0) & (share <= 1)).all()):
        raise ValueError(f"share: expected numbers from 0 to 1, got {share.tolist()}")
    if mask.dtype != torch.bool or scores.shape != mask.shape:
        raise ValueError(
            f"mask: expected a bool tensor of shape {tuple(scores.shape)}, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    # sorting by survival after a stable sort by score puts the survivors first, in order of score
    order = torch.argsort(scores, dim=-1, stable=True)
    order = order.gather(-1, torch.argsort((~mask).gather(-1, order).to(torch.uint8), dim=-1, stable=True))
    rank = torch.argsort(order, dim=-1)
    return mask & (rank >= torch.round(share * mask.sum(-1))[..., None])


def magnitude_mask(values: Tensor, mask: Tensor, share: float | Tensor) -> Tensor:
    """Cut the survivors of smallest magnitude, over all parameters of a member together.

    Args:
        values: (..., P), a row a member.
        mask: (..., P) bool, True where a parameter survives so far.
        share: of the survivors to cut, a number or a tensor (...); round(share * survivors) are cut, ties in
            index order.

    Returns:
        (..., P) bool mask.
    """
    return _cut(values.abs(), mask, share)


def random_mask(stream: Stream | Sequence[Stream], mask: Tensor, share: float | Tensor) -> Tensor:
    """Cut survivors drawn uniformly: exactly round(share * survivors) of each member.

    Args:
        stream: of the member, or a list of one stream a row.
        mask: (P,) bool for one stream, (M, P) for a list of M.
        share: of the survivors to cut, a number or a tensor (M,).

    Returns:
        Bool mask of the shape of `mask`.
    """
    streams = [stream] if isinstance(stream, Stream) else list(stream)
    rows = () if isinstance(stream, Stream) else (len(streams),)
    if mask.shape[:-1] != rows:
        raise ValueError(f"mask: expected (P,) for one stream, (M, P) for M streams, got {tuple(mask.shape)}")
    scores = torch.stack([s.words("mask", mask.shape[-1]) for s in streams]).to(mask.device)
    return _cut(scores.reshape(mask.shape), mask, share)
