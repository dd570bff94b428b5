"""What changes a digest, and what does not."""

from __future__ import annotations

import dataclasses
import json
import linecache
from pathlib import Path

import pytest
import torch

from reprise import MLP, SGD, Experiment, Sweep, digest, every, loss
from reprise.tasks import Digits

BASE = """
RATE = 0.1

def scale(x):
    '''Docstring.'''
    return 2 * x  # comment

class Rule:
    '''Docstring.'''

    POWER = 1

    def step(self, x):
        return scale(x) * RATE**self.POWER

def experiment(seed):
    return Rule().step(seed)
"""


def notebook(source: str) -> dict:
    """Execute a cell as a notebook would: functions have a source, classes do not."""
    name = f"<cell {hash(source)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    return namespace


def described(source: str) -> str:
    return digest.describe(notebook(source)["experiment"])


@pytest.mark.parametrize(
    "change",
    [
        ("return 2 * x", "return 3 * x"),
        ("RATE = 0.1", "RATE = 0.2"),
        ("return scale(x) * RATE", "return scale(x) / RATE"),
        ("POWER = 1", "POWER = 2"),
        ("Rule().step(seed)", "Rule().step(seed + 1)"),
    ],
)
def test_the_notebooks_own_code_changes_the_description(change):
    assert described(BASE) == described(BASE + "\n")
    assert described(BASE.replace(*change)) != described(BASE)


@pytest.mark.parametrize(
    "change", [("Docstring.", "Other words."), ("# comment", "# another"), ("2 * x", "2*x")]
)
def test_comments_docstrings_and_layout_do_not(change):
    assert described(BASE.replace(*change)) == described(BASE)


def test_what_the_experiment_does_not_use_does_not_matter():
    assert described(BASE + "\ndef plot():\n    return 1\n") == described(BASE)


def test_every_part_of_a_member_changes_the_description():
    def make(seed, lr=0.1, width=4, n=20, steps=3, dtype=torch.float32):
        return Experiment(
            MLP([64, width, 10]), Digits(n_train=n), SGD(lr), steps=steps, dtype=dtype, seed=seed
        )

    def text(probes=(), keep=(), **values):
        return Sweep(lambda seed: make(seed, **values), seed=[0, 1]).describe(probes, keep)

    texts = [
        text(),
        text(lr=0.2),
        text(width=5),
        text(n=21),
        text(steps=4),
        text(dtype=torch.float64),
        text([every(1, loss)]),
        text([every(2, loss)]),
        text(keep=[1]),
        Sweep(lambda seed: make(seed), seed=[0, 2]).describe(),
    ]
    assert len(set(texts)) == len(texts) and text() == text()


def test_the_parents_digest_enters_the_childs():
    def make(lr):
        return Sweep(
            lambda seed: Experiment(MLP([64, 4, 10]), Digits(n_train=20), SGD(lr), 2, seed=seed), seed=[0]
        ).train()

    one, two = make(0.1).states.sel(seed=0), make(0.2).states.sel(seed=0)
    child = lambda start: Sweep(  # noqa: E731
        lambda seed: Experiment(MLP([64, 4, 10]), Digits(n_train=20), SGD(0.1), 2, start=start), seed=[0]
    ).describe()
    assert child(one) != child(two) and one.digest == make(0.1).states.sel(seed=0).digest


def test_values_have_stable_descriptions_and_unknown_things_are_refused():
    @dataclasses.dataclass
    class Options:
        a: int = 1

    assert digest.describe([1, 2.0, "x", None, {"k": torch.ones(2)}]) == digest.describe(
        [1, 2.0, "x", None, {"k": torch.ones(2)}]
    )
    assert digest.describe(torch.ones(2)) != digest.describe(torch.ones(2, dtype=torch.float64))
    assert digest.describe(Options(1)) != digest.describe(Options(2))
    with pytest.raises(TypeError, match="cannot describe a"):
        digest.describe(iter([1]))


def test_a_library_module_changes_the_digest_of_what_uses_it(monkeypatch):
    uses = digest.library_modules(["reprise.curvature"])
    assert "reprise.curvature" in uses and "reprise.train" in uses and "reprise.streams" in uses
    assert "reprise.neurons" not in uses and "reprise.figures" not in uses and "reprise.chapter" not in uses
    before = digest.library_digest(["reprise.curvature"]), digest.library_digest([])
    source = digest._source
    changed = lambda name: source(name) + ("\nx = 1" if name == "reprise.curvature" else "")  # noqa: E731
    monkeypatch.setattr(digest, "_source", changed)
    after = digest.library_digest(["reprise.curvature"]), digest.library_digest([])
    assert before[0] != after[0] and before[1] == after[1]


def test_modules_are_found_in_a_description():
    found = digest.modules_of(digest.describe(Experiment(MLP([2, 1]), Digits(n_train=9), SGD(0.1), 1)))
    assert {"reprise.models.mlp", "reprise.tasks.digits", "reprise.updates.descent"} <= set(found)


def write(path: Path, cells: list[tuple[str, str]]) -> Path:
    content = [
        {"cell_type": kind, "source": [text], "metadata": {}, "outputs": ["x"]} for kind, text in cells
    ]
    path.write_text(json.dumps({"cells": content}))
    return path


def test_a_chapter_is_stale_when_its_text_or_parameters_change_and_not_for_its_outputs(tmp_path):
    path = tmp_path / "a.ipynb"
    one = digest.chapter_digest(write(path, [("code", "x = 1"), ("markdown", "Prose")]), {"seed": 0})
    assert one != digest.chapter_digest(path, {"seed": 1})
    assert one != digest.chapter_digest(write(path, [("code", "x = 2"), ("markdown", "Prose")]), {"seed": 0})
    content = json.loads(write(path, [("code", "x = 1"), ("markdown", "Prose")]).read_text())
    content["cells"][0]["outputs"] = []
    path.write_text(json.dumps(content))
    assert one == digest.chapter_digest(path, {"seed": 0})
