"""One training run, completely described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .states import State

ROLES = ("model", "task", "run")  # initial parameters; data, pool, fixed noise; batch order and fresh noise


@dataclass(frozen=True)
class Experiment:
    """One model, one task, one update rule, with steps, batch, dtype and seed.

    model: an ordinary `nn.Module` without buffers; its parameters are drawn from the seed, not taken from it.
    task: a `reprise.tasks.Task`: data, loss, exact baselines.
    update: a `reprise.updates.Rule`; its numbers may differ by member and may be schedules.
    steps: number of updates, at least 0. batch: examples a step, None for the full batch.
    dtype: torch.float32 or torch.float64. seed: an integer for all three roles, or a mapping with the roles
    "model" (initial parameters), "task" (data) and "run" (batch order and per-step noise).
    start: a `State` to start from instead of fresh parameters.
    Raises TypeError or ValueError naming the argument, before any work starts.
    """

    model: nn.Module
    task: Any
    update: Any
    steps: int
    batch: int | None = None
    dtype: torch.dtype = torch.float32
    seed: int | Mapping[str, int] = 0
    start: State | None = field(default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model: expected a torch.nn.Module, got {_kind(self.model)}")
        buffers = [name for name, _ in self.model.named_buffers()]
        if buffers:
            raise ValueError(
                f"model: modules with buffers are not supported (found {', '.join(buffers[:3])}); "
                "use layer or group norm instead of batch norm"
            )
        for argument, methods in (
            ("task", ("data", "draw", "loss")),
            ("update", ("init", "step", "numbers")),
        ):
            missing = [m for m in methods if not callable(getattr(getattr(self, argument), m, None))]
            if missing:
                value = getattr(self, argument)
                raise TypeError(
                    f"{argument}: {_kind(value)} has no method {missing[0]}(); see reprise.{_HOME[argument]}"
                )
        object.__setattr__(self, "steps", _whole("steps", self.steps, 0))
        if self.batch is not None:
            object.__setattr__(self, "batch", _whole("batch", self.batch, 1))
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype: expected torch.float32 or torch.float64, got {self.dtype!r}")
        if isinstance(self.seed, Mapping):
            unknown = sorted(set(self.seed) - set(ROLES))
            if unknown or set(self.seed) != set(ROLES):
                raise ValueError(
                    f"seed: expected an integer or the roles {', '.join(ROLES)}, got {dict(self.seed)!r}"
                )
            object.__setattr__(
                self, "seed", {role: _whole(f"seed[{role}]", self.seed[role], 0) for role in ROLES}
            )
        else:
            object.__setattr__(self, "seed", _whole("seed", self.seed, 0))
        if self.start is not None and not isinstance(self.start, State):
            raise TypeError(
                "start: expected the State of one member, as trained.states.sel(...) returns it, "
                f"got {_kind(self.start)}"
            )

    def seed_of(self, role: str) -> int:
        """The integer seed of a role: "model", "task" or "run"."""
        return self.seed[role] if isinstance(self.seed, Mapping) else self.seed


_HOME = {"task": "tasks.Task", "update": "updates.Rule"}


def _kind(value: Any) -> str:
    return (
        f"{value!r} ({type(value).__name__})"
        if isinstance(value, int | float | str)
        else type(value).__name__
    )


def _whole(name: str, value: Any, least: int) -> int:
    try:
        whole = int(value)
        good = whole == value and whole >= least and not isinstance(value, bool)
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return whole
