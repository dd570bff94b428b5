import numpy as np
import pytest
import torch

from reprise.neurons import independent_fraction, neuron_distances, neuron_vectors


def by_hand(vectors, vanish=0.1, identical=0.1):
    lengths = [np.linalg.norm(v) for v in vectors]
    left = [i for i, length in enumerate(lengths) if length >= vanish * max(lengths)]
    groups = []
    while left:
        founder = left[0]
        members = [
            j
            for j in left
            if 2 * np.sum((vectors[founder] - vectors[j]) ** 2) / (lengths[founder] ** 2 + lengths[j] ** 2)
            < identical
        ]
        groups.append(members)
        left = [j for j in left if j not in members]
    return len(groups) / len(vectors), groups


def test_a_hand_made_layer():
    # units: 0 and 3 equal, 1 alone, 2 vanished, 4 the opposite of 1
    incoming = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.01, 0.0], [1.0, 0.05], [0.0, -1.0]])
    outgoing = torch.tensor([[2.0, 1.0, 0.02, 2.0, -1.0]])
    found = independent_fraction(incoming, outgoing)
    assert found["fraction"] == 3 / 5 and found["vanished"] == 1
    assert found["group"].tolist() == [0, 1, -1, 0, 4]


def test_outgoing_weights_and_bias_tell_units_apart():
    incoming, outgoing = torch.ones(2, 3), torch.ones(4, 2)
    assert independent_fraction(incoming, outgoing)["fraction"] == 0.5
    assert independent_fraction(incoming, outgoing * torch.tensor([1.0, -1.0]))["fraction"] == 1
    assert independent_fraction(incoming, outgoing, torch.tensor([2.0, -2.0]))["fraction"] == 1


def test_merging_is_by_the_founder_not_by_chains():
    angles = torch.tensor([0.0, 0.25, 0.5, 0.75])  # neighbours are close, the ends are not
    incoming = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = independent_fraction(incoming, torch.zeros(1, 4))
    assert found["group"].tolist() == [0, 0, 2, 2]


def test_distances():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]).double()
    distances = neuron_distances(vectors)
    assert distances[0].tolist() == [0, 0, 2, 4, 2, 2]
    assert distances[4, 5] == 0


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_stacks_equal_brute_force(spread):
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(6, 1, 4, 7, generator=generator).expand(6, 5, 4, 7).reshape(6, 20, 7)
    vectors = centres + spread * torch.randn(6, 20, 7, generator=generator)
    vectors = vectors * (torch.rand(6, 20, 1, generator=generator) > 0.2).float().clamp(min=0.03)
    incoming, bias, outgoing = vectors[..., :3], vectors[..., 3], vectors[..., 4:].transpose(-1, -2)
    torch.testing.assert_close(neuron_vectors(incoming, outgoing, bias), vectors.double())
    found = independent_fraction(incoming, outgoing, bias)
    mapped = torch.vmap(independent_fraction)(incoming, outgoing, bias)
    for member in range(6):
        fraction, groups = by_hand(vectors[member].double().numpy())
        assert found["fraction"][member].item() == mapped["fraction"][member].item() == fraction
        assert found["vanished"][member] == 20 - sum(map(len, groups))
        for members in groups:
            assert found["group"][member, members].tolist() == [members[0]] * len(members)


def test_numpy_weights_are_accepted_and_wrong_orientation_is_refused():
    assert independent_fraction(np.eye(3), np.ones((2, 3)))["fraction"].dtype == torch.float64
    with pytest.raises(ValueError, match=r"incoming has 3 units, outgoing 2"):
        independent_fraction(np.eye(3), np.ones((3, 2)))
