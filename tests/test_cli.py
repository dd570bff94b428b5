"""The command line: what it does, and one line with exit status 2 for what it cannot do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, code, markdown, write_notebook

from reprise import notebook
from reprise.cli import main


@pytest.fixture
def checkout(tiny, monkeypatch):
    monkeypatch.chdir(tiny)
    monkeypatch.setenv("REPRISE_CACHE", str(tiny / "_build/cache"))
    # `run` changes these for the kernel; monkeypatch restores them.
    monkeypatch.setenv("REPRISE_OUTPUT", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tiny


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


WRONG = {
    "unknown slug": (["run", "nowhere"], "no chapter 'nowhere': reprise list names them"),
    "mistyped slug": (["run", "tiny-deca"], "no chapter 'tiny-deca' (did you mean 'tiny-decay'?)"),
    "unknown parameter": (
        ["run", "tiny-decay", "-p", "lr=1"],
        "no parameter 'lr': this chapter has scale, device",
    ),
    "mistyped parameter": (["run", "tiny-decay", "-p", "stepz=1"], "'stepz' (did you mean 'steps'?)"),
    "text for a number": (
        ["run", "tiny-decay", "-p", "rate=fast"],
        "parameter rate takes a float (default 0.5), not 'fast'",
    ),
    "fraction for a count": (
        ["run", "tiny-decay", "-p", "steps=1.5"],
        "parameter steps takes an int (default 10), not '1.5'",
    ),
    "number for a flag": (
        ["run", "tiny-decay", "-p", "half=1"],
        "parameter half takes a bool (default False)",
    ),
    "flag for a number": (["run", "tiny-decay", "-p", "steps=True"], "parameter steps takes an int"),
    "number for a list": (["run", "tiny-decay", "-p", "widths=2"], "parameter widths takes a list"),
    "no equals sign": (["run", "tiny-decay", "-p", "rate"], "-p takes name=value, not 'rate'"),
    "not a name": (["run", "tiny-decay", "-p", "a b=1"], "-p takes name=value, not 'a b=1'"),
    "wrong scale": (["run", "tiny-decay", "--scale", "huge"], "scale is quick or full, not 'huge'"),
    "wrong scale as parameter": (["run", "tiny-decay", "-p", "scale=1"], "scale is quick or full, not '1'"),
    "wrong device": (
        ["run", "tiny-decay", "--device", "gpu"],
        "device is auto, cpu, cuda or cuda:N, not 'gpu'",
    ),
    "absent device": (["run", "tiny-decay", "--device", "cuda:99"], "device 'cuda:99' is not there"),
    "wrong seed": (
        ["run", "tiny-decay", "--seed", "one"],
        "parameter seed takes an int (default 0), not 'one'",
    ),
    "record of a quick run": (
        ["run", "tiny-decay", "--record"],
        "--record keeps full-scale records; add --scale full",
    ),
    "no jobs": (["run", "tiny-decay", "--share", "0"], "--share takes a whole number of at least 1, not '0'"),
    "half a job": (["run", "tiny-decay", "--share", "1.5"], "--share takes a whole number of at least 1"),
    "output is a file": (["run", "tiny-decay", "--output", "_toc.yml"], "--output _toc.yml is a file"),
    "claims of nothing": (["claims"], "no results in _build/chapters"),
    "claims of an unknown slug": (["claims", "nowhere"], "no chapter 'nowhere'"),
    "claims before a run": (["claims", "tiny-decay"], "no results for tiny-decay: reprise run tiny-decay"),
    "write without a slug": (["claims", "--write"], "claims --write needs the slug of a chapter"),
    "write before a run": (["claims", "tiny-decay", "--write"], "no executed notebook for tiny-decay"),
    "malformed new slug": (
        ["new", "Big_Idea", "--part", "1"],
        "a slug is lower-case words joined by hyphens",
    ),
    "new slug taken": (["new", "tiny-decay", "--part", "1"], "there is already a chapter 'tiny-decay'"),
    "new in no part": (["new", "other", "--part", "9"], "no part '9' in _toc.yml (parts: 1)"),
}


WRONG |= {f"{name}, plain": ([*a, "--plain"], text) for name, (a, text) in WRONG.items() if a[0] == "run"}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line_and_writes_nothing(checkout, capsys, arguments, message):
    before = files(checkout)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("reprise: ") and message in error and error.count("\n") == 1
    assert files(checkout) == before


def test_argparse_errors_exit_2(checkout, capsys):
    for arguments in ([], ["fly"], ["run"], ["new", "x"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert files(checkout) == files(checkout)


def test_outside_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 2
    assert "no _toc.yml in" in capsys.readouterr().err


def test_a_chapter_without_notebook(checkout, capsys):
    (checkout / "notebooks/tiny-decay.ipynb").unlink()
    assert main(["run", "tiny-decay"]) == 2
    assert "notebooks/tiny-decay.ipynb does not exist" in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "(no notebook yet)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "expected one code cell tagged parameters, found 0"),
        ("scale = str(1)", "the default of parameter scale is not a literal value"),
        ("print(1)", "the parameters cell holds more than `name = value`: print(1)"),
    ],
)
def test_a_malformed_parameters_cell(checkout, capsys, source, message):
    cells = [markdown("# T"), *([code(source, "parameters")] if source else [])]
    write_notebook(checkout / "notebooks/tiny-decay.ipynb", cells)
    assert main(["run", "tiny-decay", "--plain"]) == 2
    assert message in capsys.readouterr().err
    assert not (checkout / "_build").exists()


def test_values_take_the_type_of_the_default():
    known = {"rate": 0.5, "steps": 10, "name": "a", "widths": [1], "rest": None, "half": False}
    given = {"rate": "1", "steps": "3", "name": "1", "widths": "[2, 3]", "rest": "(1, 'b')", "half": "True"}
    values = notebook.checked(given, known)
    assert values == {
        "rate": 1.0, "steps": 3, "name": "1", "widths": [2, 3], "rest": (1, "b"), "half": True
    }  # fmt: skip
    assert isinstance(values["rate"], float)


def test_list(checkout, capsys):
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == ["1 Small things", f"  {'tiny-decay':28} Tiny decay"]


def test_plain_run_then_claims(checkout, capsys, monkeypatch):
    assert main(["run", "tiny-decay", "--plain", "-p", "steps=12", "--seed", "4", "--output", "here"]) == 0
    assert {path.name for path in (checkout / "here").iterdir()} == {"result.json", "hero.png", "cell-10.png"}
    assert json.loads((checkout / "here/result.json").read_text())["seed"] == 4
    assert not list(checkout.glob(".here*"))
    assert main(["run", "tiny-decay", "--plain"]) == 0
    capsys.readouterr()
    assert main(["claims"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny-decay") and "1 reproduced" in lines[0]
    assert lines[-1].split(maxsplit=2)[2] == "1 reproduced"
    assert main(["claims", "tiny-decay"]) == 0
    assert "C1   REPRODUCED  The curve |c| decays" in capsys.readouterr().out


def test_a_changed_knob_may_change_a_verdict(checkout, capsys):
    assert main(["run", "tiny-decay", "--plain", "-p", "rate=1.0", "--output", "there"]) == 0
    assert "With another rate, verdicts changed: C1: expected 'reproduced'" in capsys.readouterr().out
    result = json.loads((checkout / "there/result.json").read_text())
    assert result["claims"][0]["verdict"] == "not reproduced"


def test_jupyter_and_plain_runs_agree_and_the_table_is_kept(checkout, capsys):
    source = checkout / "notebooks/tiny-decay.ipynb"
    assert main(["run", "tiny-decay", "--plain", "--output", "plain"]) == 0
    assert main(["run", "tiny-decay"]) == 0
    folder = checkout / "_build/chapters/tiny-decay"
    results = [json.loads((place / "result.json").read_text()) for place in (folder, checkout / "plain")]
    assert results[0]["claims"] == results[1]["claims"]
    # The same digest in both: what one has computed, the other reads from the cache.
    assert results[0]["digest"] == results[1]["digest"]

    assert main(["claims", "tiny-decay", "--write"]) == 0
    written = json.loads(source.read_text())["cells"]
    kept = [cell for cell in written if cell.get("outputs")]
    assert [cell["metadata"]["tags"] for cell in kept] == [["keep_output"]]
    assert all(cell.get("execution_count") is None for cell in written)
    assert "C1  reproduced" in json.dumps(kept)

    kept[0]["source"].append("\n# changed")
    source.write_text(json.dumps(json.loads(source.read_text()) | {"cells": written}))
    assert main(["claims", "tiny-decay", "--write"]) == 2
    assert "changed since it was executed" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--plain"], []], ids=["plain", "jupyter"])
def test_a_failing_chapter_exits_1_and_keeps_the_old_results(checkout, capsys, flags):
    cells = [
        markdown("# T"),
        code("seed = 0", "parameters"),
        code("def broken():\n    return 1 / seed\n\nbroken()"),
    ]
    write_notebook(checkout / "notebooks/tiny-decay.ipynb", cells)
    old = checkout / "_build/chapters/tiny-decay"
    old.mkdir(parents=True)
    (old / "result.json").write_text("old")
    assert main(["run", "tiny-decay", *flags]) == 1
    error = capsys.readouterr().err
    assert "return 1 / seed" in error and "ZeroDivisionError" in error and "\x1b" not in error
    assert files(checkout / "_build/chapters") == ["tiny-decay", "tiny-decay/result.json"]


def test_a_job_that_its_cluster_ends_leaves_nothing_behind(checkout):
    ended = "import os, signal\nassert os.environ['REPRISE_SHARE'] == '2'\nsignal.raise_signal(15)"
    cells = [markdown("# T"), code("seed = 0", "parameters"), code(ended)]
    write_notebook(checkout / "notebooks/tiny-decay.ipynb", cells)
    with pytest.raises(SystemExit) as stop:
        main(["run", "tiny-decay", "--plain", "--share", "2"])
    assert stop.value.code == 128 + signal.SIGTERM
    assert not list((checkout / "_build/chapters").iterdir())
    assert "REPRISE_SHARE" not in os.environ and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sources_of_plain_cells_are_found(checkout, capsys):
    probe = (
        "import inspect\n\nclass Thing:\n    def method(self):\n        return 'method text'\n\n"
        "def outer():\n    return 'outer text'\n\n"
        "print(inspect.getsource(Thing), inspect.getsource(outer), inspect.getsource(Thing.method))"
    )
    late = code("def late():\n    return 'late text'\n\nprint(inspect.getsource(late), end='')\n__name__")
    write_notebook(
        checkout / "notebooks/tiny-decay.ipynb",
        [code("seed = 0", "parameters"), code("x = 1\n"), code(probe), late],
    )
    assert main(["run", "tiny-decay", "--plain"]) == 0
    out = capsys.readouterr().out
    assert out.count("class Thing:") == 1 and out.count("method text") == 2 and out.count("outer text") == 1
    assert "def late():\n    return 'late text'\n" in out and "__main__" in out
    assert sys.modules["__main__"].__name__ == "__main__" and not hasattr(sys.modules["__main__"], "Thing")


def test_new_adds_a_notebook_a_line_and_an_entry(checkout, capsys):
    assert main(["new", "other-thing", "--part", "1", "--title", 'A "quoted" thing']) == 0
    assert notebook.chapters(checkout) == ["tiny-decay", "other-thing"]
    cells = notebook.read_cells(checkout / "notebooks/other-thing.ipynb")
    assert notebook.title(cells) == 'A "quoted" thing'
    assert notebook.defaults(cells) == {"scale": "quick", "device": "auto", "seed": 0}
    assert "@misc{other-thing," in (checkout / "book/references.bib").read_text()
    assert "__" not in "".join(cell.source for cell in cells).replace("__name__", "")


def test_help_teaches(capsys):
    for arguments in (["--help"], ["run", "--help"], ["new", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "example" in capsys.readouterr().out


def test_light_paths_need_no_jupyter(checkout):
    script = (
        "import sys; from reprise.cli import main; status = main(['run', 'tiny-decay', '--plain']); "
        "heavy = {'papermill', 'nbformat', 'nbclient', 'ipykernel'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ROOT.exists()
