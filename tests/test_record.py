"""Records and states are read as they were written; the store never shows half a result."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from reprise import MLP, SGD, Chapter, Experiment, Record, State, States, Sweep, accuracy, end, every, loss
from reprise.checks import Check
from reprise.layout import Layout
from reprise.record import labelled
from reprise.store import Store
from reprise.tasks import Digits


def test_members_of_unequal_length_are_padded_under_the_union_of_their_labels():
    axes = {"width": [2, 4], "seed": [0, 1]}
    values = {
        (0, 0): {"x": (("layer",), np.array([1.0, 2.0]), {"layer": ["a", "b"]})},
        (0, 1): {"x": (("layer",), np.array([3.0]), {"layer": ["b"]})},
        (1, 1): {"x": (("layer",), np.array([5.0, 6.0]), {"layer": ["b", "c"]}), "n": ((), np.int64(7), {})},
    }
    arrays = labelled(axes, values)
    x = arrays["x"]
    assert x.dims == ("width", "seed", "layer") and x.layer.values.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(x.sel(width=2, seed=0), [1, 2, np.nan])
    np.testing.assert_array_equal(x.sel(width=2, seed=1), [np.nan, 3, np.nan])
    np.testing.assert_array_equal(x.sel(width=4, seed=0), [np.nan] * 3)
    assert arrays["n"].dtype == np.float64 and arrays["n"].sel(width=4, seed=1) == 7


def test_a_record_is_read_as_it_was_written(tmp_path):
    def array(values, **coords):
        return xr.DataArray(
            np.asarray(values), dims=list(coords), coords={k: v for k, v in coords.items() if v is not None}
        )

    record = Record(
        {
            "loss": array(np.arange(6.0).reshape(2, 3), rule=["adam", "sgd"], step=[0, 5, 9]),
            "norm": array(np.ones((2, 2), dtype=np.float32), rule=["adam", "sgd"], step=[0, 9]),
            "spectrum": array(np.zeros((2, 4)), rule=["adam", "sgd"], eig=None),
            "other": array(np.zeros((2, 3)), rule=["adam", "sgd"], eig=None),
            "count": array([1, 2], rule=["adam", "sgd"]),
            "flag": array([True, False], rule=["adam", "sgd"]),
        },
        {"versions": {"torch": "2"}, "seeds": [0, 1], "none": None},
    )
    record.save(tmp_path / "r.nc")
    again = Record.load(tmp_path / "r.nc")
    assert again.equals(record) and again.attrs == record.attrs
    record.save(tmp_path / "s.nc")
    assert (tmp_path / "r.nc").read_bytes() == (tmp_path / "s.nc").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["r.nc", "s.nc"]
    thin = again.select("loss", "norm", rule="sgd")
    assert set(thin) == {"loss", "norm"} and thin.loss.dims == ("step",)


def test_layout_splits_and_joins():
    layout = Layout.of(MLP([3, 2, 1]))
    vector = torch.arange(float(layout.size)).repeat(4, 1)
    params = layout.split(vector)
    assert params["layers.0.weight"].shape == (4, 2, 3) and torch.equal(layout.join(params), vector)
    assert torch.equal(vector[0, layout["layers.1.bias"]], params["layers.1.bias"][0])
    assert Layout(("gain",), ((),)).split(torch.ones(1))["gain"].shape == ()  # a parameter that is one number
    with pytest.raises(ValueError, match="parameters missing: layers.0.bias"):
        layout.join({"layers.0.weight": torch.zeros(2, 3)})
    with pytest.raises(KeyError, match="no parameter named 'head'"):
        layout["head"]


def sweep():
    return Sweep(
        lambda lr, seed: Experiment(MLP([64, 4, 10]), Digits(n_train=30, n_test=20), SGD(lr), 10, seed=seed),
        lr=[0.1, 0.2],
        seed=[0, 1],
    )


def test_states_are_read_as_they_were_written(tmp_path):
    states = sweep().train(keep=[0, 3]).states
    states.save(tmp_path / "s.safetensors")
    again = States.load(tmp_path / "s.safetensors")
    assert again.steps == [0, 3, 10] and again.digest == states.digest
    one, two = states.sel(step=3, lr=0.2, seed=1), again.sel(step=3, lr=0.2, seed=1)
    assert isinstance(two, State) and torch.equal(one.vector, two.vector) and one.digest == two.digest
    assert torch.equal(again.stacked(3)[1, 1], one.vector)
    doubled = states.map(lambda v, other: v + other, other=again)
    assert torch.equal(doubled.sel(lr=0.1, seed=0).vector, 2 * states.sel(lr=0.1, seed=0).vector)


def test_the_store_has_a_result_completely_or_not_at_all(tmp_path):
    store, trained = Store(tmp_path), sweep().train([every(5, loss)])
    assert not store.has("abc")
    store.save("abc", trained.record, trained.states)
    store.save("abc", trained.record, trained.states)  # a second writer does no harm
    record, states = store.load("abc")
    assert record.equals(trained.record) and torch.equal(states.stacked(), trained.states.stacked())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["abc"]


# --- the chapter's handle ---


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPRISE_OUTPUT", str(tmp_path))
    return tmp_path


def test_a_chapter_reads_again_what_it_computed(book, capsys):
    first = Chapter("a-paper", seed=5)
    assert "a-paper · quick scale · CPU" in capsys.readouterr().out
    assert first.seeds(3) == [5, 6, 7]
    one = first.train("main", sweep(), [end(accuracy)])
    gap = first.measure("gap", one, lambda snapshot: {"gap": snapshot.displacement.norm()})
    points = first.map("points", Sweep(lambda a: {"x": a}, a=[1.0, 2.0]))
    calls = []
    second = Chapter("a-paper", seed=5)
    again = second.train("main", sweep(), [end(accuracy)])
    assert again.record.equals(one.record)
    assert again.record.attrs["digest"] == one.record.attrs["digest"]
    assert second.measure("gap", again, lambda snapshot: {"gap": snapshot.displacement.norm()}).equals(gap)
    assert second.map("points", Sweep(lambda a: {"x": a}, a=[1.0, 2.0])).equals(points)
    assert second.cpu_seconds == first.cpu_seconds and not calls
    assert "4 members in 3 computations" in second.cost() or "members in 3 computations" in second.cost()
    with pytest.raises(ValueError, match="'main' was already computed"):
        second.train("main", sweep())


def test_a_chapter_writes_its_result_and_refuses_changed_verdicts(book, monkeypatch, capsys):
    chapter = Chapter("a-paper", question="Is it so?")
    chapter.map("points", Sweep(lambda a: {"x": a}, a=[1.0, 2.0]))
    chapter.claim("C1", "It is so", paper="It is.", checks=[Check("x", np.array([1.0, 2.0]), ">", 0.5)])
    chapter.finish({"C1": "reproduced"})
    result = json.loads((book / "result.json").read_text())
    assert result["claims"][0]["verdict"] == "reproduced" and result["expected"] == {"C1": "reproduced"}
    assert result["cpu_seconds"] >= 0 and result["versions"]["torch"] and result["question"] == "Is it so?"
    with pytest.raises(AssertionError, match="C1: expected 'partly', now 'reproduced'"):
        chapter.finish({"C1": "partly"})
    monkeypatch.setenv("REPRISE_KNOBS", "rate")
    chapter.finish({"C1": "partly"})  # a changed knob is free to differ, and says so
    assert "With another rate, verdicts changed: C1: expected 'partly'" in capsys.readouterr().out
    monkeypatch.delenv("REPRISE_KNOBS")
    with pytest.raises(ValueError, match="claim C1: was already made"):
        chapter.claim("C1", "Again", paper="", checks=[Check("x", 1, ">", 0)])
    elsewhere = Chapter("a-paper", seed=1000)
    elsewhere.claim("C1", "It is so", paper="It is.", checks=[Check("x", 1.0, ">", 0.5)])
    elsewhere.finish({"C1": "not reproduced"})  # other seeds are free to differ


def test_a_committed_record_is_used_at_full_scale_when_its_description_matches(book, tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "_toc.yml").write_text("")
    monkeypatch.chdir(root)
    monkeypatch.setenv("REPRISE_RECORD", "1")
    points = Sweep(lambda a: {"x": a}, a=[1.0, 2.0])
    chapter = Chapter("a-paper", scale="full", device="cpu")
    record = chapter.map("points", points)
    record.attrs["commit"] = "made elsewhere"
    chapter.keep_record("points", record)
    assert (root / "data/records/a-paper/points.nc").exists()
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "empty"))
    read = Chapter("a-paper", scale="full", device="cpu").map("points", points)
    assert read.equals(record) and read.attrs["commit"] == "made elsewhere"
    other = Chapter("a-paper", scale="full", device="cpu").map(
        "points", Sweep(lambda a: {"x": a}, a=[1.0, 3.0])
    )
    assert other.attrs["commit"] != "made elsewhere"
    assert Path(tmp_path / "empty").exists()
