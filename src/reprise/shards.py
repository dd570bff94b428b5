"""Which members train together, and where: pieces of stacks, one after another or in worker processes."""

from __future__ import annotations

import math
import os
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from . import device as devices
from .checkpoint import Checkpoint
from .gears import Program, block_length, traceable
from .probes.schedule import Scheduled
from .products import products_of
from .stack import Member, Stack, stacks
from .train import Outcome, Run

_SPLIT_FROM = 20.0  # predicted seconds from which members are regrouped to fit the cache
_SPREAD_FROM = 30.0  # predicted seconds from which worker processes pay for their start
_CACHE = 2 * 2**20  # bytes that a core keeps close
_DRAWING = 12  # times a block of batches, while the next is drawn, with what the allocator holds on to
_INITIAL = 13  # times the parameters, while they are drawn
_RETRIES = 3  # times that the pieces of killed workers are taken up again


@dataclass(frozen=True)
class Plan:
    """How a stack would run. size: members in a batch; seconds: predicted, on one core, of steps and of
    the products with Hessians that probes declare; bytes: predicted peak of one batch, without probes."""

    stack: Stack
    size: int
    seconds: float
    bytes: int

    def pieces(self, workers: int) -> list[Stack]:
        """The stack in batches of about equal size, at least one a worker where there are so many members."""
        n = len(self.stack)
        count = min(n, max(math.ceil(n / self.size), workers))
        if count == 1:
            return [self.stack]
        rows = torch.arange(n).tensor_split(count)
        return [self.stack.subset(some.tolist()) for some in rows]


def plan(stack: Stack, gear: str, probes: Sequence[Scheduled] = ()) -> Plan:
    """Choose how many members of a stack train as one batch.

    All of them, unless the run is long and their tensors leave the cache, or they do not fit in memory. The
    choice depends on shapes, on the number of steps and on the memory of the machine, never on a clock.
    """
    n, steps = len(stack), max(stack.budgets)
    products = products_of(probes, steps, undeclared=0)
    program = _program(stack) if traceable(gear, steps + products) else None
    cost = program.cost() if program else None
    if cost is None:
        return Plan(stack, n, 0.0, 0)
    size, seconds = n, steps * (cost.overhead + cost.work)
    if products:  # each takes about two steps on all examples
        seconds += 2 * products * cost.work * (stack.examples / stack.batch if stack.batch else 1)
    work, peak = cost.work / n, max(1, cost.peak // n)
    if stack.device.type == "cpu" and (seconds > _SPLIT_FROM or gear == "compiled"):
        # a batch shares the overhead of a step, as it is without machine code: keep it below a fifth
        size = min(n, max(_CACHE // peak, math.ceil(5 * cost.overhead / max(work, 1e-9))))

    def needs(size: int) -> int:
        """Bytes of a batch of so many members: at the start, or in a step beside what is kept and drawn."""
        params, drawn = size * stack.layout.size * stack.dtype.itemsize, program.drawn * size // n
        step = size * peak + 2 * params + _DRAWING * drawn * min(steps, block_length(drawn))
        return max(step, _INITIAL * params)

    fit = bisect_right(range(1, n + 1), devices.free_memory(stack.device), key=needs)
    size = max(1, min(size, fit))
    return Plan(stack, size, seconds, needs(size))


def _program(stack: Stack) -> Program:
    params = torch.zeros(len(stack), stack.layout.size, dtype=stack.dtype, device=stack.device)
    alive = torch.ones(len(stack), dtype=torch.bool, device=stack.device)
    return Program(stack, (params, stack.rule.init(params), alive, alive.to(torch.int64)))


def workers_for(plans: Sequence[Plan], places: Sequence[torch.device], workers: int | str) -> int:
    """The number of worker processes. "auto": if the run is long, one a GPU, or one a thread of torch's."""
    if workers != "auto":
        return workers
    if sum(each.seconds for each in plans) < _SPREAD_FROM:
        return 1
    processors = torch.get_num_threads() if places[0].type == "cpu" else len(places)
    return min(processors, sum(len(each.stack) for each in plans))


@dataclass(frozen=True)
class Piece:
    """Members that train as one batch: all that a process needs. A missing `stack` is built anew."""

    members: list[Member]
    device: torch.device
    probes: list[Scheduled]
    keep: list[int]
    gear: str
    checkpoint: Checkpoint | None = None
    stack: Stack | None = None

    def __reduce__(self) -> tuple:
        return Piece, (self.members, self.device, self.probes, self.keep, self.gear, self.checkpoint)

    def run(self) -> Run:
        """The members before their first step."""
        (stack,) = [self.stack] if self.stack else stacks(self.members, self.device)
        return Run(stack, self.probes, self.keep, self.gear)

    def train(self, watch: Callable[[Run], None]) -> tuple[dict[tuple[int, ...], Outcome], bool]:
        """{index of a member: outcome}, and whether an interrupt ended it early."""
        interrupted, run = False, self.run()
        if self.checkpoint:
            self.checkpoint.restore(run)

        def pause(run: Run) -> None:
            if self.checkpoint:
                self.checkpoint.pause(run)
            watch(run)

        try:
            run.advance(pause)
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:
            error.add_note(f"while training {self.names}")
            raise
        if self.checkpoint and not interrupted:
            self.checkpoint.write(run)
        return run.outcomes(), interrupted

    @property
    def names(self) -> str:
        names = [member.name for member in self.members]
        return "; ".join(names[:3]) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")

    def halves(self) -> list[Piece]:
        """The same members in two batches, without a checkpoint."""
        middle = len(self.members) // 2
        halves = self.members[:middle], self.members[middle:]
        return [replace(self, members=some, checkpoint=None, stack=None) for some in halves]


def train_here(pieces: Sequence[Piece], watch: Callable[[Run], None]) -> tuple[dict, bool]:
    """Train pieces one after another. One that exceeds the memory of a GPU is halved and tried again."""
    outcomes, waiting, interrupted = {}, list(pieces), False
    while waiting:
        piece = waiting.pop(0)
        if interrupted:
            outcomes.update(piece.run().outcomes())
            continue
        try:
            found, interrupted = piece.train(watch)
        except torch.OutOfMemoryError:
            if len(piece.members) == 1:
                raise
            torch.cuda.empty_cache()
            waiting[:0] = piece.halves()
            continue
        outcomes.update(found)
    return outcomes, interrupted


def train_in_workers(
    pieces: Sequence[Piece], workers: int, report: Callable[[int], None]
) -> tuple[dict, bool, float]:
    """Train pieces in processes of one thread each; the pieces of a killed worker are taken up again.

    An interrupt ends every piece at its next pause and keeps what was measured. The third result is the
    CPU-seconds of the processes.
    """
    from concurrent.futures import as_completed

    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    outcomes, interrupted, attempts, cpu = {}, False, 0, 0.0
    waiting, futures = dict(enumerate(pieces)), {}
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        while waiting:
            if not futures:
                pool = get_reusable_executor(max_workers=workers, timeout=60)
                futures = {pool.submit(_work, piece, stop): number for number, piece in waiting.items()}
            try:
                for future in as_completed(list(futures)):
                    found, cut, seconds = future.result()
                    interrupted, cpu = interrupted or cut, cpu + seconds
                    outcomes.update(found)
                    waiting.pop(futures.pop(future))
                    report(len(outcomes))
            except BrokenProcessPool:
                attempts, futures = attempts + 1, {}
                if attempts > _RETRIES:
                    raise
            except KeyboardInterrupt:  # the pieces go on to their next pause and are waited for
                interrupted = True
                stop.touch()
            except Exception:
                pool.shutdown(kill_workers=True)
                raise
    return outcomes, interrupted, cpu


def _work(piece: Piece, stop: Path) -> tuple[dict, bool, float]:
    torch.set_num_threads(1)
    devices.keep_freed_memory()
    before = time.process_time()

    def watch(run: Run) -> None:
        if os.path.exists(stop):
            raise KeyboardInterrupt

    with devices.exact_arithmetic():
        outcomes, interrupted = piece.train(watch)
    return outcomes, interrupted, time.process_time() - before
