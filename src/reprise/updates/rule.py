"""What an update rule is: its numbers, its program, and numbers given by parameter name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..schedules import Schedule

Number = float | Schedule | Tensor | Mapping[str, float]
State = dict[str, Any]
Gradient = Callable[..., tuple[Tensor, Tensor]]


def is_number(value: object) -> bool:
    """Whether a field's value is a number of a rule, as opposed to a structural option."""
    return isinstance(value, (Real, Schedule, Tensor, Mapping)) and not isinstance(value, bool)


def _smallest_and_largest(value: Number) -> tuple[float, float] | None:
    if isinstance(value, Schedule):
        return None
    if isinstance(value, Tensor):
        return float(value.min()), float(value.max())
    values = [float(v) for v in value.values()] if isinstance(value, Mapping) else [float(value)]
    return min(values), max(values)


@dataclass(frozen=True)
class Rule:
    """Base of the update rules: a frozen dataclass whose fields are numbers, options or another rule.

    A number is a float, a schedule, a tensor (() or (P,)) or a dict {pattern of parameter names: float}; the
    first pattern that matches a name counts. Booleans, strings and None are options: members can be stacked
    only if they agree (`program`). A number in `off_at_zero` that is a plain 0 switches its term off, and
    this too is part of the program.
    """

    off_at_zero: ClassVar[tuple[str, ...]] = ()
    ranges: ClassVar[dict[str, tuple[float, float]]] = {}  # name: smallest allowed, first forbidden

    def __post_init__(self) -> None:
        for name, value in self._named():
            if isinstance(value, Rule) or not is_number(value):
                continue
            low, high = self.ranges.get(name, (0.0, math.inf))
            ends = _smallest_and_largest(value)
            if ends and not (low <= ends[0] and ends[1] < high):
                kind = type(self).__name__
                raise ValueError(f"{kind}: {name} must lie in [{low:g}, {high:g}), got {value!r}")

    def _named(self) -> Iterator[tuple[str, Any]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))

    def _off(self, name: str, value: object) -> bool:
        return name in self.off_at_zero and isinstance(value, Real) and value == 0

    def numbers(self) -> dict[str, Any]:
        """The raw values of all numbers, nested for a wrapped rule; `hyper` mirrors this dict."""
        found: dict[str, Any] = {}
        for name, value in self._named():
            if isinstance(value, Rule):
                found[name] = value.numbers()
            elif is_number(value) and not self._off(name, value):
                found[name] = value
        return found

    @property
    def program(self) -> tuple:
        """What members must share to be stacked: class, options, shape of every number (hashable)."""
        parts: list[tuple[str, Any]] = []
        for name, value in self._named():
            if isinstance(value, Rule):
                parts.append((name, value.program))
            elif not is_number(value):
                parts.append((name, value))
            elif self._off(name, value):
                parts.append((name, "off"))
            else:
                by_parameter = isinstance(value, Mapping) or (isinstance(value, Tensor) and value.ndim > 0)
                parts.append((name, "one a parameter" if by_parameter else "one"))
        return (f"{type(self).__module__}.{type(self).__qualname__}", *parts)

    def init(self, params: Tensor) -> State:
        """The state before the first step, a dict of (M, ...) tensors; params: (M, P)."""
        return {}

    def step(self, params: Tensor, state: State, gradient: Gradient, hyper: Mapping, step: Tensor):
        """One update of all members.

        Args:
            params: (M, P).
            state: what `init` or the last step returned.
            gradient: `gradient(params, batch=None) -> loss (M,), grads (M, P)`.
            hyper: the evaluated `numbers()`; leaves (M, 1) or (M, P), in float64 or the dtype of params.
            step: int64 (), counted from 0.

        Returns:
            params (M, P), state.
        """
        raise NotImplementedError


def expand(
    value: Mapping[str, float],
    layout: Mapping[str, slice | tuple[int, ...]],
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """One number a parameter from numbers by name pattern.

    Args:
        value: {fnmatch pattern: number}; the first pattern that matches a name counts.
        layout: {parameter name: its slice of the flat vector, or its shape (then in this order)}.
        dtype: of the result.

    Returns:
        (P,) tensor.

    Raises:
        ValueError: a pattern matches no parameter, or a parameter is matched by no pattern.
    """
    idle = [pattern for pattern in value if not any(fnmatchcase(name, pattern) for name in layout)]
    if idle:
        raise ValueError(f"patterns {idle} match no parameter; the parameters are {list(layout)}")
    missed = [name for name in layout if not any(fnmatchcase(name, pattern) for pattern in value)]
    if missed:
        raise ValueError(f"parameters {missed} are matched by none of the patterns {list(value)}")
    pieces, at = [], 0
    for name, place in layout.items():
        size = place.stop - place.start if isinstance(place, slice) else math.prod(place)
        if isinstance(place, slice) and place.start != at:
            raise ValueError(f"layout: {name} starts at {place.start}, expected {at}")
        number = next(number for pattern, number in value.items() if fnmatchcase(name, pattern))
        pieces.append(torch.full((size,), float(number), dtype=dtype))
        at += size
    return torch.cat(pieces)
