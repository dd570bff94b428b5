"""Schedules: a number of an update rule as a pure function of (step, total).

`step` counts from 0 and may be an int or a tensor of any shape; `total` is the number of steps of the run.
The value is a float64 tensor of the shape of `step`. A warm-up over n steps is value * step / n: 0 at step 0,
the full value at step n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def _float(x: Tensor | float) -> Tensor:
    return x.to(torch.float64) if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)


def _check(condition: bool, schedule: Schedule, message: str) -> None:
    if not condition:
        raise ValueError(f"{schedule!r}: {message}")


def _warm(step: Tensor, steps: int) -> Tensor:
    return (step / steps).clamp(max=1.0) if steps > 0 else torch.ones_like(step)


class Schedule:
    """Base of the schedules; call it as `schedule(step, total) -> float64 tensor`."""

    def __call__(self, step: Tensor | int, total: Tensor | int) -> Tensor:
        return self.at(_float(step), _float(total))

    def at(self, step: Tensor, total: Tensor) -> Tensor:
        """The value at step of total, both float64 tensors."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same value at every step."""

    value: float

    def at(self, step, total):
        return torch.full_like(step, self.value)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Linear from 0 to the value over `steps` steps, then constant."""

    value: float
    steps: int

    def __post_init__(self):
        _check(self.steps >= 1, self, "steps must be at least 1")

    def at(self, step, total):
        return self.value * _warm(step, self.steps)


@dataclass(frozen=True)
class WarmupCosine(Schedule):
    """Linear warm-up over `steps` steps, then half a cosine down to value * floor at step total."""

    value: float
    steps: int = 0
    floor: float = 0.0

    def __post_init__(self):
        _check(self.steps >= 0, self, "steps must not be negative")
        _check(0 <= self.floor <= 1, self, "floor is a share of the value, from 0 to 1")

    def at(self, step, total):
        progress = ((step - self.steps) / (total - self.steps).clamp(min=1)).clamp(0, 1)
        cosine = self.floor + (1 - self.floor) * 0.5 * (1 + torch.cos(math.pi * progress))
        return self.value * _warm(step, self.steps) * cosine


@dataclass(frozen=True)
class Triangle(Schedule):
    """Linear from 0 to the peak over the share `rise` of all steps, then linear to 0 at step total."""

    peak: float
    rise: float = 0.5

    def __post_init__(self):
        _check(0 < self.rise < 1, self, "rise is a share of all steps, between 0 and 1")

    def at(self, step, total):
        top = self.rise * total
        return self.peak * torch.minimum(step / top, (total - step) / (total - top)).clamp(min=0)


@dataclass(frozen=True)
class LinearDecay(Schedule):
    """Linear from the value at step 0 to value * floor at step total."""

    value: float
    floor: float = 0.0

    def __post_init__(self):
        _check(0 <= self.floor <= 1, self, "floor is a share of the value, from 0 to 1")

    def at(self, step, total):
        return self.value * (1 - (1 - self.floor) * (step / total).clamp(max=1))


@dataclass(frozen=True)
class Drops(Schedule):
    """The value, multiplied by `factor` at each of some steps, after an optional linear warm-up.

    Give the drops as `fractions` of all steps (rounded to a step) or as `steps`; a drop at step n acts from
    step n on.
    """

    value: float
    fractions: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    factor: float = 0.1
    warmup: int = 0

    def __post_init__(self):
        _check(bool(self.fractions) != bool(self.steps), self, "give either fractions or steps of the drops")
        _check(all(0 < f < 1 for f in self.fractions), self, "fractions lie between 0 and 1")
        _check(all(n >= 0 for n in self.steps), self, "steps must not be negative")
        _check(self.warmup >= 0, self, "warmup must not be negative")

    def at(self, step, total):
        value = self.value * _warm(step, self.warmup)
        for place in [torch.round(f * total) for f in self.fractions] + list(self.steps):
            value = torch.where(step >= place, value * self.factor, value)
        return value


@dataclass(frozen=True)
class InverseTime(Schedule):
    """value / (step + offset)."""

    value: float
    offset: float = 1.0

    def __post_init__(self):
        _check(self.offset > 0, self, "offset must be above 0")

    def at(self, step, total):
        return self.value / (step + self.offset)


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """value / sqrt(step + 1)."""

    value: float

    def at(self, step, total):
        return self.value / torch.sqrt(step + 1)
