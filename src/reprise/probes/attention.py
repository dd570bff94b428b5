"""How spread out attention is: the entropy of its rows, by layer and head."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..snapshot import Snapshot


def row_entropy(weights: Tensor) -> Tensor:
    """Entropy in nats of each row of attention weights.

    Args:
        weights: (..., query, key), rows that sum to one. A masked key has weight 0 and counts for nothing.

    Returns:
        (..., query), from 0 (one key) to the logarithm of the number of keys that are allowed.
    """
    return torch.special.entr(weights).sum(-1)


def layer_entropies(activations: Mapping[str, Tensor]) -> Tensor:
    """(layer, head): row entropy in nats, mean over batch and queries, from a model's activations.

    Args:
        activations: holds "blocks.i.attention" (batch, head, query, key), as `Transformer.activations` gives.

    Raises:
        ValueError: no such key.
    """
    layers = sorted(
        (int(m[1]), k) for k in activations if (m := re.fullmatch(r"blocks\.(\d+)\.attention", k))
    )
    if not layers:
        raise ValueError(f"activations: no 'blocks.i.attention' among {', '.join(activations)}")
    return torch.stack([row_entropy(activations[key]).mean((0, 2)) for _, key in layers])


def attention_entropy(
    examples: int | None = None, split: str = "train", inputs: Callable[[Snapshot, Any], Any] | None = None
) -> Callable[[Snapshot], dict]:
    """A probe: `attention_entropy` (layer, head) in nats, on the first examples of a split.

    Args:
        examples: how many, all if None.
        split: a split of the task.
        inputs: function of the snapshot and the examples' inputs, for a task whose batches hold more.
    """

    def attention_entropy(snapshot: Snapshot) -> dict:
        x = snapshot.examples(split)["inputs"]
        x = {k: v[:examples] for k, v in x.items()} if isinstance(x, Mapping) else x[:examples]
        x = x if inputs is None else inputs(snapshot, x)
        return {"attention_entropy": (("layer", "head"), layer_entropies(snapshot.activations(x)))}

    return attention_entropy
