"""Forms of operations that compiled code is faster with on a CPU: the same mathematics, other rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten

_NARROW = 16  # columns below which a product is computed from its transposed factors
_SLOPE = 2 * math.sqrt(2 / math.pi)  # the tanh form of GELU is x * sigmoid(_SLOPE * (x + _CUBIC * x^3))
_CUBIC = 0.044715


def rewritten(graph: GraphModule) -> GraphModule:
    """The same function with the forms below in place; a graph of another device is returned as it is."""
    example = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    if any(x.device.type != "cpu" for x in example):
        return graph
    return make_fx(graph, decomposition_table=_FORMS)(*example)


def _tanh(x: Tensor) -> Tensor:
    """By one exponential: off by a rounding of 1, where torch's is off by a rounding of the result."""
    return 1 - 2 / (torch.exp(2 * x) + 1)


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        return NotImplemented
    return x * torch.sigmoid(_SLOPE * x * (1 + _CUBIC * x * x))


def _gelu_backward(grad: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        return NotImplemented
    square = x * x
    share = torch.sigmoid(_SLOPE * x * (1 + _CUBIC * square))
    return grad * share * (1 + (1 - share) * _SLOPE * x * (1 + 3 * _CUBIC * square))


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """A product of one pair of matrices as a single product, transposed where the result is narrow."""
    if len(a) != 1:
        return NotImplemented
    narrow = b.shape[2] < _NARROW <= a.shape[1]
    product = torch.mm(b[0].mT, a[0].mT).mT if narrow else torch.mm(a[0], b[0])
    return product[None]


_FORMS = {
    aten.tanh.default: _tanh,
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.bmm.default: _bmm,
}
