"""Loss and accuracy on named splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ..snapshot import Snapshot


def _splits(snapshot: Snapshot) -> list[str]:
    return [name for name, split in snapshot.data.items() if isinstance(split, Mapping) and "inputs" in split]


def loss(snapshot: Snapshot) -> dict[str, Tensor]:
    """The task's loss on the whole training split (`loss`) and on every other split (`loss_test`, ...)."""
    return {"loss" if s == "train" else f"loss_{s}": snapshot.loss(s) for s in _splits(snapshot)}


def accuracy(snapshot: Snapshot) -> dict[str, Tensor]:
    """The share of right answers on every split: `accuracy_train`, `accuracy_test`, ..."""
    return {f"accuracy_{s}": snapshot.accuracy(s) for s in _splits(snapshot)}


def gradient_norm(snapshot: Snapshot) -> Tensor:
    """Euclidean norm of the gradient of the loss on the training split."""
    return snapshot.gradient().norm()


def distance(snapshot: Snapshot) -> Tensor:
    """Euclidean distance of the parameters from their start."""
    return snapshot.displacement.norm()


def weight_norm(*names: str) -> Callable[[Snapshot], dict[str, Tensor]]:
    """A probe: Frobenius norm of the named parameters, `weight_norm` (one name) or along "parameter"."""
    if not names:
        raise ValueError("weight_norm: name at least one parameter, such as 'layers.0.weight'")

    def weight_norm(snapshot: Snapshot) -> dict:
        from torch import stack

        params = snapshot.params
        unknown = [name for name in names if name not in params]
        if unknown:
            raise ValueError(f"weight_norm: no parameter {unknown[0]!r}; the model has {', '.join(params)}")
        norms = [params[name].norm() for name in names]
        if len(norms) == 1:
            return {"weight_norm": norms[0]}
        return {"weight_norm": (("parameter",), stack(norms), {"parameter": list(names)})}

    return weight_norm
