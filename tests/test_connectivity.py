import pytest
import torch

from reprise.connectivity import barrier


def double_well(x):
    """0 at x = 0 and at x = 4 along the first coordinate, 4 in the middle."""
    return (x[0] * (4 - x[0])).clamp(min=0) + x[1]


def test_barrier_of_a_double_well():
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([4.0, 3.0])
    found = barrier(double_well, a, b)
    assert found["barrier"] == pytest.approx(4.0)  # 4 + 2 in the middle, ends 1 and 3
    torch.testing.assert_close(found["line"], torch.tensor([1, 2.64, 4.96, 6, 5.76, 4.24, 3]))


def test_the_line_starts_at_a():
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])
    found = barrier(lambda x: x[1], a, b)
    torch.testing.assert_close(found["line"], found["points"])


def test_barrier_is_not_negative_and_counts_a_higher_end():
    a, b = torch.tensor([0.0]), torch.tensor([2.0])
    assert barrier(lambda x: (x[0] - 1) ** 2, a, b)["barrier"] == 0  # a dip between
    assert barrier(lambda x: x[0], a, b)["barrier"] == 1  # ends 0 and 2: the worse end is 1 above their mean


def test_ends_are_evaluated_exactly():
    a, b = torch.tensor([1e8]), torch.tensor([1.0])
    found = barrier(lambda x: (x[0] == 1).float() + 2 * (x[0] == 1e8).float(), a, b)
    assert found["line"][0] == 2 and found["line"][-1] == 1


def test_many_pairs_equal_a_loop_and_vmap():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 5, generator=generator), torch.randn(2, 3, 5, generator=generator)
    scale = torch.rand(2, 3, generator=generator)

    def error(x):
        return torch.sin(3 * x).sum()

    together = barrier(error, a, b)
    assert together["barrier"].shape == (2, 3) and together["line"].shape == (2, 3, 7)
    own = torch.vmap(torch.vmap(lambda a, b, s: barrier(lambda x: s * error(x), a, b)["barrier"]))(
        a, b, scale
    )
    for i in range(2):
        for j in range(3):
            alone = barrier(error, a[i, j], b[i, j])["barrier"]
            torch.testing.assert_close(together["barrier"][i, j], alone)
            torch.testing.assert_close(own[i, j], alone * scale[i, j])


@pytest.mark.parametrize(
    "points", [(0, 0.5, 1), (0.1, 0.3, 0.5, 0.7, 1), (0, 0.5, 0.3, 0.7, 1), (0, 0, 0.5, 0.7, 1)]
)
def test_too_few_or_misplaced_points_are_refused(points):
    with pytest.raises(ValueError, match="points: expected 5 or more"):
        barrier(lambda x: x.sum(), torch.zeros(2), torch.ones(2), points)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        barrier(lambda x: x.sum(), torch.zeros(2), torch.ones(3))
