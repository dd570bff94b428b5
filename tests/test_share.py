"""Jobs that share a sweep leave the record of one that trains it alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

import reprise.share
from reprise import MLP, SGD, Adam, Chapter, Experiment, Sweep, end, every, loss, training_loss
from reprise.share import Joined, Share
from reprise.store import Store
from reprise.tasks import Digits

SEEDS = range(4)


def first(lr: float, seed: int) -> Experiment:
    return Experiment(MLP([64, 8, 10]), Digits(n_train=64, n_test=16), Adam(lr), 30, batch=16, seed=seed)


def mark(snapshot):
    """Runs once a piece, and says so in a folder."""
    (Path(os.environ["MARKS"]) / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
    time.sleep(0.1)  # no job is so fast that the others find nothing to do
    return {"norm": snapshot.vector.norm(), "pair": (("side",), snapshot.vector[:2], {"side": ["a", "b"]})}


def chain() -> tuple:
    """A chapter's two sweeps, the second from the states of the first."""
    chapter = Chapter("shared", device="cpu")
    probes = [every(10, loss), every(1, training_loss), end(mark)]
    before = chapter.train("first", Sweep(first, lr=[0.01, 0.03], seed=SEEDS), probes, keep=[0])

    def second(seed):
        start = before.states.sel(lr=0.01, seed=seed)
        return Experiment(MLP([64, 8, 10]), Digits(n_train=64, n_test=16), SGD(0.1), 20, start=start)

    return before, chapter.train("second", Sweep(second, seed=SEEDS), [every(10, loss), end(mark)])


def job(folder: Path, number: int, jobs: int) -> None:
    torch.set_num_threads(1)
    reprise.share._POLL = 0.02
    os.environ |= {"REPRISE_CACHE": str(folder / "cache"), "REPRISE_SHARE": "3", "MARKS": str(folder)}
    (folder / f"ready-{number}").touch()
    while len(list(folder.glob("ready-*"))) < jobs:
        time.sleep(0.01)
    for name, trained in zip(("first", "second"), chain(), strict=True):
        trained.record.save(folder / f"{name}-{number}.nc")
        trained.states.save(folder / f"{name}-{number}.safetensors")


def same(one: reprise.States, other: reprise.States) -> None:
    assert one.coords == other.coords and one.layouts == other.layouts and one.digest == other.digest
    for index, kept in other.members.items():
        assert list(one.members[index]) == list(kept)
        assert all(torch.equal(vector, one.members[index][step]) for step, vector in kept.items())


def test_two_jobs_leave_the_record_and_the_states_of_one(tmp_path, monkeypatch):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reprise", "reprise.models", "reprise.tasks", "sklearn.datasets"])
    both = [context.Process(target=job, args=(tmp_path, number, 2)) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    (tmp_path / "alone").mkdir()
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / "alone"))
    monkeypatch.setenv("MARKS", str(tmp_path / "alone"))
    trained = dict(zip(("first", "second"), chain(), strict=True))

    marks = [path.name.partition("-")[0] for path in tmp_path.glob("*-*") if len(path.name) > 32]
    assert len(marks) == 6, "three pieces a sweep, each trained once"
    assert len(set(marks)) == 2, "both jobs trained some"
    for number in range(2):
        for name, alone in trained.items():
            record = reprise.Record.load(tmp_path / f"{name}-{number}.nc")
            assert list(record) == list(alone.record) and record.equals(alone.record)
            same(reprise.States.load(tmp_path / f"{name}-{number}.safetensors"), alone.states)
            for attribute in ("axes", "members", "seeds", "dtype", "device", "digest", "interrupted"):
                assert record.attrs[attribute] == alone.record.attrs[attribute]
    assert not list((tmp_path / "cache/unfinished").iterdir())


# --- in one process ---


def small(lr: float, seed: int) -> Experiment:
    return Experiment(MLP([64, 8, 10]), Digits(n_train=64, n_test=16), Adam(lr), 60, batch=16, seed=seed)


@pytest.fixture
def sweep():
    return Sweep(small, lr=[0.01, 0.03], seed=[0, 1])


@pytest.fixture
def share(tmp_path, monkeypatch):
    monkeypatch.setattr(reprise.share, "_POLL", 0.01)
    return Share(tmp_path / "shared", 2, tmp_path / "result")


def claims(share: Share) -> list[str]:
    return sorted(path.name for path in share.folder.glob("*.claim.*"))


def test_a_job_alone_trains_every_piece(sweep, share):
    trained = sweep.train([every(20, loss)], keep=[20], share=share)
    alone = sweep.train([every(20, loss)], keep=[20])
    assert trained.record.equals(alone.record)
    same(trained.states, alone.states)
    assert claims(share) == ["0.claim.0", "1.claim.0"]
    assert 0 < trained.record.attrs["cpu_seconds"] and trained.record.attrs["members"] == 4


def test_a_job_that_comes_late_reads_what_was_trained_and_counts_its_cost(sweep, share, monkeypatch):
    trained = sweep.train([every(20, loss)], share=share)
    monkeypatch.setattr(reprise.share, "train_here", None)
    late = sweep.train([every(20, loss)], share=Share(share.folder, 5, share.result))
    assert late.record.equals(trained.record)
    written = [reprise.share.load(share.folder / f"{n}.safetensors", None)[1]["cpu_seconds"] for n in (0, 1)]
    assert late.record.attrs["cpu_seconds"] >= round(sum(written), 2) > 0


def test_an_abandoned_piece_goes_on_from_its_checkpoint(sweep, share, monkeypatch):
    monkeypatch.setattr(reprise.gears, "_BLOCK_STEPS", 10)
    whole = sweep.train([every(20, loss)], workers=1)

    def killed(self, run):
        if run.step >= 30:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(reprise.sweep._Progress, "__call__", killed)
        with pytest.raises(SystemExit):
            sweep.train([every(20, loss)], checkpoint=share.folder / "c", checkpoint_seconds=0, share=share)
    assert claims(share) == [], "a job that can still act frees its claim"
    (share.folder / "0.claim.0").touch()  # one that was killed cannot

    begun, restore = [], reprise.checkpoint.Checkpoint.restore

    def noted(self, run):
        restore(self, run)
        begun.append(run.step)

    monkeypatch.setattr(reprise.checkpoint.Checkpoint, "restore", noted)
    monkeypatch.setattr(reprise.share, "_ABANDONED", 0.1)
    resumed = sweep.train([every(20, loss)], checkpoint=share.folder / "c", checkpoint_seconds=0, share=share)
    assert claims(share) == ["0.claim.0", "0.claim.1", "1.claim.0"]
    assert sorted(begun) == [0, 30]
    assert resumed.record.equals(whole.record)


def test_a_claim_that_is_touched_stays(share, monkeypatch):
    monkeypatch.setattr(reprise.share, "_ABANDONED", 0.2)
    share.folder.mkdir()
    claim = share._claim(0)
    other = Share(share.folder, 2, share.result)
    for touch in range(10):
        os.utime(claim, (touch, touch))  # times that no clock shows
        time.sleep(0.05)
        assert other._claim(0) is None
    time.sleep(0.3)
    assert other._claim(0).name == "0.claim.1"
    assert share._claim(0) is None, "the new claim counts"


def test_the_owner_touches_its_claim(sweep, share, monkeypatch):
    monkeypatch.setattr(reprise.gears, "_BLOCK_STEPS", 10)
    monkeypatch.setattr(reprise.share, "_TOUCH", 0.0)
    touched = []
    monkeypatch.setattr(reprise.share.os, "utime", touched.append)
    sweep.train(share=share)
    assert {path.name for path in touched} == {"0.claim.0", "1.claim.0"}


def test_an_error_names_its_members_and_frees_the_claim(sweep, share):
    def broken(snapshot):
        raise ArithmeticError("no such measurement")

    with pytest.raises(ArithmeticError, match="no such measurement") as caught:
        sweep.train([end(broken)], share=share)
    assert any("seed=" in note for note in caught.value.__notes__)
    assert claims(share) == []


def test_an_interrupt_does_not_wait_for_other_jobs(sweep, share, monkeypatch):
    share.cut(sweep.describe([every(20, loss)]), lambda: [[(0, 0), (0, 1)], [(1, 0), (1, 1)]])
    (share.folder / "1.claim.0").touch()  # of another job

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(reprise.share.time, "sleep", interrupt)
    trained = sweep.train([every(20, loss)], share=share)
    assert trained.interrupted and claims(share) == ["0.claim.0", "1.claim.0"]
    assert np.isfinite(trained.record.loss.sel(lr=0.01)).all()
    assert "loss" in trained.record and np.isnan(trained.record.loss.sel(lr=0.03)).all()


def test_an_interrupted_piece_keeps_what_it_measured_and_frees_its_claim(sweep, share, monkeypatch):
    monkeypatch.setattr(reprise.gears, "_BLOCK_STEPS", 10)

    def interrupt(self, run):
        if run.step >= 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(reprise.sweep._Progress, "__call__", interrupt)
    trained = sweep.train([every(20, loss)], share=share)
    assert trained.interrupted and claims(share) == []
    assert np.isfinite(trained.record.loss.sel(lr=0.01, step=[0, 20])).all()
    assert np.isnan(trained.record.loss.sel(lr=0.03)).all()


def test_a_job_that_waits_takes_the_result_that_another_has_joined(sweep, tmp_path, monkeypatch):
    def train(cache: str):
        monkeypatch.setenv("REPRISE_CACHE", str(tmp_path / cache))
        return Chapter("shared", device="cpu").train("first", sweep, [every(20, loss)])

    alone = train("alone")
    monkeypatch.setenv("REPRISE_SHARE", "2")
    key, ours = alone.record.attrs["digest"], Store(tmp_path / "ours")
    share = ours.share(key, 2)
    monkeypatch.setattr(Share, "_claim", lambda self, number: None)  # all are claimed by others

    def meanwhile(seconds):
        shutil.copytree(tmp_path / "alone" / key, tmp_path / "ours" / key)
        shutil.rmtree(share.folder)

    monkeypatch.setattr(reprise.share.time, "sleep", meanwhile)
    found = train("ours")
    assert found.record.equals(alone.record) and found.record.attrs["digest"] == key
    same(found.states, alone.states)
    share.result.touch()
    with pytest.raises(Joined):
        sweep.train([every(20, loss)], share=Share(tmp_path / "late", 2, share.result))


def test_pieces_of_another_sweep_are_refused(sweep, share):
    sweep.train([every(20, loss)], share=share)
    with pytest.raises(ValueError, match="holds the pieces of another sweep"):
        sweep.train([every(30, loss)], share=share)


def test_other_code_has_another_folder(sweep, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRISE_CACHE", str(tmp_path))
    monkeypatch.setenv("REPRISE_SHARE", "2")
    folders, cut = [], Share.cut
    monkeypatch.setattr(Share, "cut", lambda self, *rest: [folders.append(self.folder), cut(self, *rest)][1])
    Chapter("shared", device="cpu").train("first", sweep)
    monkeypatch.setattr(reprise.chapter.digest, "library_digest", lambda names: "other")
    Chapter("shared", device="cpu").train("first", sweep)
    assert len(set(folders)) == 2 and len(list(tmp_path.glob("*/record.nc"))) == 2
