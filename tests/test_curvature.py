import functools
from types import SimpleNamespace

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from reprise.curvature import (
    directional_curvature,
    gauss_newton,
    gauss_newton_operator,
    hessian,
    hvp,
    lanczos,
    ritz_pairs,
    sharpness,
    top_eigenpairs,
)
from reprise.streams import Stream

P = 23


@functools.cache
def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 2, (9,), generator=generator)
    return x, y, torch.randn(P, generator=generator, dtype=torch.float64)


def outputs(vector, x):
    first, bias, second = vector[:12].reshape(4, 3), vector[12:15], vector[15:].reshape(2, 4)
    return torch.tanh((x + bias) @ first.T) @ second.T


def loss(vector):
    x, y, _ = inputs()
    return torch.nn.functional.cross_entropy(outputs(vector, x), y)


def matrix_with(eigenvalues, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    basis = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    return basis @ torch.diag(torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T


def quadratic(matrix):
    return lambda vector: vector @ matrix @ vector / 2


def block(k, n, seed=5, dtype=torch.float64):
    return torch.randn(k, n, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_hessian_and_products_equal_autograd():
    vector = inputs()[2]
    dense = torch.autograd.functional.hessian(loss, vector)
    torch.testing.assert_close(hessian(loss, vector), dense, atol=1e-12, rtol=1e-10)
    directions = block(4, P)
    torch.testing.assert_close(hvp(loss, vector, directions), directions @ dense, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(
        hvp(loss, vector, directions[0]), dense @ directions[0], atol=1e-12, rtol=1e-10
    )


@pytest.mark.parametrize("copies", [1, 9])  # fewer outputs than parameters, and many more
def test_gauss_newton_equals_the_dense_product(copies):
    x, y, vector = inputs()
    x, y = x.repeat(copies, 1), y.repeat(copies)

    def forward(v):
        return outputs(v, x)

    def output_loss(z):
        return torch.nn.functional.cross_entropy(z, y)

    jacobian = torch.autograd.functional.jacobian(forward, vector).reshape(-1, P)
    curve = torch.autograd.functional.hessian(output_loss, forward(vector)).reshape(len(jacobian), -1)
    dense = jacobian.T @ curve @ jacobian
    torch.testing.assert_close(gauss_newton(forward, output_loss, vector), dense, atol=1e-12, rtol=1e-10)
    products = gauss_newton_operator(forward, output_loss, vector)(block(3, P))
    torch.testing.assert_close(products, block(3, P) @ dense, atol=1e-12, rtol=1e-10)


def test_directional_curvature():
    matrix = matrix_with([3.0, -1.0, 0.5])
    values, vectors = torch.linalg.eigh(matrix)
    vector = torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(directional_curvature(quadratic(matrix), vector, 7 * vectors.T), values)
    torch.testing.assert_close(directional_curvature(quadratic(matrix), vector, vectors[:, 1]), values[1])


@pytest.mark.parametrize(
    "eigenvalues, k",
    [
        ([*range(1, 41)], 3),
        (
            [-100.0, -99.0, -50.0, *torch.linspace(-1, 1, 35).tolist(), 2.0, 3.0],
            2,
        ),  # power iteration finds -100
        ([-5.0 - i for i in range(40)], 3),  # all negative: the largest is -5, not 0
        ([*torch.linspace(-1, 1, 37).tolist(), 4.0, 4.0, 4.0], 3),  # three times the same
        ([0.0] * 39 + [1.0], 2),  # rank one
    ],
)
def test_the_algebraically_largest_eigenvalues_are_found(eigenvalues, k):
    matrix = matrix_with(eigenvalues)
    pairs = top_eigenpairs(quadratic(matrix), torch.zeros(40, dtype=torch.float64), k, iterations=14)
    expected = sorted(eigenvalues, reverse=True)[:k]
    torch.testing.assert_close(
        pairs.values, torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-5
    )
    gram = pairs.vectors @ pairs.vectors.T
    torch.testing.assert_close(gram, torch.eye(k, dtype=torch.float64), atol=1e-8, rtol=0)
    residuals = (pairs.vectors @ matrix - pairs.values[:, None] * pairs.vectors).norm(dim=-1)
    torch.testing.assert_close(residuals, pairs.residuals, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("size, k, iterations", [(2, 1, 5), (1, 1, 3), (5, 5, 1), (7, 3, 4)])
def test_a_space_of_full_dimension_is_exact(size, k, iterations):
    matrix = matrix_with([(-2.0) ** i for i in range(size)])
    pairs = top_eigenpairs(quadratic(matrix), torch.zeros(size, dtype=torch.float64), k, iterations)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:k]
    if k * iterations >= size:
        torch.testing.assert_close(pairs.values, expected, atol=1e-9, rtol=1e-9)


def test_a_warm_start_follows_a_changing_matrix():
    matrix = matrix_with([-20.0, *torch.linspace(-1, 1, 57).tolist(), 2.0, 3.0])
    drift = 0.01 * matrix_with(torch.linspace(-1, 4, 60).tolist(), 2)
    vectors = block(2, 60)
    for t in range(12):
        now = matrix + t * drift
        pairs = top_eigenpairs(quadratic(now), torch.zeros(60, dtype=torch.float64), 2, 4, vectors)
        vectors = pairs.vectors
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(now).flip(0)[:2], atol=1e-5, rtol=0)


def test_an_exact_start_does_no_harm():
    matrix = matrix_with([-3.0, -2.0, -1.5, -1.0])
    vectors = torch.linalg.eigh(matrix).eigenvectors.flip(-1).T[:1]
    pairs = top_eigenpairs(quadratic(matrix), torch.zeros(4, dtype=torch.float64), 1, 3, vectors)
    torch.testing.assert_close(pairs.values, torch.tensor([-1.0], dtype=torch.float64))


def test_float32_is_as_good_as_float32_allows():
    matrix = matrix_with([-50.0, *torch.linspace(-1, 1, 97).tolist(), 2.0, 3.0]).float()
    pairs = top_eigenpairs(quadratic(matrix), torch.zeros(100), 2, 20)
    torch.testing.assert_close(pairs.values, torch.tensor([3.0, 2.0]), atol=1e-4, rtol=0)


def test_lanczos_finds_both_ends_and_is_exact_at_full_length():
    matrix = matrix_with([-10.0, *torch.linspace(-1, 1, 46).tolist(), 2.0, 3.0, 7.0])
    pairs = lanczos(lambda rows: rows @ matrix, block(1, 50)[0], 25)
    assert pairs.values[0].item() == pytest.approx(7) and pairs.values[-1].item() == pytest.approx(-10)
    full = lanczos(lambda rows: rows @ matrix, block(1, 50)[0], 80)
    torch.testing.assert_close(full.values, torch.linalg.eigvalsh(matrix).flip(0), atol=1e-8, rtol=0)


def test_members_under_vmap_equal_a_loop():
    matrices = torch.stack([matrix_with(block(1, 12, seed)[0].tolist(), seed) for seed in range(4)])
    vectors, starts = block(4, 12, 1), torch.stack([block(2, 12, seed) for seed in range(4)])

    def one(matrix, vector, start):
        return tuple(top_eigenpairs(lambda v: quadratic(matrix)(v) + v.sum(), vector, 2, 4, start))

    together = torch.vmap(one)(matrices, vectors, starts)
    for m in range(4):
        alone = one(matrices[m], vectors[m], starts[m])
        for got, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(got[m].abs(), expected.abs(), atol=1e-8, rtol=1e-8)


def test_one_member_that_is_not_finite_does_not_spoil_the_others():
    broken = torch.full((4, 4), torch.nan, dtype=torch.float64)
    matrices = torch.stack([matrix_with([1.0, 2.0, 3.0, 4.0]), broken])
    vectors = torch.zeros(2, 4, dtype=torch.float64)
    values = torch.vmap(lambda m, v: top_eigenpairs(quadratic(m), v, 2, 2).values)(matrices, vectors)
    torch.testing.assert_close(values[0], torch.tensor([4.0, 3.0], dtype=torch.float64))
    assert values[1].isnan().all()


def test_an_empty_start_is_reported_not_guessed():
    pairs = ritz_pairs(
        lambda rows: rows @ matrix_with([1.0, 2.0]), torch.zeros(1, 2, dtype=torch.float64), 1, 2
    )
    assert pairs.values.isnan().all()


def test_it_can_be_traced():
    vector, start = inputs()[2], block(2, P)

    def top(vector, start):
        return top_eigenpairs(loss, vector, 2, 3, start).values

    torch.testing.assert_close(make_fx(top)(vector, start)(vector, start), top(vector, start))
    members = torch.vmap(top)
    arguments = vector.repeat(3, 1) + block(3, P), start.repeat(3, 1, 1)
    torch.testing.assert_close(make_fx(members)(*arguments)(*arguments), members(*arguments))


@pytest.mark.parametrize("k", [1, 3])
def test_the_sharpness_probe_is_warm_started(k):
    vector, probe = inputs()[2], sharpness(k=k, iterations=3)
    snapshot = SimpleNamespace(loss_at=loss, vector=vector, stream=Stream.of(0, "probe"))
    memory = probe.init(snapshot)
    result, memory = probe(snapshot, memory)
    expected = torch.linalg.eigvalsh(hessian(loss, vector)).flip(0)[:k]
    value = result["sharpness"] if k == 1 else result["sharpness"][1]
    torch.testing.assert_close(value, expected[0] if k == 1 else expected, atol=1e-8, rtol=1e-6)
    assert k == 1 or result["sharpness"][0] == ("eig",)
    assert memory.shape == (k, P)


def test_too_many_pairs_are_refused():
    with pytest.raises(ValueError, match="k: expected 1 to 2 pairs, got 3"):
        ritz_pairs(lambda rows: rows, torch.ones(1, 5), 3, 2)
