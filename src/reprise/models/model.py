"""What every built-in model shares: named parameters that start at zero, and one initialiser."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from ..streams import Stream


class Model(nn.Module):
    """A network of one member: a pure forward pass and `reset`, which draws all parameters from a stream.

    Parameters start at zero; nothing random happens in a constructor. A constructor's arguments are kept as
    attributes of the same name, so that `repr` shows every option.
    """

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Draw every parameter.

        Args:
            stream: the member's random numbers, role "model".
            dtype: floating type of the result.

        Returns:
            name -> tensor, in the order of `named_parameters`. The module itself stays as it is.
        """
        raise NotImplementedError

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """The hidden values by name, in the order in which they are computed, ending with "outputs"."""
        raise NotImplementedError

    @property
    def program(self) -> tuple[str, str]:
        """What two models must share to run in one stack: the class and every option."""
        return f"{type(self).__module__}.{type(self).__qualname__}", repr(self)

    def __repr__(self) -> str:
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


class Linear(nn.Module):
    """y = x W^T + b with W of shape (out, in), as one matrix product over all leading axes of x."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) -> (..., out)."""
        return affine(x, self.weight, self.bias)


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b. The leading axes of x are folded first: under vmap this stays one batched product."""
    y = x.reshape(-1, x.shape[-1]) @ weight.t()
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], weight.shape[0])
