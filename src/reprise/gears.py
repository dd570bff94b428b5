"""The steps of a stack as functions of flat lists of tensors, and the gears that run them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._triton import has_triton

from .rewrites import rewritten
from .stack import Stack, Timetable
from .trace import Cost, cost_of, flatten

GEARS = ("auto", "eager", "flat", "compiled")

_TRACE_FROM = 150  # steps from which tracing the step pays for itself
COMPILE_FROM = 90.0  # predicted seconds of training from which compiling the step pays for itself
_TOGETHER = 8  # steps that a compiled call takes where a step is short
_SHORT = 2e-3  # seconds
_BLOCK_BYTES = 24 * 2**20  # batches drawn ahead of the steps that use them: larger blocks leave the cache
_BLOCK_STEPS = 128

_traced: dict[str, Any] = {}


def traceable(gear: str, steps: int) -> bool:
    """Whether so many steps are traced in this gear."""
    return steps >= _TRACE_FROM if gear == "auto" else gear != "eager"


def block_length(drawn: int) -> int:
    """Steps whose batches are drawn together, of so many bytes each."""
    return max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(drawn, 1)))


class Program:
    """The training steps of a stack.

    A step maps what the loop carries (parameters, state of the rule, who is alive and for how long), a batch,
    the numbers of the rule and the step's number to what the loop carries next and the losses (M,); all of
    it in flat lists of tensors.
    """

    def __init__(self, stack: Stack, carry: tuple) -> None:
        self.stack = stack
        self.carry, self.carry_spec = pytree.tree_flatten(carry)
        self.carry = list(map(torch.Tensor.contiguous, self.carry))
        self.numbers, self.hyper_spec = pytree.tree_flatten(
            stack.numbers(), is_leaf=lambda x: isinstance(x, Timetable)
        )
        one = (
            stack.data["train"] if stack.full_batch else pytree.tree_map(lambda x: x[0], stack.batches(0, 1))
        )
        self.batch, self.batch_spec = pytree.tree_flatten(one)
        self.dims = stack.data_dims["train"] if stack.full_batch else pytree.tree_map(lambda x: 0, one)
        # bytes that are drawn for a step
        self.drawn = 0 if stack.full_batch else sum(x.numel() * x.element_size() for x in self.batch)
        self.length = block_length(self.drawn)
        self.together = 1  # steps of one call
        self.gear = "eager"
        # what its traced forms are known by
        self.name = f"{stack.program} {self.dims} {self.carry_spec} {self.batch_spec} {self.hyper_spec}"

    def shift(self, gear: str, steps: int) -> None:
        """Choose how to run: the gear asked for, or for "auto" the one that pays for so many steps."""
        if gear == "auto":
            cost = self.cost() if traceable(gear, steps) else None
            seconds = 0.0 if cost is None else steps * (cost.overhead + cost.work)
            gear = "eager" if cost is None else "compiled" if seconds > COMPILE_FROM else "flat"
        if gear == "compiled" and not compiles(self.stack.device):
            gear = "flat"
        self.gear = gear
        if gear == "compiled" and self.cost().work < _SHORT:
            self.together = _TOGETHER
            self.length = max(self.length // _TOGETHER, 1) * _TOGETHER

    def cost(self) -> Cost | None:
        """What a step takes, or None (and a warning) where it cannot be traced."""
        flat = self.flat(1, must=False)
        return None if flat is None else cost_of(flat.graph, self.stack.device)

    # --- functions of flat lists ---

    @functools.cached_property
    def step(self) -> Callable[..., list[Tensor]]:
        """One step."""
        return _step(self.stack, self.dims, (self.carry_spec, self.batch_spec, self.hyper_spec))

    def steps(self, *leaves: Tensor) -> list[Tensor]:
        """`together` steps; batches, scheduled numbers, step numbers and losses have a leading step axis."""
        carry, rest = list(leaves[: len(self.carry)]), leaves[len(self.carry) : -1]
        losses = []
        for t in range(self.together):
            now = [x[t] if by_step else x for x, by_step in zip(rest, self.by_step, strict=True)]
            *carry, loss = self.step(*carry, *now, leaves[-1][t])
            losses.append(loss)
        return [*carry, torch.stack(losses)]

    @property
    def by_step(self) -> list[bool]:
        """Which inputs after what the loop carries have a step axis when several steps are taken at once."""
        return [not self.stack.full_batch] * len(self.batch) + [
            isinstance(x, Timetable) for x in self.numbers
        ]

    def flat(self, n: int, must: bool = True) -> Any:
        """The traced form of n steps (1 or `together`); where tracing fails see `traced`."""
        example = [*self.carry, *self.block(0, n).inputs(0, n)]
        return traced(
            f"{self.name} {n}", self.step if n == 1 else self.steps, tuple(example), "the step", must
        )

    def take(self, n: int) -> Callable[..., list[Tensor]]:
        """The function that takes n steps (1 or `together`) in the present gear."""
        if n not in self._taken:
            self._taken[n] = self._make(n)
        return self._taken[n]

    @functools.cached_property
    def _taken(self) -> dict[int, Callable[..., list[Tensor]]]:
        return {}

    def _make(self, n: int) -> Callable[..., list[Tensor]]:
        if self.gear == "eager":
            return self.step
        flat = self.flat(n)
        return compiled(flat.graph) if self.gear == "compiled" and n == self.together else flat.graph

    # --- batches and numbers ---

    def block(self, begin: int, stop: int) -> Block:
        """The inputs of steps begin..stop-1, drawn together."""
        return Block(self, begin, stop)

    def draw(self, begin: int, stop: int) -> list[Tensor]:
        """Batches of steps begin..stop-1 as a flat list, leaves (T, M, ...)."""
        stack = self.stack
        if self.gear != "compiled" or stack.ordered or stop - begin != self.length:
            return pytree.tree_leaves(stack.batches(begin, stop))
        example = stack.run_keys, stack.data, torch.arange(begin, stop, device=stack.device)
        flat = traced(f"{self.name} draws", stack.draw, example, "the draw of batches", must=False)
        if flat is None:
            return pytree.tree_leaves(stack.draw(*example))
        return list(compiled(flat.graph)(*pytree.tree_leaves(example)))


class Block:
    """The inputs of some consecutive steps."""

    def __init__(self, program: Program, begin: int, stop: int) -> None:
        stack = program.stack
        batches = program.batch if stack.full_batch else program.draw(begin, stop)
        numbers = [
            x.table(begin, stop, stack.device) if isinstance(x, Timetable) else x for x in program.numbers
        ]
        steps = torch.arange(begin, stop, device=stack.device)
        self.tensors = [x.contiguous() for x in (*batches, *numbers, steps)]
        self.by_step = [*program.by_step, True]
        self._steps = stop - begin

    @functools.cached_property
    def _single(self) -> list[Any]:
        return [
            x.unbind() if by_step else [x] * self._steps
            for x, by_step in zip(self.tensors, self.by_step, strict=True)
        ]

    def inputs(self, t: int, n: int) -> list[Tensor]:
        """Batch, numbers and number of the t-th step; for n > 1 of n steps from there, with a step axis."""
        if n == 1:
            return [series[t] for series in self._single]
        return [x[t : t + n] if b else x for x, b in zip(self.tensors, self.by_step, strict=True)]


def traced(name: str, function: Callable, example: tuple, what: str, must: bool = True) -> Any:
    """The traced form of a function at these shapes, made once a process (see `trace.flatten`).

    Where tracing fails: the error if it `must` succeed, else a warning and None.
    """
    leaves, spec = pytree.tree_flatten(example)
    key = f"{name} {spec} {[(tuple(x.shape), x.dtype, x.device) for x in leaves]}"
    if key not in _traced:
        try:
            _traced[key] = flatten(function, example)
        except Exception as error:  # it branches on values: it can still run eagerly
            if must:
                raise
            warnings.warn(f"{what} could not be traced and runs eagerly: {error}", stacklevel=2)
            _traced[key] = None
    return _traced[key]


@functools.cache
def has_compiler() -> bool:
    """Whether compiled steps can be made here; says so once if not."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        warnings.warn(f"no C++ compiler, so steps are not compiled: {error}", stacklevel=2)
        return False
    return True


def compiles(device: torch.device) -> bool:
    """Whether compiled steps can be made for a device; says so once if there is no compiler."""
    return has_compiler() and (device.type == "cpu" or has_triton())


@functools.cache
def compiled(graph: torch.fx.GraphModule) -> Callable[..., Sequence[Tensor]]:
    """A traced function as machine code, kept on disk by torch for the next run.

    Inputs must have the strides of the trace: a look at them in every call would cost as much as a step of a
    small model. Where the code cannot be made a warning says so, and the graph itself is returned.
    """
    from torch._inductor import compile as machine_code

    example = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    try:
        code = machine_code(rewritten(graph), example)
        code(*(torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in example))
    except Exception as error:
        warnings.warn(f"a step could not be compiled and runs as it was traced: {error}", stacklevel=2)
        return graph
    return code


def _step(stack: Stack, dims: Any, specs: tuple) -> Callable[..., list[Tensor]]:
    """The pure function of one step, on the flat lists of what the run carries, its batch and its numbers."""
    sizes = [spec.num_leaves for spec in specs]

    def step(*leaves: Tensor) -> list[Tensor]:
        parts, begin = [], 0
        for size, spec in zip(sizes, specs, strict=True):
            parts.append(pytree.tree_unflatten(leaves[begin : begin + size], spec))
            begin += size
        (params, state, alive, lived), batch, hyper = parts
        losses = []

        def gradient(where: Tensor, other: Any = None) -> tuple[Tensor, Tensor]:
            loss, grads = stack.gradient(where, batch if other is None else other, dims)
            losses.append(loss)
            return loss, grads

        moved, state = stack.rule.step(params, state, gradient, hyper, leaves[-1])
        alive = alive & ((moved * 0).sum(1) == 0)  # 0 * inf and 0 * nan are nan
        loss = losses[0] if losses else torch.full_like(moved[:, 0], torch.nan)
        carried = torch.where(alive[:, None], moved, params), state, alive, lived + alive
        return [x.contiguous() for x in (*pytree.tree_leaves(carried), torch.where(alive, loss, torch.nan))]

    return step
