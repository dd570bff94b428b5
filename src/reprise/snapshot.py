"""What a probe sees: one member at one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from .layout import Layout
from .streams import Stream

if TYPE_CHECKING:
    from .products import Products


@dataclass(frozen=True)
class Snapshot:
    """One member after `step` updates. Probes are functions of it and run under `torch.vmap` over members.

    vector: (P,) current parameters; start: (P,) parameters at step 0; data: what `task.data` built (splits
    such as "train" and "test"); batch: the batch of the coming step, or the last one; stream: random numbers
    for the probe, standing at the step; step: int64 (); products: makes the Hessians of `loss_at`.
    """

    module: nn.Module
    layout: Layout
    task: Any
    vector: Tensor
    start: Tensor
    data: Mapping[str, Any]
    stream: Stream
    step: Tensor
    products: Products | None = None

    @property
    def params(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return self.layout.split(self.vector)

    @property
    def displacement(self) -> Tensor:
        """(P,): how far the parameters are from the start."""
        return self.vector - self.start

    def model(self, inputs: Any, vector: Tensor | None = None) -> Any:
        """Outputs at the current parameters, or at another vector (P,)."""
        vector = self.vector if vector is None else vector
        return functional_call(self.module, self.layout.split(vector), (inputs,))

    def activations(self, inputs: Any, vector: Tensor | None = None) -> dict[str, Tensor]:
        """The model's hidden activations by name."""
        params = self.layout.split(self.vector if vector is None else vector)
        return functional_call(
            _Activations(self.module), {f"model.{k}": v for k, v in params.items()}, (inputs,)
        )

    def outputs(self, split: str = "train") -> Any:
        """Outputs on a named split."""
        return self.model(self.examples(split)["inputs"])

    def examples(self, split: str = "train") -> Mapping[str, Tensor]:
        """The batch of all examples of a named split."""
        if split not in self.data:
            raise ValueError(
                "split: the task has "
                f"{', '.join(k for k, v in self.data.items() if isinstance(v, Mapping))}, "
                f"not {split!r}"
            )
        return self.data[split]

    def loss(self, split: str = "train", vector: Tensor | None = None) -> Tensor:
        """The task's loss on a whole split, at the current parameters or at another vector (P,)."""
        examples = self.examples(split)
        return self.task.loss(self.model(examples["inputs"], vector), examples)

    @property
    def loss_at(self) -> TrainingLoss:
        """The loss on the training split at a vector (P,): what curvature is measured of."""
        return TrainingLoss(self)

    def accuracy(self, split: str = "test", vector: Tensor | None = None) -> Tensor:
        """The task's accuracy on a whole split."""
        examples = self.examples(split)
        return self.task.accuracy(self.model(examples["inputs"], vector), examples)

    def gradient(self, vector: Tensor | None = None) -> Tensor:
        """(P,): gradient of the loss on the training split."""
        return grad(self.loss_at)(self.vector if vector is None else vector)


@dataclass(frozen=True)
class TrainingLoss:
    """The loss of a snapshot's training split: (P,) -> scalar."""

    snapshot: Snapshot

    def __call__(self, vector: Tensor) -> Tensor:
        return self.snapshot.loss("train", vector)

    def hessian(self, vector: Tensor) -> Callable[[Tensor], Tensor] | None:
        """The traced Hessian, a map of the rows of (n, P), or None (see `Products`)."""
        products, data = self.snapshot.products, self.snapshot.data
        return products and products.operator(self._at, vector, data)

    def _at(self, vector: Tensor, data: Mapping[str, Any]) -> Tensor:
        return replace(self.snapshot, data=data).loss("train", vector)


class _Activations(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        return self.model.activations(inputs)


def normalise(name: str, result: Any) -> dict[str, tuple[tuple[str, ...], Tensor, dict[str, list]]]:
    """A probe's result as {name: (dims, tensor, labels)}.

    A probe may return a tensor, or a dict whose values are a tensor, (dims, tensor) or
    (dims, tensor, labels).
    Unnamed dimensions are called after the quantity.
    """
    if not isinstance(result, Mapping):
        result = {name: result}
    normal = {}
    for key, value in result.items():
        dims, labels = None, {}
        if isinstance(value, tuple):
            dims, value, *rest = value
            dims = (dims,) if isinstance(dims, str) else tuple(dims)
            labels = dict(rest[0]) if rest else {}
        value = torch.as_tensor(value)
        if dims is None:
            dims = tuple(f"{key}_{i}" for i in range(value.ndim))
        if len(dims) != value.ndim:
            raise ValueError(f"probe {name}: {key} has {value.ndim} dimensions but {len(dims)} names {dims}")
        normal[key] = (dims, value, labels)
    return normal


def probe_name(probe: Callable) -> str:
    return getattr(probe, "name", None) or getattr(probe, "__name__", type(probe).__name__)
