"""What a sweep leaves: labelled arrays whose dimensions are the sweep's axes and `step`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr


class Record(Mapping):
    """Named `xarray.DataArray`s, by item or by attribute: `record.loss.mean("seed")`.

    Every array has the sweep's axes first. What was measured along the run has a `step` dimension of its own:
    arrays measured on different schedules have different steps. attrs: provenance (axes, commit, versions,
    device, dtype, seconds, date, seeds, scale, digest).
    """

    def __init__(self, arrays: Mapping[str, xr.DataArray], attrs: Mapping[str, Any] | None = None) -> None:
        self._arrays = {name: array.rename(name) for name, array in arrays.items()}
        self.attrs = dict(attrs or {})

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self._arrays:
            raise KeyError(f"no {name!r} in the record; it holds {', '.join(self._arrays) or 'nothing'}")
        return self._arrays[name]

    def __getattr__(self, name: str) -> xr.DataArray:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._arrays]

    def __repr__(self) -> str:
        lines = [f"  {name}: {dict(array.sizes)} {array.dtype}" for name, array in self._arrays.items()]
        return "\n".join(["Record", *lines])

    def equals(self, other: Record) -> bool:
        """Same names, coordinates and values, NaN equal to NaN, bit for bit."""
        return set(self) == set(other) and all(self[name].identical(other[name]) for name in self)

    def select(self, *names: str, **coords: Any) -> Record:
        """A thinner record: the named arrays (all if none is named), selected by their coordinates."""
        chosen = {}
        for name in names or self:
            array = self[name]
            chosen[name] = array.sel({k: v for k, v in coords.items() if k in array.dims})
        return Record(chosen, self.attrs)

    def save(self, path: Path) -> None:
        """Write one netCDF file, atomically."""
        variables, steps = {}, []
        for name, array in self._arrays.items():
            if "step" in array.dims:
                coordinate = array["step"].values.tolist()
                if coordinate not in steps:
                    steps.append(coordinate)
                array = array.rename(step=f"step.{steps.index(coordinate)}")
            variables[name] = array
        # A dimension such as "layer" may have other labels in another array: keep labels of each by array.
        dataset = xr.Dataset(attrs={"provenance": json.dumps(self.attrs)})
        for name, array in variables.items():
            renames = {}
            for dim in array.dims:
                known = dataset.sizes.get(dim)
                differs = (
                    dim in dataset.coords and dim in array.coords and not dataset[dim].equals(array[dim])
                )
                if known is not None and (known != array.sizes[dim] or differs):
                    renames[dim] = f"{dim}@{name}"
            dataset[name] = array.rename(renames)
        encoding = {
            name: {"zlib": True, "complevel": 4}
            for name, array in dataset.data_vars.items()
            if array.ndim and array.dtype.kind in "fiu"
        }
        partial = Path(f"{path}.{os.getpid()}.partial")
        dataset.to_netcdf(partial, engine="h5netcdf", encoding=encoding)
        os.replace(partial, path)

    @staticmethod
    def load(path: Path) -> Record:
        """Read what `save` wrote."""
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            dataset.load()
        arrays = {}
        for name, array in dataset.data_vars.items():
            array = array.rename(
                {d: d.split("@")[0].split(".")[0] for d in array.dims if "@" in d or d.startswith("step.")}
            )
            array.encoding, array.attrs = {}, {}
            for coordinate in array.coords.values():
                coordinate.encoding = {}
            arrays[name] = array
        return Record(arrays, json.loads(dataset.attrs["provenance"]))


def labelled(
    axes: Mapping[str, list], values: Mapping[tuple[int, ...], Mapping[str, Any]]
) -> dict[str, xr.DataArray]:
    """Put results of single members on the grid of the axes, padding with NaN.

    values: {index along the axes: {name: (dims, array, coords)}}. Members may lack a name, or differ in the
    length of a dimension or in its labels (then the labels' union is used, in order of first appearance;
    numbers are sorted).
    """
    arrays = {}
    for name in dict.fromkeys(n for found in values.values() for n in found):
        found = {index: value[name] for index, value in values.items() if name in value}
        dims = next(iter(found.values()))[0]
        union: dict[str, dict] = {dim: {} for dim in dims}
        for _, array, coords in found.values():
            for axis, dim in enumerate(dims):
                union[dim].update(dict.fromkeys(coords.get(dim, range(np.shape(array)[axis]))))
        labels = {
            dim: sorted(seen) if all(isinstance(x, int | float) for x in seen) else list(seen)
            for dim, seen in union.items()
        }
        place = {dim: {label: i for i, label in enumerate(seen)} for dim, seen in labels.items()}
        sizes = [len(a) for a in axes.values()] + [len(labels[d]) for d in dims]
        complete = len(found) == np.prod([len(a) for a in axes.values()], dtype=int)
        kind = np.result_type(*{np.asarray(a).dtype for _, a, _ in found.values()})
        same = all(list(array.shape) == sizes[len(axes) :] for _, array, _ in found.values())
        if kind.kind in "iub" and not (complete and same):
            kind = np.dtype(np.float64)
        full = np.full(sizes, np.nan if kind.kind == "f" else 0, dtype=kind)
        for index, (_, array, coords) in found.items():
            places = []
            for axis, dim in enumerate(dims):
                own = list(coords.get(dim, range(np.shape(array)[axis])))
                places.append([place[dim][x] for x in own] if own != labels[dim] else slice(None))
            if all(isinstance(p, slice) for p in places):
                full[index] = array
            else:
                rows = [
                    range(full.shape[len(axes) + i]) if isinstance(p, slice) else p
                    for i, p in enumerate(places)
                ]
                full[(*index, *np.ix_(*rows))] = array
        coordinates = {axis: list(v) for axis, v in axes.items()}
        for dim in dims:
            explicit = any(dim in coords for _, _, coords in found.values())
            if explicit:
                coordinates[dim] = labels[dim]
        arrays[name] = xr.DataArray(full, dims=[*axes, *dims], coords=coordinates, name=name)
    return arrays
