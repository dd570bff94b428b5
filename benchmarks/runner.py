"""Contenders in processes of their own, checked against each other and then timed in turn."""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from typing import Any

import torch

from .workloads import WORKLOADS

EIGENVALUES, ITERATIONS = 5, 20
CHECKED_STEPS = 5
TOLERANCE = 1e-4

CONTENDERS = {
    "loop": "PyTorch loop",
    "vmap": "vmap(grad) by hand",
    "jax-vmap": "JAX jit + vmap + scan",
    "jax-map": "JAX jit + map + scan",
    "eager": "Reprise, eager",
    "flat": "Reprise, flat",
    "compiled": "Reprise, compiled",
    "workers": "Reprise, compiled, one worker a core",
}


def make(contender: str, workload: str, members: int, device: str) -> Any:
    """A contender before its first step."""
    place, description = torch.device(device), WORKLOADS[workload]
    if contender == "loop":
        from .loop import Loop

        return Loop(description, members, place)
    if contender == "vmap":
        from .byhand import ByHand

        return ByHand(description, members, place)
    if contender.startswith("jax"):
        from .in_jax import Jax

        return Jax(description, members, place, contender.removeprefix("jax-"))
    from .ours import Ours

    gear = "compiled" if contender == "workers" else contender
    workers = torch.get_num_threads() if contender == "workers" else 1
    return Ours(description, members, place, gear, workers)


def serve(pipe: Any, contender: str, workload: str, members: int, device: str) -> None:
    """The process of one contender: answers "check", "time" and "memory"."""
    description, begin = WORKLOADS[workload], time.perf_counter()
    runner = make(contender, workload, members, device)
    size = sum(p.numel() for p in description.experiment(0, 1).model.parameters())
    start = torch.randn(size, generator=torch.Generator().manual_seed(0))

    def work(steps: int, batches: Any = None) -> torch.Tensor:
        if description.kind == "train":
            return runner.train(steps, batches)
        if hasattr(runner, "spectra"):
            return runner.spectra(EIGENVALUES, ITERATIONS, start, steps)
        for _ in range(steps):
            values = runner.eigenvalues(EIGENVALUES, ITERATIONS, start)
        return values

    pipe.send((time.perf_counter() - begin, getattr(runner, "chunk", 1)))
    while (message := pipe.recv()) is not None:
        try:
            if message[0] == "check":
                pipe.send(_checked(work, description, members, device))
            elif message[0] == "memory":
                pipe.send(peak_memory())
            else:
                steps = message[1]
                begin = time.perf_counter()
                work(steps)
                if device != "cpu":
                    torch.cuda.synchronize()
                pipe.send(time.perf_counter() - begin)
        except Exception as error:
            pipe.send(error)


def _checked(work: Any, description: Any, members: int, device: str) -> list:
    if description.kind != "train":
        return work(1).tolist()
    from .ours import first_batches

    batches = first_batches(description, members, CHECKED_STEPS, torch.device(device))
    return work(CHECKED_STEPS, batches).tolist()


def peak_memory() -> int | None:
    """Largest resident bytes of this process and its children together; None where it is not told."""
    total = 0
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            processes = ["self", *file.read().split()]
        for process in processes:
            with open(f"/proc/{process}/status") as file:
                total += next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except OSError:
        return None
    return total


class Contestant:
    """The near end of a contender's process."""

    def __init__(self, contender: str, workload: str, members: int, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far, contender, workload, members, device))
        self.process.start()
        far.close()
        self.name, self.times = contender, []
        self.setup, self.chunk = self._answer()

    def _answer(self) -> Any:
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, *message: Any) -> Any:
        self.pipe.send(message)
        return self._answer()

    def time(self, steps: int) -> float:
        """Seconds of `steps` less `few` steps: what a long run takes for them, its start apart."""
        took = self.ask("time", steps) - self.ask("time", self.few)
        return took if took > 0 else self.time(steps)  # the machine paused in the short call

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join(10)
        if self.process.is_alive():
            self.process.terminate()


def compare(
    workload: str,
    contenders: list[str],
    members: int | None = None,
    device: str = "cpu",
    seconds: float = 4.0,
    repetitions: int = 5,
    say: Any = print,
) -> dict:
    """Check and time contenders on one workload.

    Returns:
        {"workload", "members", "contenders": {name: {"start": seconds until the first steps were done,
        "rate": steps x members a second of each repetition, "memory": bytes}}}.

    Raises:
        ValueError: the losses of two contenders differ by more than 1e-4 of their size.
    """
    members = members or WORKLOADS[workload].members
    field, reference, result = [], None, {}
    for name in contenders:
        contestant = Contestant(name, workload, members, device)
        values = torch.tensor(contestant.ask("check"))
        reference = values if reference is None else reference
        gap = float(((values - reference).abs() / reference.abs()).max())
        if not gap <= TOLERANCE:
            raise ValueError(f"{workload}: {name} and {contenders[0]} differ by {gap:.1e} of their values")
        # as many steps as fill the time of a repetition; what is compiled on the way counts as the start
        chunk, calls, before = contestant.chunk, 1, math.inf
        contestant.few = chunk
        contestant.start = contestant.setup + contestant.ask("time", chunk)
        took = contestant.time(contestant.few + chunk)
        while took < seconds / 2 or took < before / 2:
            if took < seconds / 2:
                calls, before = calls * (2 if took > seconds / 8 else 8), math.inf
            else:
                before = took
            contestant.start += took
            took = contestant.time(contestant.few + calls * chunk)
        contestant.steps = contestant.few + max(1, round(calls * seconds / took)) * chunk
        say(
            f"  {workload} {name}: {gap:.0e} apart, {contestant.start:.1f} s to start, "
            f"{contestant.steps} steps a repetition"
        )
        field.append(contestant)
    for _ in range(repetitions):
        for contestant in field:
            took = contestant.time(contestant.steps)
            contestant.times.append((contestant.steps - contestant.few) * members / took)
    for contestant in field:
        result[contestant.name] = {
            "start": round(contestant.start, 2),
            "rate": contestant.times,
            "memory": contestant.ask("memory"),
        }
        contestant.close()
    return {"workload": workload, "members": members, "contenders": result}


def ratio(result: dict, name: str, other: str) -> tuple[float, float, float]:
    """Median, smallest and largest ratio of the rates of two contenders, repetition by repetition."""
    pairs = zip(result["contenders"][name]["rate"], result["contenders"][other]["rate"], strict=True)
    ratios = [a / b for a, b in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)
