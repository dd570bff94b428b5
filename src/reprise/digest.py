"""One canonical description of what is computed, and the digest that decides what is stale.

A digest covers the description of every member, the functions and classes that a notebook defines for the
experiment, and the library modules they rest on. Comments and docstrings do not count.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import json
import textwrap
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_LIBRARY = Path(__file__).parent
# What every computation rests on; the rest is found through imports.
_CORE = ("reprise.sweep", "reprise.train", "reprise.iterate")
# Presentation: a change here never changes a number.
_PRESENTATION = {"figures", "claims", "chapter", "cli", "store", "provenance", "digest", "__init__"}


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:20]


def _normal(source: str) -> str:
    """Source code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _code(code: types.CodeType) -> str:
    """A code object as text, without names of files or line numbers."""
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return json.dumps([code.co_code.hex(), constants, code.co_names, code.co_varnames])


def _in_library(obj: Any) -> bool:
    return (getattr(obj, "__module__", None) or "").split(".")[0] == "reprise"


def _installed(obj: Any) -> bool:
    """Whether an object belongs to a package (as against a notebook, a script or a test)."""
    module = (getattr(obj, "__module__", None) or "").split(".")[0]
    if module in ("", "__main__", "builtins"):
        return module == "builtins"
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    origin = str(getattr(spec, "origin", "") or "")
    return "site-packages" in origin or "lib/python" in origin or origin in ("built-in", "frozen")


def describe(value: Any) -> str:
    """A canonical text of a value: equal texts mean equal experiments.

    Raises TypeError for a value that has no stable description.
    """
    return _describe(value, ())


def _describe(value: Any, seen: tuple[int, ...]) -> str:
    if id(value) in seen:
        return "<again>"
    deeper = functools.partial(_describe, seen=(*seen, id(value)))
    if value is None or isinstance(
        value, bool | int | float | complex | str | bytes | torch.dtype | torch.device
    ):
        return repr(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().numpy().tobytes()
        return f"tensor({value.dtype}, {tuple(value.shape)}, {sha(content)})"
    if isinstance(value, np.ndarray):
        return f"array({value.dtype}, {value.shape}, {sha(np.ascontiguousarray(value).tobytes())})"
    if hasattr(value, "digest") and isinstance(value.digest, str):  # a State, a Record
        return f"{type(value).__name__}({value.digest})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{deeper(k)}: {deeper(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple | range):
        return "[" + ", ".join(map(deeper, value)) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(deeper, value))) + "}"
    if isinstance(value, type):
        return describe_class(value)
    if isinstance(value, functools.partial):
        return f"partial({deeper(value.func)}, {deeper(value.args)}, {deeper(value.keywords)})"
    if isinstance(value, types.MethodType):
        return f"{deeper(value.__self__)}.{value.__name__}"
    if isinstance(value, types.FunctionType):
        return _describe_function(value, (*seen, id(value)))
    if isinstance(value, torch.nn.Module):
        return f"{describe_class(type(value))}<{value!r}>"
    if dataclasses.is_dataclass(value):
        fields = ", ".join(f"{f.name}={deeper(getattr(value, f.name))}" for f in dataclasses.fields(value))
        return f"{describe_class(type(value))}({fields})"
    if callable(value) and isinstance(value, types.BuiltinFunctionType | np.ufunc):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', value)}"
    if isinstance(value, torch.jit.ScriptFunction):
        return str(value.graph)
    if hasattr(value, "__dict__") and not isinstance(value, types.ModuleType):
        return f"{describe_class(type(value))}{deeper(vars(value))}"
    raise TypeError(
        f"cannot describe a {type(value).__module__}.{type(value).__name__} for the record: "
        "use numbers, strings, tensors, dataclasses, modules or functions"
    )


def _describe_function(function: types.FunctionType, seen: tuple[int, ...]) -> str:
    if _in_library(function) or _installed(function):
        name = f"{function.__module__}.{function.__qualname__}"
        if function.__closure__:  # a configured probe, a bound loss
            cells = [_describe(cell.cell_contents, seen) for cell in function.__closure__ if _full(cell)]
            name += f"[{', '.join(cells)}]"
        return name
    try:
        text = (
            _normal(inspect.getsource(function))
            if function.__name__ != "<lambda>"
            else _code(function.__code__)
        )
    except (OSError, TypeError, SyntaxError):
        text = _code(function.__code__)
    parts = [sha(text), _describe(function.__defaults__, seen), _describe(function.__kwdefaults__, seen)]
    parts += [_describe(c.cell_contents, seen) for c in function.__closure__ or () if _full(c)]
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            found = function.__globals__[name]
            if isinstance(found, types.ModuleType):
                continue
            try:
                parts.append(f"{name}={_describe(found, seen)}")
            except TypeError:
                parts.append(f"{name}:{type(found).__qualname__}")
    return f"function {function.__name__}({', '.join(parts)})"


def _full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


def describe_class(cls: type) -> str:
    """A class by its name and, when a notebook defines it, by its methods and constants."""
    if _in_library(cls) or _installed(cls):
        return f"{cls.__module__}.{cls.__qualname__}"
    methods = []
    for name, member in sorted(vars(cls).items()):
        for function in (
            member,
            getattr(member, "func", None),
            getattr(member, "fget", None),
            getattr(member, "__func__", None),
        ):
            # What @dataclass generates has no source of its own and follows from the fields.
            generated = (
                isinstance(function, types.FunctionType) and function.__code__.co_filename == "<string>"
            )
            if isinstance(function, types.FunctionType) and not generated:
                methods.append(f"{name}:{_describe_function(function, (id(cls),))}")
        if not name.startswith("__") and isinstance(member, bool | int | float | str | tuple | list | dict):
            methods.append(f"{name}={_describe(member, (id(cls),))}")  # a constant of the class
    bases = ", ".join(describe_class(base) for base in cls.__bases__ if base is not object)
    return f"class {cls.__name__}({bases}; {', '.join(methods)})"


# --- the library modules a computation rests on ---


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """The reprise modules that a reprise module imports, by reading its source."""
    path = _path(module)
    if path is None:
        return frozenset()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(name for name in found if name.split(".")[0] == "reprise" and _path(name))


def _path(module: str) -> Path | None:
    base = _LIBRARY.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists() and path != _LIBRARY.with_suffix(".py"):
            return path
    return None


def library_modules(names: Iterable[str] = ()) -> list[str]:
    """The reprise modules reached through imports from the given ones and from the kernel's core."""
    todo, seen = [*names, *_CORE], set()
    while todo:
        name = todo.pop()
        if (
            name in seen
            or name.rpartition(".")[2] in _PRESENTATION
            and name.count(".") == 1
            or name == "reprise"
        ):
            continue
        if _path(name) is None:
            continue
        seen.add(name)
        todo += _imports(name)
    return sorted(seen)


def library_digest(names: Iterable[str] = ()) -> str:
    """The digest of the library code behind the named modules and the kernel's core."""
    return sha("\n".join(f"{name}\n{_source(name)}" for name in library_modules(names)))


@functools.cache
def _source(module: str) -> str:
    return _normal(_path(module).read_text())


def modules_of(description: str) -> list[str]:
    """The reprise modules named in a description."""
    import re

    found = set()
    for name in re.findall(r"reprise(?:\.\w+)+", description):
        while name and _path(name) is None:
            name = name.rpartition(".")[0]
        if name and name != "reprise":
            found.add(name)
    return sorted(found)


def chapter_digest(notebook: Path, parameters: Mapping[str, Any]) -> str:
    """What decides whether a chapter runs again: its notebook without outputs, parameters, the library."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    content = [["".join(c["source"]), c["cell_type"], sorted(c["metadata"].get("tags", []))] for c in cells]
    everything = [
        f"reprise.{'.'.join(p.relative_to(_LIBRARY).with_suffix('').parts)}"
        for p in sorted(_LIBRARY.rglob("*.py"))
    ]
    names = [
        name.removesuffix(".__init__")
        for name in everything
        if ".template" not in name and name != "reprise.cli"
    ]
    sources = [_source(name) for name in names if name != "reprise.__init__"]
    return sha(json.dumps([content, sorted((k, repr(v)) for k, v in parameters.items()), sources]))


def of(description: str) -> tuple[str, str]:
    """(digest of the description alone, digest of the library code behind it)."""
    return sha(description), library_digest(modules_of(description))
