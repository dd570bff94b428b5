"""Residual networks for 32x32 images (He et al. 2016, section 4.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import choose, positive
from ..streams import Stream
from .model import Model

NORMS = (None, "group")


class ResidualBlock(nn.Module):
    """relu(x' + N(W2 relu(N(W1 x)))); where the shape changes, x' is x subsampled and zero-padded."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str | None, groups: int):
        super().__init__()
        self.stride, self.padding = stride, outputs - inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=norm is None)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=norm is None)
        self.norm1 = nn.GroupNorm(math.gcd(groups, outputs), outputs) if norm else None
        self.norm2 = nn.GroupNorm(math.gcd(groups, outputs), outputs) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, channel, height, width)."""
        y = torch.relu(_normed(self.norm1, self.conv1(x)))
        y = _normed(self.norm2, self.conv2(y))
        x = x[:, :, :: self.stride, :: self.stride]
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, self.padding // 2, self.padding - self.padding // 2))
        return torch.relu(x + y)


class ResNet(Model):
    """A residual network of 6 blocks + 2 layers; `blocks=3` is ResNet-20. Never batch norm.

    Args:
        classes: number of outputs; blocks: residual blocks in each of the three stages.
        width: channels of the first stage (16 in the paper), doubled in each later one.
        channels: of the input.
        norm: "group", or None: then convolutions have biases and the second of each block starts at zero.
        groups: groups of a norm (the largest common divisor with the channels is used).

    Inputs (batch, channels, height, width), height and width at least 4. Outputs (batch, classes).
    """

    def __init__(
        self,
        classes: int = 10,
        blocks: int = 3,
        width: int = 16,
        channels: int = 3,
        norm: str | None = "group",
        groups: int = 8,
    ):
        super().__init__()
        choose("norm", norm, NORMS)
        self.classes, self.blocks = positive("classes", classes), positive("blocks", blocks)
        self.width, self.channels = positive("width", width), positive("channels", channels)
        self.norm, self.groups = norm, positive("groups", groups)
        self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=norm is None)
        self.stem_norm = nn.GroupNorm(math.gcd(groups, width), width) if norm else None
        stages, inputs = [], width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(ResidualBlock(inputs, width * 2**stage, stride, norm, groups))
                inputs = width * 2**stage
        self.stages = nn.ModuleList(stages)
        self.output = nn.Linear(4 * width, classes)
        zero(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes)."""
        return self.activations(inputs)["outputs"]

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """By name: "stem", "stages.i" (four axes), "features" (batch, 4 width), "outputs"."""
        x = torch.relu(_normed(self.stem_norm, self.stem(inputs)))
        record = {"stem": x}
        for i, block in enumerate(self.stages):
            x = record[f"stages.{i}"] = block(x)
        x = record["features"] = x.mean((2, 3))
        record["outputs"] = self.output(x)
        return record

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Convolutions N(0, 2 / fan_in), the read-out N(0, 1 / fan_in), gains 1, biases 0."""
        drawn = draw_convolutional(self, stream, dtype)
        if self.norm is None:
            drawn.update({k: torch.zeros_like(v) for k, v in drawn.items() if k.endswith("conv2.weight")})
        return drawn


def draw_convolutional(model: nn.Module, stream: Stream, dtype: torch.dtype) -> dict[str, Tensor]:
    """Kernels and hidden maps N(0, 2 / fan_in), the last map N(0, 1 / fan_in), gains 1, biases 0."""
    drawn = {}
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            drawn[name] = torch.zeros_like(p, dtype=dtype, device=stream.key.device)
        elif p.dim() == 1:
            drawn[name] = torch.ones_like(p, dtype=dtype, device=stream.key.device)
        else:
            gain = 1.0 if name == "output.weight" else 2.0
            deviation = math.sqrt(gain / math.prod(p.shape[1:]))
            drawn[name] = stream.normal(name, tuple(p.shape), dtype) * deviation
    return drawn


def zero(model: nn.Module) -> None:
    """Set every parameter to zero in place: models draw theirs in `reset` only."""
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()


def _normed(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)
