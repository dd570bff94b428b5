"""Members of a batch against the same members trained alone and against plain PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reprise import (
    MLP,
    SAM,
    SGD,
    Adam,
    AdamW,
    Clipped,
    Experiment,
    Masked,
    Objective,
    RMSProp,
    Sweep,
    Transformer,
    end,
    every,
    loss,
    training_loss,
    weight_norm,
)
from reprise.probes import accuracy, at, logspaced
from reprise.schedules import Drops, Triangle
from reprise.streams import Stream
from reprise.tasks import Digits, InContextRegression, LabelNoise, Minimise, ModularArithmetic

DOUBLE = torch.float64
digits = Digits(n_train=60, n_test=40)


def experiment(lr=0.1, seed=0, **changes):
    settings = dict(
        model=MLP([64, 8, 10], activation="tanh"), task=digits, update=SGD(lr), steps=50, dtype=DOUBLE
    )
    return Experiment(**(settings | {"seed": seed} | changes))


def rule_of(kind, lr):
    return {
        "sgd": SGD(lr),
        "momentum": SGD(lr, momentum=0.9, weight_decay=1e-3),
        "adam": Adam(lr / 10),
        "adamw, triangle": AdamW(Triangle(lr / 10, rise=0.2)),
        "rmsprop, clipped": Clipped(RMSProp(lr / 100), norm=0.5),
        "sam": SAM(SGD(lr), radius=0.05),
        "drops": SGD(Drops(lr, fractions=(0.5,))),
    }[kind]


def alone(function, **point):
    return Sweep(function, **{name: [value] for name, value in point.items()})


@pytest.mark.parametrize("gear", ["eager", "flat"])
@pytest.mark.parametrize(
    "kind", ["sgd", "momentum", "adam", "adamw, triangle", "rmsprop, clipped", "sam", "drops"]
)
def test_a_member_of_a_batch_equals_the_member_alone_for_every_rule(kind, gear):
    def make(lr, seed):
        return experiment(seed=seed, update=rule_of(kind, lr), batch=16 if kind != "sam" else None)

    together = Sweep(make, lr=[0.05, 0.2], seed=[0, 1, 2]).train(
        [every(10, loss), every(1, training_loss)], gear=gear
    )
    for lr in (0.05, 0.2):
        single = alone(make, lr=lr, seed=2).train([every(10, loss), every(1, training_loss)], gear=gear)
        for name in ("loss", "training_loss"):
            ours = together.record[name].sel(lr=lr, seed=2)
            np.testing.assert_allclose(ours, single.record[name].squeeze(), rtol=1e-10, atol=1e-12)
        ours, theirs = together.states.sel(lr=lr, seed=2), single.states.sel(lr=lr, seed=2)
        torch.testing.assert_close(ours.vector, theirs.vector, rtol=1e-10, atol=1e-12)


CASES = {
    "layer norm, label noise": lambda seed: experiment(
        seed=seed,
        model=MLP([64, 8, 8, 10], norm="layer-affine"),
        task=LabelNoise(digits, share=0.1 * (seed + 1)),
        batch=8,
    ),
    "in context": lambda seed: experiment(
        seed=seed,
        model=Transformer(2, 8, 2, outputs=1, context=7, features=3, read=(0, 2, 4, 6)),
        task=InContextRegression(2, 4, 0.1, pool=4 * (seed + 1), max_pool=16),
        batch=4,
        update=Adam(1e-3),
    ),
    "modular transformer": lambda seed: experiment(
        seed=seed,
        model=Transformer(1, 8, 2, outputs=5, context=4, vocabulary=7, read="last"),
        task=ModularArithmetic(5, encoding="tokens"),
        update=AdamW(1e-2),
        batch=6,
    ),
    "any module": lambda seed: experiment(
        seed=seed, model=nn.Sequential(nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    ),
    "convolution": lambda seed: experiment(
        seed=seed,
        model=nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)), nn.Conv2d(1, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(108, 10)
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_member_of_a_batch_equals_the_member_alone_for_every_model(case):
    probes = [every(1, training_loss)]
    together = Sweep(CASES[case], seed=[0, 1, 2]).train(probes)
    single = alone(CASES[case], seed=1).train(probes)
    np.testing.assert_allclose(
        together.record.training_loss.sel(seed=1), single.record.training_loss[0], rtol=1e-10, atol=1e-12
    )
    ours, theirs = together.states.sel(seed=1).vector, single.states.sel(seed=1).vector
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_order_of_members_and_other_stacks_do_not_matter():
    def make(width, seed):
        return experiment(seed=seed, model=MLP([64, width, 10]), batch=16)

    one = Sweep(make, width=[4, 6], seed=[0, 1, 2]).train([every(10, loss)])
    two = Sweep(make, seed=[2, 0, 1], width=[6, 4, 5]).train([every(10, loss)])
    aligned = two.record.loss.sel(seed=[0, 1, 2], width=[4, 6]).transpose("width", "seed", "step")
    np.testing.assert_allclose(one.record.loss, aligned, rtol=1e-10)


def plain_loop(lr, seed, steps, batch):
    """What a companion repository would write, with `torch.optim`, from the same draws."""
    task, model = digits, MLP([64, 8, 10], activation="tanh").double()
    data = {
        k: v.double() if v.is_floating_point() else v
        for k, v in task.data(Stream.of(seed, "task"))["train"].items()
    }
    model.load_state_dict(model.reset(Stream.of(seed, "model"), DOUBLE))
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-3)
    losses, per_epoch = [], 60 // batch
    for step in range(steps):
        order = Stream.of(seed, "run").at(step // per_epoch).permutation("epoch order", 60)
        rows = order[(step % per_epoch) * batch :][:batch]
        value = nn.functional.cross_entropy(model(data["inputs"][rows]), data["targets"][rows])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("gear", ["eager", "flat"])
def test_training_equals_a_plain_pytorch_loop(gear):
    def make(lr, seed):
        return experiment(seed=seed, update=SGD(lr, momentum=0.9, weight_decay=1e-3), batch=16, steps=40)

    record = Sweep(make, lr=[0.05, 0.3], seed=[0, 1]).train([every(1, training_loss)], gear=gear).record
    for lr in (0.05, 0.3):
        np.testing.assert_allclose(
            record.training_loss.sel(lr=lr, seed=1), plain_loop(lr, 1, 40, 16), rtol=1e-10
        )


def test_blocks_of_any_length_give_the_same_numbers(monkeypatch):
    import reprise.gears as gears

    sweep = Sweep(lambda seed: experiment(seed=seed, batch=16, update=SGD(Triangle(0.3))), seed=[0, 1])
    whole = sweep.train([every(7, loss)])
    monkeypatch.setattr(gears, "_BLOCK_STEPS", 3)
    assert whole.record.equals(sweep.train([every(7, loss)]).record)


# --- divergence ---


def test_a_member_that_diverges_is_frozen_flagged_and_leaves_its_neighbours_alone():
    def make(lr, seed):
        return experiment(lr, seed, task=Digits(n_train=60, loss_name="squared", labels="one-hot"), steps=400)

    probes = [every(20, loss), every(1, training_loss)]
    mixed = Sweep(make, lr=[0.05, 1e6, 0.1], seed=[0, 1]).train(probes, keep=[0])
    clean = Sweep(make, lr=[0.05, 0.1], seed=[0, 1]).train(probes)
    healthy = mixed.record.loss.sel(lr=[0.05, 0.1])
    assert healthy.identical(clean.record.loss)
    assert np.isfinite(healthy).all()
    died = mixed.record.diverged_at
    assert np.isnan(died.sel(lr=0.05)).all() and (died.sel(lr=1e6) < 400).all()
    step = int(died.sel(lr=1e6, seed=0))
    series = mixed.record.loss.sel(lr=1e6, seed=0)
    assert np.isnan(series.sel(step=slice(step + 1, None))).all()
    frozen = mixed.states.sel(lr=1e6, seed=0).vector
    assert torch.isfinite(frozen).all() and not torch.equal(
        frozen, mixed.states.sel(step=0, lr=1e6, seed=0).vector
    )


def test_large_finite_spikes_are_data():
    def make(curve):
        return Experiment(
            Objective(lambda w: 0.5 * curve * w.square().sum(), start=torch.ones(1, dtype=DOUBLE)),
            Minimise(),
            SGD(1.0),
            steps=15,
            dtype=DOUBLE,
        )

    # each curvature is another function, hence another stack
    record = Sweep(make, curve=[1e9, 0.5]).train([every(1, loss)]).record
    values = record.loss.sel(curve=1e9)
    assert np.isfinite(values).all() and values[-1] > 1e250 and np.isnan(record.diverged_at).all()


# --- unequal budgets, kept states, starts ---


def test_members_with_unequal_budgets_equal_themselves():
    def make(steps):
        return experiment(steps=steps, batch=16, update=Adam(0.01))

    both = Sweep(make, steps=[13, 40, 0]).train([every(5, loss), end(accuracy)], keep=[10])
    for steps in (13, 40):
        single = alone(make, steps=steps).train([every(5, loss)])
        ours = both.record.loss.sel(steps=steps).dropna("step")
        assert ours.step.values[-1] == steps
        np.testing.assert_allclose(ours, single.record.loss[0], rtol=1e-10)
    assert not np.isnan(both.record.accuracy_test).any()
    assert both.states.steps == [0, 10, 13, 40]


def test_starting_from_a_kept_state_continues_exactly():
    def whole(seed):
        return experiment(seed=seed, steps=30)

    parent = Sweep(whole, seed=[0, 1]).train(keep=[0, 10])

    def rest(lr, seed):
        return experiment(lr, seed, steps=20, start=parent.states.sel(step=10, seed=seed))

    child = Sweep(rest, lr=[0.1, 0.2], seed=[0, 1]).train()
    torch.testing.assert_close(
        child.states.sel(lr=0.1, seed=1).vector, parent.states.sel(seed=1).vector, rtol=1e-12, atol=1e-14
    )
    fresh = MLP([64, 8, 10], activation="tanh").reset(Stream.of(1, "model"), DOUBLE)
    torch.testing.assert_close(parent.states.sel(step=0, seed=1).params, fresh, rtol=1e-14, atol=0)


def test_masked_weights_stay_zero():
    mask = (
        torch.rand(
            MLP([64, 8, 10]).double().layers[0].weight.numel() + 8 + 90,
            generator=torch.Generator().manual_seed(0),
        )
        < 0.5
    )
    start = (
        Sweep(lambda seed: experiment(seed=seed, steps=0), seed=[0]).train().states.map(lambda v: v * mask)
    )

    def make(seed):
        rule = Masked(SGD(0.1, momentum=0.9, weight_decay=0.01), mask=mask)
        return experiment(seed=seed, update=rule, start=start.sel(seed=seed), batch=16)

    end_state = Sweep(make, seed=[0]).train().states.sel(seed=0).vector
    assert (end_state[~mask] == 0).all() and (end_state[mask] != 0).any()


def test_measure_compares_sweeps_and_broadcasts_nothing_silently():
    one = Sweep(lambda seed: experiment(seed=seed, steps=5), seed=[0, 1]).train(keep=[0])
    two = Sweep(lambda seed: experiment(seed=seed, steps=9), seed=[0, 1]).train()
    gap = two.measure(lambda snapshot, other: {"gap": (snapshot.vector - other).norm()}, other=one.states)
    expected = (two.states.stacked() - one.states.stacked()).norm(dim=1)
    np.testing.assert_allclose(gap.gap, expected)
    moved = one.measure(lambda snapshot: {"moved": snapshot.displacement.norm()})
    np.testing.assert_allclose(moved.moved, (one.states.stacked() - one.states.stacked(0)).norm(dim=1))
    other = Sweep(lambda seed: experiment(seed=seed, steps=1), seed=[5]).train()
    with pytest.raises(ValueError, match="other has other axes|other axes"):
        two.measure(lambda snapshot, other: snapshot.loss(), other=other.states)


# --- probes ---


def test_probes_measure_where_their_schedules_say():
    record = (
        Sweep(lambda seed: experiment(seed=seed, steps=70), seed=[0, 1])
        .train(
            [
                every(20, loss),
                at([0, 3], weight_norm("layers.0.weight")),
                logspaced(5, training_loss),
                end(accuracy),
            ]
        )
        .record
    )
    assert record.loss.step.values.tolist() == [0, 20, 40, 60, 70]
    assert record.weight_norm.step.values.tolist() == [0, 3]
    assert record.accuracy_test.dims == ("seed",)
    # the update's own loss is the full training loss at the parameters before it
    steps = [int(s) for s in record.training_loss.step if s < 70]
    np.testing.assert_allclose(record.training_loss.sel(step=0), record.loss.sel(step=0), rtol=1e-12)
    assert steps[0] == 0


def test_probes_have_random_numbers_of_their_own_and_labelled_outputs():
    def spectrum(snapshot):
        noise = snapshot.stream.normal("noise", (2,), DOUBLE)
        norms = torch.stack([v.norm() for v in snapshot.params.values()])
        return {"norms": (("parameter",), norms, {"parameter": list(snapshot.params)}), "noise": noise}

    record = (
        Sweep(lambda seed: experiment(seed=seed, steps=80), seed=[0, 1]).train([every(1, spectrum)]).record
    )
    assert record.norms.sel(parameter="layers.0.bias").shape == (2, 81)
    assert len(np.unique(record.noise)) == record.noise.size
    quiet = Sweep(lambda seed: experiment(seed=seed, steps=80), seed=[0, 1]).train()
    loud = Sweep(lambda seed: experiment(seed=seed, steps=80), seed=[0, 1]).train([every(1, spectrum)])
    assert torch.equal(quiet.states.stacked(), loud.states.stacked())


def test_a_probe_with_memory_keeps_it_by_member():
    class Count:
        name = "count"

        def init(self, snapshot):
            return snapshot.vector.sum() * 0

        def __call__(self, snapshot, memory):
            return {"count": memory}, memory + 1

    record = Sweep(lambda seed: experiment(seed=seed, steps=5), seed=[0, 1]).train([every(1, Count())]).record
    assert record["count"].values.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_map_once_a_point_and_once_for_whole_arrays():
    def point(a, b):
        return {"sum": a + b, "curve": (("t",), np.arange(3) * a)}

    def array(a, b):
        return {"sum": a[:, None] + b, "curve": (("a", "t"), np.arange(3) * a[:, None])}

    one = Sweep(point, a=[1.0, 2.0], b=[10.0, 20.0, 30.0]).map()
    two = Sweep(array, a=[1.0, 2.0], b=[10.0, 20.0, 30.0]).map(together=("a", "b"))
    assert one["sum"].identical(two["sum"])
    assert one["curve"].dims == ("a", "b", "t") and two["curve"].dims == ("a", "t")
    assert two["curve"].sel(a=2.0).values.tolist() == [0, 2, 4]


def test_a_hole_in_the_grid_is_nan():
    record = Sweep(lambda a, b: None if a > b else {"x": a}, a=[1.0, 2.0], b=[1.0, 2.0]).map()
    assert np.isnan(record.x.sel(a=2.0, b=1.0)) and record.x.sel(a=1.0, b=2.0) == 1


def test_members_that_differ_only_in_numbers_share_a_stack():
    from reprise.stack import stacks

    def make(lr, seed):
        return experiment(lr, seed, update=SGD(Drops(lr, fractions=(0.5,)), momentum=lr))

    assert len(stacks(Sweep(make, lr=[0.1, 0.2], seed=[0, 1]).members(), torch.device("cpu"))) == 1
    mixed = Sweep(lambda bias: experiment(model=MLP([64, 8, 10], bias=bias)), bias=[True, False])
    assert len(stacks(mixed.members(), torch.device("cpu"))) == 2


def test_float32_stays_float32_and_nothing_is_promoted():
    trained = Sweep(lambda seed: experiment(seed=seed, dtype=torch.float32, steps=3), seed=[0]).train(
        [every(1, loss)]
    )
    assert trained.record.loss.dtype == np.float32 and trained.states.stacked().dtype == torch.float32


def test_an_interrupt_keeps_the_record_so_far():
    def interrupt(snapshot):
        return {"x": snapshot.vector.sum()}

    calls = []

    class Interrupting:
        name = "interrupting"

        def init(self, snapshot):
            return snapshot.vector.sum() * 0

        def __call__(self, snapshot, memory):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return {"x": snapshot.vector.sum()}, memory

    trained = Sweep(lambda seed: experiment(seed=seed, steps=50), seed=[0]).train(
        [every(10, Interrupting()), every(5, loss)]
    )
    assert trained.interrupted
    assert trained.record.loss.step.values.tolist() == [0, 5, 10, 15, 20, 25]
    assert np.isfinite(trained.record.x).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_sweep_on_a_gpu():
    def make(lr, seed):
        return experiment(lr, seed, batch=16, update=Adam(Triangle(0.01, rise=0.2)))

    sweep = Sweep(make, lr=[0.05, 0.2], seed=[0, 1])
    here, there = (sweep.train([every(10, loss)], device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(here.record.loss, there.record.loss, rtol=1e-8)


def test_importing_the_library_is_light():
    import subprocess
    import sys

    heavy = ("matplotlib", "seaborn", "sklearn", "IPython")
    code = f"import sys, reprise; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
