"""The training loop, the same for every experiment: measurements are probes, methods are update rules."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from .digest import describe
from .probes.schedule import Scheduled
from .probes.training import training_loss
from .snapshot import Snapshot, normalise, probe_name
from .stack import Stack, Timetable
from .streams import Stream, _name
from .trace import flatten

_TRACE_FROM = 150  # steps from which tracing the step pays for itself
_TRACE_PROBE_FROM = 60
_BLOCK_BYTES = 24 * 2**20  # batches drawn ahead of the steps that use them: larger blocks leave the cache
_BLOCK_STEPS = 128

_traced: dict[str, Callable[..., Any]] = {}


class Run:
    """One stack being trained: its tensors now, and what was measured so far."""

    def __init__(
        self, stack: Stack, probes: Sequence[Scheduled], keep: Sequence[int], gear: str = "auto"
    ) -> None:
        self.stack, self.probes, self.keep_at, self.gear = stack, probes, set(keep), gear
        self.step = 0
        self.active = list(range(len(stack)))  # members still training, as positions in the whole stack
        self.now = stack  # the stack of the active members
        self.params = stack.initial()
        self.start = self.params.clone()
        self.state = stack.rule.init(self.params)
        self.alive = torch.ones(len(stack), dtype=torch.bool, device=stack.device)
        self.lived = torch.zeros(len(stack), dtype=torch.int64, device=stack.device)  # updates while finite
        self.ended = [0] * len(stack)  # the same, of members whose budget has ended
        self.kept: dict[str, Tensor] = {}  # "position@step": parameters (P,)
        self.memory: dict[str, Any] = {}  # of probes that have one, by their number
        self.measured: dict[str, Tensor] = {}  # "name@step": values of the members below
        self.measured_of: dict[str, list[int]] = {}  # "name@step": positions
        self.shapes: dict[str, tuple] = {}  # name: dims, labels, whether along steps
        self.done: list[int] = [-1] * len(probes)  # the last step each probe measured
        self.seen: set[int] = set()

    # --- what a checkpoint holds ---

    _TENSORS = ("params", "start", "state", "alive", "lived", "kept", "memory", "measured")
    _PLAIN = ("step", "active", "ended", "measured_of", "shapes", "done")

    def tensors(self) -> dict[str, Any]:
        """Everything that changes along the run and is a tensor, in nested dicts."""
        return {name: getattr(self, name) for name in self._TENSORS}

    def plain(self) -> dict[str, Any]:
        """Everything that changes along the run and is not a tensor, fit for JSON."""
        return {name: getattr(self, name) for name in self._PLAIN}

    def restore(self, values: dict[str, Any]) -> None:
        """Stand again where `tensors` and `plain` were taken."""
        for name, value in values.items():
            setattr(self, name, value)
        every = len(self.active) in (0, len(self.stack))  # none is left when the run had ended
        self.now = self.stack if every else self.stack.subset(self.active)

    # --- the loop ---

    def advance(self, pause: Callable[[Run], None] = lambda run: None) -> None:
        """Train to the end of every member's budget; `pause` is called between blocks of steps."""
        if self.step == 0 and 0 in self.keep_at:
            self._keep()
        with torch.no_grad():
            while self.active:
                stop = min(self.stack.budgets[i] for i in self.active)
                self._segment(stop, pause)
                self._measure(stop)
                self._retire(stop)

    def _segment(self, stop: int, pause: Callable[[Run], None]) -> None:
        """Train the active members up to step `stop`, in blocks whose batches are drawn together."""
        if self.step >= stop:
            return
        stack, take = self.now, None
        wanted = {
            s
            for p in self.probes
            if p.probe is not training_loss
            for i in self.active
            for s in self._steps(p, i)
        }
        losses_at = {
            s for p in self.probes if p.probe is training_loss for i in self.active for s in self._steps(p, i)
        }
        numbers, hyper_spec = pytree.tree_flatten(stack.numbers(), is_leaf=lambda x: isinstance(x, Timetable))
        carry, carry_spec = pytree.tree_flatten((self.params, self.state, self.alive, self.lived))

        def settle() -> None:
            """Bring what the loop carries as a flat list back to its names."""
            self.params, self.state, self.alive, self.lived = pytree.tree_unflatten(carry, carry_spec)

        whole, batch_spec = pytree.tree_flatten(stack.data["train"] if stack.full_batch else None)
        dims = stack.data_dims["train"] if stack.full_batch else None
        length = _BLOCK_STEPS if stack.full_batch else 8  # the size of the first drawn block is not known
        while self.step < stop:
            begin, end = self.step, min(self.step + length, stop)
            series = [
                x.table(begin, end, stack.device).unbind() if isinstance(x, Timetable) else None
                for x in numbers
            ]
            steps = torch.arange(begin, end, device=stack.device).unbind()
            if not stack.full_batch:
                drawn, batch_spec = pytree.tree_flatten(stack.batches(begin, end))
                dims = pytree.tree_unflatten([0] * len(drawn), batch_spec)
                size = sum(x.untyped_storage().nbytes() for x in drawn) / (end - begin)
                length = max(1, min(_BLOCK_STEPS, int(_BLOCK_BYTES / max(size, 1))))
                batches = list(zip(*(x.unbind() for x in drawn), strict=True))
            losses = {}
            for t in range(end - begin):
                if self.step in wanted:
                    settle()
                    self._measure(self.step)
                hyper = [x if s is None else s[t] for x, s in zip(numbers, series, strict=True)]
                leaves = [*carry, *(whole if stack.full_batch else batches[t]), *hyper, steps[t]]
                if take is None:
                    take = self._take(dims, (carry_spec, batch_spec, hyper_spec), leaves, stop - begin)
                *carry, loss = take(*leaves)
                if self.step in losses_at:
                    losses[self.step] = loss
                self.step += 1
                if self.step in self.keep_at:
                    settle()
                    self._keep()
            settle()
            self._note_losses(losses)
            pause(self)

    def _take(self, dims: Any, specs: tuple, leaves: list[Tensor], steps: int) -> Callable[..., list[Tensor]]:
        """One step on flat lists of tensors: eager, or traced when enough steps are left to pay for it."""
        step = _step(self.now, dims, specs)
        if self.gear == "eager" or (self.gear == "auto" and steps < _TRACE_FROM):
            return step
        name = f"{self.now.program} {dims} {specs}"
        return _flat(name, step, tuple(leaves), "the step", must=self.gear == "flat", on_leaves=True)

    def _keep(self) -> None:
        for row, member in enumerate(self.active):
            self.kept[f"{member}@{self.step}"] = self.params[row].clone()

    def _retire(self, stop: int) -> None:
        """Members whose budget ends at `stop` leave the batch."""
        stay = [row for row, i in enumerate(self.active) if self.stack.budgets[i] > stop]
        for row, member in enumerate(self.active):
            if row not in stay:
                self.kept[f"{member}@{stop}"] = self.params[row].clone()
                self.ended[member] = int(self.lived[row])
        self.active = [self.active[row] for row in stay]
        self.now = self.now.subset(stay) if stay else self.now
        rows = torch.tensor(stay, dtype=torch.int64, device=self.params.device)
        for name in ("params", "start", "alive", "lived", "state", "memory"):
            setattr(self, name, pytree.tree_map(lambda x: x[rows], getattr(self, name)))

    # --- measurements ---

    def _steps(self, scheduled: Scheduled, member: int) -> frozenset[int]:
        return _steps_of(scheduled.kind, scheduled.when, self.stack.budgets[member])

    def _measure(self, step: int) -> None:
        """Run the probes that are due after `step` updates."""
        for number, scheduled in enumerate(self.probes):
            rows = [row for row, i in enumerate(self.active) if step in self._steps(scheduled, i)]
            if scheduled.probe is training_loss or self.done[number] >= step or not rows:
                continue
            self.done[number] = step
            for name, values in self._apply(number, scheduled, rows).items():
                self._note(name, step, rows, values)

    def _note(self, name: str, step: int, rows: list[int], values: Tensor) -> None:
        """Store values of some members under a step; members that are no longer finite count as NaN."""
        finite = self.alive[rows]
        if values.is_floating_point() or not bool(finite.all()):
            values = values if values.is_floating_point() else values.to(torch.float64)
            values = torch.where(finite.reshape(-1, *[1] * (values.ndim - 1)), values, torch.nan)
        self.measured[f"{name}@{step}"] = values
        self.measured_of[f"{name}@{step}"] = [self.active[row] for row in rows]

    def _note_losses(self, losses: dict[int, Tensor]) -> None:
        """Store the losses that the updates computed, under the steps at which they were asked for."""
        if not losses:
            return
        self.shapes["training_loss"] = ((), {}, True)
        for scheduled in self.probes:
            if scheduled.probe is training_loss:
                for step, loss in losses.items():
                    rows = [row for row, i in enumerate(self.active) if step in self._steps(scheduled, i)]
                    if rows:
                        self.measured[f"training_loss@{step}"] = (
                            loss if len(rows) == len(loss) else loss[rows]
                        )
                        self.measured_of[f"training_loss@{step}"] = [self.active[row] for row in rows]

    def _apply(self, number: int, scheduled: Scheduled, rows: list[int]) -> dict[str, Tensor]:
        """A probe's values for some rows of the active members."""
        probe, every = scheduled.probe, len(rows) == len(self.active)
        stack = self.now if every else self.now.subset(rows)
        params, start = (self.params, self.start) if every else (self.params[rows], self.start[rows])
        now = (params, start, stack.data, stack.run_keys, torch.tensor(self.step, device=stack.device))
        function = over_members(stack, probe, self.shapes, scheduled.kind != "end")
        if hasattr(probe, "init"):
            memory = self.memory.get(str(number))
            memory = (
                init_memory(stack, probe)(*now)
                if memory is None
                else pytree.tree_map(lambda x: x[rows], memory)
            )
            values, memory = function(*now, memory)
            if every:
                self.memory[str(number)] = memory
            return values
        often = (
            len(self._steps(scheduled, self.active[rows[0]])) >= _TRACE_PROBE_FROM and self.gear != "eager"
        )
        if often and number in self.seen:
            function = _flat(
                f"{describe(probe)} {stack.program}", function, now, f"probe {probe_name(probe)}"
            )
        self.seen.add(number)  # the first call runs eagerly: it notes names and dimensions
        return function(*now)

    def results(self) -> dict[int, dict[str, tuple]]:
        """{position of a member: {name: (dims, array, labels)}} of everything measured so far."""
        found: dict[int, dict[str, list[tuple[int, Any]]]] = {i: {} for i in range(len(self.stack))}
        for key, values in self.measured.items():
            name, _, step = key.rpartition("@")
            for position, value in zip(self.measured_of[key], values.cpu().numpy(), strict=True):
                found[position].setdefault(name, []).append((int(step), value))
        results: dict[int, dict[str, tuple]] = {}
        for position, names in found.items():
            results[position] = {}
            for name, series in names.items():
                dims, labels, along = self.shapes[name]
                series.sort(key=lambda pair: pair[0])
                if along:
                    values = np.stack([value for _, value in series])
                    results[position][name] = (
                        ("step", *dims),
                        values,
                        {"step": [s for s, _ in series], **labels},
                    )
                else:
                    results[position][name] = (tuple(dims), series[-1][1], labels)
        return results


@functools.cache
def _steps_of(kind: str, when: tuple[int, ...], budget: int) -> frozenset[int]:
    return frozenset(Scheduled(training_loss, kind, when).steps(budget))


def _flat(
    name: str,
    function: Callable[..., Any],
    example: tuple,
    what: str,
    must: bool = False,
    on_leaves: bool = False,
) -> Callable[..., Any]:
    """The traced form of a function at these shapes, traced once a process; eager where tracing fails."""
    leaves, spec = pytree.tree_flatten(example)
    key = f"{name} {spec} {[(tuple(x.shape), x.dtype, x.device) for x in leaves]}"
    if key not in _traced:
        try:
            traced = flatten(function, example)
            _traced[key] = traced.run if on_leaves else traced
        except Exception as error:  # it branches on values: it can still run eagerly
            if must:
                raise
            warnings.warn(f"{what} could not be traced and runs eagerly: {error}", stacklevel=2)
            return function
    return _traced[key]


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
        return [*pytree.tree_leaves(carried), torch.where(alive, loss, torch.nan)]

    return step


def snapshot(stack: Stack, vector: Tensor, start: Tensor, data: Any, key: Tensor, step: Tensor) -> Snapshot:
    """One member's snapshot inside `torch.vmap`."""
    # A role of its own for probes: measuring must not disturb the run's draws.
    stream = Stream(torch.stack([key[0], key[1] ^ _name("probe")]), step, torch.zeros_like(step))
    return Snapshot(stack.model, stack.layout, stack.task, vector, start, data, stream, step)


def over_members(stack: Stack, probe: Callable, shapes: dict, along_steps: bool) -> Callable[..., Any]:
    """A probe of one member as a function of the stacked tensors; notes dims and labels in `shapes`."""
    name = probe_name(probe)

    def note(result: Any) -> dict[str, Tensor]:
        normal = normalise(name, result)
        for key, (dims, _, labels) in normal.items():
            shapes[key] = (dims, labels, along_steps)
        return {key: value for key, (_, value, _) in normal.items()}

    def one(vector: Tensor, start: Tensor, data: Any, key: Tensor, step: Tensor, *more: Any) -> Any:
        result = probe(snapshot(stack, vector, start, data, key, step), *more)
        if hasattr(probe, "init"):
            return note(result[0]), result[1]
        return note(result)

    def call(params: Tensor, start: Tensor, data: Any, keys: Tensor, step: Tensor, *more: Any) -> Any:
        return vmap(one, in_dims=(0, 0, stack.data_dims, 0, None, *[0] * len(more)))(
            params, start, data, keys, step, *more
        )

    return call


def init_memory(stack: Stack, probe: Any) -> Callable[..., Any]:
    def one(vector: Tensor, start: Tensor, data: Any, key: Tensor, step: Tensor) -> Any:
        return probe.init(snapshot(stack, vector, start, data, key, step))

    return vmap(one, in_dims=(0, 0, stack.data_dims, 0, None))
