"""MNIST and CIFAR-10 from their upstream files, and 2,000 MNIST pictures that come with the library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files as resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import choose
from ..streams import Stream
from .files import cifar10, data_folder, mnist
from .pictures import Pictures
from .task import Task

SETS = ("mnist", "cifar-10", "mnist-2k")


@dataclass(frozen=True)
class Images(Pictures):
    """A set of pictures. Options: see `Pictures`, and

    name: "mnist" (60,000 + 10,000) or "cifar-10" (50,000 + 10,000), read from $REPRISE_DATA; "mnist-2k", 200
        MNIST pictures of each digit that come with the library and are split by the seed.
    flat: inputs (n, pixel); otherwise (n, channel, height, width).
    """

    name: str = "mnist-2k"
    flat: bool = True

    def __post_init__(self):
        super().__post_init__()
        choose("name", self.name, SETS)
        if self.components is not None and not self.flat:
            raise ValueError(f"components: got {self.components!r}, allowed with flat=True only")

    def load(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """uint8 pictures and classes; the test set apart, except for "mnist-2k"."""
        if self.name == "mnist-2k":
            return *_bundled(), None, None
        read = mnist if self.name == "mnist" else cifar10
        return tuple(torch.tensor(part) for part in read(data_folder()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        return (3, 32, 32) if self.name == "cifar-10" else (1, 28, 28)

    def _inputs(self, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        train, test = super()._inputs(train, test)
        return (train, test) if self.flat else (train.unflatten(1, self.shape), test.unflatten(1, self.shape))


@cache
def _bundled() -> tuple[Tensor, Tensor]:
    with (resources("reprise") / "data" / "mnist2k.npz").open("rb") as file:
        raw = np.load(file)
        return torch.from_numpy(raw["images"]), torch.from_numpy(raw["labels"])


@dataclass(frozen=True)
class CropAndFlip(Task):
    """A task whose training pictures (n, channel, height, width) are moved and mirrored at every visit.

    task: the task of the pictures. margin: largest shift, each way, with zeros moving in. flip: mirror
        half of them.
    """

    task: Task
    margin: int = 4
    flip: bool = True

    def data(self, stream: Stream) -> dict[str, Any]:
        """The data of the task."""
        return self.task.data(stream)

    def visit(self, batch: dict[str, Any], data: dict[str, Any], stream: Stream) -> dict[str, Any]:
        """The batch with pictures moved and mirrored."""
        batch = self.task.visit(batch, data, stream)
        x = batch["inputs"]
        n, _, height, width = x.shape
        shifts = stream.integers("crop", 2 * self.margin + 1, (2, n)) - self.margin
        rows = torch.arange(height, device=x.device) + shifts[0].unsqueeze(1)
        columns = torch.arange(width, device=x.device) + shifts[1].unsqueeze(1)
        if self.flip:
            mirrored = stream.integers("flip", 2, (n, 1)) == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & (
            (columns >= 0) & (columns < width)
        ).unsqueeze(1)
        places = (rows.clamp(0, height - 1) * width).unsqueeze(2) + columns.clamp(0, width - 1).unsqueeze(1)
        places = places.reshape(n, 1, -1).expand(-1, x.shape[1], -1)
        moved = x.flatten(2).gather(2, places).reshape(x.shape) * inside.unsqueeze(1)
        return {**batch, "inputs": moved}

    def loss(self, outputs: Tensor, batch: dict[str, Any]) -> Tensor:
        """The loss of the task."""
        return self.task.loss(outputs, batch)

    def accuracy(self, outputs: Tensor, batch: dict[str, Any]) -> Tensor:
        """The accuracy of the task."""
        return self.task.accuracy(outputs, batch)
