"""Fully connected networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import choose, whole
from ..streams import Stream
from .activations import ACTIVATIONS
from .model import Linear, Model

NORMS = (None, "layer", "layer-affine")
INITS = ("torch", "he", "normal")


class MLP(Model):
    """x -> W_n act(N(... act(N(W_1 x + b_1)) ...)) + b_n, layers named `layers.0`, `layers.1`, ...

    Args:
        widths: features from input to output, at least two numbers.
        activation: "relu", "identity", "gelu" (tanh form), "gelu-erf", "tanh", "elu" or "softplus"; or a
            tuple with one name for each hidden layer.
        bias: whether layers have biases.
        norm: None, "layer" (layer norm before the activation, without parameters) or "layer-affine" (with
            gain and bias).
        init: "torch": weights and biases uniform within 1 / sqrt(fan_in); "he": N(0, 2 / fan_in);
            "normal": N(0, 1 / fan_in); biases are zero in the last two.
        scale: factor on the drawn weights and biases, one number or one for each layer.

    Inputs (batch, widths[0]); more axes are flattened. Outputs (batch, widths[-1]).
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        activation: str | tuple[str, ...] = "relu",
        bias: bool = True,
        norm: str | None = None,
        init: str = "torch",
        scale: float | tuple[float, ...] = 1.0,
    ):
        super().__init__()
        widths = whole("widths", widths, 2)
        hidden = len(widths) - 2
        names = (activation,) * hidden if isinstance(activation, str) else tuple(activation)
        for name in (activation,) if isinstance(activation, str) else names:
            choose("activation", name, ACTIVATIONS)
        if len(names) != hidden:
            raise ValueError(f"activation: expected one name or {hidden}, got {activation!r}")
        choose("norm", norm, NORMS)
        choose("init", init, INITS)
        if not isinstance(scale, (int, float)) and len(scale) != hidden + 1:
            raise ValueError(f"scale: expected one number or {hidden + 1}, got {scale!r}")
        self.widths, self.bias, self.norm, self.init, self.scale = widths, bias, norm, init, scale
        self.activation = activation if isinstance(activation, str) else names
        self.layers = nn.ModuleList(Linear(a, b, bias) for a, b in zip(widths, widths[1:], strict=False))
        gains = widths[1:-1] if norm == "layer-affine" else ()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in gains)
        self._functions = [ACTIVATIONS[name] for name in names]

    def forward(self, inputs: Tensor) -> Tensor:
        """inputs: (batch, widths[0]), or with more axes -> (batch, widths[-1])."""
        return self._run(inputs, None)

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """By name: "layers.i" (batch, widths[i + 1]), after the activation of layer i; then "outputs"."""
        record: dict[str, Tensor] = {}
        record["outputs"] = self._run(inputs, record)
        return record

    def _run(self, inputs: Tensor, record: dict[str, Tensor] | None) -> Tensor:
        x = inputs.flatten(1) if inputs.dim() > 2 else inputs
        for i, function in enumerate(self._functions):
            x = self.layers[i](x)
            if self.norm == "layer":
                x = F.layer_norm(x, x.shape[-1:])
            elif self.norm == "layer-affine":
                x = self.norms[i](x)
            x = function(x)
            if record is not None:
                record[f"layers.{i}"] = x
        return self.layers[-1](x)

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Draw every parameter as `init` and `scale` say; norms start with gain 1 and bias 0."""
        drawn = {}
        for name, p in self.named_parameters():
            group, index, kind = name.split(".")
            if group == "norms":
                drawn[name] = torch.full_like(
                    p, float(kind == "weight"), dtype=dtype, device=stream.key.device
                )
                continue
            fan_in = self.widths[int(index)]
            scale = self.scale if isinstance(self.scale, (int, float)) else self.scale[int(index)]
            drawn[name] = draw_weight(stream, name, tuple(p.shape), fan_in, self.init, dtype) * scale
        return drawn


def draw_weight(
    stream: Stream, name: str, shape: tuple[int, ...], fan_in: int, init: str, dtype: torch.dtype
) -> Tensor:
    """One weight or bias (a tensor of one axis) by the rules "torch", "he" or "normal", keyed by its name."""
    if init == "torch":
        return (2 * stream.uniform(name, shape, dtype) - 1) / math.sqrt(fan_in)
    if len(shape) == 1:
        return torch.zeros(shape, dtype=dtype, device=stream.key.device)
    return stream.normal(name, shape, dtype) * math.sqrt((2.0 if init == "he" else 1.0) / fan_in)
