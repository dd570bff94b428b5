"""Curvature of one member's loss: products with the Hessian, their largest eigenpairs, sharpness.

All functions take `loss: (P,) -> scalar` and `vector: (P,)`, and run under `torch.vmap` over members and
under tracing: no Python branch looks at a value. Sharpness is the largest *algebraic* eigenvalue of the
Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from .products import Loss, Operator, double_backward
from .streams import Stream


def hessian_operator(loss: Loss, vector: Tensor) -> Operator:
    """The Hessian of the loss at the vector, as a map of the rows of (n, P).

    A loss may bring a traced form of it, as the training loss of a snapshot does (`loss.hessian(vector)`).
    """
    own = loss.hessian(vector) if hasattr(loss, "hessian") else None
    return own or double_backward(loss, vector)


def hvp(loss: Loss, vector: Tensor, directions: Tensor) -> Tensor:
    """Hessian-vector products; directions: (P,) or a block (n, P), the result has the same shape."""
    products = hessian_operator(loss, vector)(directions.reshape(-1, vector.shape[0]))
    return products.reshape(directions.shape)


def gauss_newton_operator(outputs: Loss, output_loss: Loss, vector: Tensor) -> Operator:
    """The Gauss-Newton matrix J' H_out J as a map of the rows of (n, P).

    Args:
        outputs: (P,) -> outputs of any shape, J its Jacobian.
        output_loss: outputs -> scalar, H_out its Hessian.
        vector: (P,).
    """
    values, pull = vjp(outputs, vector)
    curve = vjp(grad(output_loss), values)[1]
    push = vjp(lambda cotangent: pull(cotangent)[0], torch.zeros_like(values))[1]  # the transpose of J' is J
    return lambda block: vmap(lambda row: pull(curve(push(row)[0])[0])[0])(block)


def hessian(loss: Loss, vector: Tensor) -> Tensor:
    """The exact Hessian, (P, P), by P double backward passes."""
    return hessian_operator(loss, vector)(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))


def gauss_newton(outputs: Loss, output_loss: Loss, vector: Tensor) -> Tensor:
    """The exact Gauss-Newton matrix J' H_out J, (P, P); arguments as in `gauss_newton_operator`."""
    values, pull = vjp(outputs, vector)
    if values.numel() > 3 * len(vector):
        operator = gauss_newton_operator(outputs, output_loss, vector)
        return operator(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))
    # a backward pass for each output is cheaper than a product for each parameter, which takes three
    rows = torch.eye(values.numel(), dtype=values.dtype, device=values.device).reshape(-1, *values.shape)
    jacobian = vmap(lambda row: pull(row)[0])(rows)
    curve = vjp(grad(output_loss), values)[1]
    return vmap(lambda column: curve(column.reshape(values.shape))[0].flatten())(jacobian.T) @ jacobian


def directional_curvature(loss: Loss, vector: Tensor, direction: Tensor) -> Tensor:
    """d' H d / |d|^2 along a direction (P,), or along each row of (n, P); NaN for a zero direction."""
    products = hvp(loss, vector, direction)
    return (direction * products).sum(-1) / direction.square().sum(-1)


class EigenPairs(NamedTuple):
    """Ritz values (k,) in falling algebraic order, unit vectors (k, P), residuals |A v - value v| (k,)."""

    values: Tensor
    vectors: Tensor
    residuals: Tensor


def _orthonormal_rows(recent: list[Tensor], basis: list[Tensor], block: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of block made orthonormal to the basis and to each other; a dependent row becomes 0.

    recent: the rows of the basis that the block is not already nearly orthogonal to.
    """
    tiny = torch.finfo(block.dtype).tiny
    rows, alive = [], []
    for row in block.unbind(0):
        # twice is enough: the second pass takes little from an independent row
        for rest in (recent, basis):
            known = [*rest, torch.stack(rows)] if rows else rest
            shares = [some @ row for some in known]
            for some, share in zip(known, shares, strict=True):
                row = torch.addmv(row, some.mT, share, alpha=-1)
            norm = torch.linalg.vector_norm(row)
            row = row / norm.clamp(min=tiny)
        alive.append(norm > 0.5)
        rows.append(torch.where(alive[-1], row, 0))
    return torch.stack(rows), torch.stack(alive)


def _append(parts: list[Tensor], block: Tensor) -> None:
    """Add rows to a basis held in parts, each longer than the next: few parts, and rows are rarely copied."""
    parts.append(block)
    while len(parts) > 1 and len(parts[-2]) <= len(parts[-1]):
        parts[-2:] = [torch.cat(parts[-2:])]


def ritz_pairs(operator: Operator, start: Tensor, k: int, iterations: int) -> EigenPairs:
    """The k algebraically largest Ritz pairs of a symmetric operator on a block Krylov space.

    Block Lanczos with full reorthogonalisation and Rayleigh-Ritz on span(X, AX, ..., A^(iterations-1) X). The
    space does not change when a multiple of the identity is added to A, hence large negative eigenvalues do
    not hide the algebraically largest one, as they do from power iteration. The space never exceeds P
    dimensions; when it reaches P the pairs are exact. It holds k * iterations vectors: call it again from its
    own vectors to go on in little memory.

    Args:
        operator: (n, P) -> (n, P), symmetric.
        start: (b, P) starting block X, for instance the vectors of the last call.
        k: number of pairs, at most b * iterations.
        iterations: number of products with a block.

    Returns:
        EigenPairs; NaN values where the space had fewer than k dimensions or the operator was not finite.
    """
    size = start.shape[-1]
    if not 1 <= k <= min(size, len(start) * iterations):
        raise ValueError(f"k: expected 1 to {min(size, len(start) * iterations)} pairs, got {k}")
    parts: list[Tensor] = []
    recent: list[Tensor] = []  # an image has components along its block, the one before and the one after
    images, alive, block, found = [], [], start, 0
    while found < min(size, len(start) * iterations):
        block, fresh = _orthonormal_rows(recent, parts, block[: size - found])
        _append(parts, block)
        recent = [*recent[-1:], block]
        found += len(block)
        block = operator(block)
        images.append(block)
        alive.append(fresh)
    basis, image, alive = torch.cat(parts), torch.cat(images), torch.cat(alive)
    small = basis @ image.T
    finite = torch.isfinite(small).all()
    small = torch.where(finite, (small + small.T) / 2, 0)
    # dimensions that do not exist get a value below all others
    floor = -2 * (torch.linalg.matrix_norm(small) + 1)
    values, mixing = torch.linalg.eigh(small + torch.diag_embed(torch.where(alive, 0, floor)))
    values, mixing = values.flip(-1)[:k], mixing.flip(-1)[:, :k].T
    vectors = mixing @ basis
    residuals = torch.linalg.vector_norm(mixing @ image - values[:, None] * vectors, dim=-1)
    real = finite & (values > floor / 2)
    return EigenPairs(torch.where(real, values, torch.nan), vectors, torch.where(real, residuals, torch.nan))


def _random_block(k: int, vector: Tensor) -> Tensor:
    return Stream.of(0, "probe", vector.device).normal("eigenvectors", (k, len(vector)), vector.dtype)


def top_eigenpairs(
    loss: Loss, vector: Tensor, k: int = 1, iterations: int = 20, start: Tensor | None = None
) -> EigenPairs:
    """The k algebraically largest eigenpairs of the Hessian of a loss.

    Args:
        loss: (P,) -> scalar.
        vector: (P,).
        k: number of pairs.
        iterations: products of the Hessian with a block of k vectors; 3 to 5 do from a warm start.
        start: (k, P) warm start; a fixed random block if None.

    Returns:
        EigenPairs, see `ritz_pairs`. A residual bounds the distance of its value to the nearest eigenvalue.
    """
    start = _random_block(k, vector) if start is None else start
    return ritz_pairs(hessian_operator(loss, vector), start, k, iterations)


def lanczos(operator: Operator, start: Tensor, iterations: int) -> EigenPairs:
    """All Ritz pairs of a symmetric operator from one starting vector (P,), with full reorthogonalisation."""
    iterations = min(iterations, len(start))
    return ritz_pairs(operator, start[None], iterations, iterations)


@dataclass(frozen=True)
class Sharpness:
    """Probe with memory: the k largest Hessian eigenvalues of the full training loss, warm-started.

    The memory is the block of eigenvectors (k, P). The first one comes from `first` products with a block
    drawn from the member's probe stream.
    """

    k: int = 1
    iterations: int = 5
    first: int = 30

    @property
    def products(self) -> int:
        """Products with the Hessian in a visit."""
        return self.k * self.iterations

    def init(self, snapshot) -> Tensor:
        vector = snapshot.vector
        start = snapshot.stream.normal("eigenvectors", (self.k, len(vector)), vector.dtype)
        return top_eigenpairs(snapshot.loss_at, vector, self.k, self.first, start).vectors

    def __call__(self, snapshot, memory: Tensor) -> tuple[dict, Tensor]:
        pairs = top_eigenpairs(snapshot.loss_at, snapshot.vector, self.k, self.iterations, memory)
        values = pairs.values[0] if self.k == 1 else (("eig",), pairs.values)
        return {"sharpness": values}, pairs.vectors


def sharpness(k: int = 1, iterations: int = 5) -> Sharpness:
    """The k algebraically largest Hessian eigenvalues as a probe, `iterations` products a visit."""
    return Sharpness(k, iterations)
