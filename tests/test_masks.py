import pytest
import torch

from reprise.masks import magnitude_mask, random_mask
from reprise.streams import Stream


def by_hand(values, mask, share):
    survivors = [i for i in range(len(values)) if mask[i]]
    k = round(share * len(survivors))
    cut = sorted(survivors, key=lambda i: (abs(float(values[i])), i))[:k]
    return torch.tensor([bool(mask[i]) and i not in cut for i in range(len(values))])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.77, 1.0])
def test_magnitude_mask_equals_sorting_by_hand(share):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 31, generator=generator).round(decimals=1)  # with ties
    mask = torch.rand(4, 31, generator=generator) > torch.tensor([[0.0], [0.3], [0.6], [0.97]])
    got = magnitude_mask(values, mask, share)
    for row in range(4):
        assert torch.equal(got[row], by_hand(values[row], mask[row], share))


def test_zeros_among_survivors_are_cut_in_index_order_and_pruned_zeros_do_not_count():
    values = torch.tensor([0.0, 0.0, 3.0, -0.0, 0.0, 1.0])
    mask = torch.tensor([False, True, True, True, True, True])
    assert magnitude_mask(values, mask, 0.4).tolist() == [False, False, True, False, True, True]


def test_levels_of_a_fifth_keep_the_exact_counts():
    values, mask = (
        torch.randn(6464, generator=torch.Generator().manual_seed(0)),
        torch.ones(6464, dtype=torch.bool),
    )
    left = 6464
    for _ in range(17):
        mask = magnitude_mask(values, mask, 0.2)
        left -= round(0.2 * left)
        assert mask.sum() == left


def test_the_share_may_differ_by_member():
    values = torch.arange(10.0).repeat(2, 1)
    mask = magnitude_mask(values, torch.ones(2, 10, dtype=torch.bool), torch.tensor([0.2, 0.7]))
    assert mask.sum(-1).tolist() == [8, 3]


def test_random_masks_are_nested_exact_and_reproducible():
    stream = Stream.of(3)
    whole = torch.ones(500, dtype=torch.bool)
    first = random_mask(stream, whole, 0.2)
    second = random_mask(stream.at(1), first, 0.2)
    assert first.sum() == 400 and second.sum() == 320 and not (second & ~first).any()
    assert torch.equal(first, random_mask(stream, whole, 0.2))
    assert not torch.equal(first, random_mask(stream.at(1), whole, 0.2))


def test_random_masks_of_a_stack_are_those_of_the_members():
    streams, masks = [Stream.of(0), Stream.of(1)], torch.rand(2, 50) > 0.3
    together = random_mask(streams, masks, 0.4)
    for row in range(2):
        assert torch.equal(together[row], random_mask(streams[row], masks[row], 0.4))


def test_random_masks_cut_every_place_equally_often():
    streams = [Stream.of(seed) for seed in range(2000)]
    kept = random_mask(streams, torch.ones(2000, 10, dtype=torch.bool), 0.3).double().mean(0)
    assert ((kept - 0.7).abs() < 5 * (0.21 / 2000) ** 0.5).all()


def test_wrong_arguments_are_refused():
    values, mask = torch.ones(2, 4), torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="share: expected numbers from 0 to 1"):
        magnitude_mask(values, mask, 1.2)
    with pytest.raises(ValueError, match="mask: expected a bool tensor"):
        magnitude_mask(values, values, 0.5)
    with pytest.raises(ValueError, match="mask: expected"):
        random_mask(Stream.of(0), mask, 0.5)
