"""Training steps as CUDA graphs: one launch replays the kernels of several steps, and the host reads nothing.

A small model on a GPU waits for Python to launch its kernels. A CUDA graph holds them with the addresses that
they read and write, so everything that changes along the run lives in tensors that stay where they are.
*Not tried: on a GPU. The tests run the same code on a CPU, where a replay calls what would be captured.*
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .gears import Program, compiled, traced
from .stack import Timetable

_TOGETHER = 8  # steps of a replay
_BLOCK_STEPS = 128  # steps whose batches are drawn together: a draw takes hundreds of small kernels
_BLOCK_BYTES = 64 * 2**20  # of those batches
_WARM_UPS = 3

Body = Callable[[], None]

_refused: set[str] = set()  # programs whose capture failed in this process


def launch(program: Program, gear: str, steps: int) -> Called | Captured:
    """The steps of a program, in the gear asked for or the one that pays for so many steps.

    On a GPU traced steps are captured; where that fails, a warning says so and each step is called.
    """
    program.shift(gear, steps)
    if captures(program.stack.device) and program.gear != "eager" and _key(program) not in _refused:
        try:
            return Captured(program, steps)
        except Exception as error:  # an operation that waits for the GPU, or too little memory for the copies
            _refused.add(_key(program))
            cause = str(error.__context__ or error).partition("\n")[0]
            warnings.warn(f"the step could not be captured as a CUDA graph: {cause}", stacklevel=2)
    return Called(program)


def _key(program: Program) -> str:
    return f"{program.name} {len(program.stack)}"


def captures(device: torch.device) -> bool:
    """Whether steps on this device are captured."""
    return device.type == "cuda"


class Called:
    """The steps of a program, each call taking one step or `together` of them.

    A block of at most `length` steps is drawn, then taken; `carry` and `losses` (of each step of the block so
    far, (M,)) may be kept by the caller.
    """

    def __init__(self, program: Program) -> None:
        self.program, self.together, self.length = program, program.together, program.length
        self._carry = program.carry

    def draw(self, begin: int, stop: int) -> None:
        """Make the inputs of steps begin..stop-1."""
        self._block, self._at, self._losses = self.program.block(begin, stop), 0, []

    def take(self, n: int) -> None:
        """Take the next n steps (1 or `together`) of the block."""
        inputs = self._block.inputs(self._at, n)
        *self._carry, losses = self.program.take(n)(*self._carry, *inputs)
        self._losses.extend([losses] if n == 1 else losses)
        self._at += n

    def carry(self) -> list[Tensor]:
        """What the loop carries, as a flat list."""
        return self._carry

    def losses(self) -> Sequence[Tensor]:
        """The losses that the steps of the block computed."""
        return self._losses


class Captured:
    """The steps of a program as replays of CUDA graphs; used as `Called` is.

    One graph takes a single step, one `together` steps, one draws the batches of a block. They read the
    inputs of a step from tables of the block at `_at`, the place in the block, a tensor that the graphs
    advance; the number of the step is one of these inputs. They write what the loop carries, and the losses
    of the block, in place.
    """

    def __init__(self, program: Program, steps: int) -> None:
        self.program, self.together = program, _TOGETHER
        self.length = _block_length(program, steps)
        flat = program.flat(1).graph
        self._step = compiled(flat) if program.gear == "compiled" else flat
        first = program.block(0, 1)
        self._by_step = first.by_step
        self._inputs = [
            _own(x.expand(self.length, *x.shape[1:])) if by_step else x
            for x, by_step in zip(first.tensors, self._by_step, strict=True)
        ]
        self._batches, self._steps = self._inputs[: len(program.batch)], self._inputs[-1]
        self._carry = [_own(x) for x in program.carry]
        self._at = torch.zeros(1, dtype=torch.int64, device=program.stack.device)
        # One call outside the graphs compiles the step if need be, and shows what it returns.
        inputs = [x[0] if by_step else x for x, by_step in zip(self._inputs, self._by_step, strict=True)]
        *after, losses = self._step(*map(torch.clone, self._carry), *inputs)
        for x, new in zip(self._carry, after, strict=True):
            if (x.shape, x.dtype) != (new.shape, new.dtype):
                raise ValueError(f"a step turns {x.dtype} {[*x.shape]} into {new.dtype} {[*new.shape]}")
        self._losses = losses.new_zeros(self.length, *losses.shape)
        self._drawn = None if program.stack.full_batch else self._trace_draws()
        bodies = {n: functools.partial(self._take, n) for n in (1, self.together)}
        if self._drawn:
            bodies[0] = self._fill
        self._replay = cuda_capture(bodies, [*self._carry, self._losses, self._at])

    def draw(self, begin: int, stop: int) -> None:
        """Put the inputs of steps begin..stop-1 into the tables."""
        program, stack = self.program, self.program.stack
        torch.arange(begin, begin + self.length, out=self._steps)
        if self._drawn:
            self._replay[0]()
        elif not stack.full_batch:
            for table, x in zip(self._batches, pytree.tree_leaves(stack.batches(begin, stop)), strict=True):
                table[: stop - begin].copy_(x)
        for table, number in zip(self._inputs[len(program.batch) : -1], program.numbers, strict=True):
            if isinstance(number, Timetable):
                table[: stop - begin].copy_(number.table(begin, stop, stack.device))
        self._at.zero_()

    def take(self, n: int) -> None:
        """Take the next n steps (1 or `together`) of the block."""
        self._replay[n]()

    def carry(self) -> list[Tensor]:
        """A copy of what the loop carries, as a flat list."""
        return [x.clone() for x in self._carry]

    def losses(self) -> Sequence[Tensor]:
        """A copy of the losses of the block's steps, (M,) each."""
        return self._losses.clone().unbind()

    # --- what the graphs hold ---

    def _trace_draws(self) -> Callable[..., list[Tensor]] | None:
        """The draw of a block's batches from flat lists; None, and a warning, if it cannot be traced."""
        stack, name = self.program.stack, f"{self.program.name} consecutive draws"
        example = stack.run_keys, stack.data, self._steps
        flat = traced(name, stack.draw_consecutive, example, "the draw of batches", must=False)
        if flat is None:
            return None
        return compiled(flat.graph) if self.program.gear == "compiled" else flat.graph

    def _fill(self) -> None:
        """Draw the batches of a block into their tables."""
        leaves = pytree.tree_leaves((self.program.stack.run_keys, self.program.stack.data, self._steps))
        for table, x in zip(self._batches, self._drawn(*leaves), strict=True):
            table.copy_(x)

    def _take(self, n: int) -> None:
        """n steps from the tables at `_at`, in place."""
        at = self._at + torch.arange(n, device=self._at.device)
        inputs = [x.index_select(0, at) if b else x for x, b in zip(self._inputs, self._by_step, strict=True)]
        carry, losses = self._carry, []
        for t in range(n):
            *carry, loss = self._step(
                *carry, *(x[t] if b else x for x, b in zip(inputs, self._by_step, strict=True))
            )
            losses.append(loss)
        # a rule may hand on one tensor of its state as another: copy before the first is overwritten
        places = {x.untyped_storage().data_ptr() for x in self._carry}
        moved = [(x, new) for x, new in zip(self._carry, carry, strict=True) if new is not x]
        moved = [(x, new.clone() if new.untyped_storage().data_ptr() in places else new) for x, new in moved]
        for x, new in moved:
            x.copy_(new)
        self._losses.index_copy_(0, at, torch.stack(losses))
        self._at.add_(n)


def _block_length(program: Program, steps: int) -> int:
    """Steps of a block: a multiple of those of a replay, no more than the run has."""
    drawn = 0 if program.stack.full_batch else sum(x.numel() * x.element_size() for x in program.batch)
    length = min(_BLOCK_STEPS, _BLOCK_BYTES // max(drawn, 1), steps + _TOGETHER - 1)
    return max(length // _TOGETHER, 1) * _TOGETHER


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


# --- capturing ---


def cuda_capture(bodies: Mapping[int, Body], changed: Sequence[Tensor]) -> dict[int, Body]:
    """Capture functions of no arguments, each as a CUDA graph; returned are the functions that replay them.

    changed: the tensors that the bodies write and that must come out of this as they went in. The graphs
    share their memory: nothing that one leaves there is read by another.
    """
    device = changed[0].device
    with torch.cuda.device(device):
        here, side = torch.cuda.current_stream(), _side_stream(device)
        pool, graphs = torch.cuda.graph_pool_handle(), {}
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):  # also brings the stream back when a capture fails
                for name, body in bodies.items():
                    rehearse(body, changed, _WARM_UPS - 1)
                    with _no_waiting():
                        rehearse(body, changed, 1)
                    graphs[name] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graphs[name], pool=pool, stream=side):
                        body()
        finally:  # the tensors are not freed here while they are still written there
            here.wait_stream(side)
    return {name: graph.replay for name, graph in graphs.items()}


def rehearse(body: Body, changed: Sequence[Tensor], times: int) -> None:
    """Call a body some times and put back what it changed after each."""
    before = [x.clone() for x in changed]
    for _ in range(times):
        body()
        for x, old in zip(changed, before, strict=True):
            x.copy_(old)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device: each further one would keep a cuBLAS workspace of its own."""
    return torch.cuda.Stream(device)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """An operation that waits for the GPU raises RuntimeError inside, before it can spoil a capture."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
