"""Which device runs, and the numeric settings under which everything here is measured."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve(device: str | torch.device = "auto") -> torch.device:
    """ "auto" (a CUDA device if there is one, else the CPU), "cpu", "cuda" or "cuda:N" as a torch.device.

    Raises ValueError when the name is unknown or no such device is present.
    """
    if isinstance(device, torch.device):
        device = str(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return torch.device("cuda:0" if count else "cpu")
    if device == "cpu":
        return torch.device("cpu")
    kind, _, index = str(device).partition(":")
    if kind != "cuda" or (index and not index.isdigit()) or (":" in str(device) and not index):
        raise ValueError(f'device: expected "auto", "cpu", "cuda" or "cuda:N", got {device!r}')
    if int(index or 0) >= count:
        raise ValueError(f"device: {device!r} was asked for, but {count} CUDA devices are present")
    return torch.device(kind, int(index or 0))


def visible(device: str | torch.device = "auto") -> list[torch.device]:
    """The devices that a sweep may be spread over: the one named, or for "auto" and "cuda" every GPU."""
    first = resolve(device)
    every = first.type == "cuda" and str(device) in ("auto", "cuda")
    return [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if every else [first]


def name(device: torch.device) -> str:
    """A readable name of the device for the record, such as "NVIDIA H100" or "CPU (AMD EPYC)"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({processor()})"


@functools.cache
def processor() -> str:
    """The name that the CPU gives itself."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        import platform

        return platform.processor() or platform.machine()


def free_memory(device: torch.device) -> int:
    """Bytes that a training may use: most of what is free now."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    try:
        return int(0.6 * os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, AttributeError):  # not told on this system
        return 4 * 2**30


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Full float32 products: TF32 and reduced-precision reductions off while inside."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_fp16_reduced_precision_reduction
    matmul.allow_tf32 = cudnn.allow_tf32 = matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, matmul.allow_fp16_reduced_precision_reduction = before


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep large blocks that it frees, where the C library is glibc.

    Else each tensor of some 100 kB comes from the system anew, and its pages cost as much as its arithmetic.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
    mallopt(mmap_threshold, 2**25)  # the most that older versions take
    mallopt(trim_threshold, 2**30)
