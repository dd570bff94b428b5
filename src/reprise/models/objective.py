"""A scalar objective as a model: its parameters are a few numbers, its output is the objective itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..arguments import choose
from ..streams import Stream
from .model import Model


class Objective(Model):
    """f(x) or f(x, inputs) for a parameter vector x, so that any update rule can train it.

    Args:
        function: smooth function of the vector `x` (n,), and of the batch's inputs if `takes="inputs"`;
            returns a tensor of any shape (a scalar for the task `reprise.tasks.Minimise`).
        start: the n numbers at which every member begins, or a function of a `Stream` that draws them.
        names: what the numbers are called, for figures; default x0, x1, ...
        takes: None, or "inputs" if the function has a second argument.

    Example:
        >>> well = Objective(lambda x: torch.log(torch.cosh(x[0] * x[1])), start=(0.3, 4.0))
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        start: Sequence[float] | Callable[[Stream], Tensor],
        names: tuple[str, ...] | None = None,
        takes: str | None = None,
    ):
        super().__init__()
        if not callable(function):
            raise ValueError(f"function: expected a callable, got {function!r}")
        choose("takes", takes, (None, "inputs"))
        drawn = callable(start)
        first = start(Stream.of(0, "model")) if drawn else torch.as_tensor(start, dtype=torch.float64)
        if first.dim() != 1:
            raise ValueError(f"start: expected a vector, got shape {tuple(first.shape)}")
        size = len(first)
        if names is not None and len(names) != size:
            raise ValueError(f"names: expected {size}, one for each number in start, got {names!r}")
        self.function, self.start, self.takes = function, start, takes
        self.names = tuple(names) if names is not None else tuple(f"x{i}" for i in range(size))
        self.x = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """The value of the function at the parameters."""
        return self.function(self.x) if self.takes is None else self.function(self.x, inputs)

    def activations(self, inputs: Tensor | None = None) -> dict[str, Tensor]:
        """Each parameter by its name, then "outputs"."""
        named = {name: self.x[i] for i, name in enumerate(self.names)}
        return {**named, "outputs": self.forward(inputs)}

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The start, which depends on the stream only if `start` is a function."""
        if callable(self.start):
            return {"x": self.start(stream).to(dtype)}
        return {"x": torch.tensor([float(v) for v in self.start], dtype=dtype, device=stream.key.device)}

    def __repr__(self) -> str:
        from ..digest import describe  # a function's address is no description of it

        options = (self.function, self.start, self.names, self.takes)
        return f"Objective({', '.join(describe(option) for option in options)})"
