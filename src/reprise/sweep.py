"""An experiment-making function and its axes: describe one, train many."""

from __future__ import annotations

import inspect
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import device as devices
from .checkpoint import Checkpoint
from .digest import describe, sha
from .experiment import Experiment
from .gears import GEARS
from .probes.schedule import Scheduled
from .record import Record, labelled
from .shards import Piece, plan, train_here, train_in_workers, workers_for
from .share import Share
from .snapshot import probe_name
from .stack import Member, Stack, stacks
from .states import States
from .train import Outcome, Run, over_members

Label = int | float | str | bool
# The steps of training, and what `DataArray.sel` takes besides coordinates.
_KEPT_NAMES = ("step", "method", "tolerance", "drop", "indexers")


class Sweep:
    """All points of a function over named axes.

    function: called once a point with keyword arguments named after the axes; for `train` it returns an
    `Experiment` (or None: a hole in the grid), for `map` a dict of arrays.
    axes: each a sequence of numbers or strings, or a dict {label: value} of named cases whose values may be
    anything (a rule, a dict of numbers, a tensor); the function receives the value, the record the label.
    Raises TypeError or ValueError naming the axis.
    """

    def __init__(self, function: Callable[..., Any], **axes: Iterable[Any] | Mapping[str, Any]) -> None:
        if not callable(function):
            raise TypeError(
                f"sweep: expected a function that makes an experiment, got {type(function).__name__}"
            )
        self.function = function
        self.axes: dict[str, list[Label]] = {}
        self._values: dict[str, list[Any]] = {}
        for name, axis in axes.items():
            self.axes[name], self._values[name] = _axis(name, axis)
        _check_signature(function, axes)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}={values}" for name, values in self.axes.items())
        return f"Sweep({getattr(self.function, '__name__', self.function)}, {axes})"

    @property
    def size(self) -> int:
        """The number of points."""
        return int(np.prod([len(v) for v in self.axes.values()], dtype=int))

    def points(
        self, axes: Sequence[str] | None = None
    ) -> list[tuple[tuple[int, ...], dict[str, Label], dict[str, Any]]]:
        """(index, labels, values) of every point of the given axes (all by default), last axis fastest."""
        names = list(self.axes if axes is None else axes)
        ranges = [range(len(self.axes[name])) for name in names]
        return [
            (
                index,
                {name: self.axes[name][i] for name, i in zip(names, index, strict=True)},
                {name: self._values[name][i] for name, i in zip(names, index, strict=True)},
            )
            for index in itertools.product(*ranges)
        ]

    def members(self) -> list[Member]:
        """The members: every point with the experiment that the function makes there."""
        members = []
        for index, labels, values in self.points():
            experiment = self.function(**values)
            if experiment is None:
                continue
            if not isinstance(experiment, Experiment):
                raise TypeError(
                    f"sweep: {getattr(self.function, '__name__', 'the function')} must return an Experiment "
                    f"(or None for a hole), got {type(experiment).__name__} at {labels}"
                )
            members.append(Member(index, labels, experiment))
        if not members:
            raise ValueError("sweep: no member: an axis is empty or every point is a hole")
        return members

    def describe(self, probes: Sequence[Scheduled] = (), keep: Sequence[int] = ()) -> str:
        """The canonical description of everything that training would compute."""
        members = [f"{m.coords}: {describe(m.experiment)}" for m in self.members()]
        return "\n".join(
            [describe(list(self.axes.items())), *members, describe(list(probes)), repr(sorted(keep))]
        )

    def train(
        self,
        probes: Sequence[Scheduled] = (),
        keep: Sequence[int] = (),
        device: str | torch.device = "auto",
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 120.0,
        gear: str = "auto",
        workers: int | str = "auto",
        share: Share | None = None,
        progress: bool | None = None,
    ) -> Trained:
        """Train every member; members with the same program and shapes as one batch.

        probes: scheduled measurements, `[every(10, loss), end(ranks)]`. keep: steps at which parameters are
        kept besides the last. device: "auto", "cpu", "cuda" or "cuda:N". checkpoint: a file from which an
        interrupted training resumes exactly (with the same gear and workers), written every
        `checkpoint_seconds`. gear: "eager"; "flat", each step traced to a list of operations; "compiled", to
        machine code; "auto", the one that pays for the steps there are; on a GPU traced steps are replayed as
        CUDA graphs, several at once. workers: processes of one thread that share the members; "auto": one a
        thread of torch's, or one a GPU, if the run is long. share: the folder of a `reprise.share.Share`:
        other jobs train with this one, a single process each.
        progress: plain text; None decides by terminal.
        An interrupt (Ctrl-C) returns what was measured so far, with `interrupted` set.
        """
        probes = checked_probes(probes)
        keep = checked_keep(keep)
        if gear not in GEARS:
            raise ValueError(f"gear: expected {', '.join(map(repr, GEARS))}, got {gear!r}")
        if workers != "auto" and (not isinstance(workers, int) or workers < 1):
            raise ValueError(f'workers: expected "auto" or an integer of at least 1, got {workers!r}')
        places = devices.visible(device)
        devices.keep_freed_memory()
        clock, cpu = time.perf_counter(), time.process_time()
        members = self.members()
        report = _Progress(len(members), progress)
        with devices.exact_arithmetic():
            if share:
                pieces, count = self._shared(share, members, places[0], probes, keep, gear), 1
            else:
                pieces, count = _pieces(members, places, probes, keep, gear, workers)
            if checkpoint:
                pieces = self._checkpointed(pieces, Path(checkpoint), checkpoint_seconds)
            elsewhere, names = 0.0, devices.name(places[0])
            if share:
                outcomes, interrupted, elsewhere, names = share.train(pieces, report, report.count)
            elif count > 1 and len(pieces) > 1:
                outcomes, interrupted, elsewhere = train_in_workers(pieces, count, report.count)
            else:
                outcomes, interrupted = train_here(pieces, report)
        trained = self._assemble(outcomes, members, probes, keep)
        trained.record.attrs.update(
            device=names,
            seconds=round(time.perf_counter() - clock, 2),
            cpu_seconds=round(time.process_time() - cpu + elsewhere, 2),
            members=len(members),
            interrupted=interrupted,
        )
        if not interrupted:
            for piece in pieces:
                if piece.checkpoint:
                    piece.checkpoint.remove()
        return trained

    def _shared(
        self,
        share: Share,
        members: list[Member],
        place: torch.device,
        probes: list[Scheduled],
        keep: list[int],
        gear: str,
    ) -> list[Piece]:
        """The pieces that all jobs of a share train."""

        def plan_pieces() -> list[list[tuple[int, ...]]]:
            pieces, _ = _pieces(members, [place], probes, keep, gear, share.pieces)
            return [[member.index for member in piece.members] for piece in pieces]

        at = {member.index: member for member in members}
        cut = share.cut(self.describe(probes, keep), plan_pieces)
        return [Piece([at[index] for index in piece], place, probes, keep, gear) for piece in cut]

    def _checkpointed(self, pieces: list[Piece], path: Path, seconds: float) -> list[Piece]:
        """The pieces with the files `<path>.<number>`."""
        everything = self.describe(pieces[0].probes, pieces[0].keep)
        return [
            replace(
                piece,
                checkpoint=Checkpoint(
                    path.with_name(f"{path.name}.{number}"),
                    seconds,
                    f"{everything} {[member.index for member in piece.members]}",
                ),
            )
            for number, piece in enumerate(pieces)
        ]

    def _assemble(
        self,
        outcomes: dict[tuple[int, ...], Outcome],
        members: list[Member],
        probes: Sequence[Scheduled],
        keep: Sequence[int],
    ) -> Trained:
        values = {}
        for member in members:
            found = outcomes[member.index]
            diverged = float(found.ended) if found.ended < member.experiment.steps else np.nan
            values[member.index] = found.values | {"diverged_at": ((), np.float64(diverged), {})}
        digest = sha(self.describe(probes, keep))
        dtypes = sorted({str(m.experiment.dtype).removeprefix("torch.") for m in members})
        seeds = sorted({m.experiment.seed_of("model") for m in members})
        attrs = {"axes": self.axes, "dtype": dtypes, "seeds": seeds}
        kept = {member.index: outcomes[member.index].kept for member in members}
        layouts = {member.index: outcomes[member.index].layout for member in members}
        states = States({k: list(v) for k, v in self.axes.items()}, kept, layouts, digest)
        return Trained(self, Record(labelled(self.axes, values), attrs), states)

    def map(self, together: Sequence[str] = (), progress: bool | None = None) -> Record:
        """Call the function once a point, or once for whole arrays over the axes named in `together`.

        It returns a dict {name: number, array, or (dims, array)}; arrays over `together` have those axes
        first. The result is a record over all axes, as training leaves it.
        """
        together = tuple(together)
        unknown = [name for name in together if name not in self.axes]
        if unknown:
            raise ValueError(f"together: no axis {', '.join(unknown)}; the axes are {', '.join(self.axes)}")
        clock, cpu = time.perf_counter(), time.process_time()
        outer = [name for name in self.axes if name not in together]
        arrays = {name: np.asarray(self._values[name]) for name in together}
        values, order = {}, [*outer, *together]
        report = _Progress(len(self.points(outer)), progress)
        for done, (index, labels, chosen) in enumerate(self.points(outer)):
            result = self.function(**chosen, **arrays)
            if result is None:
                continue
            if not isinstance(result, Mapping):
                raise TypeError(
                    f"map: the function must return a dict of arrays, got {type(result).__name__} at {labels}"
                )
            values[index] = {name: _array(name, value, together) for name, value in result.items()}
            report.count(done + 1)
        axes = {name: self.axes[name] for name in outer}
        labels = {name: self.axes[name] for name in together}
        for found in values.values():
            for name, (dims, array, own) in found.items():
                found[name] = (dims, array, {d: labels[d] for d in dims if d in labels} | own)
        record = Record(
            labelled(axes, values), {"axes": {n: self.axes[n] for n in order}, "members": self.size}
        )
        record.attrs.update(
            device="CPU",
            seconds=round(time.perf_counter() - clock, 2),
            cpu_seconds=round(time.process_time() - cpu, 2),
        )
        return record


@dataclass
class Trained:
    """What training leaves: `record` (labelled arrays), `states` (parameters), and the sweep itself."""

    sweep: Sweep
    record: Record
    states: States

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped by hand before its end."""
        return bool(self.record.attrs.get("interrupted", False))

    def measure(
        self,
        probe: Callable[..., Any],
        step: int | None = None,
        device: str | torch.device = "auto",
        **others: States,
    ) -> Record:
        """Run a probe on the kept states of every member, after training.

        step: which kept step; None is each member's last. others: states of other sweeps over the same axes;
        the probe receives their vectors (P,) as keyword arguments: `probe(snapshot, previous=vector)`. Used
        for what compares members or sweeps: barriers, ensembles, distances.
        """
        place, values = devices.resolve(device), {}
        devices.keep_freed_memory()
        clock, cpu = time.perf_counter(), time.process_time()
        for name, other in others.items():
            if other.coords != self.states.coords:
                raise ValueError(f"measure: the states {name} have other axes than this sweep")
        names = list(others)

        def positional(snapshot: Any, *vectors: torch.Tensor) -> Any:
            return probe(snapshot, **dict(zip(names, vectors, strict=True)))

        positional.name = probe_name(probe)
        with devices.exact_arithmetic(), torch.no_grad():
            for stack in stacks(self.sweep.members(), place):
                indices = [m.index for m in stack.members]
                params = _gather(self.states, indices, step, stack)
                start = (
                    stack.initial()
                    if _complete(self.states, indices, 0) is None
                    else _gather(self.states, indices, 0, stack)
                )
                more = [_gather(others[name], indices, None, stack) for name in names]
                shapes: dict[str, tuple] = {}
                at = torch.tensor(max(stack.budgets) if step is None else step, device=place)
                function = over_members(stack, positional, shapes, False)
                results = function(params, start, stack.data, stack.run_keys, at, *more)
                for name, array in results.items():
                    dims, labels, _ = shapes[name]
                    for index, value in zip(indices, array.cpu().numpy(), strict=True):
                        values.setdefault(index, {})[name] = (dims, value, labels)
        record = Record(labelled(self.sweep.axes, values), {"axes": self.sweep.axes})
        record.attrs.update(
            device=devices.name(place),
            seconds=round(time.perf_counter() - clock, 2),
            cpu_seconds=round(time.process_time() - cpu, 2),
        )
        return record


def _pieces(
    members: list[Member],
    places: list[torch.device],
    probes: list[Scheduled],
    keep: list[int],
    gear: str,
    workers: int | str,
) -> tuple[list[Piece], int]:
    """The members in batches that fit this machine, and the number of workers for them."""
    plans = [plan(stack, gear, probes) for stack in stacks(members, places[0])]
    count = workers_for(plans, places, workers)
    batches = [stack for each in plans for stack in each.pieces(count)]
    spread = itertools.cycle(places if count > 1 else places[:1])
    return [
        Piece(stack.members, place, probes, keep, gear, None, stack)
        for stack, place in zip(batches, spread, strict=False)
    ], count


def _complete(states: States, indices: list[tuple[int, ...]], step: int) -> bool | None:
    return True if all(step in states.members[index] for index in indices) else None


def _gather(states: States, indices: list[tuple[int, ...]], step: int | None, stack: Stack) -> torch.Tensor:
    rows = []
    for index in indices:
        kept = states.members[index]
        at = max(kept) if step is None else step
        if at not in kept:
            raise ValueError(f"measure: step {at} was not kept; kept steps are {sorted(kept)}; see keep=")
        rows.append(kept[at])
    rows = torch.stack(rows).to(stack.device)
    return rows.to(stack.dtype) if rows.is_floating_point() else rows


def _axis(name: str, axis: Any) -> tuple[list[Label], list[Any]]:
    if isinstance(axis, Mapping):
        labels, values = list(axis), list(axis.values())
    elif isinstance(axis, str) or not isinstance(axis, Iterable):
        raise TypeError(
            f"axis {name}: expected a sequence of values or a dict of named cases, got {axis!r}; "
            f"write [{axis!r}]"
        )
    else:
        values = [
            v.item() if isinstance(v, np.generic) else v
            for v in (axis.tolist() if hasattr(axis, "tolist") else axis)
        ]
        labels = list(values)
    if not labels:
        raise ValueError(f"axis {name}: is empty")
    bad = [x for x in labels if not isinstance(x, Label)]
    if bad:
        raise TypeError(
            f"axis {name}: {bad[0]!r} cannot label a coordinate; give a dict {{label: value}} for values "
            "that are not numbers or strings"
        )
    if len(set(labels)) != len(labels):
        raise ValueError(f"axis {name}: values appear twice in {labels}")
    if len({isinstance(x, str) for x in labels}) == 2:
        labels = [str(x) for x in labels]
    if name in _KEPT_NAMES:
        raise ValueError(f"axis {name}: this name is kept for steps, or by xarray; use another")
    return labels, values


def _check_signature(function: Callable[..., Any], axes: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    name = getattr(function, "__name__", "the function")
    unknown = [axis for axis in axes if axis not in parameters]
    if unknown:
        raise ValueError(
            f"axis {unknown[0]}: {name}() has no such argument; it takes {', '.join(parameters) or 'none'}"
        )
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_POSITIONAL and p.name not in axes
    ]
    if missing:
        raise ValueError(f"{name}() needs an axis {missing[0]}: the sweep gives {', '.join(axes) or 'none'}")


def checked_probes(probes: Any) -> list[Scheduled]:
    probes = [probes] if isinstance(probes, Scheduled) else list(probes)
    for probe in probes:
        if not isinstance(probe, Scheduled):
            name = getattr(probe, "__name__", type(probe).__name__)
            raise TypeError(
                f"probes: {name} has no schedule; write every(10, {name}), at([0], {name}) or end({name})"
            )
    names = [probe_name(p.probe) for p in probes]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ValueError(f"probes: {twice[0]} is scheduled twice; combine the steps in one schedule")
    return probes


def checked_keep(keep: Any) -> list[int]:
    keep = list(keep) if isinstance(keep, Iterable) else [keep]
    if any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in keep):
        raise ValueError(f"keep: expected whole steps of at least 0, got {keep!r}")
    return keep


def _array(name: str, value: Any, together: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray, dict]:
    dims, labels = None, {}
    if hasattr(value, "dims") and hasattr(value, "values"):  # an xarray.DataArray
        labels = {d: value[d].values.tolist() for d in value.dims if d in value.coords}
        return tuple(value.dims), np.asarray(value.values), labels
    if isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str | tuple | list):
        dims, value, *rest = value
        dims = (dims,) if isinstance(dims, str) else tuple(dims)
        labels = {d: np.asarray(v).tolist() for d, v in dict(rest[0]).items()} if rest else {}
    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    if dims is None:
        dims = together[: array.ndim] + tuple(f"{name}_{i}" for i in range(array.ndim - len(together)))
    if len(dims) != array.ndim:
        raise ValueError(f"map: {name} has {array.ndim} dimensions but {len(dims)} names {dims}")
    return dims, array, labels


class _Progress:
    """Plain-text progress on one line; silent where nobody watches."""

    def __init__(self, total: int, wanted: bool | None) -> None:
        self.total, self.last = total, time.monotonic()
        self.on = sys.stderr.isatty() if wanted is None else wanted

    def __call__(self, run: Run) -> None:
        self._say(f"{len(run.stack)} members together: step {run.step} of {max(run.stack.budgets)}")

    def count(self, done: int) -> None:
        self._say(f"{done} of {self.total} points")

    def _say(self, text: str) -> None:
        if self.on and time.monotonic() - self.last > 2:
            self.last = time.monotonic()
            print(f"  {text}", file=sys.stderr, flush=True)
