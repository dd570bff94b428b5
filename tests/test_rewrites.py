"""The forms that compiled code uses compute what they replace."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reprise.rewrites import rewritten
from reprise.trace import flatten


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
    assert torch.ops.aten.tanh.default not in used
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
    assert torch.ops.aten.gelu.default in used
    assert torch.equal(form(x)[0], F.gelu(x))


@pytest.mark.parametrize("members, columns", [(1, 3), (1, 40), (2, 3)])
def test_products_of_one_pair_of_matrices(members, columns):
    a, b = torch.randn(members, 30, 20, dtype=torch.float64), torch.randn(members, 20, columns).double()
    form, used = forms_of(torch.bmm, a, b)
    assert (torch.ops.aten.mm.default in used) == (members == 1)
    torch.testing.assert_close(form(a, b)[0], a @ b)
    assert form(a, b)[0].shape == (members, 30, columns)
