"""Checkpoints of long training: written atomically, resumed exactly."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from .digest import sha
from .train import Run


class Checkpoint:
    """The file of one batch of members in training. A file of another training is ignored and overwritten."""

    def __init__(self, file: Path, seconds: float, description: str) -> None:
        self.file, self.seconds, self.digest = Path(file), seconds, sha(description)
        self.last = time.monotonic()

    def pause(self, run: Run) -> None:
        """Write when enough time has passed since the last write."""
        if time.monotonic() - self.last >= self.seconds:
            self.write(run)

    def write(self, run: Run) -> None:
        """Write all that changes along the run: one safetensors file, moved into place when complete."""
        from safetensors.torch import save_file

        leaves = {
            path: x.clone().contiguous()
            for path, x in zip(_paths(run.tensors()), pytree.tree_leaves(run.tensors()), strict=True)
        }
        meta = {"digest": self.digest, "plain": json.dumps(run.plain())}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_name(f"{self.file.name}.{uuid.uuid4().hex}.partial")
        save_file(leaves, partial, metadata=meta)
        os.replace(partial, self.file)
        self.last = time.monotonic()

    def restore(self, run: Run) -> None:
        """Continue a run from its file, if there is one of this very training."""
        from safetensors import safe_open

        if not self.file.exists():
            return
        with safe_open(self.file, "pt", device=str(run.stack.device)) as file:
            meta = file.metadata()
            if meta.get("digest") != self.digest:
                return
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        empty = {name: {} for name in run.tensors()}
        values = empty | _nest(tensors) | json.loads(meta["plain"])
        # A rule without buffers has empty dicts in its state, which no tensor stands for: keep its structure.
        spec = pytree.tree_structure(run.state)
        values["state"] = pytree.tree_unflatten([tensors[f"state/{p}"] for p in _paths(run.state)], spec)
        run.restore(values)

    def remove(self) -> None:
        """Delete the file: the training is complete."""
        self.file.unlink(missing_ok=True)


def _paths(value: Any, prefix: str = "") -> list[str]:
    """The places of the tensors in nested dicts, "a/b"; "" for a tensor itself."""
    if isinstance(value, torch.Tensor):
        return [prefix.removesuffix("/")]
    if not isinstance(value, dict):
        raise TypeError(f"checkpoint: state must be nested dicts of tensors, got {type(value).__name__}")
    # in the order of pytree.tree_flatten, which keeps the order of a dict
    return [path for key, inner in value.items() for path in _paths(inner, f"{prefix}{key}/")]


def _nest(flat: dict[str, torch.Tensor]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, tensor in flat.items():
        *outer, last = path.split("/")
        place = nested
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = tensor
    return nested
