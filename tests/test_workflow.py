"""Snakemake on a checkout of one chapter: what is executed again, and what a failure leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXPERIMENT, ROOT, code, tiny_cells, write_notebook

from reprise import Record
from reprise.cli import main

SNAKEMAKE = Path(sys.executable).parent / "snakemake"
RESULT = "_build/chapters/tiny-decay/result.json"


def snakemake(root: Path, *arguments: str, ok: bool = True) -> str:
    """Run the workflow in a checkout; its text."""
    command = [SNAKEMAKE, "-s", ROOT / "workflow/Snakefile", "--cores", "1", "--show-failed-logs", *arguments]
    environment = os.environ | {"REPRISE_CACHE": str(root / "_build/cache"), "REPRISE_OUTPUT": ""}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(root: Path) -> set[str]:
    """The rules that a run would execute."""
    text = snakemake(root, "--dry-run")
    return {name for name in ("chapter", "book") if f"\nrule {name}:" in text or f"\n{name} " in text}


def test_the_whole_way_and_what_goes_stale(tiny):
    snakemake(tiny)
    page = (tiny / "_build/html/notebooks/tiny-decay.html").read_text()
    assert "1 reproduced" in page and "A falling curve." in page
    assert json.loads((tiny / RESULT).read_text())["claims"][0]["verdict"] == "reproduced"
    assert planned(tiny) == set()

    notebook = tiny / "notebooks/tiny-decay.ipynb"
    os.utime(notebook)
    assert planned(tiny) == set(), "a touch is no change"

    text = notebook.read_text()
    content = json.loads(text)
    content["cells"][-4]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "kept"}]
    notebook.write_text(json.dumps(content))
    assert planned(tiny) == set(), "the kept claims table is no change"

    notebook.write_text(text.replace("Nobody knows.", "We shall see."))
    assert planned(tiny) == {"chapter", "book"}
    notebook.write_text(text)
    page = tiny / "book/index.md"
    page.write_text(page.read_text() + "\nMore.\n")
    assert planned(tiny) == {"book"}
    assert "scale" in snakemake(tiny, "--dry-run", "--config", "scale=full")


TRAINING = """\
from reprise import MLP, Adam, Experiment, every, loss
from reprise.tasks import Digits


def falling(seed):
    model = MLP([64, 8, 10], activation="tanh")
    return Experiment(model, Digits(n_train=64, n_test=16), Adam(0.03), steps=100, seed=seed)


trained = chapter.train("falling", Sweep(falling, seed=chapter.seeds(4)), [every(10, loss)])
record = {"curve": trained.record["loss"]}
last = record["curve"].values[:, -1] / record["curve"].values[:, 0]
"""


def test_shards_join_in_the_record_of_one_job(tiny, monkeypatch):
    cells = tiny_cells()
    (experiment,) = [cell for cell in cells if "".join(cell["source"]) == EXPERIMENT.strip("\n")]
    cells[cells.index(experiment)] = code(TRAINING)
    write_notebook(tiny / "notebooks/tiny-decay.ipynb", cells)
    shards = [RESULT, "--cores", "2", "--config", "shards=2"]
    snakemake(tiny, *shards)
    folders = [tiny / f"_build/shards/tiny-decay/{item}" for item in ("1-of-2", "2-of-2")]
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    result = json.loads((tiny / RESULT).read_text())
    assert result["claims"][0]["verdict"] == "reproduced"
    assert {each["digest"] for each in results} == {result["digest"]}
    (joined,) = (tiny / "_build/cache").glob("*/record.nc")
    assert not list((tiny / "_build/cache/unfinished").iterdir())
    assert "Nothing to be done" in snakemake(tiny, *shards)

    monkeypatch.chdir(tiny)
    monkeypatch.setenv("REPRISE_CACHE", str(tiny / "alone"))
    monkeypatch.setenv("REPRISE_OUTPUT", "")
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert main(["run", "tiny-decay", "--plain", "--output", "there"]) == 0
    (alone,) = (tiny / "alone").glob("*/record.nc")
    assert alone.parent.name == joined.parent.name
    assert Record.load(alone).equals(Record.load(joined))


def test_a_failing_chapter_shows_its_error_and_builds_no_book(tiny):
    notebook = tiny / "notebooks/tiny-decay.ipynb"
    notebook.write_text(notebook.read_text().replace("Decay(rate).at(steps)", "Decay(rate).at(1 / 0)"))
    text = snakemake(tiny, ok=False)
    assert "ZeroDivisionError" in text
    assert not (tiny / RESULT).exists() and not (tiny / "_build/html").exists()


def test_a_changed_verdict_fails(tiny):
    notebook = tiny / "notebooks/tiny-decay.ipynb"
    notebook.write_text(notebook.read_text().replace('\\"<\\", 0.1', '\\"<\\", 1e-9'))
    text = snakemake(tiny, "_build/chapters/tiny-decay/result.json", ok=False)
    assert "verdicts changed: C1: expected 'reproduced', now 'not reproduced'" in text


def test_a_warning_fails_the_book(tiny):
    page = tiny / "book/index.md"
    page.write_text(page.read_text() + "\n[nowhere](missing.md)\n")
    assert "missing.md" in snakemake(tiny, ok=False)
    assert not (tiny / "_build/html").exists()


@pytest.mark.parametrize("name", ["Snakefile", "stage.py", "pages.py"])
def test_the_workflow_names_no_machine(name):
    text = (ROOT / "workflow" / name).read_text()
    assert "/root" not in text and "/home" not in text
