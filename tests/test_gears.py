"""Compiled steps, pieces and worker processes give what the eager loop in one process gives."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import reprise.checkpoint
import reprise.gears as gears
import reprise.shards as shards
from reprise import MLP, SGD, Adam, Experiment, Sweep, end, every, loss, training_loss
from reprise.schedules import Triangle
from reprise.tasks import Digits, InContextRegression, Task
from reprise.trace import cost_of, flatten

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
digits = Digits(n_train=64, n_test=16)


def small(lr: float, seed: int) -> Experiment:
    model = MLP([64, 8, 10], activation="tanh")
    return Experiment(
        model, digits, Adam(Triangle(lr, rise=0.2)), 60, batch=16, dtype=torch.float64, seed=seed
    )


def close(one, other):
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-12)


# --- compiled ---


@needs_compiler
def test_compiled_steps_equal_eager_ones_also_where_a_probe_cuts_the_steps_taken_together():
    sweep = Sweep(small, lr=[0.01, 0.1], seed=[0, 1])
    probes = [every(7, loss), every(1, training_loss)]
    compiled = sweep.train(probes, keep=[3, 16], gear="compiled")
    eager = sweep.train(probes, keep=[3, 16], gear="eager")
    close(compiled.record, eager.record)
    assert compiled.states.sel(lr=0.1, seed=1).vector.dtype == torch.float64
    torch.testing.assert_close(compiled.states.stacked(), eager.states.stacked(), rtol=1e-9, atol=1e-12)


@needs_compiler
def test_a_compiled_run_that_is_resumed_is_the_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(gears, "_BLOCK_STEPS", 16)
    sweep = Sweep(small, lr=[0.01, 0.1], seed=[0, 1])
    probes = [every(7, loss)]
    whole = sweep.train(probes, gear="compiled")
    path = tmp_path / "checkpoint"
    write, written = reprise.checkpoint.Checkpoint.write, []

    def stop_at_the_third(self, run):
        write(self, run)
        written.append(run.step)
        if len(written) == 3:
            raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(reprise.checkpoint.Checkpoint, "write", stop_at_the_third)
        with pytest.raises(RuntimeError, match="stopped") as caught:
            sweep.train(probes, gear="compiled", checkpoint=path, checkpoint_seconds=0)
    assert "lr=0.01, seed=0" in caught.value.__notes__[0]
    assert 0 < written[-1] < 60
    resumed = sweep.train(probes, gear="compiled", checkpoint=path, checkpoint_seconds=0)
    assert resumed.record.loss.identical(whole.record.loss)
    assert torch.equal(resumed.states.stacked(), whole.states.stacked())
    assert not list(tmp_path.glob("checkpoint*"))


@needs_compiler
def test_a_member_that_diverges_when_compiled_leaves_its_neighbours_alone():
    squared = Digits(n_train=64, n_test=16, loss_name="squared", labels="one-hot")

    def make(lr):
        return Experiment(MLP([64, 8, 10]), squared, SGD(lr), 200, dtype=torch.float64)

    mixed = Sweep(make, lr=[0.05, 1e6]).train([every(10, loss)], gear="compiled").record
    alone = Sweep(make, lr=[0.05]).train([every(10, loss)], gear="eager").record
    np.testing.assert_allclose(mixed.loss.sel(lr=0.05), alone.loss.sel(lr=0.05), rtol=1e-9)
    assert 0 < float(mixed.diverged_at.sel(lr=1e6)) < 200
    assert np.isnan(float(mixed.diverged_at.sel(lr=0.05)))


@needs_compiler
def test_batches_drawn_by_compiled_code_are_those_of_the_stream():
    task = InContextRegression(dimension=2, pairs=3, noise=0.1)

    def make(seed):
        model = MLP([5 * 3, 4, 3], activation="tanh")
        return Experiment(model, task, SGD(0.0), 128, batch=4, seed=seed)

    (stack,) = reprise.stack.stacks(Sweep(make, seed=[0, 1]).members(), torch.device("cpu"))
    run = reprise.train.Run(stack, [], [])
    program = run.program()
    program.gear = "compiled"
    drawn = program.draw(0, program.length)
    expected = stack.batches(0, program.length).values()
    for one, other in zip(drawn, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_a_compiler_it_says_so_once_and_runs_flat(monkeypatch):
    import torch._inductor.cpp_builder as builder

    def missing():
        raise RuntimeError("nothing found")

    monkeypatch.setattr(builder, "get_cpp_compiler", missing)
    gears.has_compiler.cache_clear()
    try:
        with pytest.warns(UserWarning, match="no C\\+\\+ compiler") as caught:
            for _ in range(2):
                found = Sweep(small, lr=[0.01], seed=[0]).train([end(loss)], gear="compiled").record
        assert sum("compiler" in str(w.message) for w in caught) == 1
    finally:
        gears.has_compiler.cache_clear()
    close(found, Sweep(small, lr=[0.01], seed=[0]).train([end(loss)], gear="eager").record)


@needs_compiler
def test_a_step_that_cannot_be_compiled_says_so_and_runs_flat(monkeypatch):
    def broken(graph, example):
        raise NotImplementedError("no code for this")

    monkeypatch.setattr(torch._inductor, "compile", broken)
    monkeypatch.setattr(gears, "compiled", gears.compiled.__wrapped__)
    with pytest.warns(UserWarning, match="could not be compiled and runs as it was traced: no code"):
        found = Sweep(small, lr=[0.01], seed=[0]).train([end(loss)], gear="compiled").record
    close(found, Sweep(small, lr=[0.01], seed=[0]).train([end(loss)], gear="eager").record)


# --- what a step takes ---


def test_the_cost_of_a_step_counts_products_and_memory():
    m, n, a, b = 3, 50, 20, 30

    def two_products(x, w, v):
        return torch.tanh(x @ w) @ v

    graph = flatten(two_products, (torch.randn(m, n, a), torch.randn(m, a, b), torch.randn(m, b, a))).graph
    cost = cost_of(graph)
    assert cost.flops == 2 * (2 * m * n * a * b)
    inputs = 4 * m * (n * a + a * b + b * a)
    assert cost.peak == inputs + 4 * m * 2 * n * b  # both sides of tanh; then the result replaces one
    assert cost.moved == 4 * m * (2 * n * b + n * a)
    assert cost.operations <= 10


def test_tracing_computes_nothing():
    calls = []

    def probe(x):
        calls.append(type(x).__name__)
        return x * 2

    flatten(probe, (torch.randn(3),))
    assert calls == ["FakeTensor"]


# --- pieces ---


def wide(seed: int) -> Experiment:
    return Experiment(MLP([64, 32, 10]), digits, SGD(0.1), 200, seed=seed)


def test_a_long_run_of_large_members_is_split_to_fit_the_cache(monkeypatch):
    sweep = Sweep(wide, seed=list(range(8)))
    (stack,) = reprise.stack.stacks(sweep.members(), torch.device("cpu"))
    short = shards.plan(stack, "auto")
    assert short.size == 8 and short.bytes > 8 * 4 * stack.layout.size
    monkeypatch.setattr(shards, "_SPLIT_FROM", 0.0)
    monkeypatch.setattr(shards, "_CACHE", shards._program(stack).cost().peak // 8 * 3)
    monkeypatch.setattr(reprise.trace, "_SECONDS_PER_OPERATION", 0.0)
    pieces = shards.plan(stack, "auto").pieces(workers=1)
    assert [len(piece) for piece in pieces] == [3, 3, 2]
    assert [len(piece) for piece in shards.plan(stack, "auto").pieces(workers=4)] == [2, 2, 2, 2]
    split, whole = sweep.train([end(loss)]).record, sweep.train([end(loss)], gear="eager").record
    np.testing.assert_allclose(split.loss, whole.loss, rtol=1e-4)


def test_members_that_do_not_fit_in_memory_together_are_split(monkeypatch):
    sweep = Sweep(wide, seed=list(range(4)))
    (stack,) = reprise.stack.stacks(sweep.members(), torch.device("cpu"))
    need = shards.plan(stack, "auto").bytes
    monkeypatch.setattr(reprise.device, "free_memory", lambda device: need // 2)
    assert [len(piece) for piece in shards.plan(stack, "auto").pieces(workers=1)] == [2, 2]


@dataclasses.dataclass(frozen=True)
class Fresh(Task):
    """100 new normal inputs at every step."""

    def data(self, stream):
        return {}

    def draw(self, data, stream, batch):
        return {"inputs": stream.normal("x", (batch, 100))}

    def loss(self, outputs, batch):
        return (outputs**2).mean()


def test_a_plan_counts_the_batches_drawn_ahead_and_the_draw_of_the_parameters(monkeypatch):
    def fresh(seed):
        return Experiment(MLP([100, 2]), Fresh(), SGD(0.1), 200, batch=50, seed=seed)

    (stack,) = reprise.stack.stacks(Sweep(fresh, seed=list(range(8))).members(), torch.device("cpu"))
    drawn, params = 8 * 50 * 100 * 4, 8 * 202 * 4  # bytes a step, and of the parameters
    monkeypatch.setattr(gears, "_BLOCK_BYTES", 10 * drawn)
    monkeypatch.setattr(shards, "_INITIAL", 0)
    monkeypatch.setattr(shards, "_DRAWING", 0)
    step = shards.plan(stack, "flat").bytes
    assert step >= 3 * params + drawn
    monkeypatch.setattr(shards, "_DRAWING", 3)
    assert shards.plan(stack, "flat").bytes == step + 3 * 10 * drawn
    # half of what the steps of all need, beside what is drawn ahead: that does not shrink with the batch
    monkeypatch.setattr(reprise.device, "free_memory", lambda device: step // 2 + 3 * 10 * drawn)
    half = shards.plan(stack, "flat")
    assert half.size == 4 and half.bytes == step // 2 + 3 * 10 * drawn
    monkeypatch.setattr(shards, "_INITIAL", 10**6)
    monkeypatch.setattr(reprise.device, "free_memory", lambda device: 10**6 * params // 4)
    assert shards.plan(stack, "flat").size == 2


def test_a_piece_that_exceeds_the_memory_of_a_gpu_is_halved(monkeypatch):
    train, tried = shards.Piece.train, []

    def limited(self, watch):
        tried.append(len(self.members))
        if len(self.members) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return train(self, watch)

    sweep = Sweep(wide, seed=list(range(3)))
    whole = sweep.train([end(loss)])
    monkeypatch.setattr(shards.Piece, "train", limited)
    halved = sweep.train([end(loss)])
    assert tried == [3, 1, 2, 1, 1]
    np.testing.assert_allclose(halved.record.loss, whole.record.loss, rtol=1e-5)


# --- workers ---


def test_workers_give_the_record_of_one_process():
    sweep = Sweep(small, lr=[0.01, 0.1], seed=[0, 1])
    probes = [every(20, loss), every(1, training_loss)]
    alone, spread = sweep.train(probes, keep=[0], workers=1), sweep.train(probes, keep=[0], workers=2)
    close(spread.record, alone.record)
    assert spread.states.steps == alone.states.steps
    assert spread.record.attrs["cpu_seconds"] > 0
    for name in ("dims", "coords"):
        assert str(getattr(spread.record.loss, name)) == str(getattr(alone.record.loss, name))


def killing(folder: str, times: int):
    def probe(snapshot):
        marks = [Path(folder) / f"{i}" for i in range(times)]
        for mark in marks:
            if not mark.exists():
                mark.touch()
                os._exit(9)  # as the system does to a process that takes too much
        return {"killed": torch.zeros(())}

    return probe


def test_the_piece_of_a_killed_worker_is_taken_up_again(tmp_path):
    sweep = Sweep(small, lr=[0.01], seed=[0, 1])
    found = sweep.train([every(20, loss), end(killing(str(tmp_path), 1))], workers=2).record
    assert (tmp_path / "0").exists()
    np.testing.assert_allclose(found.loss, sweep.train([every(20, loss)]).record.loss, rtol=1e-9)


def test_an_error_in_a_worker_names_the_member():
    def broken(snapshot):
        raise ArithmeticError("no such measurement")

    with pytest.raises(ArithmeticError, match="no such measurement") as caught:
        Sweep(small, lr=[0.01], seed=[0, 1]).train([end(broken)], workers=2)
    assert any("seed=" in note for note in caught.value.__notes__)


def test_an_interrupt_keeps_what_every_worker_has_measured(monkeypatch):
    def counted(steps):
        return Experiment(MLP([64, 8, 10]), digits, SGD(0.1), steps, batch=16)

    def interrupted(self, done):
        if done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(reprise.sweep._Progress, "count", interrupted)
    sweep = Sweep(counted, steps=[20, 10**6])
    trained = sweep.train([every(10, loss)], workers=2)
    assert trained.interrupted
    short, long = (trained.record.loss.isel(steps=i) for i in (0, 1))
    assert np.isfinite(short.sel(step=[0, 10, 20])).all()
    assert np.isfinite(long.sel(step=0)) and int(np.isfinite(long).sum()) < 10**5


def test_workers_are_started_for_long_runs_only(monkeypatch):
    (stack,) = reprise.stack.stacks(Sweep(wide, seed=[0, 1]).members(), torch.device("cpu"))
    plans, places = [shards.plan(stack, "auto")], [torch.device("cpu")]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert shards.workers_for(plans, places, "auto") == 1
    monkeypatch.setattr(shards, "_SPREAD_FROM", plans[0].seconds / 2)
    assert shards.workers_for(plans, places, "auto") == 2  # one a member at most
    assert shards.workers_for(plans, places, 3) == 3


@pytest.mark.parametrize("workers", [0, 1.5, "many"])
def test_a_wrong_number_of_workers_is_refused(workers):
    with pytest.raises(ValueError, match="workers: expected"):
        Sweep(small, lr=[0.01], seed=[0]).train(workers=workers)
