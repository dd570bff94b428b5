"""Counter-based random streams: a draw is a pure function of (seed, role, purpose, step).

Nothing is consumed and nothing is shared, so a member draws the same numbers alone, in any batch, after a
resume and on any device. The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", SC 2011), written in integer tensor operations so that it runs under `torch.vmap` over many members
and steps at once. Integers agree bit for bit everywhere; normals derived from them agree to rounding.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of Philox4x32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl increments of the key
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32 on 32-bit words held in int64 tensors (broadcast against each other)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1  # int64 wraps modulo 2^64, so the low and high words below stay exact
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def _name(text: str) -> int:
    return zlib.crc32(text.encode())


@dataclass(frozen=True)
class Stream:
    """The random numbers of one member for one role, standing at one step.

    key: int64 tensor (2,), made by `Stream.of`; step: int64 tensor (), counted from 0; branch: int64 tensor
    (), which of the independent substreams (`fold`). All three may be batched by `torch.vmap`.
    """

    key: Tensor
    step: Tensor
    branch: Tensor

    @staticmethod
    def of(seed: int, role: str = "task", device: torch.device | str = "cpu") -> Stream:
        """The stream of an integer seed (0 to 2^63-1) in a role such as "model", "task" or "run"."""
        if isinstance(seed, bool) or int(seed) != seed or not 0 <= seed < 2**63:
            raise ValueError(f"seed: expected an integer from 0 to 2**63-1, got {seed!r}")
        seed = int(seed)
        key = torch.tensor([seed & _MASK, (seed >> 32) ^ _name(role)], dtype=torch.int64, device=device)
        zero = torch.zeros((), dtype=torch.int64, device=device)
        return Stream(key, zero, zero)

    def at(self, step: Tensor | int) -> Stream:
        """The same stream standing at another step (an int, or an int64 tensor ())."""
        return Stream(self.key, self._whole(step), self.branch)

    def fold(self, n: Tensor | int) -> Stream:
        """An independent substream, numbered n (0 <= n < 2**32); fold(0) is the stream itself."""
        return Stream(self.key, self.step, self._whole(n))

    def _whole(self, n: Tensor | int) -> Tensor:
        """n as int64; a number is written by the device itself: a copy from the host would make it wait."""
        device = self.key.device
        if isinstance(n, Tensor):
            return n.to(device, torch.int64)
        return torch.full((), n, dtype=torch.int64, device=device)

    def words(self, purpose: str, n: int) -> Tensor:
        """n independent 32-bit integers, int64 (n,) in [0, 2**32)."""
        blocks = torch.arange(-(-n // 4), device=self.key.device)
        zero = torch.zeros_like(blocks)
        counter = (blocks, zero + (self.step & _MASK), zero + _name(purpose), zero + self.branch)
        return torch.stack(philox(counter, (self.key[0], self.key[1])), dim=-1).reshape(-1)[:n]

    def uniform(
        self, purpose: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Numbers uniform on the open interval (0, 1), of the given shape; at most 32 random bits each."""
        u = (self.words(purpose, math.prod(shape)).to(torch.float64) + 0.5) * 2.0**-32
        return u.to(dtype).clamp(max=1 - torch.finfo(dtype).eps / 2).reshape(shape)

    def normal(self, purpose: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers by the Box-Muller transform, of the given shape."""
        n = math.prod(shape)
        half = -(-n // 2)
        words = self.words(purpose, 2 * half).to(dtype)
        radius = torch.sqrt(-2 * torch.log((words[:half] + 0.5) * 2.0**-32))
        angle = words[half:] * (2 * math.pi * 2.0**-32)
        return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)])[:n].reshape(shape)

    def integers(self, purpose: str, high: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Integers uniform on [0, high), int64, of the given shape; high at most 2**31."""
        if not 0 < high <= 2**31:
            raise ValueError(f"high: expected an integer from 1 to 2**31, got {high!r}")
        return ((self.words(purpose, math.prod(shape)) * high) >> 32).reshape(shape)

    def permutation(self, purpose: str, n: int) -> Tensor:
        """A uniformly drawn order of 0..n-1, int64 (n,)."""
        return torch.argsort(self.words(purpose, n), stable=True)
