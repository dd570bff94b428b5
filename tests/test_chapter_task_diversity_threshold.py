"""The chapter's measurements against plain loops, and its full-scale path at a size that takes seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import definitions, verdicts

from reprise import Record, Stream


@pytest.fixture(scope="module")
def chapter():
    """What the notebook imports and defines, for D = 3 and 20 sequences a part."""
    return definitions(
        "task-diversity-threshold",
        kinds=("pretrain", "true"),
        part=20,
        size=dict(dimension=3, batch=4, steps=5),
        evaluation_seed=20,
    )


def test_losses_and_distances_are_means_over_all_sequences(chapter):
    task = chapter.regression(4, largest=6)
    data = task.data(Stream.of(0, "task"))
    found = chapter.score(task, data, 40, transformer=lambda tokens: torch.ones(len(tokens), 6, 1))
    _, loss, labels = found["loss"]
    assert labels["predictor"] == ["PT", "dMMSE", "ridge", "nothing"]
    _, distance, pairs = found["distance"]
    assert pairs["pair"] == ["PT - dMMSE", "PT - ridge", "dMMSE - ridge"]
    for row, kind in enumerate(("pretrain", "true")):
        stream = Stream.of(20, "probe")
        parts = [task.evaluation(data, stream.fold(n), 20, kind) for n in range(2)]
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        y, ridge = whole["targets"], task.ridge(whole)
        expected = [((answer - y) ** 2).mean().item() / 3 for answer in (torch.ones_like(y), ridge, 0 * y)]
        assert loss[row, [0, 2, 3]].tolist() == pytest.approx(expected)
        assert distance[row, 1].item() == pytest.approx(((1 - ridge) ** 2).mean().item() / 3)


def test_the_threshold_is_where_two_batch_sizes_agree(chapter):
    pools = np.array([4, 16, 64, 256])
    few = np.exp(-0.5 * np.log2(pools))
    many = few * np.exp(-0.3 * (np.log2(pools) - 5))  # equal at 2^5
    values = np.stack([few, many, many, few]).reshape(2, 2, 4)[None, :, :, :, None, None]
    coords = {"seed": [0], "case": ["a", "b"], "batch": [8, 16], "pool": pools}
    distance = xr.DataArray(
        values, dims=("seed", "case", "batch", "pool", "kind", "pair"),
        coords=coords | {"kind": ["true"], "pair": ["PT - ridge"]},
    )  # fmt: skip
    np.testing.assert_allclose(chapter.threshold(Record({"distance": distance})), [[32, 32]])


def test_the_full_scale_path_runs_at_tiny_size(run_shrunk):
    result = run_shrunk("task-diversity-threshold", shrink=10000)
    assert list(verdicts(result)) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert "reproduced" not in verdicts(result).values()  # five steps show nothing
