"""The command line: `reprise list`, `run`, `claims`, `new`.

Whatever cannot work (a wrong slug, parameter, value, device) ends in one line on stderr and exit status 2
before anything is written. A chapter that fails while it runs exits with status 1 and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reprise import notebook, results
from reprise.notebook import UsageError

RESULTS = Path("_build/chapters")
_COMMON = ("scale", "device", "seed")  # parameters of every chapter; the others are its own knobs


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    options = parser().parse_args(argv)
    try:
        return options.command(options, notebook.find_root())
    except UsageError as error:
        print(f"reprise: {error}", file=sys.stderr)
        return 2


def list_chapters(options: argparse.Namespace, root: Path) -> int:
    for caption, slugs in notebook.parts(root).items():
        print(caption)
        for slug in slugs:
            path = root / "notebooks" / f"{slug}.ipynb"
            title = notebook.title(notebook.read_cells(path)) if path.exists() else "(no notebook yet)"
            print(f"  {slug:28} {title}")
    return 0


def run(options: argparse.Namespace, root: Path) -> int:
    path = notebook.locate(root, options.slug)
    defaults = notebook.defaults(notebook.read_cells(path))
    parameters = notebook.checked(_given(options), defaults)
    knobs = [name for name, value in parameters.items() if name not in _COMMON and value != defaults[name]]
    if options.record and parameters.get("scale") != "full":
        raise UsageError("--record keeps full-scale records; add --scale full")
    if options.share is not None and not re.fullmatch("[1-9][0-9]*", options.share):
        raise UsageError(f"--share takes a whole number of at least 1, not {options.share!r}")
    output = Path(options.output or root / RESULTS / options.slug).resolve()
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {options.output} is a file, not a folder")
    if not options.plain and importlib.util.find_spec("papermill") is None:
        raise UsageError("papermill is not installed: pip install 'reprise[book]', or run with --plain")
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    # Not parameters: paths would show on the page and enter the digest.
    os.environ["REPRISE_OUTPUT"] = str(partial)
    os.environ.setdefault("REPRISE_CACHE", str(root / "_build/cache"))
    if options.record:
        os.environ["REPRISE_RECORD"] = "1"
    if options.share:
        os.environ["REPRISE_SHARE"] = options.share
        ended = signal.signal(signal.SIGTERM, _end)
    os.environ["REPRISE_KNOBS"] = ", ".join(sorted(knobs))  # then verdicts are free to differ
    try:
        if options.plain:
            from reprise.plain import run_plain

            run_plain(path, parameters, partial)
        else:
            _papermill(path, parameters, partial)
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except KeyboardInterrupt:
        print(f"reprise: {options.slug} interrupted, {output} is as it was", file=sys.stderr)
        return 130
    except Exception as error:
        _report(error, plain=options.plain)
        print(f"reprise: {options.slug} failed, {output} is as it was", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.environ.pop("REPRISE_KNOBS", None)
        if options.share:
            os.environ.pop("REPRISE_SHARE")
            signal.signal(signal.SIGTERM, ended)
    print(f"{options.slug}: results in {output}")
    return 0


def _end(signum: int, frame: Any) -> None:
    """A job that its cluster ends frees the piece it trains."""
    sys.exit(128 + signum)


def _given(options: argparse.Namespace) -> dict[str, str]:
    """The parameters on the command line, as typed."""
    given: dict[str, str] = {}
    for text in options.parameters:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-p takes name=value, not {text!r}")
        given[name] = value
    named = {"scale": options.scale, "device": options.device, "seed": options.seed}
    return given | {name: value for name, value in named.items() if value is not None}


def _papermill(path: Path, parameters: dict[str, Any], folder: Path) -> None:
    import papermill

    os.environ.pop("MPLBACKEND", None)  # a set backend makes notebook figures vanish
    papermill.execute_notebook(
        str(path),
        str(folder / "notebook.ipynb"),
        parameters=parameters,
        kernel_name="python3",
        cwd=str(path.parent),
        progress_bar=False,
    )


def _report(error: Exception, plain: bool) -> None:
    """The error as text: papermill's holds the cell's own traceback, with colour codes."""
    import traceback

    text = "".join(traceback.format_exception(error)) if plain else str(error)
    print(re.sub(r"\x1b\[[\d;]*m", "", text), file=sys.stderr)


def claims(options: argparse.Namespace, root: Path) -> int:
    if options.write and not options.slug:
        raise UsageError("claims --write needs the slug of a chapter")
    if options.write:
        results.write_claims(notebook.locate(root, options.slug), root / RESULTS / options.slug)
        print(f"notebooks/{options.slug}.ipynb: claims table written")
    elif options.slug:
        notebook.locate(root, options.slug)
        print(results.report(results.read(root / RESULTS / options.slug)))
    else:
        folders = [root / RESULTS / slug for slug in notebook.chapters(root)]
        found = [results.read(folder) for folder in folders if (folder / "result.json").exists()]
        if not found:
            raise UsageError(f"no results in {RESULTS}: reprise run SLUG or make book writes them")
        print(results.summary(found))
    return 0


def new(options: argparse.Namespace, root: Path) -> int:
    from reprise.template import add_chapter

    path = add_chapter(root, options.slug, options.title, options.part)
    print(f"{path.relative_to(root)} written, with a line in _toc.yml and an entry in book/references.bib.")
    print(f"Next: fill in the entry and the notebook, then reprise run {options.slug}.")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line as an argparse parser (also read by the book's tests)."""
    as_written = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    top = argparse.ArgumentParser(
        prog="reprise",
        description="Run the chapters of the book, read their verdicts, start a new one.",
        epilog=(
            "examples:\n"
            "  reprise list                                     all chapters\n"
            "  reprise run stochastic-collapse                  at quick scale, results in _build/chapters\n"
            "  reprise run stochastic-collapse --scale full --device cuda\n"
            "  reprise claims stochastic-collapse               its verdicts, with the numbers\n"
            "  reprise run --help                               parameters, servers, output folders"
        ),
        **as_written,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable[..., int], **options: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, **as_written, **options)
        sub.set_defaults(command=command)
        return sub

    add("list", list_chapters, help="the chapters, by part")

    sub = add(
        "run",
        run,
        help="execute one chapter",
        description="Execute a chapter's notebook and write the executed notebook, result.json and hero.png.",
        epilog=(
            "examples:\n"
            "  reprise run slingshot-grokking --seed 1\n"
            "  reprise run slingshot-grokking -p eps=1e-5 --output /tmp/larger-eps\n"
            "  reprise run slingshot-grokking --scale full --device cuda:1 --plain\n"
            "  reprise run slingshot-grokking --scale full --plain --share 8 --output /tmp/job-1\n"
            "Values are Python literals and must have the type of the notebook's default.\n"
            "A chapter's parameters stand in its second code cell.\n"
            "With --share, any number of jobs run the same command on one cache folder, on one machine or\n"
            "many, each with an --output of its own. They train the pieces of every sweep together."
        ),
    )
    sub.add_argument("slug", metavar="SLUG", help="a chapter named by `reprise list`")
    sub.add_argument(
        "-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="change a parameter"
    )
    sub.add_argument("--scale", help="quick (default, about a minute, no GPU) or full (one GPU)")
    sub.add_argument("--device", help="auto (default), cpu, cuda or cuda:N")
    sub.add_argument("--seed", help="first seed of the chapter (default 0)")
    sub.add_argument("--output", metavar="DIR", help=f"folder for the results (default {RESULTS}/SLUG)")
    sub.add_argument(
        "--plain", action="store_true", help="run the same cells without Jupyter (figures saved as files)"
    )
    sub.add_argument(
        "--share",
        metavar="N",
        help="share the sweeps with other jobs, each sweep in at least N pieces (N: the jobs there are)",
    )
    sub.add_argument(
        "--record", action="store_true", help="with --scale full: keep thinned records in data/records/SLUG"
    )

    sub = add(
        "claims",
        claims,
        help="verdicts of the chapters executed last",
        description="Without a slug: one line a chapter and the totals. With one: its claims, with numbers.",
    )
    sub.add_argument("slug", metavar="SLUG", nargs="?")
    sub.add_argument("--write", action="store_true", help="put the executed claims table into the notebook")

    sub = add(
        "new",
        new,
        help="start a chapter from the template",
        epilog="example:\n  reprise new tiny-subspaces --part 1 --title 'Where do gradients live?'",
    )
    sub.add_argument("slug", metavar="SLUG", help="lower-case words joined by hyphens; also the bib key")
    sub.add_argument("--title", default="", help="the chapter's title")
    sub.add_argument("--part", required=True, metavar="N", help="number of the part it belongs to")
    return top


if __name__ == "__main__":
    sys.exit(main())
