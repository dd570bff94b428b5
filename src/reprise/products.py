"""Products with the Hessian of one member, traced: what all of them share is computed once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from .gears import COMPILE_FROM, compiled, compiles, traced
from .probes.schedule import Scheduled
from .trace import cost_of

Loss = Callable[[Tensor], Tensor]
Operator = Callable[[Tensor], Tensor]  # a symmetric linear map of the rows of a block, (n, P) -> (n, P)

_TRACE_FROM = 200  # products from which tracing one pays for itself
_UNDECLARED = 20  # products of a visit of a probe that does not say


def double_backward(loss: Loss, vector: Tensor) -> Operator:
    """The Hessian of the loss at the vector, as a map of the rows of (n, P), by double backward passes."""
    pull = vjp(grad(loss), vector)[1]

    def product(row: Tensor) -> Tensor:
        return pull(row)[0]

    return lambda block: product(block[0])[None] if len(block) == 1 else vmap(product)(block)


def products_of(probes: Iterable[Scheduled], steps: int, undeclared: int) -> int:
    """Products in so many steps: probes say in `products` how many they take a visit."""
    return sum(len(s.steps(steps)) * getattr(s.probe, "products", undeclared) for s in probes)


class Products:
    """Makes the Hessians of a run's members, one member at a time.

    program: what the traced product is known by. count: products in the whole run, from which "auto" chooses.
    made: Hessians made so far.
    """

    def __init__(self, program: str, gear: str, count: int) -> None:
        self.program, self.gear, self.count = program, gear, count
        self.made = 0

    @classmethod
    def of(cls, program: str, gear: str, probes: Iterable[Scheduled], steps: int) -> Products:
        """For the probes of a run of so many steps."""
        return cls(program, gear, products_of(probes, steps, _UNDECLARED))

    def operator(self, loss: Callable[[Tensor, Any], Tensor], vector: Tensor, data: Any) -> Operator | None:
        """The Hessian of loss(., data) at the vector (P,), or None where it is not traced."""
        seen_through = type(vector) is not Tensor or torch._C._functorch.is_functorch_wrapped_tensor(vector)
        if seen_through or self.gear == "eager" or (self.gear == "auto" and self.count < _TRACE_FROM):
            return None  # a tracer or `vmap` looks on, or it is not worth it
        self.made += 1
        kept: dict[int, tuple[Callable, list[Tensor]]] = {}  # by the number of rows

        def product(vector: Tensor, data: Any, rows: Tensor) -> Tensor:
            return double_backward(lambda v: loss(v, data), vector)(rows)

        def operator(rows: Tensor) -> Tensor:
            if len(rows) not in kept:
                what, example = "a product with the Hessian", (vector, data, rows)
                whole = traced(f"{self.program} Hessian", product, example, what, must=False)
                if whole is None:
                    return product(*example)
                shared, rest = halves(whole.graph)
                kept[len(rows)] = self._made(rest), shared(*pytree.tree_leaves(example))
            code, values = kept[len(rows)]
            return code(*values, rows.contiguous())[0]

        return operator

    def _made(self, graph: GraphModule) -> Callable[..., list[Tensor]]:
        long = self.gear == "compiled" or (
            self.gear == "auto" and self.count * cost_of(graph).work > COMPILE_FROM
        )
        device = next(iter(graph.graph.nodes)).meta["val"].device
        return compiled(graph) if long and compiles(device) else graph


@functools.cache
def halves(graph: GraphModule) -> tuple[GraphModule, GraphModule]:
    """A function of a flat list of tensors as two: what its last argument does not change, and the rest.

    The first maps the arguments to the values that the second takes before the last argument; all of them are
    contiguous.
    """
    nodes = list(graph.graph.nodes)
    *_, last = (node for node in nodes if node.op == "placeholder")
    changing, output = {last}, nodes[-1]
    for node in nodes[:-1]:
        if changing.intersection(node.all_input_nodes):
            changing.add(node)
    wanted = dict.fromkeys(
        source
        for node in nodes
        if node in changing or node is output
        for source in node.all_input_nodes
        if source not in changing
    )
    shared, rest, inputs = Graph(), Graph(), {}
    copies: dict[Node, Node] = {}
    for node in nodes[:-1]:
        if node not in changing or node is last:
            copies[node] = shared.node_copy(node, copies.__getitem__)
    shared.output([shared.call_method("contiguous", (copies[node],)) for node in wanted])
    for number, node in enumerate(wanted):
        inputs[node] = rest.placeholder(f"kept_{number}")
        inputs[node].meta["val"] = node.meta["val"].contiguous()
    for node in nodes[:-1]:
        if node in changing:
            inputs[node] = rest.node_copy(node, inputs.__getitem__)
    rest.output([inputs[node] for node in output.args[0]])
    first, second = GraphModule(graph, shared), GraphModule(graph, rest)
    first.graph.eliminate_dead_code()
    first.recompile()
    return first, second
