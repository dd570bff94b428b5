"""When a probe measures: schedules are given from outside, so that a probe stays an ordinary function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scheduled:
    """A probe and the steps at which it measures. Step t means: after t updates."""

    probe: Callable[..., Any]
    kind: str
    when: tuple[int, ...]

    def steps(self, total: int) -> list[int]:
        """The measuring steps of a run of `total` updates, ascending, each from 0 to total."""
        if self.kind == "every":
            return sorted({*range(0, total + 1, self.when[0]), total})
        if self.kind == "logspaced":
            count = self.when[0]
            top = max(total, 1)
            return sorted(
                {0, total, *(round(top ** (i / (count - 1))) for i in range(count))} & set(range(total + 1))
            )
        if self.kind == "end":
            return [total]
        return [step for step in self.when if step <= total]


def every(k: int, probe: Callable[..., Any]) -> Scheduled:
    """Measure after 0, k, 2k, ... updates, and at the end."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"every: expected a whole number of steps of at least 1, got {k!r}")
    return Scheduled(_checked("every", probe), "every", (k,))


def at(steps: Iterable[int], probe: Callable[..., Any]) -> Scheduled:
    """Measure after exactly these numbers of updates; those beyond a member's end are left out."""
    steps = tuple(sorted(set(steps)))
    if not steps or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in steps):
        raise ValueError(f"at: expected whole steps of at least 0, got {list(steps)!r}")
    return Scheduled(_checked("at", probe), "at", steps)


def logspaced(n: int, probe: Callable[..., Any]) -> Scheduled:
    """Measure at about n steps evenly spaced in the logarithm, with step 0 and the end."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 2:
        raise ValueError(f"logspaced: expected at least 2 steps, got {n!r}")
    return Scheduled(_checked("logspaced", probe), "logspaced", (n,))


def end(probe: Callable[..., Any]) -> Scheduled:
    """Measure once, after the last update; the record has no step dimension for it."""
    return Scheduled(_checked("end", probe), "end", ())


def _checked(schedule: str, probe: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(probe):
        raise TypeError(f"{schedule}: expected a probe, a function of a snapshot, got {type(probe).__name__}")
    return probe
