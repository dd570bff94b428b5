"""Checks, claims and verdicts, and how they read."""

import json

import numpy as np
import pytest
import xarray as xr

from reprise.claims import VERDICTS, Check, Claim, claims_table
from reprise.statistics import paired, slope


def state(*args, **options):
    return Check("x", *args, **options).state


@pytest.mark.parametrize(
    "measured, op, threshold, expected",
    [
        (2.0, ">", 1, True),
        (1.0, ">", 1, False),
        (1.0, ">=", 1, True),
        (1.0, "<", 1, False),
        (1.0, "<=", 1, True),
        (0, "equals", 0, True),
        (True, "equals", True, True),
        (1.0, "between", (1, 2), True),
        (2.1, "between", (1, 2), False),
        ([3, 2, 1], "decreasing", None, True),
        ([3, 3, 1], "decreasing", None, False),
        ([1, 2, 4], "increasing", 1.5, False),
        ([1, 2, 4], "increasing", 0.9, True),
        ([6, 6, 2, 6], ">=", 3, False),
    ],
)
def test_every_operation_can_pass_and_fail(measured, op, threshold, expected):
    assert Check("x", measured, op, threshold).passed is expected


def test_over_decides_how_seeds_count():
    values = [2.0, 2.0, 2.0, 0.5]
    assert state(values, ">", 1) == "failed"
    assert state(values, ">", 1, over="mean") == "passed"
    assert state(values, ">", 1, over="share", at_least=3) == "passed"
    assert state(values, ">", 1, over="share", at_least=4) == "failed"
    assert state(values, ">", 1, over="share", at_least=0.75) == "passed"
    assert state(values, ">", 1, over="interval") == "straddles"


def test_an_interval_clears_misses_or_straddles():
    values = np.array([1.9, 2.0, 2.1])  # half width of the 95 % t interval: 4.303 * 0.1 / sqrt(3) = 0.248
    for op, passes, straddles, fails in [(">", 1.74, 1.76, 2.26), ("<=", 2.26, 2.24, 1.74)]:
        assert state(values, op, passes, over="interval") == "passed"
        assert state(values, op, straddles, over="interval") == "straddles"
        assert state(values, op, fails, over="interval") == "failed"
    assert state(values, "between", (1.7, 2.3), over="interval") == "passed"
    assert state(values, "between", (1.8, 2.3), over="interval") == "straddles"
    assert state(values, "between", (2.3, 2.6), over="interval") == "failed"


def test_ratios_are_judged_on_logarithms():
    ratios = [27.9, 24.0, 12.4, 5.7]  # lower end 4.6 on logarithms, 1.7 without
    check = Check("ratio", ratios, ">", 4.5, over="interval", log=True)
    assert check.state == "passed" and check.interval.low == pytest.approx(4.6, abs=0.06)
    assert state(ratios, ">", 4.5, over="interval") == "straddles"
    assert Check("ratio", [1.0, -1.0], ">", 1, log=True).reason == "a ratio is not positive"


def test_trends_by_seed_and_in_the_mean():
    curves = np.array([[3.0, 2.0, 1.0], [3.0, 3.1, 1.0], [3.0, 1.9, 1.0]])
    assert state(curves, "decreasing") == "failed"
    assert state(curves, "decreasing", over="mean") == "passed"
    assert state(curves, "decreasing", over="share", at_least=2) == "passed"
    assert state(curves, "decreasing", over="interval") == "straddles"
    assert state(curves, "decreasing", 0.5, over="mean") == "passed"
    assert state([8.0, 4.0, 2.0], "decreasing", 1.9, log=True) == "passed"
    labelled = xr.DataArray(curves.T, dims=("lr", "seed"))
    assert state(labelled, "decreasing", over="share", at_least=2) == "passed"


def test_nan_fails_with_a_reason():
    check = Check("x", [1.0, np.nan], ">", 0)
    assert check.passed is False and check.reason == "1 of 2 values are NaN"
    assert state([1.0, np.inf, 1.0], ">", 0, over="interval") == "failed"
    assert state([1.0, np.inf, 1.0], ">", 0) == "passed"


def test_intervals_made_elsewhere():
    a, b = np.array([2.0, 2.1, 2.2]), np.array([1.0, 1.0, 1.1])
    assert state(paired(a, b), ">", 0.5) == "passed"
    assert state(slope([1, 2, 4], np.outer([1, 2, 3], [1, 4, 16])), "between", (1.8, 2.2)) == "passed"


@pytest.mark.parametrize(
    "message, arguments, options",
    [
        ("op: got", (1.0, "~", 1), {}),
        ("over: got", (1.0, ">", 1), {"over": "some"}),
        ("at least 3 values, got 2", ([1.0, 2.0], ">", 1), {"over": "interval"}),
        ("at_least", ([1.0, 2.0], ">", 1), {"over": "share"}),
        ("at_least", ([1.0, 2.0], ">", 1), {"over": "share", "at_least": 3}),
        ("at_least", ([1.0, 2.0], ">", 1), {"at_least": 1}),
        (r"threshold: \(low, high\)", (1.0, "between", 2), {}),
        (r"threshold: \(low, high\)", (1.0, "between", (3, 2)), {}),
        ("threshold: one number", (1.0, ">", None), {}),
        ("needs at least 2 points", ([1.0], "increasing", 0), {}),
        ("cannot equal", ([1.0, 2.0, 3.0], "equals", 2), {"over": "interval"}),
        ("positive", (1.0, ">", -1), {"log": True}),
    ],
)
def test_wrong_checks_name_the_argument(message, arguments, options):
    with pytest.raises(ValueError, match=message):
        Check("x", *arguments, **options)


GOOD, BAD = Check("good", 1, ">", 0), Check("bad", 0, ">", 0)
STRADDLES = Check("wide", [1.0, 0.0, -0.5], ">", 0, over="interval")
ABSENT = Check.not_tested("large net", "needs a GPU")


def claim(checks, **options):
    return Claim("C1", "a title", "a sentence", checks, **options)


@pytest.mark.parametrize(
    "checks, controls, verdict",
    [
        ([GOOD, GOOD], [], "reproduced"),
        ([GOOD], [GOOD], "reproduced"),
        ([GOOD, BAD], [], "partly"),
        ([GOOD, STRADDLES], [], "partly"),
        ([STRADDLES], [], "partly"),
        ([BAD], [], "not reproduced"),
        ([BAD, STRADDLES], [], "partly"),
        ([BAD, ABSENT], [], "not reproduced"),
        ([GOOD], [BAD], "not reproduced"),
        ([GOOD], [STRADDLES], "partly"),
        ([GOOD], [ABSENT], "partly"),
        ([GOOD, ABSENT], [], "partly"),
        ([ABSENT], [BAD], "not tested at this scale"),
    ],
)
def test_verdicts(checks, controls, verdict):
    assert claim(checks, controls=controls).verdict == verdict in VERDICTS


def test_explanations_say_what_failed():
    assert claim([GOOD], controls=[BAD]).explanation == "Control failed: bad"
    text = claim([GOOD, BAD, STRADDLES, ABSENT], reason="Four seeds.").explanation
    assert text == (
        "Check failed: bad. Check straddles its threshold: wide. "
        "Check not tested: large net (needs a GPU). Four seeds."
    )
    capped = claim([GOOD], at_most="partly", reason="Not from chance.")
    assert capped.verdict == "partly" and capped.explanation == "Not from chance."


def test_identities_are_no_evidence():
    assert claim([GOOD]).evidence and not claim([GOOD], kind="identity").evidence
    untestable = claim([], kind="not testable", reason="A matter of taste.")
    assert untestable.verdict == "not tested at this scale" and not untestable.evidence


@pytest.mark.parametrize(
    "message, arguments, options",
    [
        ("id:", ("one", "t", "p", [GOOD]), {}),
        ("checks: C1 has none", ("C1", "t", "p", []), {}),
        ("checks: a list of Check", ("C1", "t", "p", GOOD), {}),
        ("kind: got", ("C1", "t", "p", [GOOD]), {"kind": "guess"}),
        ("origin: got", ("C1", "t", "p", [GOOD]), {"origin": "me"}),
        ("at_most", ("C1", "t", "p", [GOOD]), {"at_most": "reproduced"}),
        ("reason: C1 needs one", ("C1", "t", "p", [GOOD]), {"at_most": "partly"}),
    ],
)
def test_wrong_claims_name_the_argument(message, arguments, options):
    with pytest.raises(ValueError, match=message):
        Claim(*arguments, **options)


@pytest.mark.parametrize(
    "check, measured, threshold",
    [
        (Check("x", [6, 6, 6, 6], ">=", 3), "6 6 6 6", "≥ 3 in each seed"),
        (Check("x", 0.011912, "<=", 0.02), "0.0119", "≤ 0.02"),
        (Check("x", 2e-4, "between", (0, 1e-3), unit=" nat"), "2e-4 nat", "between 0 and 0.001 nat"),
        (
            Check("x", [0.41, 0.31, 0.36, 0.36], ">", 0.1, over="interval"),
            "0.36 ± 0.06 (4 seeds)",
            "95 % interval > 0.1",
        ),
        (Check("x", np.arange(16) / 10, "<", 2), "0.00 to 1.50 (16 seeds)", "< 2 in each seed"),
        (
            Check("x", [9.9, 2.3, 34.0], ">", 5, over="share", at_least=2, unit=" %"),
            "2 of 3 seeds (9.9 2.3 34.0 %)",
            "> 5 % in at least 2 of 3 seeds",
        ),
        (Check("x", [1.552, 0.84, 0.554], "decreasing"), "1.55 → 0.84 → 0.55", "strictly decreasing"),
        (
            Check("x", [[1.0, 0.5], [1.0, 0.3], [1.0, 0.4]], "decreasing", 0.2, over="mean"),
            "1.00 → 0.40 (mean of 3 seeds)",
            "mean decreasing, each step > 0.2",
        ),
        (Check("x", [True, True], "equals", True), "2 of 2 yes", "yes in each seed"),
        (ABSENT, "not tested", ""),
    ],
)
def test_texts(check, measured, threshold):
    assert (check.measured_text, check.threshold_text) == (measured, threshold)


def test_the_table_shows_every_claim_and_check():
    claims = [
        Claim("C1", "Title <b>", "Paper says | so", [GOOD, BAD, STRADDLES, ABSENT], controls=[GOOD]),
        Claim("P1", "Fact", "It is", [GOOD], kind="identity", origin="this book"),
    ]
    table = claims_table(claims)
    html, markdown = table._repr_html_(), table._repr_markdown_()
    assert html.count("<tbody") == 2 and html.count('class="check"') == 6 and "Title &lt;b&gt;" in html
    assert 'verdict verdict-partly">partly' in html and "tests the code, no evidence" in html
    for label in ("passed", "failed", "straddles", "not tested"):
        assert f'aria-label="{label}"' in html
    lines = markdown.splitlines()
    assert len(lines) == 2 + 2 + 6 and "*control:* good" in markdown
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines)
    assert table.verdicts == {"C1": "partly", "P1": "reproduced"} and len(table) == 2
    with pytest.raises(ValueError, match="more than once"):
        claims_table([claims[0], claims[0]])


def test_results_are_json():
    given = claim([GOOD, Check("nan", [1.0, np.nan], ">", 0), STRADDLES, ABSENT], controls=[GOOD]).to_dict()
    back = json.loads(json.dumps(given, allow_nan=False))
    assert back["verdict"] == "partly" and [c["passed"] for c in back["checks"]] == [True, False, False, None]
    assert back["checks"][1]["values"] == [1.0, None] and len(back["checks"][2]["interval"]) == 2
    assert back["measured"].startswith("good: 1; nan: 1") and back["controls"][0]["threshold"] == "> 0"
    assert set(back) >= {
        "id",
        "title",
        "paper",
        "kind",
        "origin",
        "verdict",
        "measured",
        "threshold",
        "reason",
    }
