"""A step as a flat list of tensor operations: autograd and vmap are paid once, not at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

aten = torch.ops.aten


def flatten(function: Callable[..., Any], example: tuple[Any, ...]) -> Callable[..., Any]:
    """Trace a pure function of tensors at the shapes of an example, and drop the operations that do nothing.

    The function may nest tensors in dicts, lists and tuples; it must not branch on values. The result
    computes the same operations in the same order, so the numbers are those of the function itself.
    """
    leaves, spec = pytree.tree_flatten(example)
    out_spec = None

    def on_leaves(*flat: torch.Tensor) -> list[torch.Tensor]:
        nonlocal out_spec
        result, out_spec = pytree.tree_flatten(function(*pytree.tree_unflatten(flat, spec)))
        return result

    graph = make_fx(on_leaves)(*leaves)
    _simplify(graph, len(leaves))
    run = graph.forward

    def flat(*arguments: Any) -> Any:
        return pytree.tree_unflatten(run(*pytree.tree_leaves(arguments)), out_spec)

    flat.run = run
    flat.out_spec = out_spec
    return flat


def _simplify(graph: GraphModule, inputs: int) -> None:
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
