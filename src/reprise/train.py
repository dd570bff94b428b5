"""The training loop, the same for every experiment: measurements are probes, methods are update rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap
from torch.utils import _pytree as pytree

from .capture import launch
from .digest import describe
from .gears import Program, traced
from .layout import Layout
from .probes.schedule import Scheduled
from .probes.training import training_loss
from .products import Products
from .snapshot import Snapshot, normalise, probe_name
from .stack import Stack
from .streams import Stream, _name

_COPY_BYTES = 2**26  # of measured values brought to the host at a time
_TRACE_PROBE_FROM = 60  # visits from which tracing a probe pays for itself


@dataclass(frozen=True)
class Outcome:
    """What one member leaves. values: {name: (dims, array, labels)}; kept: {step: parameters (P,)}; ended:
    updates while finite; complete: whether its budget was used up."""

    values: dict[str, tuple]
    kept: dict[int, Tensor]
    layout: Layout
    ended: int
    complete: bool


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
        self.seen: dict[int, bool] = {}  # number of a probe: whether it makes traced products of its own
        self.products = Products.of(stack.program, gear, probes, max(stack.budgets))

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

    def program(self) -> Program:
        """The steps of the active members, from where they stand."""
        return Program(self.now, (self.params, self.state, self.alive, self.lived))

    def _segment(self, stop: int, pause: Callable[[Run], None]) -> None:
        """Train the active members up to step `stop`, in blocks whose batches are drawn together."""
        if self.step >= stop:
            return
        program = self.program()
        steps = launch(program, self.gear, stop - self.step)
        together = steps.together
        wanted, losses_at = set(), set()
        for scheduled in self.probes:
            due = losses_at if scheduled.probe is training_loss else wanted
            due.update(*{self._steps(scheduled, i) for i in self.active})
        looked_at = wanted | self.keep_at

        def settle() -> None:
            """Bring what the loop carries as a flat list back to its names."""
            self.params, self.state, self.alive, self.lived = pytree.tree_unflatten(
                steps.carry(), program.carry_spec
            )

        while self.step < stop:
            begin = self.step
            end = min(begin + steps.length - begin % together, stop)
            steps.draw(begin, end)
            while self.step < end:
                if self.step in wanted:
                    settle()
                    self._measure(self.step)
                now, n = self.step, 1
                # Several steps at once start at a multiple, so that a resumed run takes the same ones.
                if together > 1 and now % together == 0 and now + together <= end:
                    n = 1 if looked_at.intersection(range(now + 1, now + together)) else together
                steps.take(n)
                self.step += n
                if self.step in self.keep_at:
                    settle()
                    self._keep()
            settle()
            if asked := sorted(losses_at.intersection(range(begin, end))):
                losses = steps.losses()
                self._note_losses({step: losses[step - begin] for step in asked})
            pause(self)

    def _keep(self) -> None:
        for row, member in enumerate(self.active):
            self.kept[f"{member}@{self.step}"] = self.params[row].clone()

    def _retire(self, stop: int) -> None:
        """Members whose budget ends at `stop` leave the batch."""
        stay = [row for row, i in enumerate(self.active) if self.stack.budgets[i] > stop]
        lived = self.lived.tolist()
        for row, member in enumerate(self.active):
            if row not in stay:
                self.kept[f"{member}@{stop}"] = self.params[row].clone()
                self.ended[member] = lived[row]
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
        finite = self.alive if len(rows) == len(self.active) else self.alive[rows]
        if values.is_floating_point() or not bool(finite.all()):
            values = values if values.is_floating_point() else values.to(torch.float64)
            values = torch.where(finite.reshape(-1, *[1] * (values.ndim - 1)), values, torch.nan)
        self.measured[f"{name}@{step}"] = values
        self.measured_of[f"{name}@{step}"] = [self.active[row] for row in rows]

    def _note_losses(self, losses: dict[int, Tensor]) -> None:
        """Store the losses that the updates computed, under the steps at which they were asked for."""
        self.shapes["training_loss"] = ((), {}, True)
        for scheduled in self.probes:
            if scheduled.probe is training_loss:
                due = [self._steps(scheduled, i) for i in self.active]
                for step, loss in losses.items():
                    rows = [row for row, steps in enumerate(due) if step in steps]
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
        step = torch.full((), self.step, device=stack.device)  # a copy from the host would have to wait
        now = (params, start, stack.data, stack.run_keys, step)
        function = over_members(stack, probe, self.shapes, scheduled.kind != "end", self.products)
        if hasattr(probe, "init"):
            memory = self.memory.get(str(number))
            memory = (
                init_memory(stack, probe, self.products)(*now)
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
        if often and self.seen.get(number) is False:
            name = f"{describe(probe)} {stack.program}"
            function = traced(name, function, now, f"probe {probe_name(probe)}", must=False) or function
        before = self.products.made
        values = function(*now)
        # the first call runs eagerly: it notes names and dimensions
        self.seen.setdefault(number, self.products.made > before)
        return values

    def outcomes(self) -> dict[tuple[int, ...], Outcome]:
        """{index of a member: what it leaves}."""
        results, found = self.results(), {}
        for position, member in enumerate(self.stack.members):
            budget = self.stack.budgets[position]
            complete = position not in self.active
            found[member.index] = Outcome(
                results[position],
                {
                    int(key.partition("@")[2]): vector.cpu()
                    for key, vector in self.kept.items()
                    if key.startswith(f"{position}@")
                },
                self.stack.layout,
                self.ended[position] if complete else budget,
                complete,
            )
        return found

    def results(self) -> dict[int, dict[str, tuple]]:
        """{position of a member: {name: (dims, array, labels)}} of everything measured so far."""
        found: dict[int, dict[str, list[tuple[int, Any]]]] = {i: {} for i in range(len(self.stack))}
        for key, values in _on_host(self.measured).items():
            name, _, step = key.rpartition("@")
            for position, value in zip(self.measured_of[key], values, strict=True):
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


def _on_host(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The same tensors as arrays, many of one shape in a copy: each copy waits for the device."""
    alike: dict[tuple, list[str]] = {}
    for key, x in tensors.items():
        alike.setdefault((x.shape, x.dtype), []).append(key)
    arrays = {}
    for keys in alike.values():
        first = tensors[keys[0]]
        size = max(1, _COPY_BYTES // max(1, first.numel() * first.element_size()))
        for begin in range(0, len(keys), size):
            some = keys[begin : begin + size]
            arrays.update(zip(some, torch.stack([tensors[key] for key in some]).cpu().numpy(), strict=True))
    return {key: arrays[key] for key in tensors}


@functools.cache
def _steps_of(kind: str, when: tuple[int, ...], budget: int) -> frozenset[int]:
    return frozenset(Scheduled(training_loss, kind, when).steps(budget))


def snapshot(
    stack: Stack,
    vector: Tensor,
    start: Tensor,
    data: Any,
    key: Tensor,
    step: Tensor,
    products: Products | None = None,
) -> Snapshot:
    """One member's snapshot."""
    # A role of its own for probes: measuring must not disturb the run's draws.
    stream = Stream(torch.stack([key[0], key[1] ^ _name("probe")]), step, torch.zeros_like(step))
    return Snapshot(stack.model, stack.layout, stack.task, vector, start, data, stream, step, products)


def over_members(
    stack: Stack, probe: Callable, shapes: dict, along_steps: bool, products: Products | None = None
) -> Callable[..., Any]:
    """A probe of one member as a function of the stacked tensors; notes dims and labels in `shapes`."""
    name = probe_name(probe)

    def note(result: Any) -> dict[str, Tensor]:
        normal = normalise(name, result)
        for key, (dims, _, labels) in normal.items():
            shapes[key] = (dims, labels, along_steps)
        return {key: value for key, (_, value, _) in normal.items()}

    def one(vector: Tensor, start: Tensor, data: Any, key: Tensor, step: Tensor, *more: Any) -> Any:
        result = probe(snapshot(stack, vector, start, data, key, step, products), *more)
        if hasattr(probe, "init"):
            return note(result[0]), result[1]
        return note(result)

    return _each(stack, one)


def init_memory(stack: Stack, probe: Any, products: Products | None = None) -> Callable[..., Any]:
    def one(vector: Tensor, start: Tensor, data: Any, key: Tensor, step: Tensor) -> Any:
        return probe.init(snapshot(stack, vector, start, data, key, step, products))

    return _each(stack, one)


def _each(stack: Stack, one: Callable) -> Callable[..., Any]:
    """A function of one member's (vector, start, data, key, step, *more) for all; a single one is called."""

    def call(params: Tensor, start: Tensor, data: Any, keys: Tensor, step: Tensor, *more: Any) -> Any:
        if len(stack) > 1:
            dims = (0, 0, stack.data_dims, 0, None, *[0] * len(more))
            return vmap(one, in_dims=dims)(params, start, data, keys, step, *more)
        leaves, spec = pytree.tree_flatten(data)
        dims = spec.flatten_up_to(stack.data_dims)
        own = [x if dim is None else x[0] for x, dim in zip(leaves, dims, strict=True)]
        first = pytree.tree_map(lambda x: x[0], (params, start, keys, more))
        result = one(*first[:2], pytree.tree_unflatten(own, spec), first[2], step, *first[3])
        return pytree.tree_map(lambda x: x[None], result)

    return call
