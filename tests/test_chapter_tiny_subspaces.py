"""The chapter's projection against dense eigenvectors, and its full-scale path at a tiny size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import definitions, verdicts
from torch.func import functional_call

from reprise import MLP, SGD, Experiment, Sweep
from reprise.layout import Layout
from reprise.models.initialise import materialise
from reprise.tasks import Digits

K, BLOCK, SEEDS = 3, 8, (0, 1)


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines, for a small network on 30 pictures."""
    network = MLP([8, 5, 10], activation="tanh", init="normal")
    pictures = Digits(
        n_train=30, n_test=5, components=8, labels="one-hot", loss_name="squared", half=True,
        reduction="mean-examples",
    )  # fmt: skip
    given = dict(network=network, pictures=pictures, layout=Layout.of(network), k=K)
    given |= dict(size={"block": BLOCK, "toy": 40}, rules=("SGD", "Dom-SGD", "Bulk-SGD", "GD"))
    return definitions("tiny-subspaces", "noisy", "keeps", **given)


@pytest.fixture(scope="module")
def points(chapter):
    """Parameters (seed, P), full inputs and targets, dense eigenvectors (seed, P, P) by falling value."""
    data = [chapter.pictures.data(chapter.Stream.of(s))["train"] for s in SEEDS]
    inputs, targets = (torch.stack([d[name] for d in data]) for name in ("inputs", "targets"))
    params = torch.stack(
        [
            torch.cat([p.flatten() for p in materialise(chapter.network, s, torch.float64).parameters()])
            for s in SEEDS
        ]
    ).detach()
    chapter.network.float()

    def loss(vector, x, y):
        error = functional_call(chapter.network, chapter.layout.split(vector), (x,)) - y
        return 0.5 * error.square().sum(1).mean()

    dense = torch.stack(
        [
            torch.autograd.functional.hessian(lambda v, i=i: loss(v, inputs[i], targets[i]), params[i])
            for i in SEEDS
        ]
    )
    return params, inputs, targets, torch.linalg.eigh(dense)[1].flip(-1)


def start(points):
    params, inputs, targets, vectors = points
    noise = torch.linalg.qr(
        torch.randn(len(SEEDS), params.shape[1], BLOCK, generator=torch.Generator().manual_seed(0)).double()
    )[0]
    return params, inputs, targets, vectors, noise.mT


def test_the_iteration_finds_the_largest_eigenvectors(chapter, points):
    params, inputs, targets, vectors, basis = start(points)
    valley = chapter.Valley(inputs, targets, basis, K)
    rows = torch.arange(len(SEEDS))
    for _ in range(300):
        found, basis = valley.dominant(params, rows, basis)
    dense = vectors[..., :K]
    torch.testing.assert_close(found.mT @ found, dense @ dense.mT, atol=1e-5, rtol=0)
    swapped, _ = valley.dominant(params.flip(0), rows.flip(0), basis.flip(0))
    torch.testing.assert_close(swapped.flip(0), valley.dominant(params, rows, basis)[0])


def test_a_subspace_that_is_not_followed_stays(chapter, points):
    params, inputs, targets, _, basis = start(points)
    valley = chapter.Valley(inputs, targets, basis, K, follow=False)
    found, kept = valley.dominant(params, torch.arange(2), basis)
    assert torch.equal(kept, basis) and torch.equal(found, basis[:, :K])


def test_a_member_that_blew_up_does_not_disturb_the_others(chapter, points):
    params, inputs, targets, _, basis = start(points)
    valley, rows = chapter.Valley(inputs, targets, basis, K), torch.arange(2)
    broken = params.clone()
    broken[0] = torch.inf
    torch.testing.assert_close(
        valley.dominant(broken, rows, basis)[0][1], valley.dominant(params, rows, basis)[0][1]
    )


def test_one_step_of_each_side_is_the_formula(chapter, points):
    params, inputs, targets, vectors, _ = start(points)
    valley = chapter.Valley(inputs, targets, vectors[..., :BLOCK].mT.contiguous(), K)
    plain = SGD(lr=0.1)
    cases = {
        "SGD": plain,
        "Dom": chapter.Projected(plain, valley, inside=1.0, outside=0.0),
        "Bulk": chapter.Projected(plain, valley, inside=0.0, outside=1.0),
    }

    def run(case, seed):
        rule = chapter.replace(case, row=seed) if isinstance(case, chapter.Projected) else case
        return Experiment(
            model=chapter.network, task=chapter.WithReplacement(chapter.pictures), update=rule, steps=1,
            batch=4, dtype=torch.float64, seed=seed,
        )  # fmt: skip

    after = Sweep(run, case=cases, seed=SEEDS).train(keep=[0, 1], device="cpu").states
    torch.testing.assert_close(after.stacked(0)[0], params)
    moved = after.stacked(1) - after.stacked(0)
    directions = vectors[..., :K]
    expected = (directions @ (directions.mT @ moved[0][..., None]))[..., 0]
    assert expected.norm() > 1e-3
    torch.testing.assert_close(moved[1], expected, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(moved[2], moved[0] - expected, atol=1e-9, rtol=1e-6)


def test_minibatches_are_drawn_with_replacement(chapter):
    task = chapter.WithReplacement(chapter.pictures)
    data = task.data(chapter.Stream.of(0))
    drawn = task.draw(data, chapter.Stream.of(5), 30)
    rows = (drawn["inputs"][:, None] == data["train"]["inputs"][None]).all(-1).int().argmax(1)
    assert len(rows.unique()) < 30
    assert torch.equal(drawn["targets"], data["train"]["targets"][rows])


def test_the_toy_is_its_recursion(chapter):
    found = chapter.toy(3, runs=2, warm=5, steps=30, eta=1e-4)
    signs = np.random.default_rng(3).choice([-100.0, 100.0], (35, 2))
    for case in ("SGD", "Dom-SGD"):
        x, y = 1.0, 1.0
        for t in range(35 - 10):  # the kept path has every 20th point: 0 and 20 steps after the branch
            dx, dy = 1000 * x + signs[t, 0] * y, y + signs[t, 0] * x
            x, y = x - 1e-4 * dx, y - 1e-4 * dy * (1 if case == "SGD" or t < 5 else 0)
        path = found["path"][1][chapter.rules.index(case)]
        np.testing.assert_allclose(path[1], [x, y], rtol=1e-10)


def test_the_moving_average_starts_at_the_first_value(chapter):
    np.testing.assert_allclose(chapter.smoothed(np.array([1.0, 0.0, 0.0]), 0.9), [1, 0.9, 0.81])


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("tiny-subspaces")
    assert list(verdicts(result)) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert {c["passed"] for c in result["claims"][2]["checks"]} >= {None}  # what no scale here can show
