"""A training that is killed again and again ends with the record of one that was not."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from pathlib import Path

import torch

import reprise
import reprise.checkpoint
import reprise.gears
import reprise.train
from reprise import MLP, Adam, Clipped, Experiment, Sweep, accuracy, every, loss, training_loss
from reprise.curvature import sharpness
from reprise.schedules import Triangle
from reprise.tasks import Digits


def experiment(lr: float, steps: int) -> Experiment:
    """Two stacks' worth of members with unequal budgets, minibatches, schedules and a probe with memory."""
    return Experiment(
        model=MLP([64, 8, 10], activation="tanh"),
        task=Digits(n_train=64, n_test=32),
        update=Clipped(Adam(Triangle(lr, rise=0.2)), norm=1.0),
        steps=steps,
        batch=8,
        seed=3,
    )


def train(checkpoint: Path | None) -> object:
    torch.set_num_threads(1)
    probes = [
        every(20, loss),
        every(1, training_loss),
        every(75, sharpness(iterations=2)),
        every(50, accuracy),
    ]
    sweep = Sweep(experiment, lr=[0.01, 0.03], steps=[150, 300])
    return sweep.train(probes, keep=[0, 100], device="cpu", checkpoint=checkpoint, checkpoint_seconds=0)


def work(checkpoint: Path, result: Path) -> None:
    reprise.gears._BLOCK_STEPS = 7  # a checkpoint every few steps
    trained = train(checkpoint)
    trained.record.save(result / "record.nc")
    trained.states.save(result / "states.safetensors")


def written(folder: Path) -> list[tuple[str, int]]:
    """The checkpoint files and when they were written."""
    found = []
    for path in sorted(folder.glob("checkpoint.[01]")):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return found


def test_killed_twenty_times_the_record_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    reference = train(None)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reprise", "reprise.models", "reprise.tasks", "sklearn.datasets"])
    rng, kills, ended = random.Random(0), 0, False
    while kills < 20 or not ended:  # a run may end before the twentieth kill: the last one must end
        process = context.Process(target=work, args=(tmp_path / "checkpoint", tmp_path))
        before = written(tmp_path)
        process.start()
        while process.is_alive() and written(tmp_path) == before:  # it must get on before it is killed
            time.sleep(0.005)
        process.join(rng.uniform(0, 0.2) if kills < 20 else None)
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            ended = False
            continue
        assert process.exitcode == 0
        ended = True
        record = reprise.Record.load(tmp_path / "record.nc")
        assert set(record) == set(reference.record)
        for name in record:
            assert record[name].identical(reference.record[name]), name
        states = reprise.States.load(tmp_path / "states.safetensors")
        assert states.steps == reference.states.steps
        for index, kept in reference.states.members.items():
            assert all(torch.equal(vector, states.members[index][step]) for step, vector in kept.items())
        (tmp_path / "record.nc").unlink()
    assert not list(tmp_path.glob("checkpoint.[01]"))


def test_a_checkpoint_of_another_training_is_ignored(tmp_path, monkeypatch):
    sweep = Sweep(experiment, lr=[0.01], steps=[20])
    other = Sweep(experiment, lr=[0.02], steps=[20])

    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:  # leave the file, as a kill would
        patch.setattr(reprise.checkpoint.Checkpoint, "remove", lambda self: None)
        sweep.train([every(5, loss)], checkpoint=path, checkpoint_seconds=0)
    assert list(tmp_path.glob("checkpoint.0"))
    fresh = other.train([every(5, loss)])
    resumed = other.train([every(5, loss)], checkpoint=path, checkpoint_seconds=0)
    assert resumed.record.loss.identical(fresh.record.loss)


def test_a_stack_that_had_ended_is_not_trained_again(tmp_path, monkeypatch):
    sweep = Sweep(experiment, lr=[0.01], steps=[20])
    path = tmp_path / "checkpoint"
    with monkeypatch.context() as patch:  # killed after its last step, before the file was deleted
        patch.setattr(reprise.checkpoint.Checkpoint, "remove", lambda self: None)
        first = sweep.train([every(5, loss)], checkpoint=path, checkpoint_seconds=0)
    monkeypatch.setattr(reprise.train.Run, "_segment", None)
    again = sweep.train([every(5, loss)], checkpoint=path, checkpoint_seconds=0)
    assert again.record.loss.identical(first.record.loss)
    assert torch.equal(again.states.stacked(), first.states.stacked())
