"""How the named parameters of a model lie in one flat vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout(Mapping):
    """Names and shapes of a model's parameters, in order; a mapping from name to slice of the flat vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(model: nn.Module) -> Layout:
        named = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
        return Layout(tuple(n for n, _ in named), tuple(s for _, s in named))

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def size(self) -> int:
        """P, the number of parameters of one member."""
        return sum(self.sizes)

    def __getitem__(self, name: str) -> slice:
        if name not in self.names:
            raise KeyError(f"no parameter named {name!r}; the model has {', '.join(self.names)}")
        i = self.names.index(name)
        begin = sum(self.sizes[:i])
        return slice(begin, begin + self.sizes[i])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def leaves(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """Views of (..., P) as one tensor (..., *shape) a parameter."""
        lead = vectors.shape[:-1]
        parts = vectors.split(self.sizes, dim=-1)
        return tuple(part.reshape((*lead, *shape)) for part, shape in zip(parts, self.shapes, strict=True))

    def split(self, vectors: Tensor) -> dict[str, Tensor]:
        """(..., P) -> {name: (..., *shape)}, views where possible."""
        return dict(zip(self.names, self.leaves(vectors), strict=True))

    def join(self, params: Mapping[str, Tensor]) -> Tensor:
        """{name: (..., *shape)} -> (..., P)."""
        missing = [name for name in self.names if name not in params]
        if missing:
            raise ValueError(f"parameters missing: {', '.join(missing)}")
        flat = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            tensor = params[name]
            lead = tensor.shape[: tensor.ndim - len(shape)]
            if tuple(tensor.shape[len(lead) :]) != shape:
                raise ValueError(
                    f"parameter {name}: expected shape (..., {shape}), got {tuple(tensor.shape)}"
                )
            flat.append(tensor.reshape(*lead, -1))
        return torch.cat(flat, dim=-1)
