"""Statistics against SciPy, closed forms and brute-force loops."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from reprise import statistics as st

rng = np.random.default_rng(3)


def test_mean_interval_is_scipys_t_interval():
    values = rng.normal(size=(5, 3))
    ours = st.mean_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=values.mean(0), scale=stats.sem(values))
    np.testing.assert_allclose([ours.low, ours.high], [low, high])
    assert ours.n == 5 and ours.value.shape == (3,)


def test_log_interval_is_the_interval_of_logs():
    values = rng.uniform(1, 4, size=6)
    low, high = stats.t.interval(0.95, 5, loc=np.log(values).mean(), scale=stats.sem(np.log(values)))
    ours = st.mean_interval(values, log=True)
    theirs = [stats.gmean(values), np.exp(low), np.exp(high)]
    np.testing.assert_allclose([ours.value, ours.low, ours.high], theirs)
    with pytest.raises(ValueError, match="positive"):
        st.mean_interval([1.0, -1.0], log=True)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        st.mean_interval([1.0])


def test_labelled_arrays_find_their_seeds():
    values = xr.DataArray(rng.normal(size=(2, 4)), dims=("lr", "seed"))
    np.testing.assert_allclose(st.mean_interval(values).value, values.mean("seed"))


def test_paired_interval_is_scipys_paired_t_test():
    a, b = rng.normal(size=(2, 7))
    ours, theirs = st.paired(a, b), stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high])
    with pytest.raises(ValueError, match="equal shapes"):
        st.paired(a, b[:3])


@pytest.mark.parametrize("statistic", [np.mean, np.median, st.interquartile_mean])
def test_bootstrap_agrees_with_scipys_percentile_bootstrap(statistic):
    values = rng.normal(size=30)
    ours = st.bootstrap(values, statistic, samples=20000)
    theirs = stats.bootstrap(
        (values,), statistic, n_resamples=20000, method="percentile", vectorized=True, rng=1
    ).confidence_interval
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=0.03)
    assert st.bootstrap(values, statistic).low == st.bootstrap(values, statistic).low


def test_binomial_is_scipys_wilson_interval():
    for k in (0, 3, 10):
        theirs = stats.binomtest(k, 10).proportion_ci(method="wilson")
        ours = st.binomial(k, 10)
        np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=1e-12)


def test_interquartile_mean_is_the_trimmed_mean():
    values = rng.normal(size=(13, 2))
    np.testing.assert_allclose(st.interquartile_mean(values), stats.trim_mean(values, 0.25))


def test_slope_finds_a_power_law_in_its_range():
    x = np.geomspace(1, 100, 9)
    y = 3 * x**-1.5 * np.where(x > 30, 5, 1) * np.exp(rng.normal(size=(6, 9)) * 1e-3)
    fitted = st.slope(x, y, fit=(1, 30))
    np.testing.assert_allclose([fitted.value, fitted.low, fitted.high], -1.5, atol=2e-3)
    assert fitted.fit == (1.0, x[x <= 30].max())
    np.testing.assert_allclose(fitted.line(2.0), 3 * 2**-1.5, rtol=0.01)
    theirs = stats.linregress(np.log(x), np.log(y).mean(0)).slope
    assert st.slope(x, y).value == pytest.approx(theirs)
    assert np.isnan(st.slope(x, y[0]).low)
    with pytest.raises(ValueError, match="at least 2 points"):
        st.slope(x, y, fit=(200, 300))


def test_rank_correlations_are_scipys_row_by_row():
    a, b = rng.integers(5, size=(2, 3, 20))
    for ours, theirs in ((st.spearman, stats.spearmanr), (st.kendall, stats.kendalltau)):
        np.testing.assert_allclose(ours(a, b), [theirs(p, q).statistic for p, q in zip(a, b, strict=True)])


def test_bound_check_counts_with_slack():
    assert st.bound_check([1.0, 2.0, 3.5], 2.0, slack=1.0) == (1, 3, 1.5)
    assert st.bound_check([1.0, 2.0], 3.0, side="lower").violations == 2
    assert st.bound_check([np.nan], 3.0).violations == 1
    with pytest.raises(ValueError, match="side"):
        st.bound_check([1.0], 1.0, side="left")


def test_crossing_of_lines_and_of_power_laws():
    x = np.arange(5.0)
    np.testing.assert_allclose(st.crossing(x, np.stack([x, x]), np.stack([3.5 - x, 10 + x])), [1.75, np.nan])
    assert st.crossing(x, x, 4.0) == 4.0
    x = np.geomspace(1, 64, 4)
    assert st.crossing(x, np.log(x), np.log(10.0), log=True) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "value, text",
    [(6, "6"), (0.011912, "0.0119"), (2e-4, "2e-4"), (15.8116, "15.8"), (0.3, "0.3"), (123456.7, "1.23e5")],
)
def test_numbers_have_sensible_digits(value, text):
    assert st.number(value) == text


def test_intervals_read_well():
    assert str(st.Interval(0.3612, 0.2812, 0.4412, 4)) == "0.36 ± 0.08 (4 seeds)"
    assert str(st.Interval(2.0, 1.6, 2.7, 4)) == "2 (1.6 to 2.7; 4 seeds)"
    assert st.Interval(41.2, 34.1, 48.3, 8).text() == "41 ± 7"
    assert st.Interval(3.1e-7, 2.9e-7, 3.3e-7, 8).text() == "(3.1 ± 0.2)e-7"
