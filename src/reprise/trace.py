"""A step as a flat list of tensor operations: autograd and vmap are paid once, not at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

# What a core of a present-day CPU does. They choose between ways to run the same thing, so a factor of two
# is near enough, and constants choose alike on every machine and at every time.
_SECONDS_PER_OPERATION, _FLOPS, _BYTES_PER_SECOND = 4e-6, 80e9, 8e9


def flatten(function: Callable[..., Any], example: tuple[Any, ...]) -> Callable[..., Any]:
    """Trace a pure function of tensors at the shapes of an example, and drop the operations that do nothing.

    The function may nest tensors in dicts, lists and tuples; it must not branch on values. Nothing is
    computed while tracing. The result computes the same operations in the same order, so the numbers are
    those of the function itself; its attribute `graph` is a module of flat lists of tensors.
    """
    leaves, spec = pytree.tree_flatten(example)
    out_spec = None

    def on_leaves(*flat: torch.Tensor) -> list[torch.Tensor]:
        nonlocal out_spec
        result, out_spec = pytree.tree_flatten(function(*pytree.tree_unflatten(flat, spec)))
        return result

    graph = make_fx(on_leaves, tracing_mode="fake", _allow_non_fake_inputs=True)(*leaves)
    _simplify(graph)

    def flat(*arguments: Any) -> Any:
        return pytree.tree_unflatten(graph(*pytree.tree_leaves(arguments)), out_spec)

    flat.graph = graph
    return flat


def _simplify(graph: GraphModule) -> None:
    """Remove views to the same shape, products with one, and aliases; then dead code."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or not node.args or not isinstance(node.args[0], Node):
            continue
        source = node.args[0]
        same_shape = _same(node, source)
        views = (aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.reshape.default)
        nothing = (
            (node.target in views and same_shape)
            or (node.target in (aten.detach.default, aten.alias.default))
            or (node.target is aten.mul.Scalar and node.args[1] == 1 and same_shape)
        )
        if nothing:
            node.replace_all_uses_with(source)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _same(node: Node, source: Node) -> bool:
    new, old = node.meta.get("val"), source.meta.get("val")
    if not isinstance(new, torch.Tensor) or not isinstance(old, torch.Tensor):
        return False
    return new.shape == old.shape and new.dtype == old.dtype and new.stride() == old.stride()


@dataclass(frozen=True)
class Cost:
    """What one call of a traced function takes.

    operations: dispatched. flops: of matrix products and convolutions. moved: bytes written. peak: bytes of
    the tensors that live at the same time, inputs included.
    """

    operations: int
    flops: float
    moved: int
    peak: int

    @property
    def overhead(self) -> float:
        """Seconds of a call that do not depend on how large the tensors are."""
        return self.operations * _SECONDS_PER_OPERATION

    @property
    def work(self) -> float:
        """Seconds of arithmetic and of moving numbers, on one core."""
        return self.flops / _FLOPS + self.moved / _BYTES_PER_SECOND


def cost_of(graph: GraphModule) -> Cost:
    """The cost of a traced function, read off the shapes in its graph."""
    nodes = list(graph.graph.nodes)
    last = {source: node for node in nodes for source in node.all_input_nodes}
    operations, flops, moved = 0, 0.0, 0
    live = peak = sum(_bytes(node) for node in nodes if node.op == "placeholder")
    for node in nodes:
        if node.op == "call_function":
            operations += 1
            formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
            if formula:
                args, kwargs = map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
                flops += formula(*args, **kwargs, out_val=node.meta["val"])
            live += _bytes(node)
            moved += _bytes(node)
            peak = max(peak, live)
        # what was handed in stays with its owner
        gone = [n for n in node.all_input_nodes if last[n] is node and n.op != "placeholder"]
        live -= sum(_bytes(source) for source in gone)
    return Cost(operations, flops, moved, peak)


def _bytes(node: Node) -> int:
    """Bytes that a node allocates: views share those of their source."""
    if node.op == "call_function" and getattr(node.target, "is_view", False):
        return 0
    sizes = [
        x.numel() * x.element_size()
        for x in pytree.tree_leaves(node.meta.get("val"))
        if isinstance(x, torch.Tensor)
    ]
    return sum(sizes)
