"""Draw the parameters of any module that is built from torch's own layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..streams import Stream

_FAN_IN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def initialise(model: nn.Module, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Parameters of a model, by its own `reset` if it has one, else by torch's default distributions.

    Args:
        model: any module whose parameters belong to Linear, Conv, Embedding, LayerNorm, GroupNorm or RMSNorm.
        stream: the member's random numbers, role "model"; each tensor is keyed by its name.
        dtype: floating type of the result.

    Returns:
        name -> tensor, in the order of `named_parameters`; the module stays as it is.

    Raises:
        TypeError: the model has buffers, or a parameter whose distribution is not known here.
    """
    buffers = [name for name, _ in model.named_buffers()]
    if buffers:
        raise TypeError(
            f"model: {type(model).__name__} has buffers ({', '.join(buffers[:3])}); only parameters can "
            "differ by member. Use group or layer norm in place of batch norm; keep constants out of buffers"
        )
    if hasattr(model, "reset"):
        return model.reset(stream, dtype)
    drawn = {}
    for path, module in model.named_modules():
        for key, p in module.named_parameters(recurse=False):
            name = f"{path}.{key}" if path else key
            drawn[name] = _draw(module, key, name, p, stream, dtype)
    return {name: drawn[name] for name, _ in model.named_parameters()}


def _draw(module: nn.Module, key: str, name: str, p: Tensor, stream: Stream, dtype: torch.dtype) -> Tensor:
    shape = tuple(p.shape)
    if isinstance(module, _FAN_IN):
        fan_in = math.prod(module.weight.shape[1:])
        return (2 * stream.uniform(name, shape, dtype) - 1) / math.sqrt(fan_in)
    if isinstance(module, _NORMS):
        return torch.full(shape, float(key == "weight"), dtype=dtype, device=stream.key.device)
    if isinstance(module, nn.Embedding):
        drawn = stream.normal(name, shape, dtype)
        if module.padding_idx is None:
            return drawn
        return drawn * (torch.arange(shape[0], device=drawn.device) != module.padding_idx).unsqueeze(-1)
    raise TypeError(
        f"model: no known initial distribution for parameter {name!r} of {type(module).__name__}; known are "
        "Linear, Conv1d/2d/3d, Embedding, LayerNorm, GroupNorm, RMSNorm. Give the model a method "
        "reset(stream, dtype) -> {name: tensor}"
    )


def materialise(model: nn.Module, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Load the draw of a seed into the model in place, for use of one model alone; returns the model."""
    device = next(model.parameters()).device
    drawn = initialise(model, Stream.of(seed, "model", device), dtype)
    model.to(dtype).load_state_dict(drawn)
    return model
