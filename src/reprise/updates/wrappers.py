"""Rules around a rule: they change the gradient that the inner rule sees, or the parameters it may move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .rule import Number, Rule, State


@dataclass(frozen=True)
class Wrapper(Rule):
    """A rule around `rule`; its state is the inner rule's."""

    rule: Rule

    def init(self, params: Tensor) -> State:
        return self.rule.init(params)


@dataclass(frozen=True)
class SAM(Wrapper):
    """Sharpness-aware minimisation (Foret et al., ICLR 2021) around any rule.

    The inner rule sees the gradient at theta + radius * g / |g|, or theta + radius * g if not `normalised`,
    with g the gradient at theta on the same batch and |g| the norm of each member alone. A zero gradient
    leaves the point. With a radius by parameter name, parameters of radius 0 do not count in |g|. The loss
    returned to the inner rule is that at theta.
    """

    radius: Number = 0.05
    normalised: bool = True

    def step(self, params, state, gradient, hyper, step):
        radius = hyper["radius"].to(params.dtype)

        def ascended(point: Tensor, batch=None) -> tuple[Tensor, Tensor]:
            loss, grads = gradient(point, batch)
            if self.normalised:
                counted = grads if radius.shape[-1] == 1 else grads * (radius != 0)
                norm = torch.linalg.vector_norm(counted, dim=-1, keepdim=True)
                grads = grads / torch.where(norm > 0, norm, 1)
            return loss, gradient(torch.addcmul(point, radius, grads), batch)[1]

        return self.rule.step(params, state, ascended, hyper["rule"], step)


@dataclass(frozen=True)
class Clipped(Wrapper):
    """Clip the gradient to a largest norm, each member by its own, before momentum and decay.

    g <- g * min(1, norm / (|g| + 1e-6)), as `torch.nn.utils.clip_grad_norm_`.
    """

    norm: Number = 1.0

    def step(self, params, state, gradient, hyper, step):
        largest = hyper["norm"].to(params.dtype)

        def clipped(point: Tensor, batch=None) -> tuple[Tensor, Tensor]:
            loss, grads = gradient(point, batch)
            norm = torch.linalg.vector_norm(grads, dim=-1, keepdim=True)
            return loss, grads * (largest / (norm + 1e-6)).clamp(max=1)

        return self.rule.step(params, state, clipped, hyper["rule"], step)


@dataclass(frozen=True)
class Masked(Wrapper):
    """Hold some parameters at exactly zero: parameters, gradient and hence momentum and decay are masked.

    mask: (P,) tensor, one a member, True (or 1) where a parameter lives; or a dict {name pattern: 1 or 0}. As
    the outermost wrapper it also keeps pruned entries out of the norms of SAM and Clipped. A mask is kept as
    zeros and ones: a product is far faster than a choice.
    """

    mask: Number = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.mask, Tensor):
            object.__setattr__(self, "mask", self.mask.to(torch.get_default_dtype()))
        values = self.mask.values() if isinstance(self.mask, Mapping) else [self.mask]
        if not all(bool(((v == 0) | (v == 1)).all()) for v in map(torch.as_tensor, values)):
            raise ValueError("Masked: mask must consist of zeros and ones")

    def step(self, params, state, gradient, hyper, step):
        alive = hyper["mask"].to(params.dtype)

        def masked(point: Tensor, batch=None) -> tuple[Tensor, Tensor]:
            loss, grads = gradient(point, batch)
            return loss, grads * alive

        params, state = self.rule.step(params * alive, state, masked, hyper["rule"], step)
        return params * alive, state
