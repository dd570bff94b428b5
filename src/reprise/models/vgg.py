"""VGG-16 for 32x32 images (Simonyan & Zisserman 2015), with GELU and without batch norm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import choose, positive
from ..streams import Stream
from .activations import ACTIVATIONS
from .model import Model
from .resnet import draw_convolutional, zero

PLAN = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(Model):
    """Thirteen convolutions in five stages that end in a pooling, two hidden layers and the read-out.

    Args:
        classes: number of outputs; channels: of the input.
        width: multiplies every width of VGG-16 (64 ... 512, hidden layers 512); 1.0 is the original.
        activation: as in `MLP`.

    Inputs (batch, channels, height, width); a stage pools only while the picture is larger than one pixel.
    Outputs (batch, classes).
    """

    def __init__(self, classes: int = 10, channels: int = 3, width: float = 1.0, activation: str = "gelu"):
        super().__init__()
        choose("activation", activation, ACTIVATIONS)
        if not width > 0:
            raise ValueError(f"width: expected a positive multiplier, got {width!r}")
        self.classes, self.channels = positive("classes", classes), positive("channels", channels)
        self.width, self.activation = width, activation
        size = lambda n: max(1, round(n * width))  # noqa: E731
        widths = [channels] + [size(n) for stage in PLAN for n in stage]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1, 1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.hidden = nn.ModuleList([nn.Linear(widths[-1], size(512)), nn.Linear(size(512), size(512))])
        self.output = nn.Linear(size(512), classes)
        zero(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, classes)."""
        return self.activations(inputs)["outputs"]

    def activations(self, inputs: Tensor) -> dict[str, Tensor]:
        """By name: "convolutions.i" (four axes), "hidden.i" (batch, feature), "outputs"."""
        function, record = ACTIVATIONS[self.activation], {}
        x, layer = inputs, 0
        for stage in PLAN:
            for _ in stage:
                x = record[f"convolutions.{layer}"] = function(self.convolutions[layer](x))
                layer += 1
            x = F.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
        x = x.mean((2, 3))
        for i, hidden in enumerate(self.hidden):
            x = record[f"hidden.{i}"] = function(hidden(x))
        record["outputs"] = self.output(x)
        return record

    def reset(self, stream: Stream, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Kernels and hidden maps N(0, 2 / fan_in), the read-out N(0, 1 / fan_in), biases 0."""
        return draw_convolutional(self, stream, dtype)
