"""The chapter's reparametrisation against a dense SVD, its bound, and its full-scale path at tiny size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import definitions, verdicts
from scipy.stats import entropy

from reprise.layout import Layout
from reprise.streams import Stream


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines."""
    return definitions("sigma-reparam", "GROUPS", size={"vit": (2,)})


def drawn(chapter, hats, gamma="sigma", **options):
    model = chapter.ViT(hats, size=(2, 12, 3, 20, 16, 4), gamma=gamma, **options)
    model.load_state_dict(model.reset(Stream.of(0, "model")))
    return model


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(1)
    return {"patches": torch.randn(5, 16, 4, generator=generator), "temperature": torch.tensor(1.0)}


@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"norm": "layer", "placement": "post"}])
def test_at_the_start_the_network_with_hats_is_the_plain_one(chapter, pictures, options):
    plain = drawn(chapter, "none", **options)(pictures)
    for hats in ("all", "query, key", "all but query, key"):
        torch.testing.assert_close(drawn(chapter, hats, **options)(pictures), plain)


def test_hats_cover_every_matrix_once(chapter):
    model = drawn(chapter, "all")
    matrices = chapter.pieces(dict(model.net.named_parameters()))
    assert len(matrices) == 2 * 6 + 2
    count = sum(matrix.numel() for matrix in matrices.values())
    assert count == sum(
        p.numel() for n, p in model.net.named_parameters() if p.ndim == 2 and "position" not in n
    )
    few, rest = (
        [len(same) for same in drawn(chapter, hats).places] for hats in ("query, key", "all but query, key")
    )
    assert few == [4] and sum(rest) == 10


def test_with_gamma_one_every_matrix_in_use_has_spectral_norm_one(chapter):
    model = drawn(chapter, "all", gamma="one")
    for matrix in chapter.pieces(model.effective(torch.tensor(1.0))).values():
        assert torch.linalg.matrix_norm(matrix, ord=2).item() == pytest.approx(1, abs=1e-5)


def test_the_gradient_flows_through_the_spectral_norm(chapter):
    """d(gamma / sigma(W) W) against the exact derivative of the spectral norm, by autograd through an SVD."""
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    target = torch.randn(4, 6, generator=torch.Generator().manual_seed(2)).double()
    hats = chapter.Hats(1, 4, 6).double()
    left, _, right = torch.linalg.svd(weight.detach())
    hats.load_state_dict({"gamma": torch.tensor([1.7]), "u": right[:1], "v": left[:, :1].T})
    ours = torch.autograd.grad((hats(weight[None])[0] * target).sum(), weight)[0]
    exact = 1.7 / torch.linalg.svdvals(weight)[0] * weight
    torch.testing.assert_close(ours, torch.autograd.grad((exact * target).sum(), weight)[0])


def test_the_rule_advances_the_vectors_and_adam_leaves_them_alone(chapter):
    model = drawn(chapter, "query, key")
    layout = Layout.of(model)
    params = layout.join({k: v.detach() for k, v in model.state_dict().items()})[None]
    generator = torch.Generator().manual_seed(0)
    params = params + 0.05 * torch.randn(params.shape, generator=generator)  # vectors are no longer exact
    rule = chapter.PowerIterated(chapter.SGD(lr=0.0), model)
    zero = lambda point, batch=None: (torch.zeros(1), torch.zeros_like(point))  # noqa: E731
    hyper = {"rule": {"lr": torch.zeros(1, 1)}}
    for step in range(300):
        params, _ = rule.step(params, {}, zero, hyper, torch.tensor(step))
    named = layout.split(params[0])
    matrices = chapter.pieces({k[4:]: v for k, v in named.items() if k.startswith("net.")})
    for i, same in enumerate(model.places):
        for j, place in enumerate(same):
            found = named[f"hats.{i}.v"][j] @ matrices[place] @ named[f"hats.{i}.u"][j]
            exact = torch.linalg.matrix_norm(matrices[place], ord=2).item()
            assert found.item() == pytest.approx(exact, rel=1e-3)


def test_temperature_multiplies_the_logits(chapter, pictures):
    model = drawn(chapter, "all")
    logits = lambda t: model.activations({**pictures, "temperature": torch.tensor(t)})[  # noqa: E731
        "blocks.0.attention"
    ].log()
    one, four = (x - x.mean(-1, keepdim=True) for x in (logits(1.0), logits(4.0)))
    torch.testing.assert_close(four, 4 * one, rtol=1e-3, atol=1e-4)


def test_the_bound_against_scipy(chapter):
    from scipy.optimize import minimize

    for keys, s in ((2, 1.0), (5, 3.0)):
        start = np.arange(keys, 0, -1.0)
        softmax = lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum()  # noqa: E731
        ball = {"type": "ineq", "fun": lambda z, s=s: s**2 - z @ z}
        found = minimize(lambda z: entropy(softmax(z)), start, constraints=ball, tol=1e-12)  # noqa: B023
        assert chapter.bound(keys, s) == pytest.approx(found.fun, abs=1e-6)


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("sigma-reparam")
    found = verdicts(result)
    assert list(found) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert found["C2"] == "reproduced" and found["C1"] != "reproduced"  # twelve steps show nothing
