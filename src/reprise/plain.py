"""Running a notebook's code cells without Jupyter: one namespace, text on stdout, figures as files."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reprise.notebook import read_cells


def run_plain(notebook: Path, parameters: Mapping[str, Any], output: Path) -> None:
    """Execute the code cells of a notebook as the module `__main__`, in its folder.

    Args:
        notebook: the `.ipynb` file; its cells hold plain Python only (no `%` or `!` lines).
        parameters: name -> value, assigned right after the cell tagged `parameters`.
        output: existing folder that receives `cell-NN.png` for every figure.

    Raises:
        Whatever a cell raises. The traceback shows the cell's source.
    """
    cells = [(n, cell) for n, cell in enumerate(read_cells(notebook), 1) if cell.kind == "code"]
    name = f"{notebook.stem}.cells.py"
    module = types.ModuleType("__main__")
    # One virtual file for all cells: inspect.getsource then works for functions and for classes.
    module.__file__ = name
    text = "".join(f"# cell {n}\n{cell.source}\n\n" for n, cell in cells)
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    os.environ["MPLBACKEND"] = "agg"
    if importlib.util.find_spec("IPython") is None:
        sys.modules.update(_display_modules())

    main, folder = sys.modules["__main__"], Path.cwd()
    sys.modules["__main__"] = module
    os.chdir(notebook.parent)
    try:
        line = 0
        for number, cell in cells:
            _execute(cell.source, name, line + 1, module.__dict__)
            line += cell.source.count("\n") + 3
            if "parameters" in cell.tags:
                module.__dict__.update(parameters)
            _save_figures(output, number)
    finally:
        os.chdir(folder)
        sys.modules["__main__"] = main


def _execute(source: str, name: str, offset: int, namespace: dict[str, Any]) -> None:
    """Run one cell; like in a notebook, the value of a last bare expression is shown."""
    tree = ast.increment_lineno(ast.parse(source, name), offset)
    last = tree.body[-1] if tree.body else None
    shown = isinstance(last, ast.Expr) and not source.rstrip().endswith(";")
    body = tree.body[:-1] if shown else tree.body
    exec(compile(ast.Module(body, []), name, "exec"), namespace)
    if shown:
        value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
        if value is not None:
            print(value)


def _save_figures(output: Path, number: int) -> None:
    pyplot = sys.modules.get("matplotlib.pyplot")
    for n, figure in enumerate(pyplot.get_fignums() if pyplot else ()):
        suffix = f"-{n + 1}" if n else ""
        pyplot.figure(figure).savefig(output / f"cell-{number:02d}{suffix}.png")
    if pyplot:
        pyplot.close("all")


def _display_modules() -> dict[str, types.ModuleType]:
    """Stands in for IPython.display where Jupyter is not installed: shown things are printed."""
    package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")

    class Text(str):
        """Markdown or HTML as its own text."""

    display.display = print
    display.Markdown = display.HTML = Text
    package.display = display
    package.get_ipython = lambda: None
    return {"IPython": package, "IPython.display": display}
