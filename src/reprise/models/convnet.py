"""A small convolutional network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import choose, positive, whole
from ..streams import Stream
from .activations import ACTIVATIONS
from .model import Model
from .resnet import draw_convolutional, zero


class ConvNet(Model):
    """Convolutions 3x3 with padding, each with an activation and a 2x2 maximum pooling, then a linear map.

    Args:
        size: height and width of the square inputs; channels: of the input; classes: number of outputs.
        widths: channels of each convolution.
        activation: as in `MLP`.

    Inputs (batch, channels, size, size). Outputs (batch, classes).
    """

    def __init__(
        self,
        size: int,
        widths: tuple[int, ...] = (8, 16),
        classes: int = 10,
        channels: int = 1,
        activation: str = "relu",
    ):
        super().__init__()
        choose("activation", activation, ACTIVATIONS)
        self.size, self.widths = positive("size", size), whole("widths", widths, 1)
        self.classes, self.channels = positive("classes", classes), positive("channels", channels)
        self.activation = activation
        if size >> len(self.widths) < 1:
            raise ValueError(
                f"widths: {len(self.widths)} poolings need a size of at least "
                f"{2 ** len(self.widths)}, got {size}"
            )
        chain = (channels, *self.widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1, 1) for a, b in zip(chain, chain[1:], strict=False)
        )
        self.output = nn.Linear(self.widths[-1] * (size >> len(self.widths)) ** 2, classes)
        zero(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, channels, size, size) -> (batch, classes)."""
        return self.activations(inputs)["outputs"]

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """By name: "convolutions.i" (batch, channel, height, width) after its pooling, "outputs"."""
        function, record, x = ACTIVATIONS[self.activation], {}, inputs
        for i, convolution in enumerate(self.convolutions):
            x = record[f"convolutions.{i}"] = F.max_pool2d(function(convolution(x)), 2)
        record["outputs"] = self.output(x.flatten(1))
        return record

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Kernels N(0, 2 / fan_in), the read-out N(0, 1 / fan_in), biases 0."""
        return draw_convolutional(self, stream, dtype)
