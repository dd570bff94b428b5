"""Captured steps give what called steps give; where there is no GPU, a replay runs what would be captured."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import reprise.capture as capture
import reprise.checkpoint
from reprise import MLP, SGD, Adam, AdamW, Experiment, Sweep, Transformer, every, loss, training_loss
from reprise.models import ResNet, initialise
from reprise.probes import at
from reprise.schedules import Triangle, WarmupCosine
from reprise.stack import stacks
from reprise.streams import Stream
from reprise.tasks import Digits, InContextRegression, LabelNoise
from reprise.trace import flatten
from reprise.train import Run
from reprise.updates import Rule

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CPU, DOUBLE = torch.device("cpu"), torch.float64
digits = Digits(n_train=60, n_test=12)
regression = InContextRegression(dimension=2, pairs=3, noise=0.1)


@dataclass(frozen=True)
class Delayed(Rule):
    """Descent along the gradient at the parameters before the last ones: the state takes over params."""

    lr: float = 0.1

    def init(self, params):
        return {"last": params.clone(), "before": params.clone()}

    def step(self, params, state, gradient, hyper, step):
        _, grads = gradient(state["before"])
        moved = params - hyper["lr"].to(params.dtype) * grads
        return moved, {"last": params, "before": state["last"]}


class Moved:
    """How far the parameters have come since the last visit; remembers them as they are."""

    name = "moved"

    def init(self, snapshot):
        return {"last": snapshot.vector}

    def __call__(self, snapshot, memory):
        return {"moved": (snapshot.vector - memory["last"]).norm()}, {"last": snapshot.vector}


def experiment(seed, update, task=digits, batch=16, steps=60):
    widths = [15, 6, 3] if task is regression else [64, 6, 10]
    return Experiment(
        MLP(widths, activation="tanh"), task, update, steps, batch=batch, dtype=DOUBLE, seed=seed
    )


CASES = {
    "momentum, ordered batches": lambda lr, seed: experiment(seed, SGD(lr, momentum=0.9, weight_decay=1e-3)),
    "adam, scheduled": lambda lr, seed: experiment(seed, Adam(Triangle(lr, rise=0.2))),
    "full batch": lambda lr, seed: experiment(seed, SGD(WarmupCosine(lr, steps=5)), batch=None),
    "fresh draws": lambda lr, seed: experiment(seed, AdamW(lr / 10), regression),
    "new noise at every visit": lambda lr, seed: experiment(seed, SGD(lr), LabelNoise(digits, share=0.2)),
    "a state that takes over params": lambda lr, seed: experiment(seed, Delayed(lr)),
    "unequal budgets": lambda lr, seed: experiment(seed, SGD(lr), steps=40 + 20 * seed),
}


@pytest.fixture
def replays(monkeypatch):
    """Capture on the CPU: what is to be captured is called at every replay, and the replays are counted."""
    counts = Counter()

    def on_cpu(bodies, changed):
        def replay(steps):
            counts[steps] += 1
            bodies[steps]()

        for body in bodies.values():
            capture.rehearse(body, changed, 2)
        return {steps: lambda steps=steps: replay(steps) for steps in bodies}

    monkeypatch.setattr(capture, "captures", lambda device: True)
    monkeypatch.setattr(capture, "cuda_capture", on_cpu)
    monkeypatch.setattr(capture, "_BLOCK_STEPS", 24)
    return counts


def same(one, other):
    assert set(one.record) == set(other.record)
    for name in one.record:
        np.testing.assert_allclose(one.record[name], other.record[name], rtol=1e-9, atol=1e-12)
    assert one.states.steps == other.states.steps
    for index, kept in one.states.members.items():
        for step, vector in kept.items():
            torch.testing.assert_close(vector, other.states.members[index][step], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_captured_steps_equal_eager_ones(case, replays):
    sweep = Sweep(CASES[case], lr=[0.02, 0.1], seed=[0, 1])
    probes = [every(20, loss), every(1, training_loss), at([5, 30], Moved())]
    captured = sweep.train(probes, keep=[3, 16], gear="flat", device="cpu")
    assert replays[8] and replays[1]
    same(captured, sweep.train(probes, keep=[3, 16], gear="eager", device="cpu"))


@needs_compiler
def test_compiled_steps_are_captured_as_well(replays):
    sweep = Sweep(CASES["full batch"], lr=[0.1], seed=[0, 1])
    compiled = sweep.train([at([5, 60], loss)], gear="compiled", device="cpu", workers=1)
    assert replays == {8: 6, 1: 12}
    same(compiled, sweep.train([at([5, 60], loss)], gear="eager", device="cpu", workers=1))


def test_a_replay_takes_several_steps_where_nothing_looks_between_them(replays):
    sweep = Sweep(CASES["fresh draws"], lr=[0.1], seed=[0])
    sweep.train([at([0, 35, 60], loss), every(1, training_loss)], gear="flat", device="cpu")
    # 35 lies inside the steps 32 to 40 and 60 inside 56 to 64; 24 steps of batches are drawn at a time
    assert replays == {8: 4 + 2, 1: 8 + 4, 0: 3}


def test_capturing_leaves_everything_as_it_was(replays):
    (stack,) = stacks(Sweep(CASES["adam, scheduled"], lr=[0.1], seed=[0, 1]).members(), CPU)
    program = Run(stack, [], []).program()
    before = [x.clone() for x in program.carry]
    steps = capture.launch(program, "flat", 60)
    assert isinstance(steps, capture.Captured)
    for now in (steps.carry(), program.carry):
        assert all(torch.equal(x, old) for x, old in zip(now, before, strict=True))
    assert not replays


def test_a_member_that_diverges_when_captured_leaves_its_neighbours_alone(replays):
    squared = Digits(n_train=60, n_test=12, loss_name="squared", labels="one-hot")

    def make(lr):
        return Experiment(MLP([64, 8, 10]), squared, SGD(lr), 200, dtype=DOUBLE)

    mixed = Sweep(make, lr=[0.05, 1e6]).train([every(10, loss)], gear="flat", device="cpu").record
    alone = Sweep(make, lr=[0.05]).train([every(10, loss)], gear="eager", device="cpu").record
    np.testing.assert_allclose(mixed.loss.sel(lr=0.05), alone.loss.sel(lr=0.05), rtol=1e-9)
    assert 0 < float(mixed.diverged_at.sel(lr=1e6)) < 200


def test_a_captured_run_that_is_resumed_is_the_uninterrupted_one_bit_for_bit(replays, tmp_path, monkeypatch):
    sweep = Sweep(CASES["adam, scheduled"], lr=[0.02, 0.1], seed=[0, 1])
    options = {"probes": [every(20, loss)], "gear": "flat", "device": "cpu"}
    whole = sweep.train(**options)
    write, written = reprise.checkpoint.Checkpoint.write, []

    def stop_at_the_second(self, run):
        write(self, run)
        written.append(run.step)
        if len(written) == 2:
            raise RuntimeError("stopped")

    kept = {"checkpoint": tmp_path / "checkpoint", "checkpoint_seconds": 0}
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stopped"):
        patch.setattr(reprise.checkpoint.Checkpoint, "write", stop_at_the_second)
        sweep.train(**options, **kept)
    assert written == [24, 48]
    resumed = sweep.train(**options, **kept)
    assert resumed.record.loss.identical(whole.record.loss)
    assert torch.equal(resumed.states.stacked(), whole.states.stacked())


def test_steps_that_cannot_be_captured_are_called_and_a_warning_says_so_once(replays, monkeypatch):
    def refuse(bodies, changed):
        raise RuntimeError("called a synchronizing CUDA operation\nmore of it")

    monkeypatch.setattr(capture, "cuda_capture", refuse)
    monkeypatch.setattr(capture, "_refused", set())
    sweep = Sweep(CASES["adam, scheduled"], lr=[0.02, 0.1], seed=[0, 1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [sweep.train([every(20, loss)], gear="flat", device="cpu") for _ in range(2)]
    said = [str(w.message) for w in caught if "CUDA graph" in str(w.message)]
    assert said == ["the step could not be captured as a CUDA graph: called a synchronizing CUDA operation"]
    for one in found:
        same(one, sweep.train([every(20, loss)], gear="eager", device="cpu"))


def test_a_step_that_changes_what_it_carries_is_not_captured(replays, monkeypatch):
    class Promoting(Delayed):
        def init(self, params):
            return {"last": params.clone(), "before": params.float()}

        def step(self, params, state, gradient, hyper, step):
            return super().step(
                params, state | {"before": state["before"].to(params.dtype)}, gradient, hyper, step
            )

    monkeypatch.setattr(capture, "_refused", set())
    (stack,) = stacks([*Sweep(lambda seed: experiment(seed, Promoting()), seed=[0]).members()], CPU)
    with pytest.warns(UserWarning, match="a step turns torch.float32 .* into torch.float64"):
        steps = capture.launch(Run(stack, [], []).program(), "flat", 60)
    assert isinstance(steps, capture.Called)


def test_short_runs_and_the_eager_gear_are_not_captured(replays):
    sweep = Sweep(CASES["fresh draws"], lr=[0.1], seed=[0])
    for gear in ("auto", "eager"):
        sweep.train([], gear=gear, device="cpu")
    assert not replays


# --- nothing in a graph reads from the host or waits for the device ---


class OnDevice(TorchDispatchMode):
    """Refuses operations that a CUDA graph cannot hold; the meta device stands for the GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in pytree.tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        # a single number from the host is an argument of the kernel; all else would have to be copied
        assert all(x.device.type == "meta" or x.ndim == 0 for x in tensors), f"{function} on the CPU"
        copies = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if function in copies:
            assert all(x.device.type == "meta" for x in tensors), f"{function} between devices"
        return result


def transformer(lr, seed):
    model = Transformer(1, 8, 2, outputs=1, context=5, features=3, read=regression.read)
    return Experiment(model, regression, AdamW(WarmupCosine(lr, steps=5)), 60, batch=4, seed=seed)


@pytest.mark.parametrize("case", ["adam, scheduled", "full batch", "new noise at every visit", "transformer"])
def test_graphs_stay_on_the_device(case, monkeypatch):
    held, make = {}, (CASES | {"transformer": transformer})[case]
    monkeypatch.setattr(capture, "captures", lambda device: True)
    monkeypatch.setattr(capture, "cuda_capture", lambda bodies, changed: held.update(bodies) or held)
    (stack,) = stacks([*Sweep(make, lr=[0.1], seed=[0, 1]).members()], torch.device("meta"))
    steps = capture.launch(Run(stack, [], []).program(), "flat", 60)
    assert set(held) == ({1, 8} if stack.full_batch else {0, 1, 8})
    with torch.no_grad(), OnDevice():
        for replay in held.values():
            replay()
    steps.draw(0, 24)  # on a device nothing of it can be read: an attempt would raise


def test_constants_of_a_traced_function_are_kept_where_they_are_used():
    def function(x):
        chosen = torch.tensor([0, 2], device=x.device)
        shift = torch.tensor([1.0, 2.0]) + torch.arange(2)
        return x.index_select(1, chosen) * torch.tensor(3.0) + shift.to(x.device) + x[:, [1, 0]]

    graph = flatten(function, (torch.empty(3, 4, device="meta"),)).graph
    with OnDevice():
        (result,) = graph(torch.empty(3, 4, device="meta"))
    assert result.shape == (3, 2)
    x = torch.randn(3, 4)
    torch.testing.assert_close(flatten(function, (x,))(x), function(x))


@pytest.mark.parametrize(
    "model",
    [MLP([4, 3, 2], norm="layer-affine"), transformer(0.1, 0).model, ResNet(2, blocks=1, width=8)],
    ids=lambda model: type(model).__name__,
)
def test_parameters_are_drawn_on_the_device_of_the_stream(model):
    drawn = initialise(model, Stream.of(0, "model", "meta"), torch.float32)
    assert {x.device.type for x in drawn.values()} == {"meta"}


@pytest.mark.parametrize("begin", [0, 5, 6, 17])
def test_batches_drawn_from_tensors_alone_are_those_of_the_stream(begin):
    make = CASES["new noise at every visit"]
    (stack,) = stacks(Sweep(make, lr=[0.1], seed=[0, 1]).members(), CPU)
    steps = torch.arange(begin, begin + 8)
    drawn = stack.draw_consecutive(stack.run_keys, stack.data, steps)
    for row, member in enumerate(stack.members):
        stream = Stream.of(member.experiment.seed_of("run"), "run")
        data = stack.members_data[row]
        for t, step in enumerate(steps):
            batch = stack.task.draw(data, stream.at(step), 16)
            assert all(torch.equal(drawn[name][t, row], x) for name, x in batch.items())


# --- on a GPU ---


@needs_gpu
@pytest.mark.parametrize("gear", ["flat", "compiled"])
@pytest.mark.parametrize("case", CASES)
def test_replays_on_a_gpu_equal_eager_steps_there(case, gear):
    sweep = Sweep(CASES[case], lr=[0.02, 0.1], seed=[0, 1])
    probes = [every(20, loss), every(1, training_loss)]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the step could not be captured")
        captured = sweep.train(probes, keep=[3, 16], gear=gear, device="cuda:0", workers=1)
    same(captured, sweep.train(probes, keep=[3, 16], gear="eager", device="cuda:0", workers=1))


@needs_gpu
def test_a_replay_on_a_gpu_advances_and_its_capture_does_not():
    (stack,) = stacks(Sweep(CASES["fresh draws"], lr=[0.1], seed=[0, 1]).members(), torch.device("cuda:0"))
    program = Run(stack, [], []).program()
    steps = capture.launch(program, "flat", 60)
    assert isinstance(steps, capture.Captured)
    assert all(torch.equal(x, old) for x, old in zip(steps.carry(), program.carry, strict=True))
    steps.draw(0, 24)
    with capture._no_waiting():
        steps.take(8)
        steps.take(1)
        carry, losses = steps.carry(), steps.losses()
    called = capture.Called(program)
    called.draw(0, 24)
    for _ in range(9):
        called.take(1)
    for x, other in zip(carry, called.carry(), strict=True):
        torch.testing.assert_close(x, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.stack(losses[:9]), torch.stack(called.losses()), rtol=1e-9, atol=1e-12)


@needs_gpu
def test_a_step_that_waits_for_the_gpu_is_called_instead(monkeypatch):
    @dataclass(frozen=True)
    class Solving(SGD):
        def step(self, params, state, gradient, hyper, step):
            host = torch.linalg.norm(params.cpu()).to(params.device)
            params, state = super().step(params, state, gradient, hyper, step)
            return params + 0 * host, state

    monkeypatch.setattr(capture, "_refused", set())
    sweep = Sweep(lambda seed: experiment(seed, Solving(0.1)), seed=[0, 1])
    with pytest.warns(UserWarning, match="could not be captured as a CUDA graph"):
        found = sweep.train([every(20, loss)], gear="flat", device="cuda:0", workers=1)
    same(found, sweep.train([every(20, loss)], gear="eager", device="cuda:0", workers=1))
