"""The parameters a sweep leaves, selected by the coordinates of the sweep."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .digest import sha
from .layout import Layout


@dataclass(frozen=True)
class State:
    """The parameters of one member: `vector` (P,), `layout`, and a digest that says where they come from."""

    vector: Tensor
    layout: Layout
    digest: str

    @property
    def params(self) -> dict[str, Tensor]:
        """{name: tensor of the parameter's shape}, for `torch.func.functional_call` or `load_state_dict`."""
        return self.layout.split(self.vector)


@dataclass(frozen=True)
class States:
    """The parameters of all members at the kept steps.

    coords: {axis: values}, in the order of the sweep. members: {index of the member along the axes: {step:
    vector (P,)}}. layouts: {index: Layout}. "Last" is the member's own last step.
    """

    coords: dict[str, list]
    members: dict[tuple[int, ...], dict[int, Tensor]]
    layouts: dict[tuple[int, ...], Layout]
    digest: str

    @classmethod
    def gather(cls, function: Callable[..., State], **axes: Sequence) -> States:
        """States over axes of their own: at every point the `State` that function(**labels) returns.

        Used to compare a sweep with states of others: `trained.measure(probe, reference=States.gather(...))`.
        """
        coords = {name: list(labels) for name, labels in axes.items()}
        indices = list(itertools.product(*(range(len(labels)) for labels in coords.values())))
        chosen = {
            index: function(**{name: coords[name][i] for name, i in zip(coords, index, strict=True)})
            for index in indices
        }
        digest = sha(json.dumps([coords, [state.digest for state in chosen.values()]]))
        members = {index: {0: state.vector} for index, state in chosen.items()}
        return cls(coords, members, {index: state.layout for index, state in chosen.items()}, digest)

    @property
    def steps(self) -> list[int]:
        """All steps at which parameters were kept."""
        return sorted({step for kept in self.members.values() for step in kept})

    def sel(self, step: int | None = None, **coords: Any) -> State:
        """The state of the one member at these coordinates; step None is its last kept step.

        Coordinates that the sweep does not have are an error, and so is a missing one: the choice is exact.
        """
        unknown = sorted(set(coords) - set(self.coords))
        missing = [axis for axis in self.coords if axis not in coords]
        if unknown or missing:
            what = f"unknown {', '.join(unknown)}" if unknown else f"missing {', '.join(missing)}"
            raise ValueError(f"states.sel: {what}; the axes are {', '.join(self.coords) or '(none)'}")
        index = tuple(_position(axis, self.coords[axis], coords[axis]) for axis in self.coords)
        if index not in self.members:
            raise ValueError(f"states.sel: the sweep has no member at {coords}")
        kept = self.members[index]
        if step is not None and step not in kept:
            raise ValueError(
                f"states.sel: step {step} was not kept; kept steps are {sorted(kept)}; see keep="
            )
        step = max(kept) if step is None else step
        return State(kept[step], self.layouts[index], sha(f"{self.digest} {index} {step}"))

    def stacked(self, step: int | None = None) -> Tensor:
        """All members at one step as (*axes, P); they must have the same layout and fill the grid."""
        shape = tuple(len(values) for values in self.coords.values())
        if len(set(self.layouts.values())) != 1 or len(self.members) != math.prod(shape):
            raise ValueError(
                "states.stacked: members differ in shape or the grid has holes; use sel() or map()"
            )
        rows = [kept[max(kept) if step is None else step] for _, kept in sorted(self.members.items())]
        return torch.stack(rows).reshape(*shape, -1)

    def map(self, function: Callable[..., Tensor], step: int | None = None, **others: States) -> States:
        """New states: function((M, P) of these, **{name: (M, P) of the others}) -> (M, P), over all members.

        The other states must have the same axes. Used for masks and for perturbed or averaged parameters.
        """
        from .digest import describe

        indices = sorted(self.members)
        for name, other in others.items():
            if other.coords != self.coords:
                raise ValueError(f"states.map: {name} has other coordinates")
        gather = lambda states, at: torch.stack([_at(states.members[i], at) for i in indices])  # noqa: E731
        result = function(gather(self, step), **{name: gather(other, None) for name, other in others.items()})
        digest = sha(
            " ".join([self.digest, str(step), describe(function), *(o.digest for o in others.values())])
        )
        members = {index: {0: row} for index, row in zip(indices, result, strict=True)}
        return States(self.coords, members, self.layouts, digest)

    def save(self, path: Path) -> None:
        """Write to a safetensors file (no pickles)."""
        from safetensors.torch import save_file

        tensors = {
            f"{'.'.join(map(str, index))}@{step}": vector.detach().cpu().contiguous()
            for index, kept in self.members.items()
            for step, vector in kept.items()
        }
        layouts = [
            [list(i), list(lay.names), [list(s) for s in lay.shapes]] for i, lay in self.layouts.items()
        ]
        meta = {"coords": json.dumps(self.coords), "layouts": json.dumps(layouts), "digest": self.digest}
        save_file(tensors, path, metadata=meta)

    @staticmethod
    def load(path: Path) -> States:
        """Read what `save` wrote."""
        from safetensors import safe_open

        members: dict[tuple[int, ...], dict[int, Tensor]] = {}
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            for key in file.keys():  # noqa: SIM118
                index, _, step = key.partition("@")
                members.setdefault(_index(index), {})[int(step)] = file.get_tensor(key)
        layouts = {
            tuple(i): Layout(tuple(names), tuple(tuple(s) for s in shapes))
            for i, names, shapes in json.loads(meta["layouts"])
        }
        return States(json.loads(meta["coords"]), members, layouts, meta["digest"])


def _at(kept: Mapping[int, Tensor], step: int | None) -> Tensor:
    return kept[max(kept) if step is None else step]


def _index(text: str) -> tuple[int, ...]:
    return tuple(int(i) for i in text.split(".")) if text else ()


def _position(axis: str, values: list, value: Any) -> int:
    if value in values:
        return values.index(value)
    raise ValueError(f"{axis}: {value!r} is not on the axis; it has {values}")
