"""Classification of pictures: what Digits and Images share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..arguments import choose
from ..streams import Stream
from .losses import REDUCTIONS, accuracy, cross_entropy, squared
from .scaling import SCALINGS, principal_components, scaled
from .task import Task

LOSSES = ("cross-entropy", "squared")
LABELS = ("class", "one-hot", "signs", "halves")


@dataclass(frozen=True)
class Pictures(Task):
    """Pictures and their classes, with a seeded choice of examples.

    n_train, n_test: how many, drawn without replacement; n_test None: the rest.
    scaling, scale: see `reprise.tasks.scaling.scaled`.
    components: replace the pixels by this many principal components of unit variance.
    labels: the targets: "class" int64 (n,); "one-hot" (n, classes); "signs", +1 for the class and -1 for the
        others (n, classes); "halves", +1 for classes of the upper half and -1 for the lower (n, 1).
    loss_name: "cross-entropy" or "squared", the latter with half and reduction (see `reprise.tasks.losses`).
    logits: dtype of the logits in the cross-entropy; default that of the outputs.

    Splits hold "inputs" (n, pixel), "targets" and "labels", the true classes int64 (n,) (for "halves" 0 or
    1).
    """

    n_train: int | None = None
    n_test: int | None = None
    scaling: str = "unit"
    scale: float | None = None
    components: int | None = None
    labels: str = "class"
    loss_name: str = "cross-entropy"
    half: bool = False
    reduction: str = "mean"
    logits: torch.dtype | None = None

    varying: ClassVar[tuple[str, ...]] = ("n_train", "n_test", "scaling", "scale", "components")
    classes: ClassVar[int] = 10

    def __post_init__(self):
        choose("scaling", self.scaling, SCALINGS)
        choose("labels", self.labels, LABELS)
        choose("loss_name", self.loss_name, LOSSES)
        choose("reduction", self.reduction, REDUCTIONS)
        if (self.loss_name == "squared") == (self.labels == "class"):
            raise ValueError(
                f"labels: got {self.labels!r} with loss_name={self.loss_name!r}; cross-entropy takes "
                "'class', squared takes 'one-hot', 'signs' or 'halves'"
            )

    @abstractmethod
    def load(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """uint8 pictures (n, ...) and labels (n,); those of the test set if it is a set apart, else None."""

    @property
    def _white(self) -> int:
        return 255

    def data(self, stream: Stream) -> dict[str, Any]:
        """Splits "train" and "test", floats in float64."""
        pictures, labels, test_pictures, test_labels = self.load()
        order = stream.permutation("split", len(pictures))
        n_train = len(pictures) if self.n_train is None else self.n_train
        if test_pictures is None:
            n_test = len(pictures) - n_train if self.n_test is None else self.n_test
            rest = order[n_train : n_train + n_test]
            test_pictures, test_labels = pictures[rest], labels[rest]
            room = len(pictures)
        else:
            n_test = len(test_pictures) if self.n_test is None else self.n_test
            chosen = stream.permutation("test split", len(test_pictures))[:n_test]
            test_pictures, test_labels = test_pictures[chosen], test_labels[chosen]
            room = len(pictures) + n_test
        if n_train < 1 or n_test < 0 or n_train + n_test > room or len(test_pictures) < n_test:
            raise ValueError(
                f"n_train, n_test: got {self.n_train!r} and {self.n_test!r}, but there are {len(pictures)} "
                "pictures to draw from"
            )
        chosen = order[:n_train]
        train, test = self._inputs(pictures[chosen], test_pictures)
        return {
            "train": {"inputs": train, **self._targets(labels[chosen])},
            "test": {"inputs": test, **self._targets(test_labels)},
        }

    def _inputs(self, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        train, test = ((x.to(torch.float64) / self._white).flatten(1) for x in (train, test))
        if self.components is not None:
            return principal_components(train, test, self.components)
        return scaled(train, test, self.scaling, self.scale)

    def _targets(self, labels: Tensor) -> dict[str, Tensor]:
        labels = labels.to(torch.int64)
        if self.labels == "class":
            return {"targets": labels, "labels": labels}
        if self.labels == "halves":
            upper = (labels >= self.classes // 2).to(torch.int64)
            return {"targets": (2.0 * upper.to(torch.float64) - 1).unsqueeze(1), "labels": upper}
        one_hot = torch.nn.functional.one_hot(labels, self.classes).to(torch.float64)
        return {"targets": one_hot if self.labels == "one-hot" else 2 * one_hot - 1, "labels": labels}

    def loss(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The loss named by `loss_name`; outputs (n, classes), for "halves" (n, 1)."""
        if self.loss_name == "cross-entropy":
            return cross_entropy(outputs, batch["targets"], logits=self.logits)
        return squared(outputs, batch["targets"], half=self.half, reduction=self.reduction)

    def accuracy(self, outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Share of examples classified as their true class."""
        return accuracy(outputs, batch["labels"])
