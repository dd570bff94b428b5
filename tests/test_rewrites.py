"""The forms that compiled code uses compute what they replace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reprise import gears, rewrites
from reprise.models import ConvNet
from reprise.rewrites import rewritten
from reprise.trace import flatten

aten = torch.ops.aten
with_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


def forms_of(function, *example):
    graph = flatten(lambda *x: [function(*x)], example).graph
    form = rewritten(graph)
    return form, [node.target for node in form.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_tanh_by_one_exponential(dtype, atol):
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([-1e30, 1e30, -torch.inf, torch.inf])]).to(
        dtype
    )
    form, used = forms_of(torch.tanh, x)
    assert aten.tanh.default not in used
    torch.testing.assert_close(form(x)[0], torch.tanh(x), rtol=0, atol=atol)
    assert form(torch.full_like(x, torch.nan))[0].isnan().all()


def test_gelu_and_its_gradient_by_a_sigmoid():
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)

    def value_and_slope(x):
        slope, value = torch.func.grad_and_value(lambda y: F.gelu(y, approximate="tanh").sum())(x)
        return torch.stack([F.gelu(x, approximate="tanh"), slope])

    form, used = forms_of(value_and_slope, x)
    assert not any("gelu" in str(target) for target in used)
    torch.testing.assert_close(form(x)[0], value_and_slope(x), rtol=1e-12, atol=1e-14)


def test_the_exact_gelu_is_left_alone():
    x = torch.linspace(-3, 3, 11)
    form, used = forms_of(F.gelu, x)
    assert aten.gelu.default in used
    assert torch.equal(form(x)[0], F.gelu(x))


@pytest.mark.parametrize("members, columns", [(1, 3), (1, 40), (2, 3)])
def test_products_of_one_pair_of_matrices(members, columns):
    a, b = torch.randn(members, 30, 20, dtype=torch.float64), torch.randn(members, 20, columns).double()
    form, used = forms_of(torch.bmm, a, b)
    assert (aten.mm.default in used) == (members == 1)
    torch.testing.assert_close(form(a, b)[0], a @ b)
    assert form(a, b)[0].shape == (members, 30, columns)


@with_onednn
@pytest.mark.parametrize("members", [None, 1, 3])
@pytest.mark.parametrize(
    "layout", ["rows, rows", "rows, columns", "columns, rows", "columns, columns", "parts"]
)
def test_large_products_by_onednn(monkeypatch, members, layout):
    monkeypatch.setattr(rewrites, "onednn_is_faster", lambda: True)
    lead = () if members is None else (members,)
    a, b = torch.randn(*lead, 150, 130), torch.randn(*lead, 130, 120)
    first, _, second = layout.partition(", ")
    if layout == "parts":
        a, b = torch.randn(*lead, 150, 260)[..., ::2], torch.randn(*lead, 1, 120).expand(*lead, 130, 120)
    a = a.mT.contiguous().mT if first == "columns" else a
    b = b.mT.contiguous().mT if second == "columns" else b
    form, used = forms_of(torch.matmul, a, b)
    assert rewrites.product in used and not {aten.mm.default, aten.bmm.default} & set(used)
    (found,) = form(a, b)
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-4)
    assert found.is_contiguous()


@with_onednn
@pytest.mark.parametrize("rows, dtype", [(20, torch.float32), (200, torch.float64)])
def test_small_products_and_other_numbers_stay_with_torch(monkeypatch, rows, dtype):
    monkeypatch.setattr(rewrites, "onednn_is_faster", lambda: True)
    a, b = torch.randn(rows, 100, dtype=dtype), torch.randn(100, 100, dtype=dtype)
    form, used = forms_of(torch.mm, a, b)
    assert rewrites.product not in used
    assert torch.equal(form(a, b)[0], a @ b)


@with_onednn
@pytest.mark.skipif(not gears.has_compiler(), reason="needs a C++ compiler")
def test_products_by_onednn_in_machine_code(monkeypatch):
    monkeypatch.setattr(rewrites, "onednn_is_faster", lambda: True)

    def slope(weight, x):
        return torch.func.grad(lambda w: torch.tanh(x @ w).square().sum())(weight)

    weight, x = torch.randn(110, 120), torch.randn(150, 110)
    graph = flatten(lambda *leaves: [slope(*leaves)], (weight, x)).graph
    code = gears.compiled(graph)
    assert code is not graph  # which it is where compiling fails
    torch.testing.assert_close(code(weight, x)[0], slope(weight, x), rtol=1e-4, atol=1e-4)


def pooled(x, weights):
    largest = F.max_pool2d(x, 2)
    return (largest * weights).sum(), largest


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("ties", [False, True])
def test_poolings_of_four_and_their_gradients(last, ties):
    x = torch.randint(3, (5, 3, 8, 6)).double() if ties else torch.randn(5, 3, 8, 6)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weights = torch.randn(5, 3, 4, 3, dtype=x.dtype)

    def both(x):
        return torch.func.grad_and_value(lambda y: pooled(y, weights)[0])(x)[0], pooled(x, weights)[1]

    graph = flatten(lambda y: list(both(y)), (x,)).graph
    form = rewritten(graph)
    assert not any("pool" in str(node.target) for node in form.graph.nodes)
    for found, expected in zip(form(x), both(x), strict=True):
        assert torch.equal(found, expected) and found.is_contiguous()


@pytest.mark.parametrize("options", [{"kernel_size": 3}, {"kernel_size": 2, "stride": 1}, {"kernel_size": 2}])
def test_other_poolings_are_left_alone(options):
    x = torch.randn(2, 3, 7, 7)
    form, used = forms_of(lambda y: F.max_pool2d(y, **options), x)
    assert aten.max_pool2d_with_indices.default in used
    assert torch.equal(form(x)[0], F.max_pool2d(x, **options))


def test_a_pooling_whose_places_are_read_otherwise_is_left_alone():
    x, direction = torch.randn(2, 3, 6, 6, dtype=torch.float64), torch.randn(2, 3, 6, 6, dtype=torch.float64)

    def along(x, direction):  # the second derivative gathers by the places of the maxima
        slope = torch.func.grad(lambda y: F.max_pool2d(y, 2).pow(3).sum())
        return torch.func.vjp(slope, x)[1](direction)[0]

    form, used = forms_of(along, x, direction)
    assert aten.max_pool2d_with_indices.default in used
    torch.testing.assert_close(form(x, direction)[0], along(x, direction))


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_with_the_channels_last(channels):
    model = ConvNet(8, (4, 6), classes=3, channels=channels, activation="tanh").double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    weights = {name: x.detach() for name, x in model.named_parameters()}
    x = torch.randn(5, channels, 8, 8, dtype=torch.float64)

    def slopes(weights, x):
        return torch.func.grad(lambda w: torch.func.functional_call(model, w, x).square().sum())(weights)

    form = rewritten(flatten(lambda w, x: list(slopes(w, x).values()), (weights, x)).graph)
    convolutions = [n for n in form.graph.nodes if n.target == aten.convolution.default]
    assert convolutions and all(n.args[0].meta["val"].stride(1) == 1 for n in convolutions)
    for found, expected in zip(form(*weights.values(), x), slopes(weights, x).values(), strict=True):
        torch.testing.assert_close(found, expected)
        assert found.is_contiguous()


def test_a_graph_that_looks_at_strides_is_left_alone():
    x = torch.randn(4, 6)
    graph = flatten(lambda y: [torch.tanh(y.as_strided((3, 3), (6, 1)))], (x,)).graph
    assert rewritten(graph) is graph
