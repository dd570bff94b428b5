"""Traced Hessian products are those of double backward passes, and are made once for all members."""

import shutil

import numpy as np
import pytest
import torch

from reprise import MLP, SGD, Experiment, Sweep, at, every, gears, shards
from reprise.curvature import Sharpness, _append, hessian, hessian_operator, lanczos, ritz_pairs, sharpness
from reprise.products import Products, halves
from reprise.stack import stacks
from reprise.tasks import Digits
from reprise.trace import flatten
from reprise.train import snapshot

GEARS = [
    "flat",
    pytest.param("compiled", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")),
]
digits = Digits(n_train=20, n_test=8)


def network(seed: int, width: int = 3, steps: int = 4, batch: int | None = None) -> Experiment:
    model = MLP([64, width, 10], activation="tanh")
    return Experiment(model, digits, SGD(0.1), steps, batch=batch, dtype=torch.float64, seed=seed)


def seen(products: Products | None = None):
    (stack,) = stacks(Sweep(network, seed=[0]).members(), torch.device("cpu"))
    vector = stack.initial()[0]
    return snapshot(stack, vector, vector, stack.data, stack.run_keys[0], torch.tensor(0), products)


def test_halves_are_the_function_and_the_first_does_not_see_the_last_argument():
    def function(a, b, row):
        return torch.tanh(a @ b.T) @ row.exp() + a.sum(), a.T.contiguous() * row[:2, None]

    a, b, row = torch.randn(3, 2), torch.randn(4, 2), torch.randn(4)
    whole = flatten(function, (a, b, row))
    shared, rest = halves(whole.graph)
    kept = shared(a, b, row)
    assert all(x.is_contiguous() for x in kept)
    for other in (row, torch.randn(4)):
        for found, expected in zip(rest(*kept, other), function(a, b, other), strict=True):
            torch.testing.assert_close(found, expected)
    assert not any("tanh" in str(node.target) for node in rest.graph.nodes)
    assert not any("exp.default" in str(node.target) for node in shared.graph.nodes)


@pytest.mark.parametrize("gear", GEARS)
def test_traced_products_are_those_of_the_dense_hessian(gear):
    plain, now = seen(), seen(products := Products("a network", gear, count=0))
    dense = torch.autograd.functional.hessian(lambda v: plain.loss("train", v), plain.vector)
    operator = now.loss_at.hessian(now.vector)
    assert products.made == 1
    for rows in (torch.randn(1, len(dense)).double(), torch.randn(3, len(dense)).double()):
        torch.testing.assert_close(operator(rows), rows @ dense, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(hessian(now.loss_at, now.vector), dense, atol=1e-12, rtol=1e-9)


def test_the_trace_is_shared_by_members_and_steps_and_takes_their_numbers():
    now = seen(Products("shared by members", "flat", count=0))
    row = torch.randn(1, len(now.vector)).double()
    now.loss_at.hessian(now.vector)(row)
    before = dict(gears._traced)
    there = now.vector + 0.1
    found = now.loss_at.hessian(there)(row)
    assert dict(gears._traced) == before
    dense = torch.autograd.functional.hessian(lambda v: now.loss("train", v), there)
    torch.testing.assert_close(found, row @ dense, atol=1e-12, rtol=1e-9)


def test_products_are_not_traced_in_eager_for_a_few_or_under_vmap():
    assert seen(Products("few", "auto", count=10)).loss_at.hessian(seen().vector) is None
    assert seen(Products("eager", "eager", count=10**6)).loss_at.hessian(seen().vector) is None
    found = []

    def probe(vector):
        found.append(seen(Products("vmap", "flat", count=0)).loss_at.hessian(vector))
        return vector.sum()

    torch.vmap(probe)(seen().vector.repeat(2, 1))
    assert found == [None]


class Branching(Digits):
    def loss(self, outputs, batch):
        return (outputs**2).mean() if float(outputs.sum()) < np.inf else outputs.sum()


def test_a_loss_that_branches_on_values_is_not_traced_and_says_so():
    experiment = Experiment(MLP([64, 2, 10]), Branching(n_train=8, n_test=8), SGD(0.1), 1)
    (stack,) = stacks(Sweep(lambda seed: experiment, seed=[0]).members(), torch.device("cpu"))
    vector = stack.initial()[0]
    products = Products("branching", "flat", 0)
    now = snapshot(stack, vector, vector, stack.data, stack.run_keys[0], torch.tensor(0), products)
    with pytest.warns(UserWarning, match="product with the Hessian could not be traced"):
        found = now.loss_at.hessian(vector)(vector[None])
    dense = torch.autograd.functional.hessian(lambda v: now.loss("train", v), vector)
    torch.testing.assert_close(found[0], dense @ vector, rtol=1e-4, atol=1e-6)


def test_only_probes_that_do_not_trace_their_own_products_are_traced_whole():
    def curvature(snapshot):
        return lanczos(hessian_operator(snapshot.loss_at, snapshot.vector), snapshot.start, 2).values

    def length(snapshot):
        return snapshot.vector.norm()

    def long(seed):
        return network(seed, width=2, steps=70)

    gears._traced.clear()
    Sweep(long, seed=[0]).train([every(1, curvature), every(1, length)])
    assert any("length" in key for key in gears._traced)
    assert not any("curvature" in key for key in gears._traced)
    assert any("Hessian" in key for key in gears._traced)


@pytest.mark.parametrize("gear", GEARS)
@pytest.mark.parametrize("batch", [None, 5])
def test_a_member_alone_has_the_sharpness_that_it_has_among_others(gear, batch):
    def experiment(seed):
        return network(seed, batch=batch)

    probes = [every(1, sharpness(k=2, iterations=4))]
    among = Sweep(experiment, seed=[0, 1]).train(probes, gear="eager").record
    for seed in (0, 1):
        alone = Sweep(experiment, seed=[seed]).train(probes, gear=gear).record
        np.testing.assert_allclose(
            alone.sharpness.sel(seed=seed), among.sharpness.sel(seed=seed), rtol=1e-6, atol=1e-9
        )


def test_a_plan_counts_the_products_that_probes_declare():
    (stack,) = stacks(Sweep(network, seed=[0, 1]).members(), torch.device("cpu"))
    probe = Sharpness(k=2, iterations=10)
    assert probe.products == 20
    alone = shards.plan(stack, "flat").seconds
    cost = shards._program(stack).cost().work
    assert shards.plan(stack, "flat", [at([0, 2], probe)]).seconds == pytest.approx(alone + 2 * 40 * cost)
    (stack,) = stacks(Sweep(network, seed=[0, 1], batch=[4]).members(), torch.device("cpu"))
    alone, cost = shards.plan(stack, "flat").seconds, shards._program(stack).cost().work
    # 20 examples are five batches
    found = shards.plan(stack, "flat", [at([0, 2], probe)]).seconds
    assert found == pytest.approx(alone + 5 * 2 * 40 * cost)


def test_rows_of_a_basis_in_parts_stay_in_order():
    parts: list[torch.Tensor] = []
    for i in range(21):
        _append(parts, torch.full((1, 2), float(i)))
        lengths = [len(x) for x in parts]
        assert lengths == sorted(set(lengths), reverse=True) and sum(lengths) == i + 1
    torch.testing.assert_close(torch.cat(parts)[:, 0], torch.arange(21.0))


@pytest.mark.parametrize("block", [1, 3])
def test_long_lanczos_runs_stay_orthonormal_in_float32(block):
    values = torch.cat([torch.linspace(0, 1, 90), torch.tensor([10.0, 100.0, 1000.0, -500.0])])
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(94, 94, generator=generator).double())[0]
    matrix = (basis * values.double()) @ basis.T
    start = torch.randn(block, 94, generator=generator)
    count = 60 // block
    pairs = ritz_pairs(lambda rows: rows @ matrix.float(), start, 60, count)
    gram = pairs.vectors @ pairs.vectors.T
    torch.testing.assert_close(gram, torch.eye(60), atol=3e-6, rtol=0)
    expected = torch.tensor([1000.0, 100.0, 10.0])
    torch.testing.assert_close(pairs.values[:3], expected, rtol=1e-4, atol=0)
    lowest = lanczos(lambda rows: rows @ matrix.float(), start[0], 60).values[-1]
    torch.testing.assert_close(lowest, torch.tensor(-500.0), rtol=1e-4, atol=0)


def test_freed_memory_is_kept_only_where_the_c_library_can(monkeypatch):
    from reprise import device

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(device.ctypes, "CDLL", missing)
    device.keep_freed_memory.__wrapped__()  # says nothing elsewhere
