"""Ours against the number of members and against width: a step's time, and memory beside the plan's."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from reprise import MLP, Experiment, device
from reprise.shards import Piece, plan
from reprise.stack import Stack, stacks

from .workloads import WORKLOADS, Workload

MEMBERS = (1, 4, 16, 64, 256, 1024, 4096)
WIDTHS = (32, 64, 128, 256, 512, 1024)
MEMBERS_AT_WIDTHS = 4
ALLOWED = 256 * 2**20  # bytes of the stack that is made not to fit


def scale(place: str, seconds: float, repetitions: int, say: Callable = print) -> dict:
    """Measure every point in a process of its own.

    seconds: of one repetition, as predicted for one core.

    Returns:
        {"members": {gear: points}, "width": {"flat": points}, "limited": point}. A point: {"members",
        "width", "parameters": of a member, "batches", "steps": of a repetition, "seconds": of a step of all
        members, by repetition, "predicted": bytes of a batch by the plan, "measured": bytes by which the
        process grew, or None}. "limited" is told that only "allowed" bytes are free.
    """

    def at(members: int, gear: str, width: int | None = None, allowed: int | None = None) -> dict:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as alone:
            job = alone.submit(measure, members, gear, width, allowed, place, seconds, repetitions)
            point = job.result()
        told = " ".join(f"{name} {value}" for name, value in point.items() if name != "seconds")
        say(f"  {gear}: {statistics.median(point['seconds']):.2e} s a step, {told}", flush=True)
        return point

    return {
        "members": {gear: [at(n, gear) for n in MEMBERS] for gear in ("flat", "compiled")},
        "width": {"flat": [at(MEMBERS_AT_WIDTHS, "flat", width) for width in WIDTHS]},
        "limited": {"allowed": ALLOWED} | at(MEMBERS[-1], "flat", allowed=ALLOWED),
    }


def measure(
    members: int,
    gear: str,
    width: int | None,
    allowed: int | None,
    place: str,
    seconds: float,
    repetitions: int,
) -> dict:
    """One point, in this process: W0, or W1 at a width."""
    workload, where = WORKLOADS["W0"] if width is None else digits(width), torch.device(place)
    device.keep_freed_memory()
    with device.exact_arithmetic(), limited(allowed):
        train(stacked(workload if width is None else digits(8), 2, 16, where), gear)  # loads all it needs
        steps = steps_of(workload, members, gear, seconds, where)
        stack = stacked(workload, members, steps, where)
        predicted = plan(stack, gear)
        before = start_of_peak(where)
        train(stack, gear)  # traces and compiles
        times = [train(stack, gear) / steps for _ in range(repetitions)]
        after = peak(where)
    return {
        "members": members,
        "width": width,
        "parameters": stack.layout.size,
        "batches": len(predicted.pieces(workers=1)),
        "steps": steps,
        "seconds": times,
        "predicted": predicted.bytes,
        "measured": None if before is None else after - before,
    }


def digits(width: int) -> Workload:
    """W1 with hidden layers of another width."""

    def experiment(seed: int, steps: int) -> Experiment:
        usual = WORKLOADS["W1"].experiment(seed, steps)
        model = MLP([64, width, width, 10], activation="tanh")
        return Experiment(model, usual.task, usual.update, steps, seed=usual.seed)

    return Workload(f"W1 at width {width}", MEMBERS_AT_WIDTHS, experiment)


def stacked(workload: Workload, members: int, steps: int, where: torch.device) -> Stack:
    (stack,) = stacks(workload.sweep(members, steps).members(), where)
    return stack


def steps_of(workload: Workload, members: int, gear: str, seconds: float, where: torch.device) -> int:
    """Steps that take about so long, predicted from few members; whole calls where a call takes several."""
    few, steps, call = min(members, 64), 1000, 128 if gear == "compiled" else 1
    each = plan(stacked(workload, few, steps, where), gear).seconds / steps * members / few
    return call * math.ceil(max(2, seconds / each) / call)


def train(stack: Stack, gear: str) -> float:
    """Seconds of all steps, batch after batch as `Sweep.train` takes them in one process."""
    took = 0.0
    for part in plan(stack, gear).pieces(workers=1):
        run = Piece(part.members, part.device, [], [], gear, None, part).run()
        begin = time.perf_counter()
        run.advance()
        if part.device.type == "cuda":
            torch.cuda.synchronize()
        took += time.perf_counter() - begin
    return took


@contextmanager
def limited(allowed: int | None) -> Iterator[None]:
    """The library told that so many bytes are free."""
    told = device.free_memory
    if allowed is not None:
        device.free_memory = lambda place: allowed
    try:
        yield
    finally:
        device.free_memory = told


def start_of_peak(where: torch.device) -> int | None:
    """The bytes in use now; the peak counts from here. None where the system does not tell."""
    gc.collect()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats(where)
        return torch.cuda.memory_allocated(where)
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except (OSError, AttributeError):
        return None
    return _told("VmRSS")


def peak(where: torch.device) -> int | None:
    """The most bytes in use at one time since `start_of_peak`."""
    return torch.cuda.max_memory_allocated(where) if where.type == "cuda" else _told("VmHWM")


def _told(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
