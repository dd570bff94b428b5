"""Wrong input is refused before any work starts, by a message that names the argument and what is allowed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reprise import (
    MLP,
    SGD,
    Adam,
    Chapter,
    Clipped,
    Experiment,
    Masked,
    Stream,
    Sweep,
    Transformer,
    at,
    end,
    every,
    logspaced,
    loss,
    weight_norm,
)
from reprise.device import resolve
from reprise.schedules import Drops, Triangle
from reprise.tasks import Digits, InContextRegression, LabelNoise, ModularArithmetic

digits = Digits(n_train=20, n_test=10)


def experiment(**changes):
    return Experiment(**(dict(model=MLP([64, 4, 10]), task=digits, update=SGD(0.1), steps=2) | changes))


def sweep(**axes):
    return Sweep(lambda lr=0.1, seed=0: experiment(update=SGD(lr), seed=seed), **axes)


def trained():
    return sweep(seed=[0, 1]).train()


def with_buffer():
    return nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))


CASES = [
    # experiment
    (lambda: experiment(model="mlp"), TypeError, "model: expected a torch.nn.Module, got 'mlp'"),
    (lambda: experiment(model=with_buffer()), ValueError, "model: modules with buffers are not supported"),
    (lambda: experiment(task=3), TypeError, "task: 3 .* has no method data"),
    (lambda: experiment(update=torch.optim.SGD), TypeError, "update: type has no method init"),
    (lambda: experiment(steps=-1), ValueError, "steps: expected an integer of at least 0, got -1"),
    (lambda: experiment(steps=2.5), ValueError, "steps: expected an integer of at least 0, got 2.5"),
    (lambda: experiment(batch=0), ValueError, "batch: expected an integer of at least 1, got 0"),
    (lambda: experiment(dtype=torch.float16), ValueError, "dtype: expected torch.float32 or torch.float64"),
    (lambda: experiment(seed="a"), ValueError, "seed: expected an integer of at least 0, got 'a'"),
    (
        lambda: experiment(seed={"model": 1}),
        ValueError,
        "seed: expected an integer or the roles model, task, run",
    ),
    (
        lambda: experiment(seed={"model": 1, "task": 1, "run": -1}),
        ValueError,
        r"seed\[run\]: expected an integer",
    ),
    (lambda: experiment(start="weights.pt"), TypeError, "start: expected the State of one member"),
    # sweep
    (lambda: Sweep(3), TypeError, "sweep: expected a function that makes an experiment, got int"),
    (lambda: sweep(lr=0.1), TypeError, r"axis lr: expected a sequence of values .* write \[0.1\]"),
    (lambda: sweep(lr="abc"), TypeError, "axis lr: expected a sequence of values"),
    (lambda: sweep(lr=[]), ValueError, "axis lr: is empty"),
    (lambda: sweep(lr=[0.1, 0.1]), ValueError, "axis lr: values appear twice"),
    (lambda: sweep(lr=[SGD(0.1)]), TypeError, "axis lr: .* cannot label a coordinate; give a dict"),
    (lambda: sweep(width=[3]), ValueError, "has no such argument; it takes lr, seed"),
    (lambda: Sweep(lambda lr, seed: None, lr=[1]), ValueError, "needs an axis seed: the sweep gives lr"),
    (lambda: Sweep(lambda step: None, step=[1]), ValueError, "axis step: this name is kept"),
    (lambda: Sweep(lambda method: None, method=[1]), ValueError, "axis method: this name is kept"),
    (
        lambda: Sweep(lambda a: 3, a=[1]).train(),
        TypeError,
        "must return an Experiment .* got int at {'a': 1}",
    ),
    (lambda: Sweep(lambda a: None, a=[1]).train(), ValueError, "sweep: no member"),
    (
        lambda: Sweep(lambda a: 3, a=[1]).map(),
        TypeError,
        "map: the function must return a dict of arrays, got int",
    ),
    (
        lambda: Sweep(lambda a: {}, a=[1]).map(together=["b"]),
        ValueError,
        "together: no axis b; the axes are a",
    ),
    (
        lambda: Sweep(lambda a: {"x": (("t", "u"), [1, 2])}, a=[1]).map(),
        ValueError,
        "map: x has 1 dimensions but 2 names",
    ),
    # train
    (
        lambda: sweep(seed=[0]).train([loss]),
        TypeError,
        r"probes: loss has no schedule; write every\(10, loss\)",
    ),
    (
        lambda: sweep(seed=[0]).train([every(1, loss), end(loss)]),
        ValueError,
        "probes: loss is scheduled twice",
    ),
    (lambda: sweep(seed=[0]).train(keep=[-1]), ValueError, "keep: expected whole steps of at least 0"),
    (lambda: sweep(seed=[0]).train(gear="fast"), ValueError, 'gear: expected'),
    (
        lambda: sweep(seed=[0]).train(device="gpu"),
        ValueError,
        'device: expected "auto", "cpu", "cuda" or "cuda:N"',
    ),
    (
        lambda: resolve("cuda:99"),
        ValueError,
        "device: 'cuda:99' was asked for, but . CUDA devices are present",
    ),
    (
        lambda: Sweep(lambda seed: experiment(batch=21, seed=seed), seed=[0]).train(),
        ValueError,
        "batch: expected at most the 20 training examples of seed=0, got 21",
    ),
    (
        lambda: Sweep(
            lambda seed: experiment(start=trained().states.sel(seed=0), model=MLP([64, 5, 10])), seed=[0]
        ).train(),
        ValueError,
        "start: the parameters of seed=0 do not fit its model",
    ),
    # probes
    (lambda: every(0, loss), ValueError, "every: expected a whole number of steps of at least 1, got 0"),
    (lambda: every(loss, 3), ValueError, "every: expected a whole number of steps"),
    (lambda: every(3, "loss"), TypeError, "every: expected a probe, a function of a snapshot, got str"),
    (lambda: at([], loss), ValueError, "at: expected whole steps of at least 0"),
    (lambda: at([1.5], loss), ValueError, "at: expected whole steps of at least 0"),
    (lambda: logspaced(1, loss), ValueError, "logspaced: expected at least 2 steps, got 1"),
    (lambda: weight_norm(), ValueError, "weight_norm: name at least one parameter"),
    (
        lambda: sweep(seed=[0]).train([end(weight_norm("layers.9.weight"))]),
        ValueError,
        "weight_norm: no parameter 'layers.9.weight'; the model has layers.0.weight",
    ),
    (
        lambda: sweep(seed=[0]).train([end(lambda s: s.loss("valid"))]),
        ValueError,
        "split: the task has train, test, not 'valid'",
    ),
    # states
    (lambda: trained().states.sel(), ValueError, "states.sel: missing seed; the axes are seed"),
    (lambda: trained().states.sel(seed=0, lr=1), ValueError, "states.sel: unknown lr"),
    (lambda: trained().states.sel(seed=5), ValueError, r"seed: 5 is not on the axis; it has \[0, 1\]"),
    (
        lambda: trained().states.sel(seed=0, step=1),
        ValueError,
        r"step 1 was not kept; kept steps are \[2\]; see keep=",
    ),
    (lambda: trained().record["los"], KeyError, "no 'los' in the record; it holds diverged_at"),
    # updates
    (lambda: SGD(-0.1), ValueError, r"SGD: lr must lie in \[0, inf\)"),
    (lambda: Adam(betas=(0.9, 1.0)), ValueError, "beta2 must lie in"),
    (lambda: Adam(betas=0.9), ValueError, "betas must be a pair of numbers"),
    (lambda: SGD(0.1, nesterov=True), ValueError, "nesterov needs momentum above 0"),
    (lambda: Triangle(0.1, rise=0), ValueError, "rise is a share of all steps"),
    (lambda: Drops(0.1), ValueError, "give either fractions or steps of the drops"),
    (
        lambda: Sweep(lambda seed: experiment(update=SGD({"head.*": 0.1}), seed=seed), seed=[0]).train(),
        ValueError,
        r"patterns \['head.\*'\] match no parameter; the parameters are",
    ),
    (
        lambda: Sweep(
            lambda seed: experiment(update=Masked(Clipped(SGD(0.1)), mask=torch.ones(3)), seed=seed), seed=[0]
        ).train(),
        ValueError,
        "update: a tensor of 3 numbers was given for 310 parameters",
    ),
    # models and tasks
    (lambda: MLP([64]), ValueError, "widths"),
    (lambda: MLP([64, 4, 10], activation="sine"), ValueError, "activation: .*'sine'"),
    (lambda: Transformer(1, 7, 2, outputs=5, vocabulary=5), ValueError, "width|heads"),
    (lambda: Digits(n_train=5000).data(Stream.of(0)), ValueError, "n_train|5000"),
    (lambda: LabelNoise(digits, share=1.5), ValueError, "share: expected a number from 0 to 1, got 1.5"),
    (lambda: ModularArithmetic(6, operation="/"), ValueError, "p|prime"),
    (lambda: InContextRegression(0, 4, 0.1), ValueError, "dimension"),
    # chapter
    (lambda: Chapter("Slug With Spaces"), ValueError, "slug: expected lower-case words joined by hyphens"),
    (lambda: Chapter("a-paper", scale="tiny"), ValueError, 'scale: expected "quick" or "full", got \'tiny\''),
    (lambda: Chapter("a-paper", seed=-3), ValueError, "seed: expected a whole number of at least 0, got -3"),
    (lambda: Chapter("a-paper", device="tpu"), ValueError, "device: expected"),
    (
        lambda: Chapter("a-paper").map("A b", Sweep(lambda a: {}, a=[1])),
        ValueError,
        "name: expected lower-case words",
    ),
    (lambda: Chapter("a-paper").hero(None, alt="plot"), ValueError, "alt: say in a sentence"),
    (
        lambda: Chapter("a-paper").finish({"C1": "reproduced"}),
        ValueError,
        r"finish: expected verdicts for \['C1'\]",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), CASES, ids=[m[:40] for _, _, m in CASES])
def test_wrong_input_is_refused_with_its_reason(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong()


def test_there_are_at_least_forty_cases():
    assert len(CASES) >= 40
