"""Statistics of claims: intervals over seeds, slopes, rank correlations, bounds and crossings.

Seeds come first: arrays are (seed, ...), and a labelled array with a dimension `seed` is turned by itself.
"""

from dataclasses import dataclass
from math import floor, log10
from typing import Any, NamedTuple

import numpy as np


def seeds_first(values: Any) -> np.ndarray:
    """Return `values` as a float64 array whose first axis is `seed` when it is labelled so."""
    if hasattr(values, "dims") and "seed" in values.dims:
        values = values.transpose("seed", ...)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values, dtype=np.float64)


def number(value: float, digits: int = 3) -> str:
    """Write one number with `digits` significant digits: "6", "0.0119", "2e-4", "15.8"."""
    value = float(value)
    if not np.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0 or (value == int(value) and size < 1e6):
        return str(int(value))
    if 1e-3 <= size < 1e5:
        decimals = max(0, digits - 1 - floor(log10(size)))
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def plus_minus(value: float, half: float) -> str:
    """Write "0.36 ± 0.08": one digit of the half width, two if it begins with 1."""
    if half == 0:
        return f"{number(value)} ± 0"
    size = max(abs(value), half)
    shift = 0 if 1e-3 <= size < 1e5 else floor(log10(size))
    value, half = value / 10.0**shift, half / 10.0**shift
    place = floor(log10(half))
    decimals = min(6, max(0, -place + (half < 2 * 10.0**place)))
    text = f"{value:.{decimals}f} ± {half:.{decimals}f}"
    return f"({text})e{shift}" if shift else text


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Args:
        value, low, high: the estimate and its ends; floats, or arrays of one shape for many estimates.
        n: number of seeds (repetitions) behind it.
        level: confidence level.
    """

    value: Any
    low: Any
    high: Any
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return self.text(note=f"{self.n} seeds")

    def text(self, unit: str = "", note: str = "") -> str:
        """Write "0.36 ± 0.08 % (note)" if symmetric, else "2 % (1.6 to 2.7; note)"."""
        value, low, high = float(self.value), float(self.low), float(self.high)
        up, down = high - value, value - low
        brackets = f" ({note})" if note else ""
        if not np.isfinite(up + down):
            return f"{number(value)}{unit}{brackets}"
        if abs(up - down) > 0.02 * (up + down):
            ends = f"{number(low)} to {number(high)}"
            return f"{number(value)}{unit} ({'; '.join(filter(None, [ends, note]))})"
        return f"{plus_minus(value, (up + down) / 2)}{unit}{brackets}"


def mean_interval(values: Any, level: float = 0.95, log: bool = False) -> Interval:
    """Student t interval of the mean over seeds.

    Args:
        values: (seed, ...) numbers.
        level: confidence level in (0, 1).
        log: work on logarithms, for ratios: the value is then the geometric mean.

    Returns:
        Interval whose fields have the shape of `values` without its first axis.

    Raises:
        ValueError: with fewer than two seeds, or `log` of a number that is not positive.
    """
    from scipy.special import stdtrit

    values = seeds_first(values)
    n = values.shape[0] if values.ndim else 1
    if n < 2:
        raise ValueError(f"values: an interval needs at least 2 seeds along its first axis, got {n}")
    if log:
        if (values <= 0).any():
            raise ValueError(f"values: log=True needs positive numbers, got {number(values.min())}")
        values = np.log(values)
    centre = values.mean(0)
    half = stdtrit(n - 1, 0.5 + level / 2) * values.std(0, ddof=1) / np.sqrt(n)
    ends = [centre, centre - half, centre + half]
    return Interval(*(np.exp(ends) if log else ends), n=n, level=level)


def paired(a: Any, b: Any, level: float = 0.95, log: bool = False) -> Interval:
    """Student t interval of the difference a - b by seed; with `log`, of the ratio a / b.

    Args:
        a, b: (seed, ...) numbers of one shape, seed by seed the same problem.
    """
    a, b = seeds_first(a), seeds_first(b)
    if a.shape != b.shape:
        raise ValueError(f"a, b: pairs need equal shapes, got {a.shape} and {b.shape}")
    return mean_interval(a / b if log else a - b, level, log)


def bootstrap(
    values: Any, statistic=np.mean, level: float = 0.95, samples: int = 4000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval over seeds, with a fixed seed of its own.

    Args:
        values: (seed, ...) numbers.
        statistic: function of (array, axis), such as np.mean, np.median or `interquartile_mean`.
        samples: number of resamplings.

    Source: Efron and Tibshirani 1993, chapter 13.
    """
    values = seeds_first(values)
    n = values.shape[0] if values.ndim else 1
    if n < 2:
        raise ValueError(f"values: a bootstrap needs at least 2 seeds along its first axis, got {n}")
    rows = np.random.default_rng(seed).integers(n, size=(n, samples))
    drawn = statistic(values[rows], axis=0)
    low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return Interval(statistic(values, axis=0), low, high, n, level)


def binomial(successes: Any, n: int, level: float = 0.95) -> Interval:
    """Wilson interval of a share: `successes` out of `n` trials.

    Source: Wilson 1927, equation for p with the normal quantile z.
    """
    from scipy.special import ndtri

    z = ndtri(0.5 + level / 2)
    share = np.asarray(successes, dtype=np.float64) / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, np.maximum(centre - half, 0), np.minimum(centre + half, 1), n, level)


def interquartile_mean(values: Any, axis: int = 0) -> np.ndarray:
    """Mean of what is left when the lowest and the highest quarter (rounded down) are cut off."""
    values = np.sort(np.asarray(values, dtype=np.float64), axis=axis)
    n = values.shape[axis]
    return np.take(values, range(n // 4, n - n // 4), axis=axis).mean(axis)


@dataclass(frozen=True)
class Slope(Interval):
    """Exponent of a power law y = exp(intercept) x^value, with its interval over seeds.

    Args:
        intercept: natural logarithm of y at x = 1, mean over seeds.
        fit: smallest and largest x used.
        per_seed: (seed,) exponents.
    """

    intercept: float = 0.0
    fit: tuple[float, float] = (0.0, 0.0)
    per_seed: Any = None

    def line(self, x: Any) -> np.ndarray:
        """The fitted power law at `x`."""
        return np.exp(self.intercept) * np.asarray(x, dtype=np.float64) ** self.value


def slope(
    x: Any, y: Any, fit: tuple[float, float] | None = None, level: float = 0.95, seed: int = 0
) -> Slope:
    """Least-squares slope on log-log axes, with a bootstrap interval over seeds.

    The slope of the geometric mean over seeds, which is also the mean of the slopes of the seeds.

    Args:
        x: (point,) positive numbers.
        y: (seed, point) positive numbers, or (point,) for a single curve (then the ends are NaN).
        fit: smallest and largest x to use; all when None.

    Raises:
        ValueError: with fewer than two points in range or numbers that are not positive.
    """
    x, y = np.asarray(x, dtype=np.float64), np.atleast_2d(seeds_first(y))
    if y.shape[-1] != x.shape[0]:
        raise ValueError(f"y: last axis has {y.shape[-1]} points, x has {x.shape[0]}")
    keep = np.ones(x.shape, bool) if fit is None else (x >= fit[0]) & (x <= fit[1])
    if keep.sum() < 2:
        raise ValueError(f"fit: needs at least 2 points of x in {fit}, got {keep.sum()}")
    x, y = x[keep], y[:, keep]
    if (x <= 0).any() or (y <= 0).any():
        raise ValueError("x, y: log-log axes need positive numbers")
    slopes, intercepts = np.polyfit(np.log(x), np.log(y).T, 1)
    low = high = float("nan")
    if len(slopes) > 1:
        ends = bootstrap(slopes, level=level, seed=seed)
        low, high = float(ends.low), float(ends.high)
    span = (float(x.min()), float(x.max()))
    return Slope(slopes.mean(), low, high, len(slopes), level, float(intercepts.mean()), span, slopes)


def spearman(a: Any, b: Any) -> np.ndarray:
    """Spearman rank correlation along the last axis, ties averaged; other axes are kept."""
    from scipy.stats import rankdata

    a, b = (rankdata(seeds_first(v), axis=-1) for v in (a, b))
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def kendall(a: Any, b: Any) -> np.ndarray:
    """Kendall rank correlation tau-b along the last axis; other axes are kept."""
    from scipy.stats import kendalltau

    a, b = np.broadcast_arrays(seeds_first(a), seeds_first(b))
    rows = zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True)
    return np.array([kendalltau(p, q).statistic for p, q in rows]).reshape(a.shape[:-1])


class Bound(NamedTuple):
    """How often a bound is broken: `violations` out of `of`; `worst` is the largest excess."""

    violations: int
    of: int
    worst: float


def bound_check(values: Any, bound: Any, slack: Any = 0.0, side: str = "upper") -> Bound:
    """Count the values beyond a bound by more than `slack`; NaN counts as a violation.

    Args:
        values: any shape.
        bound, slack: numbers, or arrays that broadcast with `values`; in the unit of `values`.
        side: "upper" (values <= bound) or "lower" (values >= bound).
    """
    if side not in ("upper", "lower"):
        raise ValueError(f'side: one of "upper", "lower", got {side!r}')
    excess = np.asarray(values, dtype=np.float64) - np.asarray(bound, dtype=np.float64)
    excess = excess if side == "upper" else -excess
    broken = ~(excess <= slack)
    return Bound(int(broken.sum()), broken.size, float(np.max(excess)))


def crossing(x: Any, a: Any, b: Any = 0.0, log: bool = False) -> np.ndarray:
    """First x at which the curves a and b cross, by linear interpolation; NaN where they do not.

    Args:
        x: (point,) increasing.
        a, b: (..., point); the last axis runs over x. b may be a number (a level).
        log: interpolate in log x.
    """
    x = np.asarray(x, dtype=np.float64)
    gap = np.broadcast_to(seeds_first(a) - seeds_first(b), np.broadcast_shapes(np.shape(a), np.shape(b)))
    scale = np.log(x) if log else x
    left, right = gap[..., :-1], gap[..., 1:]
    change = (left == 0) | (left * right < 0)
    at = np.where(change.any(-1), change.argmax(-1), 0)[..., None]
    low, high = np.take_along_axis(left, at, -1)[..., 0], np.take_along_axis(right, at, -1)[..., 0]
    at = at[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(low == 0, 0.0, low / (low - high))
    found = scale[at] + part * (scale[at + 1] - scale[at])
    found = np.where(change.any(-1), found, np.where(gap[..., -1] == 0, scale[-1], np.nan))
    return np.exp(found) if log else found
