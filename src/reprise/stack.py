"""Members with the same program, shapes and dtype, laid out as one batch of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils import _pytree as pytree

from .digest import describe
from .experiment import Experiment
from .layout import Layout
from .schedules import Schedule
from .streams import Stream
from .tasks.task import Task, epoch_order
from .updates import Rule, expand


@dataclass
class Member:
    """One point of a sweep: its index along the axes, its coordinates, its experiment."""

    index: tuple[int, ...]
    coords: Mapping[str, Any]
    experiment: Experiment

    @property
    def name(self) -> str:
        return ", ".join(f"{axis}={value}" for axis, value in self.coords.items()) or "the only member"


def program_of(experiment: Experiment) -> str:
    """What must agree for members to share a batch: everything but numbers, data and seeds."""
    layout = Layout.of(experiment.model)
    parts = [
        describe(experiment.model),
        describe(layout.names),
        describe(layout.shapes),
        describe(experiment.task.program),
        describe(experiment.update.program),
        repr((experiment.batch, experiment.dtype)),
    ]
    return " | ".join(parts)


def stacks(members: Sequence[Member], device: torch.device) -> list[Stack]:
    """Group members by program and by the shapes of their data, keeping the order of the sweep."""
    built: dict[tuple[str, int], dict] = {}
    groups: dict[tuple, list[tuple[Member, dict]]] = {}
    for member in members:
        experiment = member.experiment
        key = (describe(experiment.task), experiment.seed_of("task"), experiment.dtype)
        if key not in built:
            stream = Stream.of(experiment.seed_of("task"), "task")
            built[key] = _cast(experiment.task.data(stream), experiment.dtype)
            _check_batch(member, built[key])
        data = built[key]
        shapes = [(path, tuple(x.shape), x.dtype) for path, x in pytree.tree_flatten_with_path(data)[0]]
        groups.setdefault((program_of(experiment), repr(shapes)), []).append((member, data))
    return [
        Stack(program, [m for m, _ in group], [d for _, d in group], device)
        for (program, _), group in groups.items()
    ]


def _check_batch(member: Member, data: Any) -> None:
    experiment = member.experiment
    if type(experiment.task).draw is not Task.draw:
        return
    n = experiment.task.examples(data)
    if experiment.batch is not None and experiment.batch > n:
        raise ValueError(
            f"batch: expected at most the {n} training examples of {member.name}, got {experiment.batch}"
        )


def _cast(data: Any, dtype: torch.dtype) -> Any:
    return pytree.tree_map(lambda x: x.to(dtype) if x.is_floating_point() else x, data)


class Stack:
    """The tensors of a batch of members, and the pure functions that act on them.

    M members, P parameters each. params: (M, P). Data that all members share is held once; the rest has a
    leading member axis.
    """

    def __init__(self, program: str, members: list[Member], data: list[dict], device: torch.device) -> None:
        first = members[0].experiment
        self.program, self.members, self.device = program, members, device
        self.model, self.task, self.rule = first.model, first.task, first.update
        self.batch, self.dtype = first.batch, first.dtype
        self.layout = Layout.of(first.model)
        self.members_data = data
        self.data, self.data_dims = self._stack_data(data)
        self.model_keys, self.run_keys = (self._keys(role) for role in ("model", "run"))
        self.budgets = [member.experiment.steps for member in members]

    def subset(self, keep: Sequence[int]) -> Stack:
        """The same stack with only some of its members."""
        return Stack(
            self.program, [self.members[i] for i in keep], [self.members_data[i] for i in keep], self.device
        )

    def __len__(self) -> int:
        return len(self.members)

    def _keys(self, role: str) -> Tensor:
        return torch.stack([Stream.of(m.experiment.seed_of(role), role).key for m in self.members]).to(
            self.device
        )

    def _stack_data(self, data: list[dict]) -> tuple[Any, Any]:
        columns, spec = zip(*(pytree.tree_flatten(d) for d in data), strict=True)
        stacked, dims = [], []
        for tensors in zip(*columns, strict=True):
            distinct = list({id(t): t for t in tensors}.values())
            shared = len(distinct) == 1 or all(torch.equal(distinct[0], t) for t in distinct[1:])
            stacked.append((distinct[0] if shared else torch.stack(tensors)).to(self.device).contiguous())
            dims.append(None if shared else 0)
        return pytree.tree_unflatten(stacked, spec[0]), pytree.tree_unflatten(dims, spec[0])

    # --- parameters ---

    def initial(self) -> Tensor:
        """(M, P): each member's start, or a fresh draw from its model seed."""
        from .models.initialise import initialise

        params = torch.zeros(len(self), self.layout.size, dtype=self.dtype, device=self.device)
        fresh = [i for i, m in enumerate(self.members) if m.experiment.start is None]
        if fresh:
            zero = torch.zeros((), dtype=torch.int64, device=self.device)
            draw = lambda key: self.layout.join(  # noqa: E731
                initialise(self.model, Stream(key, zero, zero), self.dtype)
            )
            for some in torch.tensor(fresh).split(max(1, 2**25 // max(1, self.layout.size))):
                params[some] = vmap(draw)(self.model_keys[some]).to(self.dtype)
        for i, member in enumerate(self.members):
            start = member.experiment.start
            if start is not None:
                if start.layout != self.layout:
                    raise ValueError(f"start: the parameters of {member.name} do not fit its model")
                params[i] = start.vector.to(self.device, self.dtype)
        return params

    # --- losses and gradients ---

    def call(self, vector: Tensor, inputs: Any) -> Any:
        """One member's outputs at a flat parameter vector (P,)."""
        return functional_call(self.model, self.layout.split(vector), (inputs,))

    def gradient(self, params: Tensor, batch: Any, dims: Any) -> tuple[Tensor, Tensor]:
        """(M, P) and a batch -> losses (M,), gradients (M, P) of every member's own loss."""

        def member_loss(leaves: tuple[Tensor, ...], batch: Any) -> Tensor:
            outputs = functional_call(
                self.model, dict(zip(self.layout.names, leaves, strict=True)), (batch["inputs"],)
            )
            return self.task.loss(outputs, batch)

        def total(leaves: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            losses = vmap(member_loss, in_dims=(0, dims))(leaves, batch)
            return losses.sum(), losses

        leaves = self.layout.leaves(params)
        gradients, losses = grad(total, has_aux=True)(leaves)
        return losses, torch.cat([g.reshape(len(self), -1) for g in gradients], dim=1)

    # --- the numbers of the update rule ---

    def numbers(self) -> dict[str, Any]:
        """The rules' numbers over all members: nested dicts of (M, 1) or (M, P) tensors and `Timetable`s."""
        return self._merge([member.experiment.update for member in self.members])

    def _merge(self, rules: list[Rule]) -> dict[str, Any]:
        trees, merged = [rule.numbers() for rule in rules], {}
        for name in trees[0]:
            values = [tree[name] for tree in trees]
            if isinstance(getattr(rules[0], name, None), Rule):
                merged[name] = self._merge([getattr(rule, name) for rule in rules])
            elif any(isinstance(value, Schedule) for value in values):
                merged[name] = Timetable(values, self.budgets)
            else:
                rows = [self._row(value) for value in values]
                width = max(row.numel() for row in rows)
                merged[name] = torch.stack([row.expand(width) for row in rows]).to(self.device)
        return merged

    def _row(self, value: Any) -> Tensor:
        """One number of one member as (1,) in float64, or (P,) in the dtype of the parameters."""
        if isinstance(value, Mapping):
            row = expand(value, self.layout)
        else:
            row = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        if row.ndim and row.numel() != self.layout.size:
            raise ValueError(
                f"update: a tensor of {row.numel()} numbers was given for {self.layout.size} parameters"
            )
        if row.ndim and row.dtype != torch.bool:
            row = row.to(self.dtype)
        return row.reshape(-1) if row.ndim or row.dtype == torch.bool else row.to(torch.float64).reshape(1)

    # --- batches ---

    def batches(self, begin: int, stop: int) -> Any:
        """Batches of steps begin..stop-1, leaves (T, M, ...)."""
        steps = torch.arange(begin, stop, device=self.device)
        epochs = (stop - 1) // self._per_epoch - begin // self._per_epoch + 1 if self.ordered else 0
        with torch.no_grad():
            return self._consecutive(self.run_keys, self.data, steps, epochs)

    def draw_consecutive(self, keys: Tensor, data: Any, steps: Tensor) -> Any:
        """Batches of steps that follow each other, wherever they begin, leaves (T, M, ...)."""
        epochs = (len(steps) - 1) // self._per_epoch + 2 if self.ordered else 0  # they may begin in the midst
        return self._consecutive(keys, data, steps, epochs)

    def _consecutive(self, keys: Tensor, data: Any, steps: Tensor, epochs: int) -> Any:
        """Batches of steps that lie in so many epochs."""
        chosen = self._chosen(data, self._rows(keys, steps, epochs)) if self.ordered else None
        return self.draw(keys, data, steps, chosen)

    def draw(self, keys: Tensor, data: Any, steps: Tensor, chosen: Any = None) -> Any:
        """What the task draws at some steps, or makes of the examples chosen for them; leaves (T, M, ...)."""
        zero = torch.zeros((), dtype=torch.int64, device=self.device)

        def one(key: Tensor, data: Any, step: Tensor, batch: Any) -> Any:
            stream = Stream(key, step, zero)
            if batch is None:
                return self.task.draw(data, stream, self.batch)
            return self.task.visit(batch, data, stream)

        inner = None if chosen is None else 0
        members = vmap(one, in_dims=(0, self.data_dims, None, inner))
        return vmap(members, in_dims=(None, None, 0, inner))(keys, data, steps, chosen)

    def _chosen(self, data: Any, rows: Tensor) -> dict[str, Tensor]:
        """The training examples in these rows (T, M, batch), by one gather of whole rows."""
        n = self.examples
        first = n * torch.arange(len(self), device=self.device)[:, None]

        def pick(examples: Tensor, dim: int | None) -> Tensor:
            flat, index = (examples, rows) if dim is None else (examples.flatten(0, 1), rows + first)
            return flat.index_select(0, index.flatten()).unflatten(0, rows.shape)

        leaves, spec = pytree.tree_flatten(data["train"])
        dims = spec.flatten_up_to(self.data_dims["train"])
        return pytree.tree_unflatten([pick(x, dim) for x, dim in zip(leaves, dims, strict=True)], spec)

    @property
    def full_batch(self) -> bool:
        """Whether every step sees the training split itself."""
        kind = type(self.task)
        return self.batch is None and kind.draw is Task.draw and kind.visit is Task.visit

    @property
    def ordered(self) -> bool:
        """Whether batches are the training examples in the order of epochs."""
        return type(self.task).draw is Task.draw and self.batch is not None

    @property
    def examples(self) -> int:
        """The number of a member's training examples."""
        return self.task.examples(self.members_data[0])

    @property
    def _per_epoch(self) -> int:
        return self.examples // self.batch

    def _rows(self, keys: Tensor, steps: Tensor, epochs: int) -> Tensor:
        """(T, M, batch): the rows that `Task.draw` chooses, with the order of each epoch drawn once."""
        n, per_epoch = self.examples, self._per_epoch
        first = torch.div(steps[0], per_epoch, rounding_mode="floor")
        zero = torch.zeros((), dtype=torch.int64, device=self.device)
        order = vmap(vmap(lambda key, epoch: epoch_order(Stream(key, epoch, zero), n), (0, None)), (None, 0))
        orders = order(keys, first + torch.arange(epochs, device=self.device))[..., : per_epoch * self.batch]
        rows = orders.reshape(epochs, len(self), per_epoch, self.batch).transpose(1, 2).flatten(0, 1)
        return rows.index_select(0, steps - first * per_epoch)


class Timetable:
    """Numbers of the members that follow schedules: a table by step."""

    def __init__(self, values: list[Any], budgets: list[int]) -> None:
        self.values, self.budgets = values, budgets

    def table(self, begin: int, stop: int, device: torch.device) -> Tensor:
        """(T, M, 1) for steps begin..stop-1, evaluated in float64."""
        steps = torch.arange(begin, stop)
        rows = [
            v(steps, total).to(torch.float64)
            if isinstance(v, Schedule)
            else torch.full((len(steps),), float(v), dtype=torch.float64)
            for v, total in zip(self.values, self.budgets, strict=True)
        ]
        table = torch.stack(rows, dim=1)[..., None]
        if device.type == "cuda":
            table = table.pin_memory()  # copied while the host goes on
        return table.to(device, non_blocking=True)
