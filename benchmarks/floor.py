"""What the machine itself can do: products of matrices and moving memory, measured in the same run."""

from __future__ import annotations

import time

import torch

from reprise.rewrites import onednn_is_faster, product


def _best(work, repetitions: int = 7) -> float:
    times = []
    for _ in range(repetitions):
        begin = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times)


def floor(device: str = "cpu") -> dict[str, float]:
    """What the machine does a second.

    "flops": float32 multiplications and additions of the faster library; "mm": those of `torch.mm`; "bytes":
    moved, read and write.
    """
    n = 2048 if device == "cpu" else 8192
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    out = torch.empty_like(a)
    plain = best = _best(lambda: torch.mm(a, b, out=out))
    if device == "cpu" and onednn_is_faster():
        best = min(plain, _best(lambda: product(a, b)))
    big = torch.empty(2**26, device=device)
    other = torch.empty_like(big)
    moved = 2 * big.numel() * 4 / _best(lambda: other.copy_(big))
    return {"flops": 2 * n**3 / best, "mm": 2 * n**3 / plain, "bytes": moved}


def flops_of_step(workload, members: int) -> float:
    """Multiplications and additions of the matrix products of one step of all members."""
    from reprise.shards import _program
    from reprise.stack import stacks

    (stack,) = stacks(workload.sweep(members).members(), torch.device("cpu"))
    return _program(stack).cost().flops
