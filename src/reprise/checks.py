"""A check: something measured, compared with a threshold."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arguments import choose
from .statistics import Interval, mean_interval, seeds_first
from .wording import SIGNS, TRENDS, measured_text, needed, threshold_text

OPS = (*SIGNS, "between", *TRENDS)
OVERS = ("each", "mean", "share", "interval")


@dataclass(frozen=True)
class Check:
    """One comparison of something measured with a threshold.

    Args:
        label: what is measured, in a few words of plain text.
        measured: a number, an array (seed, ...), a labelled array (a dimension `seed` comes first by itself),
            or an `Interval` made elsewhere (paired, bootstrap, slope), which implies over="interval".
        op: ">", ">=", "<", "<=", "equals"; "between" (ends included); "increasing", "decreasing": along the
            last axis, each step by more than the threshold.
        threshold: a number; (low, high) for "between"; for a trend the least step (0 if not given, and with
            `log` the least ratio, 1 if not given).
        over: "each" value passes; the "mean" over the first axis passes; a "share" of at least `at_least`
            members of the first axis pass; the 95 % t "interval" over at least 3 seeds clears the threshold.
        at_least: for "share": a count (7 of 8 seeds) or a share as a float in (0, 1].
        log: judge and average logarithms, for ratios.
        unit: appended to the numbers in the text, such as " %".
        across: what the first axis counts; the name of the first dimension, or "seed".

    Raises:
        ValueError: when an argument is not allowed. NaN is no error: it fails the check and says so.
    """

    label: str
    measured: Any
    op: str
    threshold: Any = None
    over: str = "each"
    at_least: int | float | None = None
    log: bool = False
    unit: str = ""
    across: str | None = None
    state: str = field(init=False, default="not tested")
    reason: str = field(init=False, default="")
    interval: Interval | None = field(init=False, default=None)
    _values: np.ndarray | None = field(init=False, default=None, repr=False)
    _passing: int = field(init=False, default=0, repr=False)

    @classmethod
    def not_tested(cls, label: str, reason: str) -> "Check":
        """A check that this scale, or this run, cannot make; `reason` says why."""
        if not reason:
            raise ValueError(f"reason: say why {label!r} is not tested")
        check = object.__new__(cls)
        plain = dict(measured=None, op="", threshold=None, over="each", at_least=None, log=False, unit="")
        for name, value in dict(plain, label=label, across=None, reason=reason).items():
            object.__setattr__(check, name, value)
        for name, value in dict(state="not tested", interval=None, _values=None, _passing=0).items():
            object.__setattr__(check, name, value)
        return check

    def __post_init__(self) -> None:
        choose("op", self.op, OPS)
        choose("over", self.over, OVERS)
        if isinstance(self.measured, Interval):
            self._set(over="interval", interval=self.measured, across=self.across or "seed")
            if self.op in TRENDS:
                raise ValueError(f"op: {self.op!r} needs an array, not an Interval")
        else:
            values = seeds_first(self.measured)
            dims = getattr(self.measured, "dims", ())
            first = "seed" if "seed" in dims or not dims else str(dims[0])
            self._set(_values=np.atleast_1d(values), across=self.across or first.replace("_", " "))
        self._validate()
        self._judge()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _validate(self) -> None:
        n = self.interval.n if self._values is None else len(self._values)
        least = {"each": 1, "mean": 2, "share": 2, "interval": 3}[self.over]
        single_trend = self.op in TRENDS and self._values.ndim == 1
        if single_trend and self.over != "each":
            raise ValueError(f"measured: a trend over={self.over!r} needs shape (seed, point), got one curve")
        if n < least:
            raise ValueError(
                f"measured: over={self.over!r} needs at least {least} values, got {n} ({self.label})"
            )
        if self.op in TRENDS and self._values.shape[-1] < 2:
            raise ValueError(
                f"measured: {self.op!r} needs at least 2 points along the last axis ({self.label})"
            )
        if (self.over == "share") != (self.at_least is not None):
            raise ValueError(f"at_least: goes with over='share' and only with it, got {self.at_least!r}")
        if self.over == "share":
            most = 1.0 if isinstance(self.at_least, float) else n
            if not 0 < self.at_least <= most:
                raise ValueError(
                    f"at_least: a count of at most {n} or a share in (0, 1], got {self.at_least!r}"
                )
        if self.over == "interval" and self.op == "equals":
            raise ValueError("op: an interval cannot equal a number; use 'between'")
        if self.op in TRENDS and self.threshold is None:
            self._set(threshold=1.0 if self.log else 0.0)
        size = 2 if self.op == "between" else 1
        limits = np.atleast_1d(np.asarray(self.threshold, dtype=np.float64))
        if limits.shape != (size,) or np.isnan(limits).any() or (np.diff(limits) < 0).any():
            wanted = "(low, high)" if size == 2 else "one number"
            raise ValueError(f"threshold: {wanted} for {self.op!r}, got {self.threshold!r}")
        if self.log and (limits <= 0).any():
            raise ValueError(f"threshold: log=True needs positive numbers, got {self.threshold!r}")

    def _inside(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Whether `values` respect the lower limit, and the upper one."""
        limits = np.atleast_1d(np.asarray(self.threshold, dtype=np.float64))
        limits = np.log(limits) if self.log else limits
        values, always = np.asarray(values), np.ones(np.shape(values), bool)
        match self.op:
            case ">" | "increasing" | "decreasing":
                return values > limits[0], always
            case ">=":
                return values >= limits[0], always
            case "<":
                return always, values < limits[0]
            case "<=":
                return always, values <= limits[0]
            case _:
                return values >= limits[0], values <= limits[-1]

    def _judge(self) -> None:
        if self._values is None:
            ends = np.array([self.interval.low, self.interval.high], dtype=np.float64)
            if not np.isfinite(ends).all():
                return self._set(state="failed", reason="the interval is not finite")
            return self._clear(*(np.log(ends) if self.log else ends))
        values = self._values
        if (missing := int(np.isnan(values).sum())) > 0:
            return self._set(state="failed", reason=f"{missing} of {values.size} values are NaN")
        if self.log and (values <= 0).any():
            return self._set(state="failed", reason="a ratio is not positive")
        values = np.log(values) if self.log else values
        if self.op in TRENDS:
            values = TRENDS[self.op] * np.diff(np.atleast_2d(values), axis=-1)
        if self.over in ("mean", "interval") and not np.isfinite(values).all():
            return self._set(state="failed", reason="a value is infinite")
        passing = np.logical_and(*self._inside(values))
        self._set(_passing=int(passing.reshape(len(values), -1).all(-1).sum()))
        if len(values) >= 3 and self.over in ("mean", "interval"):
            spread = mean_interval(values)
            if self.op not in TRENDS and spread.value.ndim == 0:
                back = np.exp if self.log else float
                self._set(interval=Interval(*map(back, (spread.value, spread.low, spread.high)), n=spread.n))
        if self.over == "interval":
            return self._clear(spread.low, spread.high)
        if self.over == "mean":
            ok = np.logical_and(*self._inside(values.mean(0))).all()
        else:
            ok = self._passing >= needed(self.at_least, len(values))
        self._set(state="passed" if ok else "failed")

    def _clear(self, low: Any, high: Any) -> None:
        low_ends, high_ends = self._inside(low), self._inside(high)
        if all(np.all(part) for part in (*low_ends, *high_ends)):
            return self._set(state="passed")
        wrong = np.any(~high_ends[0] | ~low_ends[1])
        self._set(state="failed" if wrong else "straddles")

    @property
    def passed(self) -> bool | None:
        """True or False (also when the interval straddles); None when not tested."""
        return None if self.state == "not tested" else self.state == "passed"

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON: label, texts, passed, state, reason, interval, and at most 64 values."""
        values = [] if self._values is None or self._values.size > 64 else self._values.ravel().tolist()
        ends = self.interval and [float(self.interval.low), float(self.interval.high)]
        return {
            "label": self.label,
            "measured": self.measured_text,
            "threshold": self.threshold_text,
            "passed": self.passed,
            "state": self.state,
            "reason": self.reason,
            "interval": ends if ends and np.isfinite(ends).all() else None,
            "values": [v if np.isfinite(v) else None for v in values],
        }

    @property
    def measured_text(self) -> str:
        """What was measured, for people: "6 6 6 6", "0.36 ± 0.08 (4 seeds)"."""
        return measured_text(self)

    @property
    def threshold_text(self) -> str:
        """What was asked, for people: "≥ 3 in each seed", "95 % interval > 2"."""
        return threshold_text(self)
