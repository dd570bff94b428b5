"""The chapter's model and samplers against independent forms, and its full-scale path at a tiny size."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import definitions, verdicts
from scipy import stats

from reprise import Record
from reprise.models.initialise import materialise
from reprise.streams import Stream


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions(
        "linear-transformer-optimization",
        seeds=(0,),
        model=None,
        quick=True,
        size=dict(n_probe=8, n_hessian=8, steps=1, batch=1),
    )


def attention_by_loops(P, Q, x, w):
    """Error of one prompt, written with the sums of the paper's formula, row by row."""
    rows = len(x)
    y = np.array([*(x[:-1] @ w), 0.0])
    for p, q in zip(P, Q, strict=True):
        new_x, new_y = x.copy(), y.copy()
        for i in range(rows):
            for j in range(rows - 1):
                attention = x[i] @ q @ x[j] / (rows - 1)
                new_x[i] += attention * p @ x[j]
                new_y[i] += attention * y[j]
        x, y = new_x, new_y
    return y[-1]


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_compact_form_is_linear_attention_on_tokens(chapter, layers):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 9, 5)), rng.standard_normal((4, 5))
    model = materialise(chapter.LinearTransformer(layers, spread=0.3), 0).double()
    P, Q = model.P.detach(), model.Q.detach()
    expected = [a[-1] @ b + attention_by_loops(P.numpy(), Q.numpy(), a, b) for a, b in zip(x, w, strict=True)]
    x, w = torch.tensor(x), torch.tensor(w)
    keys = x[:, :-1]
    prompts = torch.cat([keys.mT @ keys / 8, w[:, None], x[:, -1:]], 1)
    np.testing.assert_allclose(model(prompts).detach(), expected, rtol=1e-9)
    np.testing.assert_allclose(chapter.by_tokens(dict(P=P, Q=Q), x, w), expected, rtol=1e-9)


def test_gamma_numbers_have_the_gamma_law(chapter):
    law = stats.gamma(0.1)
    low = law.cdf(1e-20)  # smaller numbers may underflow in float32
    for source in (chapter.Draws(np.random.default_rng(0)), Stream.of(0)):
        values = chapter.gamma(source, (20_000,)).numpy().astype(float)
        seen = values[values > 1e-20]
        assert stats.kstest(seen, lambda v: (law.cdf(v) - low) / (1 - low)).pvalue > 1e-3
        assert values.mean() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("law", "length"), [("normal", 5), ("sphere", 1), ("gamma", 1)])
def test_the_zero_predictor_has_the_loss_of_the_law(chapter, law, length):
    found = chapter.prompts(chapter.Draws(np.random.default_rng(1)), 40_000, law, pairs=4)
    trace = found[:, :5].diagonal(dim1=1, dim2=2).sum(1).mean()
    assert trace.item() == pytest.approx(length, rel=0.1)
    assert (found[:, 5] * found[:, 6]).sum(1).square().mean().item() == pytest.approx(length, rel=0.2)


def test_arms_of_a_seed_share_their_batches_and_seeds_do_not(chapter):
    sample = functools.partial(chapter.prompts, law="normal", pairs=3)
    batches = []
    for row in (0, 1):
        task = chapter.Drawn(sample, (7, 8), 6, 4, row)
        data = task.data(Stream.of(0))
        batches.append([task.draw(data, Stream.of(row, "run").at(t), 6)["inputs"] for t in range(4)])
    assert len({tuple(x.flatten().tolist()) for row in batches for x in row}) == 8
    again = chapter.Drawn(sample, (7, 8), 6, 4, 1)
    assert torch.equal(again.draw(again.data(Stream.of(5)), Stream.of(3).at(2), 6)["inputs"], batches[1][2])


def test_the_comparison_at_equal_loss_finds_a_known_factor(chapter):
    steps = np.arange(0, 1000, 10)
    loss = np.stack([np.exp(-steps / 200), np.exp(-steps / 400)])[:, None]  # the second rule is half as fast
    smooth = loss * np.array([1.0, 3.0])[:, None, None]
    coords = {"arm": ["a", "b"], "seed": [0], "step": steps}
    array = lambda values: xr.DataArray(values, dims=("arm", "seed", "step"), coords=coords)  # noqa: E731
    record = Record({"smoothness": array(smooth), "gradient_norm": array(np.sqrt(loss))})
    run = type("Run", (), {"record": Record({"evaluation": array(loss)})})
    found = chapter.matched_ratio(record, run, ("a", "b"))
    assert found.item() == pytest.approx(3, rel=0.1)
    assert chapter.smoothness_ratio(record, ("a", "b"), 500).item() > 10
    assert chapter.correlation(record, "a").item() == pytest.approx(1)
    assert abs(chapter.correlation(record, "a", shuffled=True).item()) < 0.3


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("linear-transformer-optimization")
    assert list(verdicts(result)) == ["C1", "C2", "C3", "C4", "C5"]
    assert "reproduced" not in {result["claims"][i]["verdict"] for i in (0, 2, 3)}  # forty steps show nothing
