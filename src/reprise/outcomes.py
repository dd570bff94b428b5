"""What members leave, as a file: written by the job that trained them, read by those that join the pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .layout import Layout
from .train import Outcome


def save(path: Path, outcomes: Mapping[tuple[int, ...], Outcome], about: Mapping[str, Any]) -> None:
    """Write the outcomes of members, and notes fit for JSON about them, to one safetensors file."""
    from safetensors.numpy import save_file

    arrays, members = {}, []
    for row, (index, outcome) in enumerate(outcomes.items()):
        for name, (_, array, _) in outcome.values.items():
            arrays[f"{row}/{name}"] = np.asarray(array, order="C")
        for step, vector in outcome.kept.items():
            arrays[f"{row}@{step}"] = vector.numpy()
        labels = {name: (dims, labels) for name, (dims, _, labels) in outcome.values.items()}
        members.append((index, labels, list(outcome.kept), outcome.ended, outcome.complete))
    plain = json.dumps([about, members], default=lambda labels: np.asarray(labels).tolist())
    save_file(arrays, path, metadata={"plain": plain})


def load(path: Path, layout: Layout) -> tuple[dict[tuple[int, ...], Outcome], dict[str, Any]]:
    """Read what `save` wrote: {index of a member: outcome}, and the notes.

    layout: of the members' parameters. Raises FileNotFoundError.
    """
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        about, members = json.loads(file.metadata()["plain"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    outcomes = {}
    for row, (index, labels, kept, ended, complete) in enumerate(members):
        values = {name: (tuple(d), arrays[f"{row}/{name}"], at) for name, (d, at) in labels.items()}
        vectors = {step: torch.from_numpy(arrays[f"{row}@{step}"]) for step in kept}
        outcomes[tuple(index)] = Outcome(values, vectors, layout, ended, complete)
    return outcomes, about
