"""Gradient descent and the adaptive rules, as in `torch.optim`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .rule import Number, Rule, State


def _decayed(grads: Tensor, params: Tensor, hyper: Mapping) -> Tensor:
    if "weight_decay" not in hyper:
        return grads
    return torch.addcmul(grads, params, hyper["weight_decay"].to(params.dtype))


@dataclass(frozen=True)
class SGD(Rule):
    """Gradient descent with momentum and coupled decay.

    g <- g + weight_decay * theta;  b <- momentum * b + g;  theta <- theta - lr * b, or, with nesterov,
    theta - lr * (g + momentum * b). This is torch's recursion: b starts as the first g and does not contain
    lr. A plain momentum 0 keeps no buffer.
    """

    lr: Number = 0.1
    momentum: Number = 0.0
    nesterov: bool = False
    weight_decay: Number = 0.0

    off_at_zero = ("momentum", "weight_decay")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and self._off("momentum", self.momentum):
            raise ValueError("SGD: nesterov needs momentum above 0")

    def init(self, params: Tensor) -> State:
        return {} if self._off("momentum", self.momentum) else {"momentum": torch.zeros_like(params)}

    def step(self, params, state, gradient, hyper, step):
        _, grads = gradient(params)
        move = grads = _decayed(grads, params, hyper)
        if "momentum" in hyper:
            momentum = hyper["momentum"].to(params.dtype)
            move = torch.addcmul(grads, state["momentum"], momentum)
            state = {"momentum": move}
            if self.nesterov:
                move = torch.addcmul(grads, move, momentum)
        return torch.addcmul(params, hyper["lr"].to(params.dtype), move, value=-1), state


@dataclass(frozen=True)
class Adam(Rule):
    """Adam (Kingma & Ba, ICLR 2015) with coupled decay, as `torch.optim.Adam`.

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  theta <- theta - lr * mhat / (sqrt(vhat) + eps), with
    mhat = m / (1 - b1^t), vhat = v / (1 - b2^t) and t the number of updates this state has seen.
    In `numbers` and `hyper` the two betas are called "beta1" and "beta2".
    """

    lr: Number = 1e-3
    betas: tuple[Number, Number] = (0.9, 0.999)
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    off_at_zero = ("weight_decay",)
    ranges = {"beta1": (0.0, 1.0), "beta2": (0.0, 1.0)}

    def _named(self) -> Iterator[tuple[str, Any]]:
        for name, value in super()._named():
            if name == "betas":
                if not isinstance(value, (tuple, list)) or len(value) != 2:
                    raise ValueError(f"{type(self).__name__}: betas must be a pair of numbers, got {value!r}")
                yield from zip(("beta1", "beta2"), value, strict=True)
            else:
                yield name, value

    def init(self, params: Tensor) -> State:
        count = torch.zeros((params.shape[0], 1), dtype=torch.int64, device=params.device)
        return {"count": count, "mean": torch.zeros_like(params), "square": torch.zeros_like(params)}

    def step(self, params, state, gradient, hyper, step):
        _, grads = gradient(params)
        return self._move(params, state, _decayed(grads, params, hyper), hyper)

    def _move(self, params: Tensor, state: State, grads: Tensor, hyper: Mapping) -> tuple[Tensor, State]:
        dtype = params.dtype
        beta1, beta2, count = hyper["beta1"], hyper["beta2"], state["count"] + 1
        mean = torch.lerp(state["mean"], grads, (1 - beta1).to(dtype))
        square = torch.lerp(state["square"], grads * grads, (1 - beta2).to(dtype))  # 1 - b2 before rounding
        # the quotient is expanded by sqrt(1 - b2^t), so that few operations touch all parameters
        unbias = torch.sqrt(1 - beta2**count)
        rate = (hyper["lr"] * unbias / (1 - beta1**count)).to(dtype)
        scale = square.sqrt().add_((hyper["eps"] * unbias).to(dtype)).div_(rate)  # infinite where lr is 0
        params = torch.addcdiv(params, mean, scale, value=-1)
        return params, {"count": count, "mean": mean, "square": square}


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled decay, theta <- (1 - lr * weight_decay) theta first, as `torch.optim.AdamW`."""

    weight_decay: Number = 0.01

    def step(self, params, state, gradient, hyper, step):
        _, grads = gradient(params)
        if "weight_decay" in hyper:
            params = params * (1 - hyper["lr"] * hyper["weight_decay"]).to(params.dtype)
        return self._move(params, state, grads, hyper)


@dataclass(frozen=True)
class RMSProp(Rule):
    """v <- alpha v + (1 - alpha) g^2;  theta <- theta - lr * g / (sqrt(v) + eps), as in `torch.optim`."""

    lr: Number = 1e-2
    alpha: Number = 0.99
    eps: Number = 1e-8
    weight_decay: Number = 0.0

    off_at_zero = ("weight_decay",)
    ranges = {"alpha": (0.0, 1.0)}

    def init(self, params: Tensor) -> State:
        return {"square": torch.zeros_like(params)}

    def step(self, params, state, gradient, hyper, step):
        dtype = params.dtype
        _, grads = gradient(params)
        grads = _decayed(grads, params, hyper)
        square = torch.lerp(state["square"], grads * grads, (1 - hyper["alpha"]).to(dtype))
        scale = square.sqrt().add_(hyper["eps"].to(dtype)).div_(hyper["lr"].to(dtype))
        return torch.addcdiv(params, grads, scale, value=-1), {"square": square}
