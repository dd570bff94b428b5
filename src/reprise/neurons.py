"""How many neurons of a layer are independent: neither vanished nor copies of another one."""

from __future__ import annotations

import torch
from torch import Tensor


def neuron_vectors(incoming: Tensor, outgoing: Tensor, bias: Tensor | None = None) -> Tensor:
    """Incoming weights, bias and outgoing weights of every unit side by side, in float64.

    Args:
        incoming: (..., unit, input), the layer's weight as torch stores it.
        outgoing: (..., output, unit), the next layer's weight as torch stores it.
        bias: (..., unit) or None.

    Returns:
        (..., unit, input [+ 1] + output) float64.
    """
    incoming, outgoing = torch.as_tensor(incoming).double(), torch.as_tensor(outgoing).double()
    if incoming.shape[-2] != outgoing.shape[-1]:
        raise ValueError(
            f"incoming has {incoming.shape[-2]} units, outgoing {outgoing.shape[-1]}: expected "
            "weights (unit, input) and (output, unit)"
        )
    parts = [incoming, outgoing.transpose(-1, -2)]
    if bias is not None:
        parts.insert(1, torch.as_tensor(bias).double()[..., None])
    return torch.cat(parts, dim=-1)


def neuron_distances(vectors: Tensor) -> Tensor:
    """Normalised squared distances 2 |v_i - v_j|^2 / (|v_i|^2 + |v_j|^2) between the rows of (..., unit, n).

    Returns:
        (..., unit, unit), 0 for equal rows, 2 for orthogonal ones, 4 for opposite ones; 0 between zero rows.
    """
    squares = vectors.square().sum(-1)
    sums = squares[..., :, None] + squares[..., None, :]
    gaps = (sums - 2 * vectors @ vectors.transpose(-1, -2)).clamp(min=0)
    return 2 * gaps / torch.where(sums > 0, sums, 1)


def independent_fraction(
    incoming: Tensor,
    outgoing: Tensor,
    bias: Tensor | None = None,
    vanish: float = 0.1,
    identical: float = 0.1,
) -> dict[str, Tensor]:
    """The share of independent neurons of a layer (Chen et al., NeurIPS 2023), batched over leading axes.

    A unit vanishes if its vector is shorter than `vanish` times the longest of the layer. In index order,
    each unit that is still free founds a group and takes in all later free units closer than `identical`. The
    fraction is groups / width. It means nothing if the whole layer has died: check the accuracy too.

    Args:
        incoming: (..., unit, input).
        outgoing: (..., output, unit).
        bias: (..., unit) or None.
        vanish: relative length below which a unit counts as vanished.
        identical: normalised squared distance (`neuron_distances`) below which two units count as one.

    Returns:
        "fraction" (...) float64, "vanished" (...) int64 number of units, "group" (..., unit) int64: the index
        of the unit that founded the group, -1 for a vanished unit.
    """
    vectors = neuron_vectors(incoming, outgoing, bias)
    lengths = torch.linalg.vector_norm(vectors, dim=-1)
    free = lengths >= vanish * lengths.amax(-1, keepdim=True)
    vanished = (~free).sum(-1)
    close = neuron_distances(vectors) < identical
    group = torch.full_like(free, -1, dtype=torch.int64)
    founders = torch.zeros_like(vanished)
    for unit in range(free.shape[-1]):
        founds = free[..., unit, None]
        joins = founds & free & close[..., unit, :]
        group = torch.where(joins, unit, group)
        free = free & ~joins
        founders = founders + founds[..., 0]
    return {"fraction": founders.double() / group.shape[-1], "vanished": vanished, "group": group}
