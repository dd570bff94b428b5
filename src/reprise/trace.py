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
_ON_GPU = 2e-6, 20e12, 1e12  # the same of a data-centre GPU that replays its kernels


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
    _place_constants(graph)

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


def _place_constants(graph: GraphModule) -> None:
    """Compute once what a graph for another device makes on the CPU of constants alone, and keep it there.

    Otherwise every call copies it from the host: the device has to wait, and no CUDA graph can hold the copy.
    """
    if all(_device(node) in (None, "cpu") for node in graph.graph.nodes):
        return
    known: dict[Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            known[node] = getattr(graph, node.target)
        elif node.op != "call_function":
            continue
        elif _device(node) == "cpu" and all(source in known for source in node.all_input_nodes):
            known[node] = node.target(*map_arg(node.args, known.get), **map_arg(node.kwargs, known.get))
        elif _device(node) != "cpu":
            for source in node.all_input_nodes:
                value = known.get(source)
                if isinstance(value, torch.Tensor) and value.device.type == "cpu":
                    node.replace_input_with(source, _constant(graph, node, value))
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _constant(graph: GraphModule, node: Node, value: torch.Tensor) -> Node:
    """A constant on the device of a node, read just before it."""
    device = next(x.device for x in pytree.tree_leaves(node.meta["val"]) if isinstance(x, torch.Tensor))
    value, name = value.to(device, copy=True), f"_placed{len(list(graph.buffers()))}"
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(node):
        new = graph.graph.get_attr(name)
    new.meta["val"] = value
    return new


def _device(node: Node) -> str | None:
    """The kind of device that a node's result is on; None where it has no tensor."""
    for x in pytree.tree_leaves(node.meta.get("val")):
        if isinstance(x, torch.Tensor):
            return x.device.type
    return None


def _same(node: Node, source: Node) -> bool:
    new, old = node.meta.get("val"), source.meta.get("val")
    if not isinstance(new, torch.Tensor) or not isinstance(old, torch.Tensor):
        return False
    return new.shape == old.shape and new.dtype == old.dtype and new.stride() == old.stride()


@dataclass(frozen=True)
class Cost:
    """What one call of a traced function takes.

    operations: dispatched. flops: of matrix products and convolutions. moved: bytes written. peak: bytes of
    the tensors that live at the same time, inputs included. gpu: whether a GPU does it.
    """

    operations: int
    flops: float
    moved: int
    peak: int
    gpu: bool = False

    @property
    def overhead(self) -> float:
        """Seconds of a call that do not depend on how large the tensors are."""
        return self.operations * self._rates[0]

    @property
    def work(self) -> float:
        """Seconds of arithmetic and of moving numbers, on one core or on a GPU."""
        return self.flops / self._rates[1] + self.moved / self._rates[2]

    @property
    def _rates(self) -> tuple[float, float, float]:
        return _ON_GPU if self.gpu else (_SECONDS_PER_OPERATION, _FLOPS, _BYTES_PER_SECOND)


def cost_of(graph: GraphModule, device: torch.device | None = None) -> Cost:
    """The cost of a traced function on a device (by default the CPU), read off the shapes in its graph."""
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
    return Cost(operations, flops, moved, peak, device is not None and device.type == "cuda")


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
