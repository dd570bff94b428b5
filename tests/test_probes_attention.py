"""Attention entropy against SciPy, at known maps, and on the library's Transformer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from reprise import SGD, Experiment, Sweep, Transformer
from reprise.models import materialise
from reprise.probes import end
from reprise.probes.attention import attention_entropy, layer_entropies, row_entropy
from reprise.tasks import ModularArithmetic


def test_rows_agree_with_scipy():
    weights = torch.softmax(
        3 * torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double(), -1
    )
    np.testing.assert_allclose(row_entropy(weights), entropy(weights.numpy(), axis=-1), rtol=1e-12)


def test_a_masked_key_counts_for_nothing():
    assert row_entropy(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(np.log(2))
    assert row_entropy(torch.tensor([1.0, 0.0, 0.0])).item() == 0


def test_zero_logits_under_a_causal_mask_give_the_logarithm_of_the_allowed_keys():
    model = Transformer(layers=2, width=8, heads=2, outputs=3, vocabulary=5, context=4)
    materialise(model, 0)
    with torch.no_grad():
        for block in model.blocks:
            block.attention.qkv.weight.zero_()
    found = layer_entropies(model.activations(torch.zeros(3, 4, dtype=torch.int64)))
    assert found.shape == (2, 2)
    torch.testing.assert_close(found, torch.full((2, 2), float(np.log([1, 2, 3, 4]).mean())))


def test_layers_come_in_the_order_of_their_numbers():
    maps = {f"blocks.{i}.attention": torch.eye(12)[None, None] for i in range(12)}
    maps["blocks.10.attention"] = torch.full((1, 1, 12, 12), 1 / 12)
    assert layer_entropies(maps).argmax() == 10
    with pytest.raises(ValueError, match="blocks.i.attention"):
        layer_entropies({"outputs": torch.zeros(1)})


def test_the_probe_records_layers_and_heads():
    model = Transformer(layers=1, width=8, heads=2, outputs=5, vocabulary=7, context=4, read="last")
    task = ModularArithmetic(5, "+", share=0.5, encoding="tokens")

    def run(seed):
        return Experiment(model=model, task=task, update=SGD(lr=0.1), steps=1, seed=seed)

    record = Sweep(run, seed=range(2)).train(probes=[end(attention_entropy(6))]).record
    assert record.attention_entropy.sizes == {"seed": 2, "layer": 1, "head": 2}
    assert (record.attention_entropy > 0).all()
