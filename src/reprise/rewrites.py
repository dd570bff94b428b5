"""Forms of operations that compiled code is faster with on a CPU: the same mathematics, other rounding."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from .device import processor

aten = torch.ops.aten

_AS_STRIDED = aten.as_strided.default
_VIEWS = (aten.view.default, aten._unsafe_view.default)
_POOL = aten.max_pool2d_with_indices.default
_POOL_BACKWARD = aten.max_pool2d_with_indices_backward.default

_LARGE = 2e6  # multiplications and additions from which a product is worth the start of oneDNN's
_NARROW = 16  # columns below which a product is computed from its transposed factors
_SLOPE = 2 * math.sqrt(2 / math.pi)  # the tanh form of GELU is x * sigmoid(_SLOPE * (x + _CUBIC * x^3))
_CUBIC = 0.044715


def rewritten(graph: GraphModule) -> GraphModule:
    """The same function with the forms below in place; its results are contiguous.

    A graph of another device, or one that looks at how its tensors lie in memory, is returned as it is.
    """
    nodes = graph.graph.nodes
    example = [node.meta["val"] for node in nodes if node.op == "placeholder"]
    if any(x.device.type != "cpu" for x in example) or any(n.target is _AS_STRIDED for n in nodes):
        return graph
    own, forms = _Reshaping(graph), dict(_FORMS)
    if not _only_for_gradients(nodes):
        del forms[_POOL], forms[_POOL_BACKWARD]

    def function(*leaves: Tensor) -> list[Tensor]:
        return [x.contiguous() for x in own.run(*leaves)]

    return make_fx(function, decomposition_table=forms)(*example)


class _Reshaping(Interpreter):
    """Runs a graph whose tensors may have other strides than when it was traced.

    Views become copies where the strides need it; elementwise operations see channels that are last in memory
    as the last axis, so that compiled code keeps them there.
    """

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """What a node computes."""
        if target in _VIEWS:
            return torch.reshape(*args)
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        elementwise = torch.Tag.pointwise in getattr(target, "tags", ())
        alike = elementwise and len({x.dim() for x in tensors}) == 1
        if not alike or not any(map(_channels_last, tensors)):
            return super().call_function(target, args, kwargs)
        moved = pytree.tree_map_only(Tensor, lambda x: x.movedim(-3, -1), (args, kwargs))
        return super().call_function(target, *moved).movedim(-1, -3)


def _channels_last(x: Tensor) -> bool:
    return x.dim() > 3 and x.shape[-3] > 1 and x.stride(-3) == 1 != x.stride(-1)


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


def _mm(a: Tensor, b: Tensor) -> Tensor:
    """By oneDNN where that is faster."""
    if not _for_onednn(a, b):
        return NotImplemented
    if not a.is_contiguous() and (b.mT.is_contiguous() or b.shape[-1] < a.shape[-2]):
        return product(b.mT.contiguous(), _dense(a.mT)).mT
    return product(a.contiguous(), _dense(b))


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    """As `_mm`; one pair of matrices as a single product, transposed where the result is narrow."""
    if len(a) > 1 or _for_onednn(a, b):
        return _mm(a, b)
    narrow = b.shape[2] < _NARROW <= a.shape[1]
    return (torch.mm(b[0].mT, a[0].mT).mT if narrow else torch.mm(a[0], b[0]))[None]


def _dense(matrix: Tensor) -> Tensor:
    return matrix if matrix.mT.is_contiguous() else matrix.contiguous()


def _for_onednn(a: Tensor, b: Tensor) -> bool:
    several = a.dim() == 3 and len(a) > 1  # their results are copied once more
    large = 2 * a.shape[-2] * math.prod(b.shape[-2:]) >= _LARGE * (1 + several)
    return large and a.dtype == b.dtype == torch.float32 and onednn_is_faster()


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies matrices faster here: MKL leaves AMD's 512-bit instructions unused."""
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and "AMD" in processor() and torch.backends.mkldnn.is_available()


def _pool(
    x: Tensor, size: list, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    """Maxima of squares of four, without a loop over each square; in place of their indices them again."""
    if not _squares(x, size, stride, padding, dilation):
        return NotImplemented
    largest = functools.reduce(torch.maximum, _quarters(x)).permute(0, 3, 1, 2)
    return largest, largest


def _pool_backward(
    grad: Tensor,
    x: Tensor,
    size: list,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    largest: Tensor,
) -> Tensor:
    """Each gradient to the first of its square that is largest."""
    if not _squares(x, size, stride, padding, dilation):
        return NotImplemented
    (n, channels, height, width), grad = x.shape, grad.permute(0, 2, 3, 1)
    *known, _ = [quarter == largest.permute(0, 2, 3, 1) for quarter in _quarters(x)]
    first = [known[0], ~known[0] & known[1], ~(known[0] | known[1]) & known[2]]
    first.append(~(known[0] | known[1] | known[2]))
    shares = [torch.where(here, grad, 0) for here in first]
    rows = [torch.cat(shares[:2], 3), torch.cat(shares[2:], 3)]
    return torch.cat(rows, 2).reshape(n, height, width, channels).permute(0, 3, 1, 2)


def _only_for_gradients(nodes: Iterable[Node]) -> bool:
    """Whether nothing but the backward of poolings reads which elements were largest."""
    parts = [part for node in nodes if node.target is _POOL for part in node.users if part.args[1] == 1]
    return all(reader.target is _POOL_BACKWARD for part in parts for reader in part.users)


def _squares(x: Tensor, size: Any, stride: Any, padding: Any, dilation: Any) -> bool:
    """Whether a pooling of (N, C, H, W) takes squares of four side by side, and nothing is left over."""
    usual = [size, stride or size, padding, dilation]
    wanted = [([n], [n, n], n) for n in (2, 2, 0, 1)]
    even = x.dim() == 4 and x.shape[2] % 2 == x.shape[3] % 2 == 0
    return even and all(value in allowed for value, allowed in zip(usual, wanted, strict=True))


def _quarters(x: Tensor) -> list[Tensor]:
    """Upper left, upper right, lower left and lower right of each square, with the channels last."""
    last = x.permute(0, 2, 3, 1)
    return [last[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]


def _convolution(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    """With the channels last, as the poolings want them."""
    if x.dim() != 4 or rest[-1] != 1 or (x.stride(1) == weight.stride(1) == 1):
        return NotImplemented
    return aten.convolution(_with_channels_last(x), _with_channels_last(weight), *rest)


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> tuple:
    """As `_convolution`."""
    if x.dim() != 4 or rest[-2] != 1 or (grad.stride(1) == x.stride(1) == weight.stride(1) == 1):
        return NotImplemented
    return aten.convolution_backward(*map(_with_channels_last, (grad, x, weight)), *rest)


def _with_channels_last(x: Tensor) -> Tensor:
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    return x[:, 0].contiguous()[..., None].permute(0, 3, 1, 2)  # else the strides say nothing


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.dim() == 2:
        return torch.ops.mkldnn._linear_pointwise.default(a, b.mT, None, "none", [], "")
    if len(a) == 1:
        return _product(a[0], b[0])[None]
    return torch.stack([_product(*pair) for pair in zip(a, b, strict=True)])


def _product_shape(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(*a.shape[:-1], b.shape[-1])


_library = torch.library.Library("reprise", "DEF")
_library.define("product(Tensor a, Tensor b) -> Tensor")
_library.impl("product", _product, "CPU")
torch.library.register_fake("reprise::product", _product_shape, lib=_library)
# by oneDNN, on the CPU: (m, k) by (k, n), or (M, m, k) by (M, k, n); float32 and dense, `a` contiguous
product = torch.ops.reprise.product.default

_FORMS = {
    aten.tanh.default: _tanh,
    aten.gelu.default: _gelu,
    aten.gelu_backward.default: _gelu_backward,
    aten.bmm.default: _bmm,
    aten.mm.default: _mm,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    _POOL: _pool,
    _POOL_BACKWARD: _pool_backward,
}
