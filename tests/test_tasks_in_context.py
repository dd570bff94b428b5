"""In-context regression and its baselines against brute force."""

import math

import numpy as np
import pytest
import torch
from torch.func import vmap

from reprise.streams import Stream
from reprise.tasks import InContextRegression

TASK = InContextRegression(dimension=3, pairs=6, noise=3 / 32, pool=4)


def store(task, seed=0):
    return task.data(Stream.of(seed, "task"))


def test_tokens_interleave_questions_and_answers():
    batch = TASK.draw(store(TASK), Stream.of(1, "run"), 5)
    tokens, x, y = batch["inputs"], batch["x"], batch["targets"]
    assert tokens.shape == (5, 11, 4)
    assert torch.equal(tokens[:, list(TASK.read), 1:], x) and tokens[:, ::2, 0].eq(0).all()
    assert torch.equal(tokens[:, 1::2, 0], y[:, :-1]) and tokens[:, 1::2, 1:].eq(0).all()


def test_targets_are_linear_with_the_noise_of_the_task():
    batch = TASK.draw(store(TASK), Stream.of(1, "run"), 4000)
    residual = batch["targets"] - torch.einsum("nkd,nd->nk", batch["x"], batch["weights"])
    assert residual.var().item() == pytest.approx(3 / 32, rel=0.05)
    assert abs(batch["x"].mean()) < 0.02 and batch["x"].var().item() == pytest.approx(1, rel=0.03)


def test_weights_come_from_the_pool_evenly_or_are_fresh():
    data = store(TASK)
    weights = TASK.draw(data, Stream.of(1, "run"), 4000)["weights"]
    match = (weights.unsqueeze(1) == data["pool"]).all(2)
    assert match.sum(1).eq(1).all() and (match.double().mean(0) - 0.25).abs().max() < 0.03
    fresh = InContextRegression(3, 6, 3 / 32)
    assert len(torch.unique(fresh.draw(store(fresh), Stream.of(1, "run"), 500)["weights"], dim=0)) == 500


def test_pools_are_nested_and_members_with_different_pools_stack():
    pools = (2, 4, None)
    tasks = [InContextRegression(3, 6, 3 / 32, pool=m, max_pool=4) for m in pools]
    assert len({task.program for task in tasks}) == 1
    members = [store(task) for task in tasks]
    assert torch.equal(store(InContextRegression(3, 6, 3 / 32, pool=2))["pool"], members[1]["pool"][:2])
    stacked = {name: torch.stack([m[name] for m in members]) for name in members[0]}
    key, zero = Stream.of(1, "run").key, torch.zeros((), dtype=torch.int64)
    batches = vmap(lambda data: tasks[0].draw(data, Stream(key, zero, zero), 8))(stacked)
    for i, task in enumerate(tasks):
        alone = task.draw(members[i], Stream.of(1, "run"), 8)
        for name in alone:
            torch.testing.assert_close(batches[name][i], alone[name])


def test_evaluation_sets():
    small, large = TASK, InContextRegression(3, 6, 3 / 32, pool=2)
    stream = Stream.of(9, "probe")
    true = [task.evaluation(store(task), stream, 20, "true") for task in (small, large)]
    assert torch.equal(true[0]["inputs"], true[1]["inputs"])
    pretrain = small.evaluation(store(small), stream, 20, "pretrain")
    assert (pretrain["weights"].unsqueeze(1) == store(small)["pool"]).all(2).any(1).all()
    assert not torch.equal(pretrain["x"], true[0]["x"])
    with pytest.raises(ValueError, match="tasks: got 'test', allowed: 'pretrain', 'true'"):
        small.evaluation(store(small), stream, 20, "test")


def test_shuffled_pairs_move_targets_to_another_sequence():
    plain, shuffled = (InContextRegression(3, 6, 0.1, shuffled=s) for s in (False, True))
    a, b = (task.draw(store(task), Stream.of(1, "run"), 7) for task in (plain, shuffled))
    assert torch.equal(a["x"], b["x"]) and torch.equal(a["targets"].roll(1, 0), b["targets"])
    assert torch.equal(b["inputs"][:, 1::2, 0], b["targets"][:, :-1])


def test_ridge_solves_the_normal_equations_of_each_prefix():
    batch = TASK.draw(store(TASK), Stream.of(1, "run"), 10)
    ours = TASK.ridge(batch).numpy()
    x, y = batch["x"].numpy(), batch["targets"].numpy()
    for n in range(10):
        for k in range(6):
            rows = np.vstack([x[n, :k], math.sqrt(3 / 32) * np.eye(3)])  # ridge as augmented least squares
            w = np.linalg.lstsq(rows, np.concatenate([y[n, :k], np.zeros(3)]), rcond=None)[0]
            assert ours[n, k] == pytest.approx(w @ x[n, k], abs=1e-10)


def test_posterior_mean_weighs_the_pool_by_bayes():
    padded = InContextRegression(3, 6, 3 / 32, pool=4, max_pool=9)
    data = store(padded)
    batch = padded.draw(data, Stream.of(1, "run"), 10)
    ours = padded.posterior_mean(batch, data).numpy()
    pool, x, y = data["pool"][:4].numpy(), batch["x"].numpy(), batch["targets"].numpy()
    for n in range(10):
        for k in range(6):
            likelihood = [
                math.prod(math.exp(-((y[n, j] - w @ x[n, j]) ** 2) / (2 * 3 / 32)) for j in range(k))
                for w in pool
            ]
            expected = sum(p * (w @ x[n, k]) for p, w in zip(likelihood, pool, strict=True)) / sum(likelihood)
            assert ours[n, k] == pytest.approx(expected, abs=1e-9)


def test_members_with_different_pools_are_evaluated_together():
    tasks = [InContextRegression(3, 6, 3 / 32, pool=m, max_pool=4) for m in (2, 4, None)]
    members = [store(task) for task in tasks]
    stacked = {name: torch.stack([m[name] for m in members]) for name in members[0]}
    assert (
        tasks[2].posterior_mean(tasks[2].draw(members[2], Stream.of(0, "run"), 2), members[2]).isnan().all()
    )

    def guesses(task, data, kind):
        batch = task.evaluation(data, Stream.of(9, "probe"), 20, kind)
        return batch["inputs"], task.posterior_mean(batch, data)

    for kind in ("pretrain", "true"):
        inputs, together = vmap(lambda data, kind=kind: guesses(tasks[0], data, kind))(stacked)
        assert together[2].isnan().all()  # no pool
        for i in (0, 1):
            alone = guesses(tasks[i], members[i], kind)
            torch.testing.assert_close(inputs[i], alone[0])
            torch.testing.assert_close(together[i], alone[1])


def test_posterior_mean_does_not_underflow():
    sharp = InContextRegression(3, 6, 1e-6, pool=4)
    data = store(sharp)
    batch = sharp.draw(data, Stream.of(1, "run"), 50)
    guesses = sharp.posterior_mean(batch, data)
    assert (guesses[:, 1:] - batch["targets"][:, 1:]).abs().max() < 0.01


def test_baselines_are_best_on_their_own_prior():
    task = InContextRegression(3, 6, 3 / 32, pool=8)
    data = store(task)
    losses = {}
    for tasks in ("pretrain", "true"):
        batch = task.evaluation(data, Stream.of(2, "probe"), 4000, tasks)
        guesses = task.ridge(batch), task.posterior_mean(batch, data)
        losses[tasks] = [task.loss(g, batch).item() / 3 for g in guesses]
    assert losses["pretrain"][1] < losses["pretrain"][0]
    assert losses["true"][0] < losses["true"][1]
    assert losses["true"][0] == pytest.approx(0.44, abs=0.02)  # ridge, D = 3, K = 6


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="max_pool: expected at least the pool of 8, got 4"):
        InContextRegression(3, 6, 0.1, pool=8, max_pool=4)
    with pytest.raises(ValueError, match="noise: expected a variance of at least 0, got -1"):
        InContextRegression(3, 6, -1)
    with pytest.raises(ValueError, match="batch: expected a number of sequences, got None"):
        TASK.draw(store(TASK), Stream.of(0, "run"), None)
